//! For services that exchange scans over a message queue, and call an engine about them.
//!
//! Before the first attempt a message is **dropped** when its body is not JSON, or has no well-formed scan id: no
//! attempt would change that. After an attempt:
//!
//! | Answer | Verdict |
//! |---|---|
//! | 404 | drop: the scan is unknown |
//! | 429, 5xx, silence | retry after 2^n seconds, n being the attempt's number: 2, 4, 8 … |
//! | anything else | the standard rule; with `refused: retry`, what that would make a dead letter is retried as above, but for 410: the scan is gone, which is unknown for good, and dropped |
//!
//! `refused: retry` is for whoever must be told in the end, such as the owner of a scan whose page was given up: a 401 is
//! somebody's mistake, which somebody mends. The waits are within the route's `min_delay` and `max_delay`, as any policy's are; `max_exponent` bounds them here.
//!
//! ```yaml
//! policy: scan-platform
//! policy_config: { id_pointer: /scan/id, id_format: uuid }
//! retry: { max_attempts: 8, min_delay: 1s, max_delay: 5m }
//! ```
//!
//! ```yaml
//! policy: scan-platform
//! policy_config: { refused: retry }
//! retry: { max_attempts: unlimited, min_delay: 1s, max_delay: 5m }
//! ```

use backstop_sdk::json_pointer;
use backstop_sdk::prelude::*;
use backstop_sdk::standard::{Class, classify, reason};

/// As much of a message's body as is read before its first attempt: a longer one is sent unread.
const REQUEST_LIMIT: u32 = 64 * 1024;

/// Where a message names its scan, and how long to wait for the engine.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScanPlatform {
    /// Where the scan's id stands in a message's body: a JSON Pointer.
    id_pointer: String,
    /// What a well-formed id looks like.
    id_format: IdFormat,
    /// The largest exponent: waits grow no longer than 2 to its power, in seconds.
    #[schemars(range(min = 1, max = 16))]
    max_exponent: u32,
    /// What becomes of a message that is refused for a reason that is not the scan's: 400, 401, 403, 422 …
    refused: Refused,
}

impl Default for ScanPlatform {
    /// A day is 86,400 seconds, and no wait may be longer: 2^16 seconds are 18 hours.
    fn default() -> Self {
        Self {
            id_pointer: "/scan_id".into(),
            id_format: IdFormat::Uuid,
            max_exponent: 16,
            refused: Refused::DeadLetter,
        }
    }
}

/// What a well-formed scan id looks like.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum IdFormat {
    /// A text such as `0190b1f4-4c5e-7aaa-8b1c-1f2e3d4c5b6a`.
    Uuid,
    /// A whole number, or its digits as text.
    Integer,
    /// Any text or number.
    Any,
}

/// What becomes of a message that another attempt would not change, as far as the answer goes.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Refused {
    /// It is put aside for a person, as the standard rule says.
    DeadLetter,
    /// It is sent again, as after a failure of the engine, until it is taken or the scan is unknown or gone.
    Retry,
}

impl Configured for ScanPlatform {
    type Config = Self;

    fn new(config: Self) -> Result<Self, String> {
        if !config.id_pointer.starts_with('/') {
            return Err(format!("`id_pointer` is a JSON Pointer: write `/{}`", config.id_pointer));
        }
        if !(1..=16).contains(&config.max_exponent) {
            return Err(format!("`max_exponent` is {}, but must be 1 to 16", config.max_exponent));
        }
        Ok(config)
    }
}

impl Policy for ScanPlatform {
    fn interest(&self) -> Interest {
        Interest::none().request(REQUEST_LIMIT)
    }

    fn judge(&self, attempt: &Attempt, outcome: &Outcome) -> Decision {
        match outcome.status() {
            Some(404) => drop_message("unknown scan"),
            Some(429) => retry_after(self.wait(attempt), "too many requests"),
            Some(500..=599) => retry_after(self.wait(attempt), "engine failure"),
            None => retry_after(self.wait(attempt), "no answer from the engine"),
            Some(410) if self.refused == Refused::Retry => drop_message("gone"),
            status if self.refused == Refused::Retry && classify(status) == Class::Persistent => {
                retry_after(self.wait(attempt), reason(status))
            }
            Some(_) => standard(attempt, outcome),
        }
    }
}

impl Admit for ScanPlatform {
    fn admit(&self, message: &Message) -> Admission {
        match json_pointer(message.body(), &self.id_pointer) {
            Ok(Some(id)) if self.id_format.fits(&id) => Admission::Accept,
            Ok(Some(_)) => Admission::drop(format!("malformed scan id at {}", self.id_pointer)),
            Ok(None) => Admission::drop(format!("no scan id at {}", self.id_pointer)),
            // What is beyond the part read may make it JSON: nothing is dropped for being long.
            Err(_) if message.truncated => Admission::Accept,
            Err(_) => Admission::drop("not JSON"),
        }
    }
}

impl ScanPlatform {
    /// 2^n seconds.
    fn wait(&self, attempt: &Attempt) -> std::time::Duration {
        seconds(2_u64.saturating_pow(attempt.number.min(self.max_exponent)))
    }
}

impl IdFormat {
    fn fits(self, id: &Value) -> bool {
        match (self, id) {
            (Self::Uuid, Value::String(text)) => is_uuid(text),
            (Self::Integer, Value::Number(number)) => number.is_i64() || number.is_u64(),
            (Self::Integer, Value::String(text)) => !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()),
            (Self::Any, Value::String(text)) => !text.is_empty(),
            (Self::Any, Value::Number(_)) => true,
            _ => false,
        }
    }
}

