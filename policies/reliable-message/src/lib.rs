//! For senders of half messages whose answer to a check-back is not `{"state": "committed"}`: a status of their own,
//! under a name of their own.
//!
//! A check-back is answered by the operation's resource itself more often than by an endpoint made for it. This policy
//! reads one value of that answer:
//!
//! | Answer | Settlement |
//! |---|---|
//! | 200, and the value at `pointer` is one of `committed` | committed: the message is delivered |
//! | 200, and the value is one of `rolled_back` | rolled back: the message is forgotten |
//! | one of the statuses `absent` (none by default) | rolled back: there is no such operation |
//! | anything else | unknown: asked again later |
//!
//! `absent` is for senders that write their operation down before they prepare, or at least refuse to run it once they
//! have said that there is none: otherwise a slow operation may commit after its message was forgotten.
//!
//! ```yaml
//! check_back: { url: "https://shop.example.com/orders/by-transaction/{id}" }
//! policy: reliable-message
//! policy_config: { pointer: /order/status, committed: [paid, shipped], rolled_back: [refused], absent: [404, 410] }
//! ```
//!
//! Deliveries are judged by the standard rule.

use backstop_sdk::prelude::*;

/// As much of an answer as is read: a longer one settles nothing.
const ANSWER_LIMIT: u32 = 16 * 1024;

/// Where the answer says what became of the operation, and in which words.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReliableMessage {
    /// Where the value stands in the answer's body: a JSON Pointer.
    pointer: String,
    /// The values that mean that the operation happened.
    committed: Vec<String>,
    /// The values that mean that it did not, and will not.
    rolled_back: Vec<String>,
    /// The statuses that mean the same.
    absent: Vec<u16>,
}

impl Default for ReliableMessage {
    /// What the host itself reads.
    fn default() -> Self {
        Self {
            pointer: "/state".into(),
            committed: vec!["committed".into()],
            rolled_back: vec!["rolled_back".into()],
            absent: Vec::new(),
        }
    }
}

impl Configured for ReliableMessage {
    type Config = Self;

    fn new(config: Self) -> Result<Self, String> {
        if let Some(both) = config.committed.iter().find(|value| config.rolled_back.contains(value)) {
            return Err(format!("{both:?} is listed under committed and under rolled_back: it can mean one of them"));
        }
        if config.committed.is_empty() {
            return Err("`committed` lists nothing: no check would ever deliver a message".into());
        }
        if let Some(status) = config.absent.iter().find(|status| !(400..=499).contains(*status)) {
            return Err(format!("absent: {status} does not say that there is no such thing; write 404 or 410"));
        }
        Ok(config)
    }
}

impl Policy for ReliableMessage {
    fn interest(&self) -> Interest {
        Interest::none().body(ANSWER_LIMIT)
    }

    fn judge(&self, attempt: &Attempt, outcome: &Outcome) -> Decision {
        standard(attempt, outcome)
    }
}

impl Settle for ReliableMessage {
    fn settle(&self, outcome: &Outcome) -> Settlement {
        match outcome.status() {
            Some(200) => {}
            Some(status) if self.absent.contains(&status) => return Settlement::RolledBack,
            _ => return Settlement::Unknown,
        }
        if matches!(outcome, Outcome::Response(answer) if answer.truncated) {
            return Settlement::Unknown;
        }
        let Some(said) = outcome.json_text(&self.pointer) else { return Settlement::Unknown };
        let is_one_of = |words: &[String]| words.iter().any(|word| *word == said);
        if is_one_of(&self.committed) {
            Settlement::Committed
        } else if is_one_of(&self.rolled_back) {
            Settlement::RolledBack
        } else {
            info!("the sender answered {said:?}, which is listed nowhere");
            Settlement::Unknown
        }
    }
}

export_policy!(ReliableMessage, config = ReliableMessage);

#[cfg(test)]
mod tests {
    use backstop_sdk::test::{configured, refused, response};

    use super::*;

    #[test]
    fn without_a_configuration_it_reads_what_the_host_does() {
        let policy = configured::<ReliableMessage>(json!({}));
        for (status, body, expected) in [
            (200, r#"{"state": "committed"}"#, Settlement::Committed),
            (200, r#"{"state": "rolled_back"}"#, Settlement::RolledBack),
            (200, r#"{"state": "unknown"}"#, Settlement::Unknown),
            (200, r#"{"state": 1}"#, Settlement::Unknown),
            (200, "committed", Settlement::Unknown),
            (404, "", Settlement::Unknown),
            (503, r#"{"state": "committed"}"#, Settlement::Unknown),
        ] {
            assert_eq!(policy.settle(response(status).body(body)), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_sender_says_it_in_its_own_words() {
        let policy = configured::<ReliableMessage>(json!({
            "pointer": "/order/status",
            "committed": ["paid", "shipped"],
            "rolled_back": ["refused"],
            "absent": [404, 410],
        }));
        let order = |status: &str| response(200).body(format!(r#"{{"order": {{"status": "{status}"}}}}"#));
        assert_eq!(policy.settle(order("paid")), Settlement::Committed);
        assert_eq!(policy.settle(order("shipped")), Settlement::Committed);
        assert_eq!(policy.settle(order("refused")), Settlement::RolledBack);
        assert_eq!(policy.settle(order("pending")), Settlement::Unknown);
        assert_eq!(policy.settle(response(404)), Settlement::RolledBack);
        assert_eq!(policy.settle(response(500)), Settlement::Unknown);
    }

    #[test]
    fn a_configuration_that_would_settle_wrongly_is_refused() {
        assert!(refused::<ReliableMessage>(json!({ "rolled_back": ["committed"] })).contains("one of them"));
        assert!(refused::<ReliableMessage>(json!({ "committed": [] })).contains("no check"));
        assert!(refused::<ReliableMessage>(json!({ "absent": [503] })).contains("404 or 410"));
    }
}
