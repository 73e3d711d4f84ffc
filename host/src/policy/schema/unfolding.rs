//! How far a schema unfolds: what a validator would have to do at one place of a configuration.
//!
//! A schema is a policy's, so it is input like any other, and no validator bounds what one may cost: forty steps that
//! each ask for the next one twice are two to the power of forty checks of the same value. Refused before it is used:
//! what unfolds too far, what is explained by itself without going deeper into the configuration, and references that
//! cannot be followed here.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Checks of one value of the configuration that a schema may come to: hundreds of times what policies ask for.
const MAX_CHECKS: usize = 10_000;

/// References in one schema.
const MAX_REFERENCES: usize = 200;

/// Schemas about one value within each other, by reference or as they are written: whoever follows them goes as deep
/// into a thread's stack.
const MAX_DEPTH: usize = 200;

/// Keywords whose schemas are about the same value as the schema they stand in.
const ABOUT_THE_SAME: [&str; 9] =
    ["allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"];

/// Keywords that hold values, not schemas.
const VALUES: [&str; 5] = ["const", "enum", "default", "examples", "required"];

/// Refuses a schema that could cost more than any policy's needs to.
///
/// # Errors
/// Why, in words.
pub(crate) fn check(document: &Value) -> Result<(), String> {
    let mut unfolding = Unfolding { document, counted: HashMap::new(), references: 0, depth: 0 };
    unfolding.walk(document, true)
}

struct Unfolding<'a> {
    document: &'a Value,
    /// What each schema comes to, by its place in memory; none while it is being counted.
    counted: HashMap<*const Value, Option<usize>>,
    references: usize,
    depth: usize,
}

impl<'a> Unfolding<'a> {
    /// Counts from every schema in `value`. As deep as JSON may be nested, which its parser bounds.
    fn walk(&mut self, value: &'a Value, is_root: bool) -> Result<(), String> {
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.walk(item, false)),
            Value::Object(keys) => {
                self.allowed(keys, is_root)?;
                self.count(value)?;
                let schemas = keys.iter().filter(|(key, _)| !VALUES.contains(&key.as_str()));
                schemas.map(|(_, inner)| inner).try_for_each(|inner| self.walk(inner, false))
            }
            _ => Ok(()),
        }
    }

    /// Refuses what makes a reference mean something else than its text says, and too many of them.
    fn allowed(&mut self, keys: &Map<String, Value>, is_root: bool) -> Result<(), String> {
        let says = |key: &str| keys.get(key).is_some_and(Value::is_string);
        if let Some(key) = ["$dynamicRef", "$recursiveRef"].into_iter().find(|key| says(key)) {
            return Err(format!("it uses `{key}`; refer to `#/$defs/NAME` by `$ref`"));
        }
        if says("$id") && !is_root {
            return Err("it gives a part of itself an `$id` of its own".to_owned());
        }
        self.references += usize::from(says("$ref"));
        if self.references > MAX_REFERENCES {
            return Err(format!("it holds more than {MAX_REFERENCES} references"));
        }
        Ok(())
    }

    /// The checks of one value that `schema` comes to.
    fn count(&mut self, schema: &'a Value) -> Result<usize, String> {
        let place = std::ptr::from_ref(schema);
        match self.counted.get(&place) {
            Some(Some(known)) => return Ok(*known),
            Some(None) => return Err("a part of it is explained by itself, without end".to_owned()),
            None => {}
        }
        // An error ends the whole check: nobody takes the steps back then.
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("it explains one value by more than {MAX_DEPTH} schemas within each other"));
        }
        self.counted.insert(place, None);
        let mut checks = 1_usize;
        if let Value::Object(keys) = schema {
            for (keyword, inner) in keys.iter().filter(|(keyword, _)| ABOUT_THE_SAME.contains(&keyword.as_str())) {
                let parts: Vec<&Value> = match inner {
                    Value::Array(parts) => parts.iter().collect(),
                    Value::Object(named) if keyword.starts_with("depend") => named.values().collect(),
                    one => vec![one],
                };
                for part in parts {
                    checks = checks.saturating_add(self.count(part)?);
                }
            }
            if let Some(Value::String(reference)) = keys.get("$ref") {
                checks = checks.saturating_add(self.count(self.target(reference)?)?);
            }
        }
        if checks > MAX_CHECKS {
            return Err(format!("it unfolds to more than {MAX_CHECKS} checks of one value"));
        }
        self.depth -= 1;
        self.counted.insert(place, Some(checks));
        Ok(checks)
    }

    fn target(&self, reference: &str) -> Result<&'a Value, String> {
        let pointer = reference.strip_prefix('#').filter(|pointer| pointer.is_empty() || pointer.starts_with('/'));
        let target = pointer.and_then(|pointer| self.document.pointer(pointer));
        target.ok_or_else(|| format!("it refers to {reference:?}; what it refers to must be in it, as `#/$defs/NAME`"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(schema: Value) -> String {
        check(&schema).expect_err("it must be refused")
    }

    #[test]
    fn a_schema_that_goes_deeper_with_every_step_may_be_recursive() {
        let tree = json!({ "$ref": "#/$defs/tree", "$defs": { "tree": {
            "type": "object",
            "properties": { "left": { "$ref": "#/$defs/tree" }, "right": { "anyOf": [{ "$ref": "#/$defs/tree" }, {}] } },
        }}});
        assert_eq!(check(&tree), Ok(()));
    }

    #[test]
    fn what_is_explained_by_itself_or_unfolds_too_far_is_refused() {
        assert!(refused(json!({ "$ref": "#" })).contains("explained by itself"));
        assert!(
            refused(json!({ "properties": { "x": { "not": { "$ref": "#/properties/x" } } } })).contains("by itself")
        );
        let step = |n: usize| json!({ "allOf": vec![json!({ "$ref": format!("#/$defs/{}", n + 1) }); 2] });
        let mut steps: Map<String, Value> = (0..40).map(|n| (n.to_string(), step(n))).collect();
        steps.insert("40".to_owned(), json!(true));
        assert!(refused(json!({ "$defs": steps })).contains("more than 10000 checks"));
    }

    #[test]
    fn a_chain_is_not_followed_to_the_end_of_the_stack() {
        let chain = |links: usize, link: &dyn Fn(Value) -> Value| {
            let next = |n: usize| link(json!({ "$ref": format!("#/$defs/{}", n + 1) }));
            let mut steps: Map<String, Value> = (0..links).map(|n| (n.to_string(), next(n))).collect();
            steps.insert(links.to_string(), json!(true));
            json!({ "$defs": steps })
        };
        let nots = |inner| (0..48).fold(inner, |inner, _| json!({ "not": inner }));
        for schema in [chain(30_000, &|next| next), chain(199, &nots)] {
            assert!(refused(schema).contains("more than 200 schemas within each other"));
        }
        assert_eq!(check(&chain(150, &|next| next)), Ok(()));
    }

    #[test]
    fn references_must_be_few_and_lead_somewhere_within() {
        for elsewhere in ["#/$defs/none", "other.json", "#anchor", "http://127.0.0.1/"] {
            assert!(refused(json!({ "$ref": elsewhere })).contains("must be in it"), "{elsewhere}");
        }
        let many = vec![json!({ "properties": { "x": { "$ref": "#/$defs/a" } } }); 201];
        assert!(refused(json!({ "$defs": { "a": {} }, "prefixItems": many })).contains("more than 200 references"));
        assert!(refused(json!({ "$defs": { "a": { "$id": "b" } } })).contains("`$id`"));
        assert!(refused(json!({ "$dynamicRef": "#a" })).contains("`$dynamicRef`"));
    }
}
