//! What listing and amending selected messages mean in every store.

use super::{Filter, Selection};
use crate::clock::Timestamp;
use crate::message::State;

/// Messages in a list when the filter does not say, and at most.
const LIST_DEFAULT: u32 = 100;
const LIST_MOST: u32 = 1000;

/// Messages amended in one step.
pub(super) const STEP: u32 = 500;

/// How many messages a list has at most.
pub(super) fn page(filter: &Filter) -> u32 {
    page_of(filter.limit)
}

/// How many entries a list has at most that was asked for so many.
pub(super) fn page_of(limit: u32) -> u32 {
    if limit == 0 { LIST_DEFAULT } else { limit.min(LIST_MOST) }
}

/// What is queued on `route`, and has `reason` in its reason if that is given.
pub(super) fn queued_on(route: String, reason: Option<String>) -> Selection {
    Selection::Matching(Filter { route: Some(route), states: vec![State::Queued], reason, ..Filter::default() })
}

/// What is done to selected messages.
#[derive(Clone, Copy, Debug)]
pub(super) enum Amendment {
    /// Queued again, due `now`, with attempts counted afresh. One that left its order joins it again, before those that
    /// came after it.
    Redrive { now: Timestamp },
    /// Given up `now`.
    Discard { now: Timestamp },
    /// Given up `now` although it was still to be attempted.
    DiscardQueued { now: Timestamp },
}

impl Amendment {
    /// The states it may be done to.
    pub(super) const fn from(self) -> &'static [State] {
        match self {
            Self::Redrive { .. } => State::REDRIVEN,
            Self::Discard { .. } => State::DISCARDED,
            Self::DiscardQueued { .. } => &[State::Queued],
        }
    }
}
