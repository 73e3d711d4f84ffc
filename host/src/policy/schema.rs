//! A policy's JSON Schema for its configuration, and what of a configuration it refuses.

use std::fmt;

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
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
        let validator = jsonschema::draft202012::new(&document).map_err(|error| error.to_string())?;
        Ok(Some(Self { document, validator }))
    }

    /// Everything wrong with `config`, up to a bound.
    pub(super) fn violations(&self, config: &Value) -> Vec<Violation> {
        self.validator.iter_errors(config).flat_map(|error| each(&error)).take(MAX_VIOLATIONS).collect()
    }
}

/// What one error of the validator's says: of unknown keys one thing each, at the place of the key.
fn each(error: &jsonschema::ValidationError<'_>) -> Vec<Violation> {
    let pointer = error.instance_path().to_string();
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
            .iter()
            .map(|key| Violation {
                pointer: format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1")),
                message: "is no key that the policy knows".to_owned(),
            })
            .collect(),
        _ => vec![Violation { pointer, message: error.masked().to_string() }],
    }
}
