//! Watching: counts by route, and a live feed of attempts for whoever looks on (the demo, later the dashboard).
//!
//! It never holds anything up: counters are atomics, and a slow onlooker misses events rather than delaying them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::attempt::{Course, Made};
use crate::message::{AttemptRecord, Message, MessageId, RouteName, State, Transition};

/// Events kept for an onlooker that lags; older ones are lost to it.
const FEED: usize = 4096;

/// Counts and the feed.
#[derive(Debug)]
pub struct Watch {
    counts: ArcSwap<BTreeMap<RouteName, Arc<Counts>>>,
    feed: broadcast::Sender<Arc<Event>>,
}

/// Something that happened to a message.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "events are shared behind an Arc and never moved about")]
pub enum Event {
    /// An attempt was made, or a message was refused before its first.
    Attempt {
        /// The message.
        message: MessageId,
        /// The attempt.
        record: AttemptRecord,
    },
    /// A message ended.
    Ended {
        /// The message.
        message: MessageId,
        /// The route it ended on.
        route: RouteName,
        /// How.
        state: State,
    },
}

/// What happened on a route since the host started.
#[derive(Debug, Default)]
struct Counts {
    attempts: AtomicU64,
    retries: AtomicU64,
    rerouted: AtomicU64,
    policy_failures: AtomicU64,
    malformed_retry_after: AtomicU64,
    delivered: AtomicU64,
    answered: AtomicU64,
    dead: AtomicU64,
    dropped: AtomicU64,
}

/// What happened on a route since the host started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Attempts made.
    pub attempts: u64,
    /// Attempts that led to another.
    pub retries: u64,
    /// Messages that a fallback led to another route.
    pub rerouted: u64,
    /// Questions that a policy failed to answer.
    pub policy_failures: u64,
    /// `Retry-After` fields that could not be read.
    pub malformed_retry_after: u64,
    /// Messages delivered, those that a caller waited for included.
    pub delivered: u64,
    /// Messages answered by fallback.
    pub answered: u64,
    /// Messages that became dead letters.
    pub dead: u64,
    /// Messages dropped.
    pub dropped: u64,
}

impl Watch {
    /// Watches these routes.
    pub fn new<'a>(routes: impl Iterator<Item = &'a RouteName>) -> Self {
        Self {
            counts: ArcSwap::from_pointee(routes.map(|name| (name.clone(), Arc::default())).collect()),
            feed: broadcast::channel(FEED).0,
        }
    }

    /// Watches these routes from now on. Those that were watched before are counted on; of the others, what is counted
    /// is forgotten.
    pub fn set_routes<'a>(&self, routes: impl Iterator<Item = &'a RouteName>) {
        let before = self.counts.load();
        let counts = routes.map(|name| (name.clone(), before.get(name).cloned().unwrap_or_default())).collect();
        self.counts.store(Arc::new(counts));
    }

    /// The feed, from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.feed.subscribe()
    }

    /// An attempt was made.
    pub fn attempt(&self, message: &Message, made: &Made) {
        if let Some(counts) = self.counts.load().get(&message.route) {
            let add = |counter: &AtomicU64, happened: bool| {
                counter.fetch_add(u64::from(happened), Ordering::Relaxed);
            };
            add(&counts.attempts, matches!(made.course, Course::Attempted(_)));
            add(&counts.retries, matches!(made.transition, Transition::Retry { .. }));
            add(&counts.rerouted, matches!(made.transition, Transition::Rerouted(_)));
            add(&counts.policy_failures, made.record.provenance.failure.is_some());
            add(&counts.malformed_retry_after, made.malformed_retry_after);
        }
        self.publish(|| Event::Attempt { message: message.id, record: made.record.clone() });
    }

    /// A message ended.
    pub fn ended(&self, message: &Message, state: State) {
        if let Some(counts) = self.counts.load().get(&message.route) {
            let counter = match state {
                State::Delivered => &counts.delivered,
                State::Answered => &counts.answered,
                State::Dead => &counts.dead,
                State::Dropped => &counts.dropped,
                State::Queued | State::InFlight | State::Discarded => return,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.publish(|| Event::Ended { message: message.id, route: message.route.clone(), state });
    }

    /// What happened on `route`.
    pub fn totals(&self, route: &RouteName) -> Totals {
        let counts = self.counts.load();
        let Some(counts) = counts.get(route) else { return Totals::default() };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            attempts: read(&counts.attempts),
            retries: read(&counts.retries),
            rerouted: read(&counts.rerouted),
            policy_failures: read(&counts.policy_failures),
            malformed_retry_after: read(&counts.malformed_retry_after),
            delivered: read(&counts.delivered),
            answered: read(&counts.answered),
            dead: read(&counts.dead),
            dropped: read(&counts.dropped),
        }
    }

    fn publish(&self, event: impl FnOnce() -> Event) {
        // Nobody looking on is the usual case, and costs nothing.
        if self.feed.receiver_count() > 0 {
            let _ = self.feed.send(Arc::new(event()));
        }
    }
}
