//! Which events a route takes: an expression in CEL (the Common Expression Language) over an event's attributes.
//!
//! ```text
//! true
//! type == "com.example.order.created" && source.startsWith("/eu/")
//! has(event.priority) && int(event.priority) > 5 || time < timestamp("2024-01-01T00:00:00Z")
//! ```
//!
//! Every attribute is a variable by its own name, extensions too, and a field of `event`: `type` and `event.type` are
//! the same. Text is a `string`, and `time` a `timestamp`; an extension that came as JSON is the `string`, `bool` or
//! `int` that it was, and one that came in a header field always a `string`, which is why `string(event.flag)` and
//! `int(event.priority)` read either. A name that CEL keeps for itself (`in`, `if`, …) is written `event["in"]`.
//!
//! **An event that lacks an attribute that the answer depends on does not match.** `partitionkey != "a"` is false of
//! an event without one, and so is `!(partitionkey == "a")`; `has(event.partitionkey)` asks first. As everywhere in
//! CEL, `&&` and `||` need no more than decides them: `id == "1" || partitionkey == "a"` is true of the event 1.
//!
//! What an expression may cost is settled before it is ever used: no macros that go over a list (attributes are no
//! lists), no functions beside those of `rules.rs`, patterns compiled once and matched in linear time, and bounds on
//! the length ([`MAX_LENGTH`]) and nesting ([`MAX_NESTING`]). The costliest found within them adds the longest attribute
//! to itself until megabytes are copied: 5 ms. An ordinary one takes microseconds.
//!
//! Only this module knows the `cel` crate. Its parser of choice is the hand-written one: the other, generated one needs
//! memory that grows exponentially with the brackets of some short texts.

mod rules;
mod timestamp;
mod values;

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cel::common::types::CelBool;
use cel::extractors::This;
use cel::parser::{Expression, PrattParser};
use cel::{Context, Env, ExecutionError};
use regex::Regex;

use super::Event;
use rules::Rules;
use values::Attributes;

/// The longest expression, in bytes.
pub const MAX_LENGTH: usize = 2048;
/// How deep an expression may be nested. A chain of `&&` or `||` counts as little as a balanced tree of them.
pub const MAX_NESTING: u16 = 32;

const TOO_DEEP: &str = "nested deeper than 32: write a flatter one, or several routes";

/// An expression, ready to ask.
pub struct Match {
    text: String,
    expression: Expression,
    /// The patterns that `matches` is used with, by their text.
    patterns: Arc<HashMap<String, Regex>>,
    env: Arc<Env>,
}

impl fmt::Debug for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Match").field(&self.text).finish()
    }
}

/// What is wrong with an expression.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}, column {column}: {detail}")]
pub struct BadMatch {
    /// The line, from 1.
    pub line: usize,
    /// The byte in the line, from 1.
    pub column: usize,
    /// What is wrong there, and what to write instead.
    pub detail: String,
}

/// Why an expression gave no answer for one event. Never holds an attribute's value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the match gave no answer: {0}")]
pub struct MatchError(String);

impl Match {
    /// Reads an expression.
    ///
    /// # Errors
    /// When it is not CEL, uses what is not there for attributes, exceeds a bound, or cannot come to true or false.
    pub fn compile(text: &str) -> Result<Self, BadMatch> {
        if text.len() > MAX_LENGTH {
            return Err(bad((1, 1), format!("longer than {MAX_LENGTH} bytes: write a shorter one, or several routes")));
        }
        let expression = parse(text)?;
        let patterns = Arc::new(Rules::check(text, &expression)?);
        let env = environment().map_err(|error| bad((1, 1), error.to_string()))?;
        Ok(Self { text: text.to_owned(), expression, patterns, env: Arc::new(env) })
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the route takes the event. One that lacks an attribute that the answer depends on, it does not.
    ///
    /// # Errors
    /// When an extension is of a type that the expression cannot use, or arithmetic fails.
    pub fn matches(&self, event: &Event) -> Result<bool, MatchError> {
        let attributes = Attributes(event);
        let mut context = Context::with_env(Arc::clone(&self.env));
        context.set_variable_resolver(&attributes);
        if !self.patterns.is_empty() {
            let patterns = Arc::clone(&self.patterns);
            let is_match = move |This(text): This<Arc<String>>, pattern: Arc<String>| {
                patterns.get(&*pattern).is_some_and(|pattern| pattern.is_match(&text))
            };
            context.add_function("matches", is_match).map_err(|error| MatchError(error.to_string()))?;
        }
        let answer = cel::Value::resolve_val(&self.expression, &context);
        match answer {
            Ok(value) => match value.downcast_ref::<CelBool>() {
                Some(truth) => Ok(*truth.inner()),
                None => Err(MatchError(format!("it came to a {}, not to true or false", value.get_type().name()))),
            },
            // Functions were looked up when it was compiled: what is missing is an attribute.
            Err(ExecutionError::UndeclaredReference(_) | ExecutionError::NoSuchKey(_)) => Ok(false),
            Err(error) => Err(MatchError(words(&error))),
        }
    }
}

/// What went wrong, in words that hold no value.
fn words(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchOverload(overload) => overload.to_string(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "it divides by zero".to_owned(),
        ExecutionError::Overflow(..) => "a number becomes too large".to_owned(),
        ExecutionError::FunctionError { function, .. } => format!("`{function}` cannot read what it was given"),
        _ => "an extension is not of the type that the expression needs".to_owned(),
    }
}

fn bad((line, column): (usize, usize), detail: impl Into<String>) -> BadMatch {
    BadMatch { line, column, detail: detail.into() }
}

fn parse(text: &str) -> Result<Expression, BadMatch> {
    let parser = PrattParser::new().max_recursion_depth(MAX_NESTING);
    // A parser of text from outside that has panicked before: a route that cannot be read must not end the host.
    let parsed = catch_unwind(AssertUnwindSafe(|| parser.parse(text)));
    match parsed {
        Ok(Ok(expression)) => Ok(expression),
        Ok(Err(errors)) => Err(errors.errors.first().map_or_else(
            || bad((1, 1), "no expression"),
            |error| {
                let place = |at: isize| usize::try_from(at).unwrap_or(1).max(1);
                // It names no place of its own bound.
                let detail = match error.msg.as_str() {
                    bound if bound.contains("recursion limit") => TOO_DEEP,
                    other => other.trim_start_matches("Syntax error: "),
                };
                bad((place(error.pos.0), place(error.pos.1)), detail)
            },
        )),
        Err(_) => Err(bad((1, 1), "the parser gave up: write it differently")),
    }
}

/// The standard functions and operators, and timestamps.
fn environment() -> Result<Env, cel::DeclarationError> {
    let mut env = Env::default().with_optional_support(false).with_stdlib();
    timestamp::declare(&mut env)?;
    Ok(env)
}

#[cfg(test)]
mod tests;
