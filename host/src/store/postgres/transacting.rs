//! The store's part in half messages. Its calls are not batched: a transaction takes a round trip to its sender anyway.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::connections::{LONG_PATIENCE, PATIENCE};
use super::{PostgresStore, transactions};
use crate::clock::Timestamp;
use crate::message::{Message, MessageId, RouteName};
use crate::store::{
    CheckNote, ClaimedChecks, Confirmed, Entry, Lease, Preparation, Prepared, Said, Saying, StoreError, Transacting,
    TransactionFilter, encoding,
};
use crate::transaction::{Transaction, TransactionState};

#[async_trait]
impl Transacting for PostgresStore {
    async fn prepare(&self, preparation: Preparation) -> Result<Prepared, StoreError> {
        let headers = encoding::encode_headers(&preparation.message.request.headers);
        call!(self, |connection| transactions::prepare(connection, &preparation, &headers))
    }

    async fn confirm(&self, saying: Saying, entry: Entry) -> Result<Said<Confirmed>, StoreError> {
        call!(self, |connection| transactions::confirm(connection, &saying, &entry))
    }

    async fn cancel(&self, saying: Saying) -> Result<Said<()>, StoreError> {
        call!(self, |connection| transactions::cancel(connection, &saying))
    }

    async fn claim_checks(
        &self,
        route: RouteName,
        limit: u32,
        now: Timestamp,
        lease: Lease,
    ) -> Result<ClaimedChecks, StoreError> {
        call!(self, |connection| transactions::claim(connection, &route, limit, now, &lease))
    }

    async fn note_check(&self, note: CheckNote) -> Result<bool, StoreError> {
        call!(self, |connection| transactions::note(connection, &note))
    }

    async fn resume(&self, id: MessageId, now: Timestamp) -> Result<Said<()>, StoreError> {
        call!(self, |connection| transactions::resume(connection, id, now))
    }

    async fn transaction(&self, id: MessageId) -> Result<Option<Transaction>, StoreError> {
        call!(self, |connection| transactions::one(connection, id))
    }

    async fn half_message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        call!(self, |connection| transactions::half_message(connection, id))
    }

    async fn transactions(&self, filter: TransactionFilter) -> Result<Vec<Transaction>, StoreError> {
        walk!(self, |connection| transactions::list(connection, &filter))
    }

    async fn open_transactions(&self) -> Result<BTreeMap<(String, TransactionState), u64>, StoreError> {
        walk!(self, |connection| async move { transactions::count_open(&connection).await })
    }
}
