//! The store's part in change feeds.

use async_trait::async_trait;

use super::{SqliteStore, feeds};
use crate::store::{Checkpoint, Feeding, Owner, PartitionClaim, PartitionsClaimed, StoreError};

#[async_trait]
impl Feeding for SqliteStore {
    async fn claim_partitions(&self, claim: PartitionClaim) -> Result<PartitionsClaimed, StoreError> {
        self.writer.run(0, move |connection| feeds::claim(connection, &claim)).await
    }

    async fn checkpoint(
        &self,
        feed: String,
        partition: u32,
        owner: Owner,
        checkpoint: Checkpoint,
    ) -> Result<bool, StoreError> {
        self.writer.run(0, move |connection| feeds::checkpoint(connection, &feed, partition, &owner, &checkpoint)).await
    }

    async fn give_back(&self, feed: String, partition: u32, owner: Owner) -> Result<(), StoreError> {
        self.writer.run(0, move |connection| feeds::give_back(connection, &feed, Some(partition), &owner)).await
    }

    async fn leave_feed(&self, feed: String, owner: Owner) -> Result<(), StoreError> {
        self.writer.run(0, move |connection| feeds::leave(connection, &feed, &owner)).await
    }
}