/// Whether `text` is a UUID in its usual form, of any version.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

export_policy!(ScanPlatform, config = ScanPlatform);

#[cfg(test)]
mod tests {
    use backstop_sdk::test::{Tested, attempt, configured, message, refused, response, silence};

    use super::*;

    const ID: &str = "0190b1f4-4c5e-7aaa-8b1c-1f2e3d4c5b6a";

    fn unconfigured() -> Tested<ScanPlatform> {
        configured(Value::Null)
    }

    #[test]
    fn a_message_about_a_scan_is_sent() {
        let sent = message(json!({ "scan_id": ID, "state": "done" }).to_string());
        assert_eq!(unconfigured().admit(sent), Admission::Accept);
    }

    #[test]
    fn what_is_not_json_is_dropped_before_the_first_attempt() {
        for body in ["", "scan 7", r#"{"scan_id":"#] {
            assert_eq!(unconfigured().admit(message(body)), Admission::drop("not JSON"), "{body}");
        }
    }

    #[test]
    fn a_message_without_a_scan_id_or_with_a_malformed_one_is_dropped() {
        let admit = |body: Value| unconfigured().admit(message(body.to_string()));
        assert_eq!(admit(json!({ "id": ID })), Admission::drop("no scan id at /scan_id"));
        for malformed in [json!(7), json!(null), json!(""), json!("0190b1f4"), json!(ID.replace('-', "a"))] {
            assert_eq!(admit(json!({ "scan_id": malformed })), Admission::drop("malformed scan id at /scan_id"));
        }
    }

    #[test]
    fn where_the_id_stands_and_what_it_looks_like_is_the_operator_s() {
        let integer = configured::<ScanPlatform>(json!({ "id_pointer": "/scan/id", "id_format": "integer" }));
        let admit = |id: Value| integer.admit(message(json!({ "scan": { "id": id } }).to_string()));
        assert_eq!((admit(json!(7)), admit(json!("42"))), (Admission::Accept, Admission::Accept));
        assert_eq!(admit(json!(7.5)), Admission::drop("malformed scan id at /scan/id"));

        let any = configured::<ScanPlatform>(json!({ "id_format": "any" }));
        assert_eq!(any.admit(message(r#"{"scan_id":"S-7"}"#)), Admission::Accept);
        assert_ne!(any.admit(message(r#"{"scan_id":{}}"#)), Admission::Accept);
    }

    #[test]
    fn a_message_too_long_to_be_read_is_not_dropped_for_it() {
        let long = json!({ "scan_id": ID, "findings": "x".repeat(70 * 1024) });
        assert_eq!(unconfigured().admit(message(long.to_string())), Admission::Accept);
    }

    #[test]
    fn the_engine_s_failures_wait_two_to_the_power_of_the_attempt() {
        let delays = |n| retry_after(seconds(n), "engine failure");
        assert_eq!(unconfigured().judge(attempt(1), response(500)), delays(2));
        assert_eq!(unconfigured().judge(attempt(2), response(503)), delays(4));
        assert_eq!(unconfigured().judge(attempt(3), response(599)), delays(8));
        assert_eq!(unconfigured().judge(attempt(2), response(429)), retry_after(seconds(4), "too many requests"));
        let silent = unconfigured().judge(attempt(1), silence(Fault::Timeout));
        assert_eq!(silent, retry_after(seconds(2), "no answer from the engine"));
    }

    #[test]
    fn waits_stop_growing_however_many_attempts_there_were() {
        let judge = |policy: Tested<ScanPlatform>| policy.judge(attempt(u32::MAX), response(500));
        assert_eq!(judge(unconfigured()), retry_after(seconds(65_536), "engine failure"));
        assert_eq!(judge(configured(json!({ "max_exponent": 5 }))), retry_after(seconds(32), "engine failure"));
    }

    #[test]
    fn a_scan_the_engine_does_not_know_is_dropped_and_the_rest_is_standard() {
        assert_eq!(unconfigured().judge(attempt(1), response(404)), drop_message("unknown scan"));
        assert_eq!(unconfigured().judge(attempt(1), response(204)), accept("success"));
        assert_eq!(unconfigured().judge(attempt(1), response(409)), retry("conflict"));
        assert_eq!(unconfigured().judge(attempt(1), response(400)), dead_letter("refused by the destination"));
    }

    #[test]
    fn a_listener_is_refused_for_as_long_as_the_scan_is_known() {
        let listener = configured::<ScanPlatform>(json!({ "refused": "retry" }));
        let judge = |number, status| listener.judge(attempt(number), response(status));
        assert_eq!(judge(1, 401), retry_after(seconds(2), "not allowed by the destination"));
        for status in [300, 400, 403, 422] {
            assert_eq!(judge(3, status).verdict, retry_after(seconds(8), "").verdict, "{status}");
        }
        assert_eq!(judge(3, 503), retry_after(seconds(8), "engine failure"));
        assert_eq!(judge(1, 409), retry("conflict"));
        assert_eq!(judge(1, 204), accept("success"));
        assert_eq!((judge(1, 404), judge(1, 410)), (drop_message("unknown scan"), drop_message("gone")));
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused() {
        assert_eq!(
            refused::<ScanPlatform>(json!({ "id_pointer": "id" })),
            "`id_pointer` is a JSON Pointer: write `/id`"
        );
        assert!(refused::<ScanPlatform>(json!({ "max_exponent": 17 })).contains("must be 1 to 16"));
    }
}
