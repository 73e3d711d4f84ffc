//! Lengths of time, as an author and as an operator write them.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// That many milliseconds.
pub const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// That many seconds.
pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// That many minutes; more than a `Duration` holds is the longest one.
pub const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n.saturating_mul(60))
}

/// That many hours; more than a `Duration` holds is the longest one.
pub const fn hours(n: u64) -> Duration {
    Duration::from_secs(n.saturating_mul(3600))
}

/// Milliseconds, as the contract counts them: rounded up, so that no retry is early.
pub(crate) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A delay in a policy's configuration, as the host's own configuration writes them: whole numbers and their units,
/// such as `500ms`, `2s`, `10m` or `1h30m`; at most 24 hours.
///
/// ```
/// use backstop_sdk::{Delay, minutes};
/// assert_eq!("10m".parse::<Delay>().map(|delay| *delay), Ok(minutes(10)));
/// assert_eq!("1h30m".parse::<Delay>().map(|delay| *delay), Ok(minutes(90)));
/// assert!("10 min".parse::<Delay>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Delay(Duration);

/// The longest delay: longer ones are an operator's slip.
const LONGEST: Duration = hours(24);

impl From<Duration> for Delay {
    /// For defaults. Longer than 24 hours becomes 24 hours.
    fn from(duration: Duration) -> Self {
        Self(duration.min(LONGEST))
    }
}

impl Deref for Delay {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = whole_millis(self.0);
        match millis {
            0 => f.write_str("0s"),
            _ if millis.is_multiple_of(3_600_000) => write!(f, "{}h", millis / 3_600_000),
            _ if millis.is_multiple_of(60_000) => write!(f, "{}m", millis / 60_000),
            _ if millis.is_multiple_of(1000) => write!(f, "{}s", millis / 1000),
            _ => write!(f, "{millis}ms"),
        }
    }
}

impl FromStr for Delay {
    type Err = InvalidDelay;

    fn from_str(text: &str) -> Result<Self, InvalidDelay> {
        let mut whole = Duration::ZERO;
        let mut rest = text;
        while !rest.is_empty() {
            let (number, unit_and_rest) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
            let letters = unit_and_rest.bytes().take_while(u8::is_ascii_lowercase).count();
            let (unit, after) = unit_and_rest.split_at(letters);
            let number: u64 = number.parse().map_err(|_| InvalidDelay)?;
            let part = match unit {
                "ms" => millis(number),
                "s" => seconds(number),
                "m" => minutes(number),
                "h" => hours(number),
                "d" => hours(number.saturating_mul(24)),
                _ => return Err(InvalidDelay),
            };
            whole = whole.saturating_add(part);
            rest = after;
        }
        if !text.is_empty() && whole <= LONGEST { Ok(Self(whole)) } else { Err(InvalidDelay) }
    }
}

/// A text that is no [`Delay`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidDelay;

impl fmt::Display for InvalidDelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a delay is whole numbers and `ms`, `s`, `m`, `h` or `d`, such as `2s`, `10m` or `1h30m`, at most 24h",
        )
    }
}

impl std::error::Error for InvalidDelay {}

impl<'de> Deserialize<'de> for Delay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl serde::Serialize for Delay {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Delay {
    fn schema_name() -> Cow<'static, str> {
        "Delay".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([0-9]+(ms|s|m|h|d))+$",
            "examples": ["500ms", "2s", "10m", "2h"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_written_as_it_is_read() {
        for text in ["1ms", "500ms", "2s", "90s", "10m", "2h", "24h"] {
            assert_eq!(text.parse::<Delay>().map(|delay| delay.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("60s".parse::<Delay>().map(|delay| delay.to_string()), Ok("1m".to_owned()));
    }

    #[test]
    fn what_is_no_delay_is_refused() {
        for text in
            ["", "2", "s", "2 s", "-2s", "2.5s", "2d", "25h", "18446744073709551615h", "99999999999999999999s", "２s"]
        {
            assert_eq!(text.parse::<Delay>(), Err(InvalidDelay), "{text}");
        }
    }

    #[test]
    fn milliseconds_are_rounded_up_and_saturate() {
        assert_eq!(whole_millis(Duration::from_nanos(1)), 1);
        assert_eq!(whole_millis(millis(2)), 2);
        assert_eq!(whole_millis(Duration::MAX), u64::MAX);
        assert_eq!(hours(u64::MAX), Duration::from_secs(u64::MAX));
    }
}
