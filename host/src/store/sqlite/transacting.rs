//! The store's part in half messages.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{SqliteStore, transactions};
use crate::clock::Timestamp;
use crate::message::{Message, MessageId, RouteName};
use crate::store::{
    CheckNote, ClaimedChecks, Confirmed, Entry, Lease, Preparation, Prepared, Said, Saying, StoreError, Transacting,
    TransactionFilter, encoding,
};
use crate::transaction::{Transaction, TransactionState};

#[async_trait]
impl Transacting for SqliteStore {
    async fn prepare(&self, preparation: Preparation) -> Result<Prepared, StoreError> {
        let weight = preparation.message.request.body.len();
        let headers = encoding::encode_headers(&preparation.message.request.headers);
        self.writer.run(weight, move |connection| transactions::prepare(connection, &preparation, &headers)).await
    }

    async fn confirm(&self, saying: Saying, entry: Entry) -> Result<Said<Confirmed>, StoreError> {
        self.writer.run(0, move |connection| transactions::confirm(connection, &saying, &entry)).await
    }

    async fn cancel(&self, saying: Saying) -> Result<Said<()>, StoreError> {
        self.writer.run(0, move |connection| transactions::cancel(connection, &saying)).await
    }

    async fn claim_checks(
        &self,
        route: RouteName,
        limit: u32,
        now: Timestamp,
        lease: Lease,
    ) -> Result<ClaimedChecks, StoreError> {
        self.writer.run(0, move |connection| transactions::claim(connection, &route, limit, now, &lease)).await
    }

    async fn note_check(&self, note: CheckNote) -> Result<bool, StoreError> {
        self.writer.run(0, move |connection| transactions::note(connection, &note)).await
    }

    async fn resume(&self, id: MessageId, now: Timestamp) -> Result<Said<()>, StoreError> {
        self.writer.run(0, move |connection| transactions::resume(connection, id, now)).await
    }

    async fn transaction(&self, id: MessageId) -> Result<Option<Transaction>, StoreError> {
        self.readers.run(move |connection| transactions::one(connection, id)).await
    }

    async fn half_message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        self.readers.run(move |connection| transactions::half_message(connection, id)).await
    }

    async fn transactions(&self, filter: TransactionFilter) -> Result<Vec<Transaction>, StoreError> {
        self.readers.run(move |connection| transactions::list(connection, &filter)).await
    }

    async fn open_transactions(&self) -> Result<BTreeMap<(String, TransactionState), u64>, StoreError> {
        self.readers.run(transactions::count_open).await
    }
}
