//! Half messages in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{Kept, MemoryStore};
use crate::clock::Timestamp;
use crate::message::{Message, MessageId, RouteName};
use crate::store::transacting::{resumed_before, said_before};
use crate::store::{
    Acceptance, Accepted, Check, CheckNote, ClaimedChecks, Confirmed, Entry, KeyState, Lease, Owner, Preparation,
    Prepared, Said, Saying, Store as _, StoreError, Transacting, TransactionFilter,
};
use crate::transaction::{Transaction, TransactionState, Word};

/// A transaction, and what it would deliver for as long as it is open.
pub(super) struct Half {
    pub(super) transaction: Transaction,
    message: Option<Message>,
    order: Option<String>,
    lease: Option<Owner>,
    pub(super) keep_until: Timestamp,
}

impl Kept {
    /// What is to be done to a transaction of which `word` is the first.
    fn say<T>(&mut self, saying: &Saying, word: Word, then: impl FnOnce(&mut Half) -> T) -> Said<T> {
        let Some(half) = self.halves.get_mut(&saying.id) else { return Said::Unknown };
        if let Some(said) = said_before(half.transaction.state, word) {
            return said;
        }
        let transaction = &mut half.transaction;
        (transaction.state, transaction.ended_at, transaction.next_check_at) = (word.leads_to(), Some(saying.at), None);
        transaction.reason.clone_from(&saying.reason);
        transaction.checks += u32::from(saying.checked);
        half.lease = None;
        Said::Taken(then(half))
    }
}

#[async_trait]
impl Transacting for MemoryStore {
    async fn prepare(&self, preparation: Preparation) -> Result<Prepared, StoreError> {
        let mut kept = self.write()?;
        let Preparation { message, order, first_check, key } = preparation;
        if let Some(claim) = &key {
            let state = kept.take_key(claim, message.accepted_at, KeyState::Stored(message.id));
            if state != KeyState::Fresh {
                return Ok(Prepared::Key(state));
            }
        }
        let transaction = Transaction {
            id: message.id,
            route: message.route.to_string(),
            state: TransactionState::Prepared,
            reason: String::new(),
            checks: 0,
            unreached: 0,
            method: message.request.method.to_string(),
            path: message.request.path.clone(),
            prepared_at: message.accepted_at,
            next_check_at: Some(first_check),
            ended_at: None,
        };
        let keep_until = key.map_or(Timestamp::from_millis(0), |claim| claim.keep_until);
        kept.halves.insert(message.id, Half { transaction, message: Some(message), order, lease: None, keep_until });
        Ok(Prepared::Stored)
    }

    async fn confirm(&self, saying: Saying, entry: Entry) -> Result<Said<Confirmed>, StoreError> {
        let said = self.write()?.say(&saying, Word::Confirm, |half| (half.message.take(), half.order.take()));
        let (message, order) = match said {
            Said::Taken((Some(message), order)) => (Message { accepted_at: saying.at, ..message }, order),
            Said::Already => return Ok(Said::Already),
            Said::Contrary => return Ok(Said::Contrary),
            Said::Taken((None, _)) | Said::Unknown => return Ok(Said::Unknown),
        };
        let (attempts, key, hold) = (Vec::new(), None, None);
        let acceptance = Acceptance { message: message.clone(), entry, attempts, key, hold, order };
        Ok(Said::Taken(Confirmed { message, behind: self.accept(acceptance).await? == Accepted::Behind }))
    }

    async fn cancel(&self, saying: Saying) -> Result<Said<()>, StoreError> {
        Ok(self.write()?.say(&saying, Word::Cancel, |half| half.message = None))
    }

    async fn claim_checks(
        &self,
        route: RouteName,
        limit: u32,
        now: Timestamp,
        lease: Lease,
    ) -> Result<ClaimedChecks, StoreError> {
        let mut kept = self.write()?;
        let mut waiting: Vec<&mut Half> =
            kept.halves.values_mut().filter(|half| half.transaction.route == route.as_str()).collect();
        waiting.sort_by_key(|half| half.transaction.next_check_at);
        let mut claimed = ClaimedChecks::default();
        for half in waiting.iter_mut().filter(|half| half.transaction.next_check_at.is_some_and(|due| due <= now)) {
            if let Some(message) = half.message.clone().filter(|_| claimed.checks.len() < limit as usize) {
                (half.transaction.next_check_at, half.lease) = (Some(lease.until), Some(lease.owner.clone()));
                let mut request = (*message.request).clone();
                request.body = bytes::Bytes::new();
                let message = Message { request: request.into(), ..message };
                let Transaction { checks, unreached, .. } = half.transaction;
                claimed.checks.push(Check { message, checks, unreached });
            }
        }
        claimed.next_due = waiting.iter().filter_map(|half| half.transaction.next_check_at).min();
        Ok(claimed)
    }

    async fn note_check(&self, note: CheckNote) -> Result<bool, StoreError> {
        let mut kept = self.write()?;
        let half = kept.halves.get_mut(&note.id).filter(|half| half.lease.as_ref() == Some(&note.owner));
        let Some(half) = half else { return Ok(false) };
        half.lease = None;
        let transaction = &mut half.transaction;
        (transaction.checks, transaction.unreached) = (note.checks, note.unreached);
        (transaction.reason, transaction.next_check_at) = (note.reason, note.next);
        if note.next.is_none() {
            transaction.state = TransactionState::Parked;
        }
        Ok(true)
    }

    async fn resume(&self, id: MessageId, now: Timestamp) -> Result<Said<()>, StoreError> {
        let mut kept = self.write()?;
        let Some(Half { transaction, .. }) = kept.halves.get_mut(&id) else { return Ok(Said::Unknown) };
        Ok(resumed_before(transaction.state).unwrap_or_else(|| {
            (transaction.state, transaction.next_check_at) = (TransactionState::Prepared, Some(now));
            (transaction.checks, transaction.unreached) = (0, 0);
            Said::Taken(())
        }))
    }

    async fn transaction(&self, id: MessageId) -> Result<Option<Transaction>, StoreError> {
        Ok(self.read().halves.get(&id).map(|half| half.transaction.clone()))
    }

    async fn half_message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        Ok(self.read().halves.get(&id).and_then(|half| half.message.clone()))
    }

    async fn transactions(&self, filter: TransactionFilter) -> Result<Vec<Transaction>, StoreError> {
        let limit = if filter.limit == 0 { 100 } else { filter.limit.min(1000) as usize };
        let fits = |one: &&Transaction| {
            filter.route.as_ref().is_none_or(|route| *route == one.route)
                && (filter.states.is_empty() || filter.states.contains(&one.state))
                && filter.before.is_none_or(|before| one.id < before)
        };
        let kept = self.read();
        Ok(kept.halves.values().rev().map(|half| &half.transaction).filter(fits).take(limit).cloned().collect())
    }

    async fn open_transactions(&self) -> Result<BTreeMap<(String, TransactionState), u64>, StoreError> {
        let mut counts = BTreeMap::new();
        for Half { transaction, .. } in self.read().halves.values().filter(|half| half.transaction.state.is_open()) {
            *counts.entry((transaction.route.clone(), transaction.state)).or_insert(0) += 1;
        }
        Ok(counts)
    }
}
