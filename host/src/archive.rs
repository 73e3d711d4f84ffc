//! The archive: every message that is kept, with its journal, found again by what is known of it.
//!
//! What a filter means is said here, once for every store, and decided purely. A walk goes along the ids, which sort by
//! age; a filter that looks into journals or bodies reads each message that fits otherwise.

mod query;

use std::fmt;
use std::str::FromStr;

use crate::clock::Timestamp;
use crate::message::{MessageId, State};
use crate::pointer::{BadPointer, Pointer};
use crate::store::{ArchiveLine, Stored};

pub use query::BadQuery;

/// Which messages of the archive: all that is said of one must be so. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArchiveFilter {
    /// On this route, at last.
    pub route: Option<String>,
    /// In one of these states; empty means any.
    pub states: Vec<State>,
    /// Accepted then or later.
    pub from: Option<Timestamp>,
    /// Accepted before then.
    pub until: Option<Timestamp>,
    /// Of this publish: its `message_uid`.
    pub uid: Option<MessageId>,
    /// With a verdict whose reason contains this text; or it is in its state for such a reason.
    pub reason: Option<String>,
    /// Judged, at one attempt at least, by this policy.
    pub policy: Option<PolicyDigest>,
    /// With such a body.
    pub body: Vec<BodyTest>,
}

/// A policy's digest, or how it begins: 4 to 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyDigest(String);

/// What a JSON body must hold: something at a pointer that is a string, a number or a truth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BodyTest {
    /// Where.
    pub pointer: Pointer,
    /// What it is as text, a number however it is written; none: whatever it is.
    pub value: Option<String>,
}

impl ArchiveFilter {
    /// Whether it says anything at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a message may fit, as far as its line in the archive tells.
    pub fn may_fit(&self, line: &ArchiveLine) -> bool {
        self.route.as_ref().is_none_or(|route| *route == line.route)
            && (self.states.is_empty() || self.states.contains(&line.state))
            && self.from.is_none_or(|from| line.accepted_at >= from)
            && self.until.is_none_or(|until| line.accepted_at < until)
            && self.uid.is_none_or(|uid| uid == line.uid)
    }

    /// Whether a message whose line may fit does. Time goes by the length of its body where the filter asks about that.
    pub fn fits(&self, stored: &Stored) -> bool {
        let given = |text: &String| {
            stored.summary.reason.contains(text.as_str())
                || stored.attempts.iter().any(|attempt| attempt.reason.contains(text.as_str()))
        };
        let judged = |digest: &PolicyDigest| {
            let policies = stored.attempts.iter().filter_map(|attempt| attempt.provenance.policy.as_ref());
            policies.into_iter().any(|policy| policy.digest.starts_with(&digest.0))
        };
        self.reason.as_ref().is_none_or(given)
            && self.policy.as_ref().is_none_or(judged)
            && self.body.iter().all(|test| test.holds(&stored.message.request.body))
    }

    /// From which id on nothing fits any more: a message's id is never younger than its acceptance.
    pub fn end(&self) -> Option<MessageId> {
        self.until.map(MessageId::first_of)
    }
}

impl BodyTest {
    fn holds(&self, body: &[u8]) -> bool {
        let found = self.pointer.scalar_in(body);
        found.is_some_and(|found| self.value.as_ref().is_none_or(|value| *value == found || same_number(value, &found)))
    }
}

/// Whether both are numbers as JSON writes them, and the same one: 1.0 is 1, and 1e2 is 100. Whole numbers that are
/// written out are compared as text alone: a float does not tell long ones apart.
fn same_number(one: &str, other: &str) -> bool {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number = |text: &str| serde_json::from_str::<serde_json::Number>(text).ok()?.as_f64();
    let is_float = |text: &str| text.contains(['.', 'e', 'E']);
    let Some((one_number, other_number)) = number(one).zip(number(other)) else { return false };
    (is_float(one) || is_float(other)) && one_number.abs() < EXACT && one_number.total_cmp(&other_number).is_eq()
}

impl FromStr for BodyTest {
    type Err = BadPointer;

    /// `/pointer=value`, or `/pointer` for whatever value.
    fn from_str(text: &str) -> Result<Self, BadPointer> {
        let (pointer, value) = match text.split_once('=') {
            Some((pointer, value)) => (pointer, Some(value.to_owned())),
            None => (text, None),
        };
        Ok(Self { pointer: pointer.parse()?, value })
    }
}

impl fmt::Display for BodyTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.pointer),
            None => self.pointer.fmt(f),
        }
    }
}

/// A text that no digest begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no policy's digest: write its first 4 to 64 hexadecimal digits, as `backstop messages show` has them")]
pub struct BadDigest;

impl FromStr for PolicyDigest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let is_one = (4..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_one { Ok(Self(text.to_ascii_lowercase())) } else { Err(BadDigest) }
    }
}

impl fmt::Display for PolicyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests;
