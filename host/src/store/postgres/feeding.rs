//! The store's part in change feeds.

use async_trait::async_trait;

use super::connections::PATIENCE;
use super::{PostgresStore, feeds};
use crate::store::{Checkpoint, Feeding, Owner, PartitionClaim, PartitionsClaimed, StoreError};

#[async_trait]
impl Feeding for PostgresStore {
    async fn claim_partitions(&self, claim: PartitionClaim) -> Result<PartitionsClaimed, StoreError> {
        let length = claim.lease.until.since(claim.now);
        let (clocks, claim) = (&self.clocks, &claim);
        call!(self, |connection| async move {
            clocks.check(&connection, length).await?;
            feeds::claim(connection, claim).await
        })
    }

    async fn checkpoint(
        &self,
        feed: String,
        partition: u32,
        owner: Owner,
        checkpoint: Checkpoint,
    ) -> Result<bool, StoreError> {
        call!(self, |connection| feeds::checkpoint(connection, &feed, partition, &owner, &checkpoint))
    }

    async fn give_back(&self, feed: String, partition: u32, owner: Owner) -> Result<(), StoreError> {
        let (feed, owner) = (&feed, &owner);
        call!(self, |connection| async move { feeds::give_back(&connection, feed, Some(partition), owner).await })
    }

    async fn leave_feed(&self, feed: String, owner: Owner) -> Result<(), StoreError> {
        let (feed, owner) = (&feed, &owner);
        call!(self, |connection| async move { feeds::leave(&connection, feed, owner).await })
    }
}
