//! Counts what becomes of what a source brings, between the source and the intake that it brings it to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use serde::Serialize;

use super::source::{Brought, Intake, Settlement, Stored};

/// What became of what a source brought since the host was started.
#[derive(Debug, Default)]
pub(super) struct Counts {
    stored: AtomicU64,
    put_aside: AtomicU64,
    acknowledged: AtomicU64,
    requeued: AtomicU64,
    dead_lettered: AtomicU64,
    not_now: AtomicU64,
}

/// What became of what a source brought since the host was started. Each only grows. What comes again counts again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Totals {
    /// On disk, or known to be there already.
    pub stored: u64,
    /// Rows of a feed that could not be read: on disk as dead letters.
    pub put_aside: u64,
    /// Attempted while the broker kept it, and done with.
    pub acknowledged: u64,
    /// Attempted while the broker kept it, and given back to it.
    pub requeued: u64,
    /// Attempted while the broker kept it, and given up: our own dead letter is on disk.
    pub dead_lettered: u64,
    /// Times that something could not be taken, or begun with: the source came again with it.
    pub not_now: u64,
}

impl Counts {
    /// The counts just now.
    pub(super) fn totals(&self) -> Totals {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Totals {
            stored: read(&self.stored),
            put_aside: read(&self.put_aside),
            acknowledged: read(&self.acknowledged),
            requeued: read(&self.requeued),
            dead_lettered: read(&self.dead_lettered),
            not_now: read(&self.not_now),
        }
    }
}

/// An intake, counted.
pub(super) struct Counted<I> {
    pub(super) intake: I,
    pub(super) counts: Arc<Counts>,
}

#[async_trait]
impl<I: Intake> Intake for Counted<I> {
    async fn store(&self, brought: Brought) -> Stored {
        let stored = self.intake.store(brought).await;
        self.count(stored, &self.counts.stored)
    }

    async fn put_aside(&self, brought: Brought, reason: String) -> Stored {
        let stored = self.intake.put_aside(brought, reason).await;
        self.count(stored, &self.counts.put_aside)
    }

    fn keeps_order(&self) -> bool {
        self.intake.keeps_order()
    }

    async fn deliver(&self, brought: Brought) -> Settlement {
        let settlement = self.intake.deliver(brought).await;
        let count = match settlement {
            Settlement::Ack => &self.counts.acknowledged,
            Settlement::Requeue(_) => &self.counts.requeued,
            Settlement::DeadLetter => &self.counts.dead_lettered,
            Settlement::NotBegun(_) => &self.counts.not_now,
        };
        count.fetch_add(1, Ordering::Relaxed);
        settlement
    }
}

impl<I> Counted<I> {
    fn count(&self, stored: Stored, taken: &AtomicU64) -> Stored {
        let count = if stored == Stored::Yes { taken } else { &self.counts.not_now };
        count.fetch_add(1, Ordering::Relaxed);
        stored
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// An intake that answers in turn, by what is brought: `S`ettled well, `R`equeued, `D`ead, or `N`ot now.
    struct ByBody;

    #[async_trait]
    impl Intake for ByBody {
        async fn store(&self, brought: Brought) -> Stored {
            if brought.body == "N" { Stored::NotNow(SECOND) } else { Stored::Yes }
        }

        async fn put_aside(&self, brought: Brought, _: String) -> Stored {
            self.store(brought).await
        }

        async fn deliver(&self, brought: Brought) -> Settlement {
            match &*brought.body {
                b"S" => Settlement::Ack,
                b"R" => Settlement::Requeue(SECOND),
                b"D" => Settlement::DeadLetter,
                _ => Settlement::NotBegun(SECOND),
            }
        }
    }

    fn brought(body: &'static str) -> Brought {
        let (headers, body) = (http::HeaderMap::new(), bytes::Bytes::from_static(body.as_bytes()));
        Brought { headers, body, key: None, delivered_before: 0, last_delivery: false }
    }

    #[tokio::test]
    async fn each_answer_is_counted_and_handed_on() {
        let counted = Counted { intake: ByBody, counts: Arc::default() };
        assert_eq!(counted.store(brought("S")).await, Stored::Yes);
        assert_eq!(counted.store(brought("N")).await, Stored::NotNow(SECOND));
        assert_eq!(counted.put_aside(brought("S"), String::new()).await, Stored::Yes);
        for (count, body) in [(3, "S"), (2, "R"), (4, "D"), (5, "N")] {
            for _ in 0..count {
                assert_eq!(counted.deliver(brought(body)).await, ByBody.deliver(brought(body)).await);
            }
        }
        let expected = Totals { stored: 1, put_aside: 1, acknowledged: 3, requeued: 2, dead_lettered: 4, not_now: 6 };
        assert_eq!(counted.counts.totals(), expected);
    }
}
