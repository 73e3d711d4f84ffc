//! A route's JSON Schema, and whether an event's data fits it.
//!
//! Nothing is fetched: a reference to anything outside of the schema's own file is refused, as is a schema that could
//! cost more than any needs to. Patterns are matched in linear time, so that no data can make one take for ever; a
//! pattern that needs more (a look-around, a back-reference) is refused. What a misfit says never holds the data.

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::{Event, json, structured};
use crate::policy::schema::unfolding;

/// The longest schema, in bytes.
pub const MAX_SCHEMA: usize = 1 << 20;

/// Misfits that are looked at for the most telling one.
const LOOKED_AT: usize = 32;

/// The longest detail, in characters.
const LONGEST_DETAIL: usize = 300;

/// The most memory that one compiled pattern takes, in bytes.
const MAX_PATTERN: usize = 1 << 20;

/// A schema, ready to check with.
pub struct Schema(Validator);

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Schema(..)")
    }
}

/// Why a text is no schema that can be checked with.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadSchema(String);

/// Where data does not fit, and why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}{detail}", if pointer.is_empty() { String::new() } else { format!("{pointer}: ") })]
pub struct Misfit {
    /// Where in the data: a JSON pointer (RFC 6901), empty for the whole.
    pub pointer: String,
    /// What is wrong there, in at most 300 characters. Holds names that the data uses, and never its values.
    pub detail: String,
}

impl Schema {
    /// Reads a schema of the draft that its `$schema` names, or else of 2020-12.
    ///
    /// # Errors
    /// When it is no JSON Schema, is longer than [`MAX_SCHEMA`], refers to something outside of itself, or could cost
    /// too much.
    pub fn parse(text: &[u8]) -> Result<Self, BadSchema> {
        if text.len() > MAX_SCHEMA {
            return Err(BadSchema(format!("it is longer than {MAX_SCHEMA} bytes")));
        }
        json::strictly(text).map_err(|detail| BadSchema(format!("it is not JSON: {detail}")))?;
        let document: Value =
            serde_json::from_slice(text).map_err(|error| BadSchema(format!("it is not JSON: {error}")))?;
        unfolding::check(&document).map_err(BadSchema)?;
        let options = jsonschema::options().with_pattern_options(PatternOptions::regex().size_limit(MAX_PATTERN));
        options.build(&document).map(Self).map_err(|error| BadSchema(error.to_string()))
    }

    /// Whether the event's data fits.
    ///
    /// # Errors
    /// The misfit that lies deepest in the data, and of those the first: it is the most telling.
    pub fn check(&self, event: &Event) -> Result<(), Misfit> {
        let whole = |detail: String| Misfit { pointer: String::new(), detail };
        let Some(data) = event.data() else {
            return Err(whole("there is no data, and the schema asks for JSON".into()));
        };
        if !event.datacontenttype().is_some_and(structured::is_json) {
            return Err(whole("the data does not say that it is JSON: send it with `application/json`".into()));
        }
        json::strictly(data).map_err(|detail| whole(format!("the data is not JSON: {detail}")))?;
        let data: Value =
            serde_json::from_slice(data).map_err(|error| whole(format!("the data is not JSON: {error}")))?;
        let mut telling: Option<(usize, Misfit)> = None;
        for error in self.0.iter_errors(&data).take(LOOKED_AT) {
            let (pointer, detail) = (error.instance_path().to_string(), detail(&error));
            let depth = pointer.matches('/').count();
            if telling.as_ref().is_none_or(|(deepest, _)| depth > *deepest) {
                telling = Some((depth, Misfit { pointer, detail }));
            }
        }
        telling.map_or(Ok(()), |(_, misfit)| Err(misfit))
    }
}

