//! Values of a case file with a form of their own: delays and their ranges, moments, header fields.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::clock::Timestamp;
use crate::config::{Unit, show_duration};

/// When a retry is expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum After {
    /// When the route's backoff says.
    Backoff,
    /// Within this range, both ends included; no end is no bound.
    Within(Duration, Option<Duration>),
}

impl After {
    /// Whether a delay that a policy asked for is what is expected.
    pub(super) fn admits(self, asked: Option<Duration>) -> bool {
        match (self, asked) {
            (Self::Backoff, None) => true,
            (Self::Within(least, most), Some(asked)) => asked >= least && most.is_none_or(|most| asked <= most),
            (Self::Backoff, Some(_)) | (Self::Within(..), None) => false,
        }
    }
}

impl fmt::Display for After {
    /// As it is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Backoff => f.write_str("none"),
            Self::Within(least, Some(most)) if least == most => f.write_str(&show_duration(least)),
            Self::Within(least, most) => {
                if !least.is_zero() {
                    f.write_str(&show_duration(least))?;
                }
                f.write_str("..")?;
                most.map_or(Ok(()), |most| f.write_str(&show_duration(most)))
            }
        }
    }
}

impl Unit for After {
    const NAME: &'static str = "After";
    const FORM: &'static str = "a delay such as 10m, a range such as 1s..2s, 1s.. or ..2s, or none";

    fn from_text(text: &str) -> Result<Self, String> {
        let refusal = || format!("write {}", Self::FORM);
        if text == "none" {
            return Ok(Self::Backoff);
        }
        let Some((least, most)) = text.split_once("..") else {
            return Duration::from_text(text).map(|exact| Self::Within(exact, Some(exact))).map_err(|_| refusal());
        };
        let end = |text: &str| match text {
            "" => Ok(None),
            text => Duration::from_text(text).map(Some).map_err(|_| refusal()),
        };
        match (end(least)?, end(most)?) {
            (None, None) => Err(refusal()),
            (Some(least), Some(most)) if least > most => {
                Err(format!("the range is empty: write {}..{}", show_duration(most), show_duration(least)))
            }
            (least, most) => Ok(Self::Within(least.unwrap_or_default(), most)),
        }
    }

    fn from_whole(number: u64) -> Result<Self, String> {
        Err(format!("a delay needs its unit: write {number}s, or {number}ms"))
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^(none|([0-9]+(d|h|m|s|ms))+(\.\.([0-9]+(d|h|m|s|ms))*)?|\.\.([0-9]+(d|h|m|s|ms))+)$",
            "description": "A delay: 10m; a range: 1s..2s, 1s.., ..2s; or none: the route's backoff decides.",
        })
    }
}

/// The host's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Instant(pub(super) Timestamp);

impl Unit for Instant {
    const NAME: &'static str = "Instant";
    const FORM: &'static str = "a moment since 1970 such as 2026-01-01T00:00:00Z";

    fn from_text(text: &str) -> Result<Self, String> {
        let moment: Option<jiff::Timestamp> = text.parse().ok();
        let millis = moment.and_then(|moment| u64::try_from(moment.as_millisecond()).ok());
        millis.map(|millis| Self(Timestamp::from_millis(millis))).ok_or_else(|| format!("write {}", Self::FORM))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "format": "date-time", "description": "A moment: 2026-01-01T00:00:00Z." })
    }
}

/// That a policy leaves the fallback to the route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NoFallback;

impl Unit for NoFallback {
    const NAME: &'static str = "NoFallback";
    const FORM: &'static str = "none, an answer such as { status: 200, json: { result: pass } }, or { route: NAME }";

    fn from_text(text: &str) -> Result<Self, String> {
        if text == "none" { Ok(Self) } else { Err(format!("write {}", Self::FORM)) }
    }

    fn schema() -> Schema {
        json_schema!({ "const": "none" })
    }
}

/// What a header field holds: a text for each time it is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FieldLines(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for FieldLines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Lines;

        impl<'de> Visitor<'de> for Lines {
            type Value = FieldLines;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("it in quotes, since a field holds text; or a list of such texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<FieldLines, E> {
                Ok(FieldLines(vec![text.to_owned()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<FieldLines, A::Error> {
                let mut lines = Vec::new();
                while let Some(line) = items.next_element::<String>()? {
                    lines.push(line);
                }
                Ok(FieldLines(lines))
            }
        }

        deserializer.deserialize_any(Lines)
    }
}

impl JsonSchema for FieldLines {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "FieldLines".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "array"], "items": { "type": "string" } })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_range_is_written_as_it_is_read_and_admits_its_ends(least in 0_u64..100_000_000, width in 0_u64..100_000_000) {
            let (least, most) = (Duration::from_millis(least), Duration::from_millis(least + width));
            for after in [After::Within(least, Some(most)), After::Within(most, None)] {
                prop_assert_eq!(After::from_text(&after.to_string()), Ok(after));
                prop_assert!(after.admits(Some(most)) && !after.admits(None));
            }
            let within = After::Within(least, Some(most));
            prop_assert!(within.admits(Some(least)) && !within.admits(Some(most + Duration::from_millis(1))));
            prop_assert_eq!(within.admits(least.checked_sub(Duration::from_millis(1))), false);
        }
    }

    #[test]
    fn what_is_no_delay_is_told_what_one_looks_like() {
        for text in ["", "..", "5", "soon", "1s...2s", "1s-2s", "None"] {
            assert_eq!(After::from_text(text), Err(format!("write {}", After::FORM)), "{text}");
        }
        assert!(After::Backoff.admits(None) && !After::Backoff.admits(Some(Duration::ZERO)));
        assert_eq!(After::from_text("..2s"), Ok(After::Within(Duration::ZERO, Some(Duration::from_secs(2)))));
    }
}
