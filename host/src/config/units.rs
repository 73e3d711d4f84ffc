//! Values with a unit or a form of their own: durations, sizes, shares, addresses, URLs, networks.
//!
//! A duration without unit is refused, because nobody agrees what a bare number means; a bare number is a size in
//! bytes, because there everybody does.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use url::Url;

use super::resolved::Secret;

/// A value that stands in one scalar.
pub(crate) trait Unit: Sized {
    /// Its name in the schema.
    const NAME: &'static str;
    /// What a right one looks like: follows "write".
    const FORM: &'static str;
    /// Whether a wrong one may be quoted.
    const QUOTED: bool = true;

    /// Reads text.
    ///
    /// # Errors
    /// What to write instead, without the text itself.
    fn from_text(text: &str) -> Result<Self, String>;

    /// Reads a whole number.
    ///
    /// # Errors
    /// What to write instead.
    fn from_whole(_number: u64) -> Result<Self, String> {
        Err(format!("write {}", Self::FORM))
    }

    /// Reads a number with a fraction.
    ///
    /// # Errors
    /// What to write instead.
    fn from_float(_number: f64) -> Result<Self, String> {
        Err(format!("write {}", Self::FORM))
    }

    /// Reads `true` or `false`.
    ///
    /// # Errors
    /// What to write instead.
    fn from_bool(_value: bool) -> Result<Self, String> {
        Err(format!("write {}", Self::FORM))
    }

    /// Its JSON Schema.
    fn schema() -> Schema;
}

/// A [`Unit`] as serde and schemars know it.
pub(crate) struct Written<U>(pub(crate) U);

impl<'de, U: Unit> Deserialize<'de> for Written<U> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form<U>(PhantomData<U>);

        impl<U: Unit> Form<U> {
            fn finish<E: de::Error>(read: Result<U, String>) -> Result<Written<U>, E> {
                read.map(Written).map_err(|words| {
                    if U::QUOTED {
                        // The reader knows how it was written, and whether that may be shown.
                        E::invalid_value(de::Unexpected::Other("value"), &words.as_str())
                    } else {
                        E::custom(words)
                    }
                })
            }
        }

        impl<'de, U: Unit> Visitor<'de> for Form<U> {
            type Value = Written<U>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(U::FORM)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Self::finish(U::from_text(text))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                Self::finish(U::from_whole(number))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
                Self::finish(U::from_float(number))
            }

            fn visit_i64<E: de::Error>(self, _number: i64) -> Result<Self::Value, E> {
                Self::finish(Err(format!("write {}", U::FORM)))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
                Self::finish(U::from_bool(value))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Err(E::custom(format!("is empty: write {}, or remove the key", U::FORM)))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, _items: A) -> Result<Self::Value, A::Error> {
                Err(de::Error::custom(format!("is a list: write {}", U::FORM)))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, _entries: A) -> Result<Self::Value, A::Error> {
                Err(de::Error::custom(format!("is a section of keys: write {}", U::FORM)))
            }
        }

        deserializer.deserialize_any(Form(PhantomData))
    }
}

impl<U: Unit> JsonSchema for Written<U> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        U::NAME.into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        U::schema()
    }
}

impl Unit for Duration {
    const NAME: &'static str = "Duration";
    const FORM: &'static str = "a duration such as 500ms, 2s, 1m, 1h30m or 14d";