fn detail(error: &jsonschema::ValidationError<'_>) -> String {
    let detail = match error.kind() {
        ValidationErrorKind::Required { property } => format!("lacks `{}`", property.as_str().unwrap_or_default()),
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let names: Vec<String> =
                unexpected.iter().take(3).map(|name| format!("`{}`", name.escape_debug())).collect();
            format!("has {}, which the schema does not know", names.join(", "))
        }
        ValidationErrorKind::FalseSchema => "may not be there".to_owned(),
        ValidationErrorKind::AnyOf { .. } | ValidationErrorKind::OneOfNotValid { .. } => {
            "fits none of what the schema allows here".to_owned()
        }
        _ => error.masked().to_string(),
    };
    detail.chars().take(LONGEST_DETAIL).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::event::read;

    const ORDER: &str = r#"{
        "type": "object", "required": ["id"], "additionalProperties": false,
        "properties": {
            "id": { "type": "string", "pattern": "^[0-9]+$" },
            "card": { "enum": ["visa", "none"] },
            "lines": { "items": { "properties": { "count": { "type": "integer", "minimum": 1 } } } }
        }
    }"#;

    fn event(kind: &'static str, data: &str) -> Event {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "/orders"),
            ("ce-type", "order"),
            ("content-type", kind),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        read(&headers, &Bytes::copy_from_slice(data.as_bytes())).unwrap().remove(0)
    }

    fn misfit(data: &str) -> String {
        let schema = Schema::parse(ORDER.as_bytes()).unwrap();
        schema.check(&event("application/json", data)).map_or_else(|misfit| misfit.to_string(), |()| "fits".to_owned())
    }

    #[test]
    fn a_misfit_says_where_and_why() {
        for (data, said) in [
            (r#"{"id":"7","lines":[{"count":2}]}"#, "fits"),
            (r#"{"lines":[]}"#, "lacks `id`"),
            (r#"{"id":"7","x":1}"#, "has `x`, which the schema does not know"),
            (r#"{"lines":[{"count":2},{"count":0}]}"#, "/lines/1/count: value is less than the minimum of 1"),
            (
                r#"{"id":"7","id":"8"}"#,
                "the data is not JSON: the member `id` is there twice: write it once at line 1 column 14",
            ),
        ] {
            assert_eq!(misfit(data), said, "{data}");
        }
    }

    #[test]
    fn the_data_itself_is_never_repeated() {
        for data in [r#"{"id":"hush-hush"}"#, r#"{"id":"7","card":"hush-hush"}"#, r#""hush-hush""#] {
            let said = misfit(data);
            assert!(said != "fits" && !said.contains("hush"), "{said}");
        }
    }

    #[test]
    fn data_that_is_no_json_does_not_fit() {
        let schema = Schema::parse(b"{}").unwrap();
        for (kind, data) in [("text/plain", "{}"), ("application/json", "{"), ("application/json", "")] {
            assert_eq!(schema.check(&event(kind, data)).unwrap_err().pointer, "");
        }
        assert_eq!(schema.check(&event("application/vnd.order+json; charset=utf-8", "{}")), Ok(()));
    }

    #[test]
    fn nothing_outside_is_referred_to_and_no_pattern_takes_for_ever() {
        for schema in [
            r#"{"$ref":"http://127.0.0.1/x.json"}"#,
            r#"{"$ref":"file:///etc/passwd"}"#,
            r#"{"$schema":"http://127.0.0.1/x.json"}"#,
            r#"{"pattern":"^(?=a)a"}"#,
            r#"{"pattern":"((x{999}){999}){999}"}"#,
            r##"{"$ref":"#"}"##,
            r#"{"type":"strong"}"#,
            "{",
        ] {
            assert!(Schema::parse(schema.as_bytes()).is_err(), "{schema}");
        }
        let schema = Schema::parse(br#"{"pattern":"^(a+)+$"}"#).unwrap();
        let data = format!("\"{}b\"", "a".repeat(100_000));
        assert!(schema.check(&event("application/json", &data)).is_err());
    }
}
