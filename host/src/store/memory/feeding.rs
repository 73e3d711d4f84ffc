//! Change feeds in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::MemoryStore;
use crate::clock::Timestamp;
use crate::store::feeding::{self, Kept, Split};
use crate::store::{Checkpoint, Feeding, Owner, PartitionClaim, PartitionsClaimed, StoreError};

/// A feed: its partitions, and until when its hosts are alive.
#[derive(Default)]
pub(super) struct Feed {
    partitions: Vec<Kept>,
    hosts: BTreeMap<String, Timestamp>,
}

impl Feed {
    fn held_by(&mut self, owner: &Owner) -> impl Iterator<Item = &mut Kept> {
        let own = |kept: &&mut Kept| kept.lease.as_ref().is_some_and(|lease| lease.owner == *owner);
        self.partitions.iter_mut().filter(own)
    }
}

#[async_trait]
impl Feeding for MemoryStore {
    async fn claim_partitions(&self, claim: PartitionClaim) -> Result<PartitionsClaimed, StoreError> {
        let mut kept = self.write()?;
        let feed = kept.feeds.entry(claim.feed.clone()).or_default();
        match feeding::split(&feed.partitions, &claim) {
            Split::AsAsked => {}
            Split::Otherwise(partitions) => return Ok(PartitionsClaimed::SplitOtherwise { partitions }),
            Split::Anew(from) => feed.partitions = feeding::anew(claim.partitions, &from),
        }
        feed.hosts.insert(claim.lease.owner.0.clone(), claim.lease.until);
        feed.hosts.retain(|_, until| *until > claim.now);
        let hosts = u32::try_from(feed.hosts.len()).unwrap_or(u32::MAX);
        let granted = feeding::granted(&feed.partitions, hosts, &claim);
        for partition in feed.partitions.iter_mut().filter(|partition| granted.contains(&partition.number)) {
            partition.lease = Some(claim.lease.clone());
        }
        Ok(feeding::held(feed.partitions.clone(), &granted, hosts, &claim))
    }

    async fn checkpoint(
        &self,
        feed: String,
        partition: u32,
        owner: Owner,
        checkpoint: Checkpoint,
    ) -> Result<bool, StoreError> {
        let mut kept = self.write()?;
        let feed = kept.feeds.entry(feed).or_default();
        let found = feed.held_by(&owner).find(|kept| kept.number == partition);
        Ok(found.map(|kept| kept.checkpoint = Some(checkpoint)).is_some())
    }

    async fn give_back(&self, feed: String, partition: u32, owner: Owner) -> Result<(), StoreError> {
        let mut kept = self.write()?;
        let feed = kept.feeds.entry(feed).or_default();
        feed.held_by(&owner).filter(|kept| kept.number == partition).for_each(|kept| kept.lease = None);
        Ok(())
    }

    async fn leave_feed(&self, feed: String, owner: Owner) -> Result<(), StoreError> {
        let mut kept = self.write()?;
        let feed = kept.feeds.entry(feed).or_default();
        feed.held_by(&owner).for_each(|kept| kept.lease = None);
        feed.hosts.remove(&owner.0);
        Ok(())
    }
}
