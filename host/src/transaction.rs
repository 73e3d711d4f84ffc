//! Half messages: stored before their sender runs its own operation, delivered only once the sender has said that it
//! did.
//!
//! A transaction is *prepared* until its sender's word: *confirm* makes a message of it, *cancel* forgets it. The first
//! word wins; the same word again changes nothing, and the other one is refused. Where no word comes, the host asks the
//! sender (`check_back`); where it asks in vain, the transaction is *parked* for a person. It is never dropped, and
//! never delivered unconfirmed. Nothing here acts: it is what is true of a transaction, and what follows from a check.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::message::MessageId;

/// Where a transaction is in its life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum TransactionState {
    /// Waiting for its sender's word, and checked back when that takes long.
    Prepared,
    /// Asked about as often as may be, in vain: left to a person. Its sender's word still counts.
    Parked,
    /// Its sender's operation happened: it is a message now.
    Confirmed,
    /// It did not: there is no message, and never was one.
    Cancelled,
}

impl TransactionState {
    /// Every state, in order of life.
    pub const ALL: [Self; 4] = [Self::Prepared, Self::Parked, Self::Confirmed, Self::Cancelled];

    /// Its name in JSON, on the command line and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Parked => "parked",
            Self::Confirmed => "confirmed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether a word may still be said.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Prepared | Self::Parked)
    }
}

impl fmt::Display for TransactionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What ends a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// The sender's operation happened: deliver.
    Confirm,
    /// It did not: forget.
    Cancel,
}

impl Word {
    /// The state it leads to.
    pub const fn leads_to(self) -> TransactionState {
        match self {
            Self::Confirm => TransactionState::Confirmed,
            Self::Cancel => TransactionState::Cancelled,
        }
    }

    /// As it stands at the end of its path.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Cancel => "cancel",
        }
    }
}

/// Who says a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Voice {
    /// The sender, by itself.
    Sender,
    /// The sender, asked: this is the check it answered, from 1.
    Check(u32),
    /// A person.
    Person,
}

impl fmt::Display for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sender => f.write_str("its sender said so"),
            Self::Check(number) => write!(f, "its sender said so when it was asked (check {number})"),
            Self::Person => f.write_str("a person said so"),
        }
    }
}

/// What a sender's answer says of the operation behind a transaction, as in the contract's `enum settlement`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settlement {
    /// It happened.
    Committed,
    /// It did not, and will not.
    RolledBack,
    /// Not known, or not yet.
    Unknown,
}

impl Settlement {
    /// Its name in JSON and in case files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::RolledBack => "rolled_back",
            Self::Unknown => "unknown",
        }
    }

    /// The word that it amounts to, if any.
    pub const fn word(self) -> Option<Word> {
        match self {
            Self::Committed => Some(Word::Confirm),
            Self::RolledBack => Some(Word::Cancel),
            Self::Unknown => None,
        }
    }
}

/// A transaction, without what is to be delivered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Transaction {
    /// Its identity: the consumer will see it as the message's.
    pub id: MessageId,
    /// The route its message is for.
    pub route: String,
    /// Its state.
    pub state: TransactionState,
    /// Why it is in that state, or what the last check came to; at first empty.
    pub reason: String,
    /// Checks that were sent since it was prepared, or resumed by a person.
    pub checks: u32,
    /// Checks that reached nobody, in a row, up to now.
    pub unreached: u32,
    /// The method of the request to be delivered.
    pub method: String,
    /// Its path below the route.
    pub path: String,
    /// When it was prepared.
    pub prepared_at: Timestamp,
    /// When its sender is asked next; while it is being asked, when it is asked again should this host be gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_check_at: Option<Timestamp>,
    /// When it was confirmed or cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

impl Transaction {
    /// Where it is found, on the ingress and in the admin API.
    pub fn url(&self) -> String {
        format!("/v1/transactions/{}", self.id)
    }

    /// As JSON, with links to what can be done next.
    pub fn shown(&self) -> Value {
        let url = self.url();
        let mut links = json!({ "self": url });
        if self.state.is_open() {
            links["confirm"] = json!(format!("{url}/confirm"));
            links["cancel"] = json!(format!("{url}/cancel"));
        }
        if self.state == TransactionState::Confirmed {
            links["message"] = json!(format!("/v1/messages/{}", self.id));
        }
        let mut shown = json!(self);
        shown["links"] = links;
        shown
    }
}

/// What follows from a check that settled nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AfterCheck {
    /// Checks sent by now.
    pub checks: u32,
    /// Checks in a row that reached nobody by now.
    pub unreached: u32,
    /// Whether it is over with asking.
    pub parks: bool,
}

/// How many checks in a row may reach nobody for each one that may be sent: with the defaults, a day's and an hour's.
pub const UNREACHED: u32 = 100;

/// What follows from one more check that settled nothing, after `checks` that were sent, of which there may be `most`,
/// and `unreached` in a row that were not, of which there may be [`UNREACHED`] times as many.
///
/// Only a check that was sent counts as one: a sender that was away for a while is asked as often as any other once it
/// is back, and no outage of an hour leaves work for people. One that stays away is not asked for ever either.
pub const fn after_check(checks: u32, unreached: u32, sent: bool, most: u32) -> AfterCheck {
    let (checks, unreached) = if sent { (checks.saturating_add(1), 0) } else { (checks, unreached.saturating_add(1)) };
    AfterCheck { checks, unreached, parks: checks >= most || unreached >= most.saturating_mul(UNREACHED) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The check at which asking ends, of a sender that is reached as `sent` says, again and again.
    fn asked_until_parked(sent: &[bool], most: u32) -> (u32, usize) {
        let (mut checks, mut unreached) = (0, 0);
        for (made, sent) in (1..).zip(sent.iter().cycle()) {
            let after = after_check(checks, unreached, *sent, most);
            (checks, unreached) = (after.checks, after.unreached);
            if after.parks {
                return (checks, made);
            }
        }
        unreachable!("the tries have no end")
    }

    #[test]
    fn a_sender_is_asked_as_often_as_may_be_and_no_more() {
        assert_eq!(asked_until_parked(&[true], 15), (15, 15));
        assert_eq!(asked_until_parked(&[true], 1), (1, 1));
    }

    #[test]
    fn a_check_that_reached_nobody_does_not_count_as_one() {
        assert_eq!(asked_until_parked(&[false, true], 15), (15, 30));
    }

    #[test]
    fn a_sender_that_stays_away_is_given_up() {
        assert_eq!(asked_until_parked(&[false], 15), (0, 1500));
    }

    proptest! {
        #[test]
        fn asking_always_ends(sent in proptest::collection::vec(any::<bool>(), 1..40), most in 1_u32..20) {
            let (checks, made) = asked_until_parked(&sent, most);
            prop_assert!(checks <= most);
            prop_assert!(made as u64 <= u64::from(UNREACHED) * u64::from(most) * u64::from(most));
        }
    }
}
