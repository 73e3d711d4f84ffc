//! The table as an operator writes it. What its types cannot say wrong is checked when the rules are made.

use std::borrow::Cow;

use backstop_sdk::prelude::*;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Deserializer;
use serde::de::Error;

use crate::matcher::{Faults, Statuses};

/// What each answer of the vendor means.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The rules, in order: the first that matches decides. 1 to 256.
    #[schemars(length(min = 1, max = 256))]
    pub(crate) rules: Vec<RuleConfig>,
    /// What to do about a failure that no rule matches.
    #[serde(default)]
    pub(crate) otherwise: Otherwise,
    /// How many bytes of a body the rules may read. Default 16384, at most 131072. With more than 16384
    /// and a rule that looks at `json`, raise the fuel that the route gives the policy as well.
    #[serde(default = "body_limit")]
    #[schemars(range(min = 1, max = 131_072))]
    pub(crate) body_limit: u32,
}

fn body_limit() -> u32 {
    16 * 1024
}

/// One rule: what it looks at, all of which must match, and what then is to be done.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleConfig {
    /// The status: `429`, `5xx`, `404-499`, or a list of these.
    pub(crate) status: Option<Statuses>,
    /// That there was no answer: `true` for any reason, or a list of faults.
    pub(crate) silence: Option<Faults>,
    /// A header field of the answer.
    pub(crate) header: Option<HeaderConfig>,
    /// A text that the body contains.
    pub(crate) body_contains: Option<String>,
    /// A value in a JSON body.
    pub(crate) json: Option<JsonConfig>,
    /// Whether the texts of `header` and `body_contains` are compared without regard to case.
    #[serde(default)]
    pub(crate) ignore_case: bool,
    /// What is to be done.
    pub(crate) verdict: VerdictWord,
    /// For `retry`: how long to wait. Without it the route's backoff decides.
    pub(crate) after: Option<Delay>,
    /// For `retry`: whom the wait concerns. Without it a 429 or 503 with `Retry-After` concerns the whole destination,
    /// anything else this message.
    pub(crate) scope: Option<ScopeWord>,
    /// For `fall_back`: the route to go on with. Without it, what the route answers when attempts are exhausted.
    pub(crate) route: Option<String>,
    /// Why, for people and for search. Without it, what the rule looks at.
    pub(crate) reason: Option<String>,
}

/// A header field, and exactly one of `equals`, `contains` and `present`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderConfig {
    /// The field's name.
    pub(crate) name: String,
    /// Its whole value.
    pub(crate) equals: Option<String>,
    /// A part of its value.
    pub(crate) contains: Option<String>,
    /// Whether the answer has it at all.
    pub(crate) present: Option<bool>,
}

/// A place in a JSON body, and exactly one of `equals`, `in` and `exists`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JsonConfig {
    /// The place: a JSON Pointer such as `/error/code`.
    pub(crate) pointer: String,
    /// The value there. Text is not a number: `17` is not `"17"`.
    #[serde(default, deserialize_with = "even_null")]
    pub(crate) equals: Option<Value>,
    /// The values, one of which is there.
    #[serde(rename = "in")]
    pub(crate) one_of: Option<Vec<Value>>,
    /// Whether the body is JSON and has a value there, `null` included.
    pub(crate) exists: Option<bool>,
}

/// `equals: null` looks for a null, and is not the same as no `equals`.
fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// What a rule says is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VerdictWord {
    /// The vendor did what was asked.
    Accept,
    /// Try again.
    Retry,
    /// Fetch fresh credentials, once, and try again.
    Reauthenticate,
    /// Put the message aside for a person.
    DeadLetter,
    /// Forget the message.
    Drop,
    /// Stop trying, and answer with the fallback or go on with another route.
    FallBack,
}

/// Whom a retry's wait concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ScopeWord {
    /// This message alone.
    Message,
    /// Every message to the destination.
    Destination,
}

/// What to do about a failure that no rule matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Otherwise {
    /// What the standard rule says.
    #[default]
    Standard,
    /// Try again by the route's backoff.
    Retry,
    /// Put the message aside for a person.
    DeadLetter,
    /// Forget the message.
    Drop,
    /// Stop trying, and answer with the fallback.
    FallBack,
}

impl Otherwise {
    /// What it says of a failure.
    pub(crate) fn decision(self, attempt: &Attempt, outcome: &Outcome) -> Decision {
        const WHY: &str = "no rule matches";
        match self {
            Self::Standard => standard(attempt, outcome),
            Self::Retry => retry(WHY),
            Self::DeadLetter => dead_letter(WHY),
            Self::Drop => drop_message(WHY),
            Self::FallBack => give_up(WHY),
        }
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let patterns = match &value {
            Value::Array(patterns) => patterns.as_slice(),
            pattern => std::slice::from_ref(pattern),
        };
        let texts = patterns.iter().map(|pattern| match pattern {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        Self::new(texts).map_err(D::Error::custom)
    }
}

impl JsonSchema for Statuses {
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = json!({
            "anyOf": [
                { "type": "integer", "minimum": 100, "maximum": 599 },
                { "type": "string", "pattern": "^[1-5](xx|[0-9]{2}(-[1-5][0-9]{2})?)$" },
            ]
        });
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}

impl<'de> Deserialize<'de> for Faults {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(true) => Ok(Self::any()),
            Value::Array(names) if !names.is_empty() => names
                .iter()
                .map(|name| {
                    let known = Fault::ALL.into_iter().find(|fault| name.as_str() == Some(fault.name()));
                    known.ok_or_else(|| D::Error::custom(format!("{name} is no fault: {}", every_fault().join(", "))))
                })
                .collect::<Result<_, _>>()
                .map(Self::only),
            _ => Err(D::Error::custom("`silence` is `true` or a list of faults; leave it out to look at answers")),
        }
    }
}

impl JsonSchema for Faults {
    fn schema_name() -> Cow<'static, str> {
        "Faults".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let faults = json!({ "type": "array", "items": { "enum": every_fault() }, "minItems": 1 });
        json_schema!({ "anyOf": [{ "const": true }, faults] })
    }
}

fn every_fault() -> Vec<&'static str> {
    Fault::ALL.into_iter().map(Fault::name).collect()
}
