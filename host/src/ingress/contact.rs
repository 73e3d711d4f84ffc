//! How a source stands with what it takes from: its broker, or the database of its table. The source says so as it
//! changes; onlookers read it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::clock::Timestamp;

/// The longest text of an error that is kept, in characters.
const LONGEST_TEXT: usize = 500;

/// How a source stands; shared by the source and those who look on.
#[derive(Debug)]
pub struct Contact(Mutex<ContactShown>);

/// Whether a source takes anything just now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ContactState {
    /// It has not been subscribed or read from yet, and nothing has failed.
    Connecting,
    /// It is subscribed, or its table is read.
    Connected,
    /// It could not be reached, or was lost, or refuses; it is tried again.
    Away,
    /// It is tried no more until the host is started again.
    GaveUp,
}

/// How a source stands, for onlookers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ContactShown {
    /// Whether it takes anything just now.
    pub state: ContactState,
    /// Since when, in milliseconds since the Unix epoch.
    pub since: Timestamp,
    /// What went wrong last, if anything has since the host was started: also when all is well again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
}

/// What went wrong last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LastError {
    /// When, in milliseconds since the Unix epoch.
    pub at: Timestamp,
    /// What, in one line of 500 characters at most. Sources leave passwords out of their errors.
    pub why: String,
}

impl Contact {
    /// That of a source that begins now.
    pub fn new(now: Timestamp) -> Self {
        Self(Mutex::new(ContactShown { state: ContactState::Connecting, since: now, last_error: None }))
    }

    /// How it stands.
    pub fn shown(&self) -> ContactShown {
        self.lock().clone()
    }

    /// Whether it takes nothing, and is tried again.
    pub(super) fn is_away(&self) -> bool {
        self.lock().state == ContactState::Away
    }

    /// It takes what there is. Answers whether it did not before.
    pub(super) fn connected(&self, now: Timestamp) -> bool {
        self.stands(ContactState::Connected, now, None)
    }

    /// It takes nothing until it has been tried again.
    pub(super) fn away(&self, why: &str, now: Timestamp) {
        self.stands(ContactState::Away, now, Some(why));
    }

    /// It takes nothing any more.
    pub(super) fn gave_up(&self, why: &str, now: Timestamp) {
        self.stands(ContactState::GaveUp, now, Some(why));
    }

    /// It stands so since now, unless it did before. Answers whether it did not.
    fn stands(&self, state: ContactState, now: Timestamp, why: Option<&str>) -> bool {
        let mut shown = self.lock();
        let is_new = shown.state != state;
        if is_new {
            (shown.state, shown.since) = (state, now);
        }
        if let Some(why) = why {
            let line = why.chars().map(|character| if character.is_control() { ' ' } else { character });
            shown.last_error = Some(LastError { at: now, why: line.take(LONGEST_TEXT).collect() });
        }
        is_new
    }

    fn lock(&self) -> MutexGuard<'_, ContactShown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stands(contact: &Contact) -> (ContactState, u64) {
        let shown = contact.shown();
        (shown.state, shown.since.as_millis())
    }

    #[test]
    fn it_stands_so_since_it_changed_and_what_went_wrong_last_stays_known() {
        let at = Timestamp::from_millis;
        let contact = Contact::new(at(1));
        assert_eq!(stands(&contact), (ContactState::Connecting, 1));
        contact.away("no route", at(2));
        contact.away("no route,\nstill", at(3));
        assert_eq!(stands(&contact), (ContactState::Away, 2), "it went away but once");
        let last = LastError { at: at(3), why: "no route, still".to_owned() };
        assert_eq!(contact.shown().last_error, Some(last.clone()));
        contact.connected(at(4));
        assert_eq!(stands(&contact), (ContactState::Connected, 4));
        assert_eq!(contact.shown().last_error, Some(last));
    }

    #[test]
    fn what_is_kept_of_an_error_is_bounded() {
        let contact = Contact::new(Timestamp::from_millis(1));
        contact.gave_up(&"\u{e4}".repeat(LONGEST_TEXT + 1), Timestamp::from_millis(2));
        assert_eq!(contact.shown().last_error.map(|last| last.why.chars().count()), Some(LONGEST_TEXT));
    }
}