    fn from_text(text: &str) -> Result<Self, String> {
        const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
        let refusal = || {
            let bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            if bare {
                "a duration needs its unit: write 500ms, 10s, 1m, 1h30m or 14d".to_owned()
            } else {
                format!("write {}", Self::FORM)
            }
        };
        let (mut rest, mut millis, mut units) = (text, 0_u64, UNITS.as_slice());
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (count, after) = rest.split_at_checked(digits).ok_or_else(refusal)?;
            let name = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
            let (unit, after) = after.split_at_checked(name).ok_or_else(refusal)?;
            // Each unit once, the larger before the smaller.
            let at = units.iter().position(|(known, _)| *known == unit).ok_or_else(refusal)?;
            let (Some((_, each)), Some(smaller)) = (units.get(at), units.get(at + 1..)) else { return Err(refusal()) };
            let part = count.parse::<u64>().ok().and_then(|count| count.checked_mul(*each));
            millis = part.and_then(|part| millis.checked_add(part)).ok_or_else(refusal)?;
            (rest, units) = (after, smaller);
        }
        if text.is_empty() { Err(refusal()) } else { Ok(Self::from_millis(millis)) }
    }

    fn from_whole(number: u64) -> Result<Self, String> {
        Err(format!("a duration needs its unit: write {number}s, or {number}ms"))
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^(\$\{.*|(?=.)([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$",
            "description": "A duration: 500ms, 2s, 1m, 1h30m or 14d.",
        })
    }
}

/// Bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Size(pub(super) u64);

impl Unit for Size {
    const NAME: &'static str = "Size";
    const FORM: &'static str = "a size such as 64KiB, 1MiB, 1MB, or a number of bytes";

    fn from_text(text: &str) -> Result<Self, String> {
        const UNITS: [(&str, u64); 9] = [
            ("", 1),
            ("B", 1),
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("kB", 1000),
            ("KB", 1000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
        ];
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        text.split_at_checked(digits)
            .and_then(|(count, unit)| {
                let (_, each) = UNITS.iter().find(|(known, _)| *known == unit)?;
                count.parse::<u64>().ok()?.checked_mul(*each)
            })
            .map(Self)
            .ok_or_else(|| format!("write {}", Self::FORM))
    }

    fn from_whole(number: u64) -> Result<Self, String> {
        Ok(Self(number))
    }

    fn schema() -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "pattern": r"^(\$\{.*|[0-9]+(B|KiB|MiB|GiB|kB|KB|MB|GB)?)$",
            "minimum": 0,
            "description": "A size: 64KiB, 1MiB, 1MB, or a number of bytes.",
        })
    }
}

/// A share of the whole, above 0 and up to 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Share(pub(super) f64);

impl Share {
    fn within(share: f64) -> Result<Self, String> {
        if share > 0.0 && share <= 1.0 { Ok(Self(share)) } else { Err(format!("write {}", Self::FORM)) }
    }
}

impl Unit for Share {
    const NAME: &'static str = "Share";
    const FORM: &'static str = "a share above 0% and up to 100%, such as 20% or 0.2";

    fn from_text(text: &str) -> Result<Self, String> {
        let decimal = |text: &str| {
            let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            text.parse::<f64>().ok().filter(|_| is_decimal).ok_or_else(|| format!("write {}", Self::FORM))
        };
        match text.strip_suffix('%') {
            Some(percent) => Self::within(decimal(percent)? / 100.0),
            None => Self::within(decimal(text)?),
        }
    }

    fn from_whole(number: u64) -> Result<Self, String> {
        match number {
            1 => Ok(Self(1.0)),
            2..=100 => Err(format!("a share needs its unit: write {number}%")),
            _ => Err(format!("write {}", Self::FORM)),
        }
    }

    fn from_float(number: f64) -> Result<Self, String> {
        Self::within(number)
    }

    fn schema() -> Schema {
        json_schema!({
            "type": ["string", "number"],
            "pattern": r"^(\$\{.*|[0-9.]+%?)$",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "description": "A share: 20% or 0.2.",
        })
    }
}

/// A whole number from zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Count(pub(crate) u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;

        impl Visitor<'_> for Whole {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from zero")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Count, E> {
                Ok(Count(number))
            }
        }

        deserializer.deserialize_u64(Whole)
    }
}

impl JsonSchema for Count {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Count".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"], "minimum": 0, "pattern": r"^\$\{" })
    }
}

/// How often something is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Times {
    /// So often.
    Of(u64),
    /// Without end.
    Unlimited,
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrWord;

        impl Visitor<'_> for NumberOrWord {
            type Value = Times;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from zero, or unlimited")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Times, E> {
                Ok(Times::Of(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Times, E> {
                match text {
                    "unlimited" => Ok(Times::Unlimited),
                    _ => Err(E::custom("is text: write a whole number from zero, or unlimited")),
                }
            }
        }

        deserializer.deserialize_u64(NumberOrWord)
    }
}

