//! Why something published is not an event.

use std::borrow::Cow;

/// What is wrong with what was published, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}{detail}", if place.is_empty() { String::new() } else { format!("{place} ") })]
pub struct BadEvent {
    /// Where: a header field's name in binary mode, a JSON pointer (RFC 6901) in the others, which in a batch begins
    /// with the event's number counted from 0; empty for the whole.
    pub place: String,
    /// What is wrong, and what to write instead. Never holds the value itself, which may be a secret.
    pub detail: Cow<'static, str>,
}

impl BadEvent {
    pub(super) fn at(place: impl Into<String>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { place: place.into(), detail: detail.into() }
    }

    pub(super) fn whole(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::at("", detail)
    }

    /// The same, of something that stands at `place` in something larger.
    pub(super) fn within(self, place: &str) -> Self {
        Self { place: format!("{place}{}", self.place), ..self }
    }
}
