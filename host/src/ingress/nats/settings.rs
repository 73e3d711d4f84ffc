//! What a source is set to do, checked once.

use std::time::Duration;

use crate::dispatch::nats::Address;
use crate::ingress::source::{Connect, Settle};

/// How many messages may be outstanding, unless it is said.
pub const DEFAULT_PREFETCH: u16 = 64;
/// How many may be outstanding at most.
const MAX_PREFETCH: u16 = 1000;
/// The shortest and the longest time in which a delivery must be settled or be said to be still at work.
const ACK_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// The shortest pause between two attempts to subscribe.
const MIN_WAIT: Duration = Duration::from_millis(100);

/// What a source's configuration says, unchecked.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The source's name.
    pub name: String,
    /// The server, with credentials.
    pub address: Address,
    /// The stream's name.
    pub stream: String,
    /// The durable pull consumer's name. One that is there is used as it is; none is there: it is created.
    pub consumer: String,
    /// Which of the stream's subjects are wanted; none: all of them.
    pub filter: Option<String>,
    /// How many messages may be outstanding (taken and not settled), 1 to 1000.
    pub prefetch: u16,
    /// When they are settled.
    pub settle: Settle,
    /// How long the server waits for a settlement before it delivers again, of a consumer that is created: 1 s to 1 h.
    pub ack_wait: Duration,
    /// The number of the delivery that is the last; none: there is no last one.
    pub max_deliver: Option<u32>,
    /// How often subscribing is tried again.
    pub connect: Connect,
}

/// What a source is set to do. Its `Debug` shows no credentials, as [`Address`] does not.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    pub(crate) name: String,
    pub(crate) address: Address,
    pub(crate) stream: String,
    pub(crate) consumer: String,
    pub(crate) filter: Option<String>,
    pub(crate) prefetch: u16,
    pub(crate) settle: Settle,
    pub(crate) ack_wait: Duration,
    pub(crate) max_deliver: Option<u32>,
    pub(crate) connect: Connect,
}

impl Settings {
    /// Checks a draft.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub fn new(draft: Draft) -> Result<Self, Vec<BadSetting>> {
        let Draft { name, address, stream, consumer, filter, prefetch, settle, ack_wait, max_deliver, connect } = draft;
        let mut bad = Vec::new();
        let mut check = |holds: bool, why: BadSetting| bad.extend((!holds).then_some(why));
        check(is_name(&stream), BadSetting::Stream);
        check(is_name(&consumer), BadSetting::Consumer);
        check(filter.as_deref().is_none_or(is_filter), BadSetting::Filter);
        check((1..=MAX_PREFETCH).contains(&prefetch), BadSetting::Prefetch);
        check((ACK_WAIT.0..=ACK_WAIT.1).contains(&ack_wait), BadSetting::AckWait);
        check(max_deliver != Some(0), BadSetting::MaxDeliver);
        check(connect.wait >= MIN_WAIT, BadSetting::Wait);
        if !bad.is_empty() {
            return Err(bad);
        }
        Ok(Self { name, address, stream, consumer, filter, prefetch, settle, ack_wait, max_deliver, connect })
    }

    /// The source's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Whether a stream or a consumer may be called so (NATS documentation, "JetStream naming").
fn is_name(name: &str) -> bool {
    let fits = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '.' | '*' | '>' | '/' | '\\');
    !name.is_empty() && name.len() <= 255 && name.chars().all(fits)
}

/// Whether subjects may be filtered so: tokens parted by dots, `*` for one token, `>` at the end for the rest.
fn is_filter(filter: &str) -> bool {
    let mut tokens = filter.split('.').peekable();
    let mut fits = filter.len() <= 1024;
    while let Some(token) = tokens.next() {
        let wildcard = token == "*" || (token == ">" && tokens.peek().is_none());
        let plain = !token.is_empty()
            && !token.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>'));
        fits &= wildcard || plain;
    }
    fits
}

/// What is wrong with a setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadSetting {
    /// The stream's name is none.
    #[error("stream: a name has 1 to 255 characters, without spaces, '.', '*', '>', '/' and '\\'")]
    Stream,
    /// The consumer's name is none.
    #[error("consumer: a name has 1 to 255 characters, without spaces, '.', '*', '>', '/' and '\\'")]
    Consumer,
    /// The filter is none.
    #[error("filter: tokens parted by dots, '*' in the place of one, '>' in the place of the last and all after it")]
    Filter,
    /// Too few, or too many.
    #[error("prefetch: from 1 to 1000")]
    Prefetch,
    /// Too short, or too long.
    #[error("ack_wait: from 1s to 1h")]
    AckWait,
    /// None at all.
    #[error("max_deliver: at least 1, or leave it out")]
    MaxDeliver,
    /// Too short.
    #[error("connect.wait: at least 100ms")]
    Wait,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        Draft {
            name: "orders".into(),
            address: Address::parse("nats://bob:s3cret@broker.example").unwrap(),
            stream: "ORDERS".into(),
            consumer: "backstop".into(),
            filter: None,
            prefetch: DEFAULT_PREFETCH,
            settle: Settle::OnStore,
            ack_wait: Duration::from_secs(30),
            max_deliver: Some(5),
            connect: Connect { retries: None, wait: Duration::from_secs(1) },
        }
    }

    #[test]
    fn every_bad_setting_is_told_at_once() {
        let bad = Settings::new(Draft {
            stream: "OR.DERS".into(),
            consumer: String::new(),
            filter: Some("a.>.b".into()),
            prefetch: 1001,
            ack_wait: Duration::from_millis(999),
            max_deliver: Some(0),
            connect: Connect { retries: Some(0), wait: Duration::ZERO },
            ..draft()
        });
        use BadSetting::{AckWait, Consumer, Filter, MaxDeliver, Prefetch, Stream, Wait};
        assert_eq!(bad.unwrap_err(), [Stream, Consumer, Filter, Prefetch, AckWait, MaxDeliver, Wait]);
    }

    #[test]
    fn filters_are_subjects_with_wildcards_in_their_places() {
        for (filter, fits) in
            [("a", true), ("a.*.c", true), ("a.>", true), (">", true), ("a.b*", false), ("a..b", false), ("", false)]
        {
            assert_eq!(is_filter(filter), fits, "{filter}");
        }
    }

    #[test]
    fn no_password_is_shown() {
        let shown = format!("{:?} {:?}", draft(), Settings::new(draft()).unwrap());
        assert!(shown.contains("broker.example") && !shown.contains("s3cret"), "{shown}");
    }
}
