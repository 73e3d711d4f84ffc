//! What keeps a lane within its destination's means: rate, circuit breaker, retry budget, order. Resolved.

use std::time::Duration;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use schemars::{Schema, json_schema};

use super::units::Unit;
use crate::pointer::Pointer;

/// Attempts that may begin on a route in a time, retries and those whose caller waits counted in.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rate {
    /// Attempts a second, 0.001 to 1,000,000.
    pub per_second: f64,
    /// Attempts that may begin at once after a pause. Default a tenth of a second's, and at least one.
    pub burst: u32,
}

/// When a route's attempts are stopped because its destination fails.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Breaker {
    /// The share of attempts, above 0 and up to 1, at or above which it opens. Default 0.5.
    pub failures: f64,
    /// The window. Default 10 s.
    pub window: Duration,
    /// Attempts in the window below which it does not open. Default 10.
    pub min_attempts: u32,
    /// How long no attempt is made. Default 30 s.
    pub open_for: Duration,
    /// Attempts that are then made at once, and must succeed in a row, before all is as it was. Default 1.
    pub probes: u32,
}

/// How many retries a route makes, beside its first attempts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RetryBudget {
    /// Retries there may be for each first attempt in the window, above 0 and up to 1. Default 0.2.
    pub share: f64,
    /// Retries a second that are made whatever the traffic. Default 10.
    pub reserve: u32,
    /// The window. Default 10 s.
    pub window: Duration,
}

/// Which messages of a route are delivered one after the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order {
    /// Where a message says what it belongs to.
    pub key: OrderKey,
    /// What becomes of the messages behind one that ends as a dead letter. Default block.
    pub on_failure: OnFailure,
}

/// Where a message says which order it belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OrderKey {
    /// In a header field.
    Header(HeaderName),
    /// In its body: what this leads to.
    Json(Pointer),
    /// In an attribute of the CloudEvent that it is.
    CloudEvent(String),
}

/// What becomes of the messages behind one that ends as a dead letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnFailure {
    /// They wait until it is redriven, discarded or no longer kept.
    #[default]
    Block,
    /// They go on.
    Skip,
}

/// How many attempts may begin in a second.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct PerSecond(pub(super) f64);

impl PerSecond {
    fn within(number: f64) -> Result<Self, String> {
        if (0.001..=1_000_000.0).contains(&number) { Ok(Self(number)) } else { Err(format!("write {}", Self::FORM)) }
    }
}

impl Unit for PerSecond {
    const NAME: &'static str = "PerSecond";
    const FORM: &'static str = "a number of requests a second from 0.001 to 1000000, such as 50 or 0.5";

    fn from_text(text: &str) -> Result<Self, String> {
        let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        match text.parse() {
            Ok(number) if is_decimal => Self::within(number),
            _ => Err(format!("write {}", Self::FORM)),
        }
    }

    fn from_whole(number: u64) -> Result<Self, String> {
        Self::within(number as f64)
    }

    fn from_float(number: f64) -> Result<Self, String> {
        Self::within(number)
    }

    fn schema() -> Schema {
        json_schema!({
            "type": ["number", "string"],
            "pattern": r"^(\$\{.*|[0-9.]+)$",
            "minimum": 0.001,
            "maximum": 1_000_000,
            "description": "Requests a second: 50 or 0.5.",
        })
    }
}

impl Unit for OrderKey {
    const NAME: &'static str = "OrderKey";
    const FORM: &'static str = "where the key is: header:NAME, json:/POINTER, or ce:ATTRIBUTE";

    fn from_text(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("header", name)) => match HeaderName::try_from(name) {
                // A key is stored and shown as it is.
                Ok(AUTHORIZATION | PROXY_AUTHORIZATION | COOKIE) => {
                    Err("a field that carries credentials is no key, since keys are shown".into())
                }
                Ok(name) => Ok(Self::Header(name)),
                Err(_) => {
                    Err("no header field can be called that: write header:NAME, such as header:x-order-id".into())
                }
            },
            Some(("json", pointer)) => pointer.parse().map(Self::Json).map_err(|_| {
                "no JSON pointer (RFC 6901): write json:/NAME, such as json:/order/id; `~0` stands for ~, `~1` for /"
                    .into()
            }),
            Some(("ce", name)) if is_attribute(name) => Ok(Self::CloudEvent(name.to_owned())),
            Some(("ce", _)) => Err("an attribute of a CloudEvent is of a-z and 0-9: write ce:subject".into()),
            _ => Err(format!("write {}", Self::FORM)),
        }
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^(\$\{.*|header:.+|json:/.*|ce:[a-z0-9]+)$",
            "description": "Where the key is: header:x-key, json:/pointer or ce:subject.",
        })
    }
}

impl std::fmt::Display for OrderKey {
    /// As it is written in a configuration.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Json(pointer) => write!(f, "json:{pointer}"),
            Self::CloudEvent(name) => write!(f, "ce:{name}"),
        }
    }
}

/// Whether a CloudEvent may have an attribute of that name.
fn is_attribute(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_key_is_reads_and_shows_the_same() {
        for text in ["header:x-key", "json:/a~1b/~0c/0", "json:/", "ce:subject"] {
            assert_eq!(OrderKey::from_text(text).unwrap().to_string(), text);
        }
        for wrong in [
            "x-key",
            "header:",
            "header:a b",
            "header:Cookie",
            "json:",
            "json:a",
            "json:/~2",
            "json:/~",
            "ce:",
            "ce:Subject",
        ] {
            assert!(OrderKey::from_text(wrong).is_err(), "{wrong}");
        }
    }
}
