//! The summary: every message sent, accounted for by the host's own word on it, and that word held against the
//! vendors' records.
//!
//! The arithmetic is pure, so that it can be shown to notice a loss.

use std::collections::{BTreeMap, HashMap};

use crate::message::{MessageId, State};

use super::traffic::{Said, Sent};
use super::vendors::Records;

mod words;

pub(super) use words::{Circumstances, lines};

/// What the host knows of its messages: the route each is on, and its state.
pub(super) type Known = HashMap<MessageId, (String, State)>;

/// Every message, accounted for.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// By the route it was sent to, in order of names.
    pub(super) routes: BTreeMap<&'static str, Tally>,
    /// Delivered messages by the route they were sent to and the other one that a fallback led them to.
    pub(super) rerouted: BTreeMap<(&'static str, String), u64>,
    /// What is not accounted for.
    pub(super) lost: Vec<Lost>,
    /// Messages called delivered that a vendor recorded.
    pub(super) confirmed: u64,
    /// Requests to vendors that were not the first of their message.
    pub(super) repeats: u64,
    /// Repeats a vendor could not have recognised.
    pub(super) strange: Vec<String>,
}

/// What became of the messages sent to one route.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tally {
    /// Sent.
    pub(super) sent: u64,
    /// A vendor took it.
    pub(super) delivered: u64,
    /// Answered by fallback.
    pub(super) answered: u64,
    /// Dead letters.
    pub(super) dead: u64,
    /// Dropped by a policy.
    pub(super) dropped: u64,
    /// Still on their way when time ran out.
    pub(super) queued: u64,
    /// Refused by the host, and never accepted: their callers know.
    pub(super) refused: u64,
    /// Not accounted for.
    pub(super) lost: u64,
}

/// A message that is not accounted for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Lost {
    /// Its id, if the host gave it one.
    pub(super) id: Option<MessageId>,
    /// The route it was sent to.
    pub(super) route: &'static str,
    /// What does not add up.
    pub(super) why: String,
}

impl Account {
    /// Accounts for every message in `sent`.
    pub(super) fn of(sent: &[Sent], known: &Known, records: &Records) -> Self {
        let mut account = Self { repeats: records.repeats, strange: records.strange.clone(), ..Self::default() };
        for message in sent {
            let mut tally = account.routes.get(message.route).copied().unwrap_or_default();
            tally.sent += 1;
            let (id, fate) = fate(message, known);
            let fate = fate.and_then(|(route, state)| match (state, id) {
                (State::Delivered, Some(id)) if !records.accepted.contains(&id) => {
                    Err("the host calls it delivered, but no vendor has it".to_owned())
                }
                _ => Ok((route, state)),
            });
            match fate {
                Ok((route, State::Delivered)) => {
                    account.confirmed += 1;
                    tally.delivered += 1;
                    if route != message.route {
                        *account.rerouted.entry((message.route, route.to_owned())).or_default() += 1;
                    }
                }
                Ok((_, State::Answered)) => tally.answered += 1,
                Ok((_, State::Dead)) => tally.dead += 1,
                Ok((_, State::Dropped)) => tally.dropped += 1,
                Ok((_, State::Queued | State::InFlight)) => tally.queued += 1,
                Ok((_, State::Discarded)) => {
                    tally.lost += 1;
                    account.lost.push(lost(id, message, "it was discarded, and nobody asked for that".to_owned()));
                }
                Err(_) if matches!(message.said, Said::Refused(_)) => tally.refused += 1,
                Err(why) => {
                    tally.lost += 1;
                    account.lost.push(lost(id, message, why));
                }
            }
            account.routes.insert(message.route, tally);
        }
        account
    }

    /// All routes together.
    pub(super) fn total(&self) -> Tally {
        self.routes.values().fold(Tally::default(), |sum, tally| Tally {
            sent: sum.sent + tally.sent,
            delivered: sum.delivered + tally.delivered,
            answered: sum.answered + tally.answered,
            dead: sum.dead + tally.dead,
            dropped: sum.dropped + tally.dropped,
            queued: sum.queued + tally.queued,
            refused: sum.refused + tally.refused,
            lost: sum.lost + tally.lost,
        })
    }

    /// Whether every message is accounted for, and every repeat could be recognised.
    pub(super) fn is_good(&self) -> bool {
        let total = self.total();
        let found = total.delivered + total.answered + total.dead + total.dropped + total.queued + total.refused;
        self.lost.is_empty() && self.strange.is_empty() && found == total.sent
    }
}

/// Where a message is and in which state, by the host's own word; or what does not add up.
fn fate<'k>(sent: &Sent, known: &'k Known) -> (Option<MessageId>, Result<(&'k str, State), String>) {
    match &sent.said {
        Said::Accepted(id) => {
            let fate = known.get(id).map(|(route, state)| (route.as_str(), *state));
            (Some(*id), fate.ok_or_else(|| "the host answered 202, but knows nothing of it".to_owned()))
        }
        Said::Ended(id, said) => {
            let fate = match known.get(id) {
                Some((route, state)) if state == said => Ok((route.as_str(), *state)),
                Some((_, state)) => Err(format!("its caller was told {said}, but the host has it as {state}")),
                // What went well while its caller waited is not kept: the caller has the answer itself.
                None if *said == State::Delivered => Ok((sent.route, *said)),
                None => Err(format!("its caller was told {said}, but the host knows nothing of it")),
            };
            (Some(*id), fate)
        }
        Said::Refused(status) => (None, Err(format!("refused with {status}"))),
        Said::Nothing(detail) => (None, Err(detail.clone())),
    }
}

fn lost(id: Option<MessageId>, sent: &Sent, why: String) -> Lost {
    Lost { id, route: sent.route, why }
}

#[cfg(test)]
mod tests;
