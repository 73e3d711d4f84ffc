//! A policy's JSON Schema for its configuration, and what of a configuration it refuses.

pub(crate) mod unfolding;

use std::fmt;

use jsonschema::Validator;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde::Serialize;
use serde_json::Value;

/// Violations reported of one configuration; a longer list helps nobody.
const MAX_VIOLATIONS: usize = 32;

/// One thing wrong with a configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Violation {
    /// Where in the configuration: a JSON pointer (RFC 6901), empty for the whole.
    pub pointer: String,
    /// What is wrong. Never holds the value itself, which may be a secret.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.pointer.is_empty() {
            write!(f, "{}: ", self.pointer)?;
        }
        f.write_str(&self.message)
    }
}

/// A schema, ready to check with. None of it is fetched from anywhere: a reference to another document is refused.
pub(super) struct ConfigSchema {
    /// As the policy gave it.
    pub(super) document: Value,
    validator: Validator,
}

impl ConfigSchema {
    /// Reads the text of a manifest. Empty text is no schema: any configuration will do.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, String> {
        if text.trim().is_empty() {
            return Ok(None);
        }
        let document: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
        unfolding::check(&document)?;
        let validator = jsonschema::draft202012::new(&document).map_err(|error| error.to_string())?;
        Ok(Some(Self { document, validator }))
    }

    /// Everything wrong with `config`, up to a bound.
    pub(super) fn violations(&self, config: &Value) -> Vec<Violation> {
        let each = |error| each(&error, &self.document);
        self.validator.iter_errors(config).flat_map(each).take(MAX_VIOLATIONS).collect()
    }
}

/// What one error of the validator's says, and what to write instead as far as the schema tells; of unknown keys one
/// thing each, at the place of the key.
fn each(error: &jsonschema::ValidationError<'_>, document: &Value) -> Vec<Violation> {
    let pointer = error.instance_path().to_string();
    let schema = around(document, &error.schema_path().to_string());
    let one = |message: String| vec![Violation { pointer: pointer.clone(), message: message + &hint(schema) }];
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
            .iter()
            .map(|key| Violation {
                pointer: format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1")),
                message: format!("is no key that the policy knows{}", meant(key, schema)),
            })
            .collect(),
        ValidationErrorKind::Type { .. } if pointer.is_empty() && error.instance().is_null() => {
            let required = schema.and_then(|schema| schema.get("required")).map(listed).unwrap_or_default();
            vec![Violation { pointer, message: format!("the policy needs a `policy_config` with {required}") }]
        }
        ValidationErrorKind::Type { kind: TypeKind::Single(wanted) } => {
            one(format!("is {}, and must be of type {wanted}", kind_of(error.instance())))
        }
        ValidationErrorKind::Type { .. } => one(format!("is {}, and may not be", kind_of(error.instance()))),
        ValidationErrorKind::Pattern { .. } => one("is not written as it must be".to_owned()),
        ValidationErrorKind::Enum { options } => one(format!("is none of {}", listed(options))),
        ValidationErrorKind::AnyOf { .. } | ValidationErrorKind::OneOfNotValid { .. } => {
            let known = choices(schema);
            if known.is_empty() {
                one("is nothing that may stand here".to_owned())
            } else {
                vec![Violation { pointer, message: format!("is none of {known}") }]
            }
        }
        ValidationErrorKind::Required { property } => one(format!("lacks `{}`", property.as_str().unwrap_or_default())),
        ValidationErrorKind::FalseSchema if pointer.is_empty() => {
            vec![Violation { pointer, message: "the policy takes no `policy_config`: remove it".to_owned() }]
        }
        ValidationErrorKind::FalseSchema => one("may not be given here: remove it".to_owned()),
        _ => one(error.masked().to_string()),
    }
}

/// The schema that the keyword at `path` stands in. The path goes through references, as the validator did.
fn around<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    let (place, _keyword) = path.rsplit_once('/')?;
    let mut schema = document;
    for token in place.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        schema = match schema.get("$ref").and_then(Value::as_str) {
            Some(reference) if token == "$ref" => document.pointer(reference.strip_prefix('#')?)?,
            _ => match schema {
                Value::Array(items) => items.get(token.parse::<usize>().ok()?)?,
                other => other.get(&token)?,
            },
        };
    }
    Some(schema)
}