impl JsonSchema for Times {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Times".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"], "minimum": 0, "pattern": r"^(\$\{.*|unlimited)$" })
    }
}

/// A number.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Factor(pub(super) f64);

impl<'de> Deserialize<'de> for Factor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for Factor {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Factor".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["number", "string"], "minimum": 1, "maximum": 100, "pattern": r"^\$\{" })
    }
}

impl Unit for SocketAddr {
    const NAME: &'static str = "Address";
    const FORM: &'static str = "an address and a port, such as 127.0.0.1:8080 or [::1]:8080";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("write {}", Self::FORM))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "description": "An address and a port, such as 127.0.0.1:8080." })
    }
}

impl Unit for IpNet {
    const NAME: &'static str = "Network";
    const FORM: &'static str = "a network such as 10.0.0.0/8 or fd00::/8";

    fn from_text(text: &str) -> Result<Self, String> {
        let net: Self = text.parse().map_err(|_| match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => "a single address is written with /32 behind it".to_owned(),
            Ok(IpAddr::V6(_)) => "a single address is written with /128 behind it".to_owned(),
            Err(_) => format!("write {}", Self::FORM),
        })?;
        if net.trunc() == net {
            Ok(net)
        } else {
            Err("has bits beyond the prefix's length: write the network's first address".to_owned())
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "description": "A network, such as 10.0.0.0/8." })
    }
}

impl Unit for Url {
    const NAME: &'static str = "Url";
    const FORM: &'static str = "a URL such as https://vendor.example.com/api";
    // It may hold a password.
    const QUOTED: bool = false;

    fn from_text(text: &str) -> Result<Self, String> {
        let url = Self::parse(text).map_err(|error| match error {
            url::ParseError::RelativeUrlWithoutBase => {
                format!("write {}, with https:// or http:// before it", Self::FORM)
            }
            error => format!("is no URL ({error}): write {}", Self::FORM),
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("only http and https are spoken: write https://… or http://…".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("holds a user name or password: write the URL without it, and put it under \
                        `auth: { basic: { username: …, password: ${env:NAME} } }`"
                .to_owned());
        }
        if url.fragment().is_some() {
            return Err("ends in a #fragment, which is never sent: write the URL without it".to_owned());
        }
        Ok(url)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "description": "A URL of http or https, without user name, password and fragment." })
    }
}

impl Unit for Secret {
    const NAME: &'static str = "Secret";
    const FORM: &'static str = "${env:NAME} or ${file:PATH}, or text in quotes";
    const QUOTED: bool = false;

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err(format!("is empty: write {}", Self::FORM)) } else { Ok(Self::new(text)) }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "description": "A secret: ${env:NAME} or ${file:PATH}." })
    }
}

/// A duration as it is written in a configuration, for the command line.
///
/// # Errors
/// What to write instead.
pub(crate) fn read_duration(text: &str) -> Result<Duration, String> {
    Duration::from_text(text)
}

/// A size as it is written in a configuration, in bytes, for the command line.
///
/// # Errors
/// What to write instead.
pub(crate) fn read_size(text: &str) -> Result<usize, String> {
    let Size(bytes) = Size::from_text(text)?;
    usize::try_from(bytes).map_err(|_| format!("write {}", Size::FORM))
}

/// A duration as [`Duration::from_text`] reads it.
pub(crate) fn show_duration(duration: Duration) -> String {
    const UNITS: [(&str, u128); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let mut left = duration.as_millis();
    if left == 0 {
        return "0s".to_owned();
    }
    // People say 24h, and only from two days on days; and 60s, and only from two minutes on minutes.
    let mut shown = String::new();
    for (name, each) in UNITS {
        let count = left / each;
        let early = shown.is_empty() && count == 1 && matches!(name, "d" | "m");
        if count > 0 && !early {
            shown.push_str(&format!("{count}{name}"));
            left %= each;
        }
    }
    shown
}

/// A size as [`Size::from_text`] reads it.
pub(super) fn show_size(bytes: u64) -> String {
    for (name, each) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= each && bytes.is_multiple_of(each) {
            return format!("{}{name}", bytes / each);
        }
    }
    bytes.to_string()
}
