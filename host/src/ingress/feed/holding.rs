//! The partitions that this host holds: claimed, prolonged three times in a lease, read each by a task of its own, and
//! given back when there are more hosts than there were.
//!
//! A lease only keeps two hosts from reading the same rows; that none is passed over and none is counted as read by who
//! lost it, the store sees to, which takes a checkpoint from the holder alone. A host that cannot reach its store stops
//! reading when its leases run out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::cursor::Cursor;
use super::failure::FeedFailure;
use super::session::Session;
use super::settings::Settings;
use crate::clock::Timestamp;
use crate::store::{Lease, Partition, PartitionClaim, PartitionsClaimed, StoreError};

/// Holds what there is to hold until `end`, or until reading fails. Nothing is read any more when it returns.
pub(super) async fn hold(
    session: Arc<Session>,
    readable: watch::Receiver<Option<Cursor>>,
    end: CancellationToken,
) -> Option<FeedFailure> {
    let held_until = session.clock.now();
    let mut holding = Holding {
        session: Arc::clone(&session),
        readable,
        readers: BTreeMap::new(),
        tasks: JoinSet::new(),
        giving_back: BTreeSet::new(),
        held_until,
        split_otherwise: None,
    };
    let mut failure = None;
    while failure.is_none() {
        let pause = tokio::select! {
            biased;
            () = end.cancelled() => break,
            pause = holding.claim() => pause,
        };
        tokio::select! {
            biased;
            () = end.cancelled() => break,
            Some(ended) = holding.tasks.join_next() => failure = holding.ended(ended).await,
            () = session.clock.sleep(pause) => {}
        }
    }
    holding.let_all_go();
    while let Some(ended) = holding.tasks.join_next().await {
        failure = failure.or(holding.ended(ended).await);
    }
    failure
}

/// What is held.
struct Holding {
    session: Arc<Session>,
    readable: watch::Receiver<Option<Cursor>>,
    /// The partitions that are read, and what ends that.
    readers: BTreeMap<u32, CancellationToken>,
    tasks: JoinSet<(u32, Result<(), FeedFailure>)>,
    /// Those of them that are for another host.
    giving_back: BTreeSet<u32>,
    /// When the leases run out.
    held_until: Timestamp,
    /// The number of partitions that other hosts split the feed into, if that was said.
    split_otherwise: Option<u32>,
}

impl Holding {
    /// Asks the store for partitions, and has those read that it gives. Answers when to ask again.
    async fn claim(&mut self) -> Duration {
        let session = Arc::clone(&self.session);
        let Settings { partitions, lease, .. } = *session.settings;
        let now = session.clock.now();
        let until = now.after(lease);
        let claim = PartitionClaim {
            feed: session.feed.clone(),
            partitions,
            now,
            lease: Lease { owner: session.owner.clone(), until },
        };
        let claimed = tokio::select! {
            claimed = session.store.claim_partitions(claim) => claimed,
            () = session.clock.sleep_until(self.held_until), if !self.readers.is_empty() => {
                Err(StoreError::Unavailable("it did not answer before the leases ran out".into()))
            }
        };
        match claimed {
            Ok(PartitionsClaimed::Held { partitions, share }) => {
                (self.held_until, self.split_otherwise) = (until, None);
                self.take_up(partitions, share).await;
                lease / 3
            }
            Ok(PartitionsClaimed::SplitOtherwise { partitions: others }) => {
                self.let_all_go();
                if self.split_otherwise.replace(others) != Some(others) {
                    let source = &session.settings.name;
                    tracing::warn!(
                        source,
                        partitions,
                        others,
                        "other hosts split the feed into another number of \
                                   partitions: waiting until they have let go of them"
                    );
                }
                lease / 3
            }
            Err(error) => {
                let now = session.clock.now();
                let left = self.held_until.since(now);
                let error = &error as &dyn std::error::Error;
                tracing::warn!(source = session.settings.name, error, "cannot claim partitions");
                if left.is_zero() {
                    self.let_all_go();
                    return lease / 10;
                }
                left.min(lease / 10)
            }
        }
    }

    /// Has these partitions read, and no others; what is over the share goes back.
    async fn take_up(&mut self, partitions: Vec<Partition>, share: u32) {
        let given: BTreeSet<u32> = partitions.iter().map(|partition| partition.number).collect();
        self.readers.iter().filter(|(number, _)| !given.contains(number)).for_each(|(_, reader)| reader.cancel());
        for (place, Partition { number, checkpoint }) in (0_u32..).zip(partitions) {
            match self.readers.get(&number) {
                Some(reader) if place >= share => {
                    self.giving_back.insert(number);
                    reader.cancel();
                }
                Some(_) => {}
                None if place >= share => self.give_back(number).await,
                None => {
                    let end = CancellationToken::new();
                    self.readers.insert(number, end.clone());
                    let reading = Arc::clone(&self.session).read(number, checkpoint, self.readable.clone(), end);
                    self.tasks.spawn(async move { (number, reading.await) });
                }
            }
        }
    }

    /// Lets readers end; what they have in hand is stored.
    fn let_all_go(&self) {
        self.readers.values().for_each(CancellationToken::cancel);
    }

    /// A reader has ended. Answers why the table cannot be read, if it cannot.
    async fn ended(&mut self, ended: Result<(u32, Result<(), FeedFailure>), JoinError>) -> Option<FeedFailure> {
        let Ok((number, read)) = ended else { return Some(FeedFailure::BrokeOff) };
        self.readers.remove(&number);
        if self.giving_back.remove(&number) {
            self.give_back(number).await;
        }
        read.err()
    }

    async fn give_back(&self, number: u32) {
        let Session { store, feed, owner, settings, .. } = &*self.session;
        match store.give_back(feed.clone(), number, owner.clone()).await {
            Ok(()) => tracing::info!(source = settings.name, partition = number, "gave a partition to another host"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(source = settings.name, partition = number, error, "a partition waits for its lease");
            }
        }
    }
}