/// What the schema offers beside the keyword: examples, or else its description.
fn hint(schema: Option<&Value>) -> String {
    let Some(schema) = schema else { return String::new() };
    let examples = schema.get("examples").map(listed).unwrap_or_default();
    match schema.get("description").and_then(Value::as_str) {
        _ if !examples.is_empty() => format!("; write it like {examples}"),
        Some(description) => format!("; it is: {}", description.replace('\n', " ")),
        None => String::new(),
    }
}

/// The values that an enumeration of schemas names.
fn choices(schema: Option<&Value>) -> String {
    let branches = schema.and_then(|schema| schema.get("oneOf").or_else(|| schema.get("anyOf")));
    let named = branches.and_then(Value::as_array).into_iter().flatten().flat_map(|branch| {
        let options = branch.get("enum").and_then(Value::as_array).cloned().unwrap_or_default();
        branch.get("const").cloned().into_iter().chain(options)
    });
    listed(&Value::Array(named.collect()))
}

/// The key that was probably meant.
fn meant(key: &str, schema: Option<&Value>) -> String {
    let known = schema.and_then(|schema| schema.get("properties")).and_then(Value::as_object);
    let nearest = known.into_iter().flat_map(serde_json::Map::keys).max_by(|a, b| {
        let closeness = |known: &String| strsim::jaro_winkler(known, key);
        closeness(a).total_cmp(&closeness(b))
    });
    match nearest {
        Some(nearest) if strsim::jaro_winkler(nearest, key) > 0.8 => format!("; did you mean `{nearest}`?"),
        _ => known.map(|known| listed_keys(known.keys())).unwrap_or_default(),
    }
}

fn listed_keys<'a>(keys: impl Iterator<Item = &'a String>) -> String {
    let keys: Vec<String> = keys.map(|key| format!("`{key}`")).collect();
    if keys.is_empty() { String::new() } else { format!("; there are {}", keys.join(", ")) }
}

/// Values of the schema's own, for people.
fn listed(values: &Value) -> String {
    let shown = |value: &Value| format!("`{}`", value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned));
    values.as_array().map(|values| values.iter().map(shown).collect::<Vec<_>>().join(", ")).unwrap_or_default()
}

/// What kind of value it is; never the value itself.
const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a section",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(config: &Value) -> Vec<String> {
        let schema = json!({
            "$defs": {
                "Delay": { "type": "string", "pattern": "^([0-9]+(ms|s|m))+$", "examples": ["500ms", "2s"] },
                "Verdict": { "oneOf": [{ "const": "accept" }, { "enum": ["retry", "drop"] }] },
            },
            "type": "object",
            "properties": {
                "pause": { "$ref": "#/$defs/Delay" },
                "verdict": { "$ref": "#/$defs/Verdict" },
                "body_contains": { "description": "This text in the body.", "type": "string" },
            },
            "required": ["pause"],
            "additionalProperties": false,
        });
        let schema = ConfigSchema::parse(&schema.to_string()).unwrap().unwrap();
        schema.violations(config).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_to_write_instead_is_said_as_far_as_the_schema_tells() {
        for (config, said) in [
            (json!({ "pause": 60 }), "/pause: is a number, and must be of type string; write it like `500ms`, `2s`"),
            (json!({ "pause": "soon" }), "/pause: is not written as it must be; write it like `500ms`, `2s`"),
            (json!({ "pause": "1s", "verdict": "retri" }), "/verdict: is none of `accept`, `retry`, `drop`"),
            (
                json!({ "pause": "1s", "body_contain": "x" }),
                "/body_contain: is no key that the policy knows; did you mean `body_contains`?",
            ),
            (
                json!({ "pause": "1s", "zzz": "x" }),
                "/zzz: is no key that the policy knows; there are `pause`, `verdict`, `body_contains`",
            ),
            (
                json!({ "pause": "1s", "body_contains": 1 }),
                "/body_contains: is a number, and must be of type string; it is: This text in the body.",
            ),
            (json!({}), "lacks `pause`"),
            (json!(null), "the policy needs a `policy_config` with `pause`"),
        ] {
            assert_eq!(refused(&config), [said], "{config}");
        }
    }

    #[test]
    fn a_refused_value_is_never_repeated() {
        for config in [json!({ "pause": "hush-hush" }), json!({ "pause": "1s", "verdict": "hush-hush" })] {
            assert!(!refused(&config).concat().contains("hush"));
        }
    }
}
