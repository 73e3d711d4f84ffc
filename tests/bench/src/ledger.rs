//! What became of each message, by number: when it was first sent, when it was answered, when it first arrived, how
//! often.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::clock;

/// One trial's messages. Written by the load generator and the sink, read at the end.
pub(crate) struct Ledger {
    messages: Vec<Entry>,
    /// Messages that arrived at least once.
    arrived: AtomicU64,
}

/// Moments are readings of [`clock::nanos`]; 0 stands for "has not happened".
#[derive(Default)]
struct Entry {
    sent: AtomicU64,
    answered: AtomicU64,
    arrived: AtomicU64,
    arrivals: AtomicU32,
}

impl Ledger {
    /// For messages `0..count`.
    pub(crate) fn new(count: usize) -> Self {
        Self { messages: (0..count).map(|_| Entry::default()).collect(), arrived: AtomicU64::new(0) }
    }

    /// The message is about to be sent. A second try changes nothing.
    pub(crate) fn sent(&self, number: usize) {
        if let Some(entry) = self.messages.get(number) {
            let _ = entry.sent.compare_exchange(0, clock::nanos(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Its sender was told that all is well.
    pub(crate) fn answered(&self, number: usize) {
        if let Some(entry) = self.messages.get(number) {
            entry.answered.store(clock::nanos(), Ordering::Relaxed);
        }
    }

    /// The sink has it. What the sink has that nobody sent is not counted.
    pub(crate) fn arrived(&self, number: usize) {
        let Some(entry) = self.messages.get(number) else { return };
        if entry.arrivals.fetch_add(1, Ordering::Relaxed) == 0 {
            entry.arrived.store(clock::nanos(), Ordering::Relaxed);
            self.arrived.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many messages arrived so far.
    pub(crate) fn arrived_in_all(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// What became of the messages in `range`.
    pub(crate) fn account(&self, range: std::ops::Range<usize>) -> Account {
        let read = |moment: &AtomicU64| moment.load(Ordering::Relaxed);
        let mut account = Account { first_sent: u64::MAX, ..Account::default() };
        for entry in self.messages.get(range).unwrap_or_default() {
            let (sent, answered, arrived) = (read(&entry.sent), read(&entry.answered), read(&entry.arrived));
            if sent > 0 {
                account.first_sent = account.first_sent.min(sent);
            }
            if answered > 0 {
                account.answered += 1;
                account.last_answered = account.last_answered.max(answered);
                account.waits.push(answered.saturating_sub(sent));
            }
            if arrived > 0 {
                account.arrived += 1;
                account.last_arrived = account.last_arrived.max(arrived);
                account.repeated += u64::from(entry.arrivals.load(Ordering::Relaxed).saturating_sub(1));
            }
            match (answered, arrived) {
                (1.., 0) => account.lost += 1,
                // It may arrive before its sender has read the answer: then nothing lies between.
                (1.., 1..) => account.journeys.push(arrived.saturating_sub(answered)),
                _ => {}
            }
        }
        account.waits.sort_unstable();
        account.journeys.sort_unstable();
        account
    }
}

/// What became of a trial's messages. Moments and durations in nanoseconds.
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) first_sent: u64,
    pub(crate) last_answered: u64,
    pub(crate) last_arrived: u64,
    /// Messages whose sender was told that all is well.
    pub(crate) answered: u64,
    /// Messages that arrived at least once.
    pub(crate) arrived: u64,
    /// Messages answered that never arrived.
    pub(crate) lost: u64,
    /// Arrivals beyond each message's first.
    pub(crate) repeated: u64,
    /// From a message's sending to its answer, sorted.
    pub(crate) waits: Vec<u64>,
    /// From a message's answer to its arrival, sorted.
    pub(crate) journeys: Vec<u64>,
}

impl Account {
    /// Answers in a second, from the first message sent to the last answer.
    pub(crate) fn answered_per_second(&self) -> f64 {
        self.answered as f64 / clock::seconds(self.first_sent, self.last_answered).max(1e-9)
    }

    /// Arrivals in a second, from the first message sent to the last first arrival.
    pub(crate) fn arrived_per_second(&self) -> f64 {
        self.arrived as f64 / clock::seconds(self.first_sent, self.last_arrived).max(1e-9)
    }
}

/// The value below which `share` of the sorted `values` lie, in milliseconds; 0 when there are none.
pub(crate) fn percentile(values: &[u64], share: f64) -> f64 {
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1).min(values.len().saturating_sub(1))).map_or(0.0, |nanos| *nanos as f64 / 1e6)
}
