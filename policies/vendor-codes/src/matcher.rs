//! What a rule looks at.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::ops::RangeInclusive;

use backstop_sdk::prelude::*;

/// An outcome being looked at by rule after rule: what is costly to read is read once.
pub(crate) struct Seen<'a> {
    pub(crate) outcome: &'a Outcome,
    text: OnceCell<Cow<'a, str>>,
    lower: OnceCell<String>,
    json: OnceCell<Option<Value>>,
}

impl<'a> Seen<'a> {
    pub(crate) fn new(outcome: &'a Outcome) -> Self {
        Self { outcome, text: OnceCell::new(), lower: OnceCell::new(), json: OnceCell::new() }
    }

    fn text(&self) -> &str {
        self.text.get_or_init(|| self.outcome.body_text())
    }

    fn lower(&self) -> &str {
        self.lower.get_or_init(|| self.text().to_lowercase())
    }

    fn json(&self) -> Option<&Value> {
        self.json.get_or_init(|| self.outcome.json_value()).as_ref()
    }
}

/// One thing a rule looks at. Its `Display` is the reason of a rule that gives none.
pub(crate) enum Matcher {
    Status(Statuses),
    Silence(Faults),
    Header { name: String, test: FieldTest },
    BodyContains(Text),
    Json { pointer: String, test: ValueTest },
}

/// What is asked of a header field.
pub(crate) enum FieldTest {
    Equals(Text),
    Contains(Text),
    Present(bool),
}

/// What is asked of a value in a JSON body.
pub(crate) enum ValueTest {
    OneOf(Vec<Value>),
    Exists(bool),
}

impl Matcher {
    pub(crate) fn matches(&self, seen: &Seen<'_>) -> bool {
        let outcome = seen.outcome;
        match self {
            Self::Status(statuses) => outcome.status().is_some_and(|status| statuses.contain(status)),
            Self::Silence(faults) => outcome.fault().is_some_and(|fault| faults.contain(fault)),
            // The rest is asked of an answer: silence has no fields and no body, not even absent ones.
            _ if outcome.fault().is_some() => false,
            Self::Header { name, test } => match test {
                FieldTest::Equals(text) => outcome.headers(name).any(|value| text.equals(value)),
                FieldTest::Contains(text) => outcome.headers(name).any(|value| text.is_in(value)),
                FieldTest::Present(present) => outcome.header(name).is_some() == *present,
            },
            Self::BodyContains(text) if text.ignore_case => seen.lower().contains(&text.text),
            Self::BodyContains(text) => seen.text().contains(&text.text),
            Self::Json { pointer, test } => {
                let value = seen.json().and_then(|json| json.pointer(pointer));
                match test {
                    ValueTest::OneOf(values) => value.is_some_and(|value| values.contains(value)),
                    ValueTest::Exists(exists) => value.is_some() == *exists,
                }
            }
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(statuses) => write!(f, "status {}", statuses.written),
            Self::Silence(_) => f.write_str("no answer"),
            Self::Header { name, test: FieldTest::Equals(text) } => write!(f, "header {name} is \"{}\"", text.text),
            Self::Header { name, test: FieldTest::Contains(text) } => {
                write!(f, "header {name} contains \"{}\"", text.text)
            }
            Self::Header { name, test: FieldTest::Present(true) } => write!(f, "header {name}"),
            Self::Header { name, test: FieldTest::Present(false) } => write!(f, "no header {name}"),
            Self::BodyContains(text) => write!(f, "body contains \"{}\"", text.text),
            Self::Json { pointer, test: ValueTest::Exists(true) } => write!(f, "json {pointer}"),
            Self::Json { pointer, test: ValueTest::Exists(false) } => write!(f, "no json {pointer}"),
            Self::Json { pointer, test: ValueTest::OneOf(values) } => match values.as_slice() {
                [value] => write!(f, "json {pointer} is {value}"),
                _ => write!(f, "json {pointer} is listed"),
            },
        }
    }
}

/// A text to be compared with, in lower case if case is to be ignored.
pub(crate) struct Text {
    text: String,
    ignore_case: bool,
}

impl Text {
    pub(crate) fn new(text: String, ignore_case: bool) -> Self {
        Self { text: if ignore_case { text.to_lowercase() } else { text }, ignore_case }
    }

    fn equals(&self, other: &str) -> bool {
        if self.ignore_case { other.to_lowercase() == self.text } else { other == self.text }
    }

    fn is_in(&self, other: &str) -> bool {
        if self.ignore_case { other.to_lowercase().contains(&self.text) } else { other.contains(&self.text) }
    }
}

/// A set of statuses.
#[derive(Debug)]
pub(crate) struct Statuses {
    ranges: Vec<RangeInclusive<u16>>,
    written: String,
}

impl Statuses {
    /// Reads patterns: `429`, `5xx` or `404-499`.
    pub(crate) fn new(patterns: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut ranges = Vec::new();
        let mut written = Vec::new();
        for pattern in patterns {
            let range = range(&pattern).ok_or_else(|| {
                format!("`{pattern}` is no status: write one such as 429, 5xx or 404-499, within 100 to 599")
            })?;
            ranges.push(range);
            written.push(pattern);
        }
        if ranges.is_empty() {
            return Err("`status` is an empty list, which nothing matches: leave it out to match any".into());
        }
        Ok(Self { ranges, written: written.join(", ") })
    }

    fn contain(&self, status: u16) -> bool {
        self.ranges.iter().any(|range| range.contains(&status))
    }
}

fn range(pattern: &str) -> Option<RangeInclusive<u16>> {
    if let Some(hundred) = pattern.strip_suffix("xx") {
        let first = status(&format!("{hundred}00"))?;
        return Some(first..=first + 99);
    }
    let (first, last) = pattern.split_once('-').unwrap_or((pattern, pattern));
    let (first, last) = (status(first)?, status(last)?);
    (first <= last).then_some(first..=last)
}

/// Three digits, 100 to 599.
fn status(text: &str) -> Option<u16> {
    let is_digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|status| is_digits && (100..=599).contains(status))
}

/// A set of faults.
pub(crate) struct Faults(Option<Vec<Fault>>);

impl Faults {
    /// Whatever the fault.
    pub(crate) fn any() -> Self {
        Self(None)
    }

    /// These alone.
    pub(crate) fn only(faults: Vec<Fault>) -> Self {
        Self(Some(faults))
    }

    fn contain(&self, fault: Fault) -> bool {
        self.0.as_ref().is_none_or(|faults| faults.contains(&fault))
    }
}
