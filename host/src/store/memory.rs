//! A store in memory, for unit tests of what stands on the `Store` seam. It passes the same contract suite as the
//! real ones, and can be told to fail.

mod feeding;
mod transactions;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{
    Acceptance, Accepted, ArchiveLine, Blocker, Claimed, Entry, Filter, Finish, Finished, Hold, KeyClaim, KeyState,
    LaneClaim, Lease, NextDue, Owner, Retention, Selection, Store, StoreError, Stored, Summary, Then, Transacting as _,
    Turn, selecting,
};
use crate::clock::Timestamp;
use crate::message::{Answer, AttemptRecord, Message, MessageId, Progress, RouteName, State};

/// The store.
#[derive(Default)]
pub(crate) struct MemoryStore {
    kept: Mutex<Kept>,
    failures: AtomicU32,
    asked: AtomicU32,
    answers_late: AtomicBool,
    answers_lost: AtomicU32,
}

#[derive(Default)]
struct Kept {
    rows: BTreeMap<MessageId, Row>,
    keys: HashMap<(RouteName, String), Key>,
    holds: BTreeMap<String, Timestamp>,
    halves: BTreeMap<MessageId, transactions::Half>,
    feeds: HashMap<String, feeding::Feed>,
    stored: u64,
}

struct Row {
    message: Message,
    state: State,
    reason: String,
    due: Timestamp,
    lease: Option<Lease>,
    ended_at: Option<Timestamp>,
    attempts: Vec<AttemptRecord>,
    /// The order it belongs to, and its place among all that were stored.
    order: Option<(RouteName, String)>,
    seq: u64,
    turn: Option<Turn>,
}

struct Key {
    claim: KeyClaim,
    state: KeyState,
}

impl MemoryStore {
    /// The next `calls` that write fail as unavailable.
    pub(crate) fn fail_next(&self, calls: u32) {
        self.failures.store(calls, Ordering::SeqCst);
    }

    /// Whether all the failures asked for have happened.
    pub(crate) fn has_failed(&self) -> bool {
        self.failures.load(Ordering::SeqCst) == 0
    }

    /// How often a lane was asked about by a claim.
    pub(crate) fn claims(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    /// The next `calls` that finish an attempt do so, and answer that they failed: nobody knows what came of them.
    pub(crate) fn lose_answers(&self, calls: u32) {
        self.answers_lost.store(calls, Ordering::SeqCst);
    }

    /// From now on nobody hears that an attempt was finished, though it was: on a busy machine that can take long.
    pub(crate) fn answer_late(&self) {
        self.answers_late.store(true, Ordering::SeqCst);
    }

    fn write_finish(&self, finish: Finish) -> Result<Finished, StoreError> {
        let mut kept = self.write()?;
        let Some(row) = kept.rows.get_mut(&finish.id) else { return Ok(Finished::LeaseLost) };
        if row.state != State::InFlight || row.lease.as_ref().is_none_or(|lease| lease.owner != finish.owner) {
            return Ok(Finished::LeaseLost);
        }
        row.lease = None;
        row.reason.clone_from(&finish.attempt.reason);
        row.attempts.push(finish.attempt);
        row.message.progress = finish.progress;
        let ends = match &finish.then {
            Then::Queue { .. } => false,
            Then::End { state, .. } => !(*state == State::Dead && finish.blocks),
        };
        match finish.then {
            Then::Queue { due, route } => (row.state, row.due, row.message.route) = (State::Queued, due, route),
            Then::End { state, reason, at } => (row.state, row.reason, row.ended_at) = (state, reason, Some(at)),
        }
        if ends {
            row.turn = None;
            let order = row.order.clone();
            kept.let_next(order.as_ref());
        }
        if let Some(hold) = finish.hold {
            kept.hold(hold);
        }
        Ok(Finished::Done)
    }

    fn write(&self) -> Result<MutexGuard<'_, Kept>, StoreError> {
        let failing =
            self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if failing { Err(StoreError::Unavailable("told to fail".into())) } else { Ok(self.read()) }
    }

    fn read(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of a message; none when it is unknown.
    pub(crate) fn state(&self, id: MessageId) -> Option<State> {
        self.read().rows.get(&id).map(|row| row.state)
    }

    /// The journal of a message.
    pub(crate) fn journal(&self, id: MessageId) -> Vec<AttemptRecord> {
        self.read().rows.get(&id).map(|row| row.attempts.clone()).unwrap_or_default()
    }
}

impl Kept {
    /// Of two holds on one destination the later end counts.
    fn hold(&mut self, hold: Hold) {
        let until = self.holds.entry(hold.destination).or_insert(hold.until);
        *until = hold.until.max(*until);
    }

    /// Looks a key up and takes it if it is free.
    fn take_key(&mut self, claim: &KeyClaim, now: Timestamp, taken: KeyState) -> KeyState {
        let place = (claim.route.clone(), claim.key.clone());
        let known = self.keys.get(&place).filter(|key| {
            let opened_by_one_gone = key.state == KeyState::InFlight && key.claim.owner != claim.owner;
            key.claim.keep_until > now && !opened_by_one_gone && !key.is_opened_for(claim)
        });
        match known {
            Some(key) if key.claim.fingerprint != claim.fingerprint => KeyState::OtherPayload,
            Some(key) => key.state.clone(),
            None => {
                self.keys.insert(place, Key { claim: claim.clone(), state: taken });
                KeyState::Fresh
            }
        }
    }

    /// Lets the next message of an order have its turn, unless one has it.
    fn let_next(&mut self, order: Option<&(RouteName, String)>) {
        let Some(order) = order else { return };
        let in_order = || self.rows.values().filter(|row| row.order.as_ref() == Some(order));
        if in_order().any(|row| row.turn == Some(Turn::Now)) {
            return;
        }
        let next = in_order().filter(|row| row.turn == Some(Turn::Behind)).min_by_key(|row| row.seq);
        if let Some(next) = next.map(|row| row.message.id)
            && let Some(row) = self.rows.get_mut(&next)
        {
            row.turn = Some(Turn::Now);
        }
    }

    fn selected(&self, selection: &Selection) -> Vec<MessageId> {
        match selection {
            Selection::Ids(ids) => ids.iter().copied().filter(|id| self.rows.contains_key(id)).collect(),
            Selection::Matching(filter) => {
                let limit = if filter.limit == 0 { usize::MAX } else { filter.limit as usize };
                self.fitting(filter).take(limit).map(|row| row.message.id).collect()
            }
        }
    }

    fn fitting<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = &'a Row> {
        self.rows.values().rev().filter(move |row| {
            filter.route.as_ref().is_none_or(|route| route == row.message.route.as_str())
                && (filter.states.is_empty() || filter.states.contains(&row.state))
                && filter.reason.as_ref().is_none_or(|text| row.reason.contains(text.as_str()))
                && filter.before.is_none_or(|before| row.message.id < before)
        })
    }
}

impl Key {
    /// Whether the same request opened it, and now stores its message.
    fn is_opened_for(&self, claim: &KeyClaim) -> bool {
        self.state == KeyState::InFlight && self.claim.message == claim.message
    }
}

impl Row {
    fn summary(&self) -> Summary {
        Summary {
            id: self.message.id,
            route: self.message.route.to_string(),
            state: self.state,
            reason: self.reason.clone(),
            attempts: self.message.progress.journal,
            method: self.message.request.method.to_string(),
            path: self.message.request.path.clone(),
            accepted_at: self.message.accepted_at,
            due_at: (!self.state.is_terminal()).then_some(self.due),
            ended_at: self.ended_at,
            order_key: self.order.as_ref().map(|(_, key)| key.clone()),
            turn: self.turn,
        }
    }

    /// Writes down that an attempt may have been made.
    fn interrupt(&mut self, now: Timestamp) {
        self.message.progress.journal += 1;
        let (number, route) = (self.message.progress.journal, self.message.route.as_str());
        self.attempts.push(AttemptRecord::interrupted(number, route, now));
    }

    /// When it may be claimed: queued, or under a lease that runs out.
    fn claimable_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Queued if self.turn == Some(Turn::Behind) => None,
            State::Queued => Some(self.due),
            State::InFlight => self.lease.as_ref().map(|lease| lease.until),
            _ => None,
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn accept(&self, acceptance: Acceptance) -> Result<Accepted, StoreError> {
        let mut kept = self.write()?;
        let Acceptance { message, entry, attempts, key, hold, order } = acceptance;
        if kept.rows.contains_key(&message.id) {
            return Err(StoreError::Unavailable("there is a message of that id".into()));
        }
        if let Some(claim) = &key {
            let state = kept.take_key(claim, message.accepted_at, KeyState::Stored(message.id));
            if state != KeyState::Fresh {
                return Ok(Accepted::Key(state));
            }
        }
        if let Some(hold) = hold {
            kept.hold(hold);
        }
        kept.stored += 1;
        let order = order.map(|key| (message.route.clone(), key));
        let turn = match (&entry, &order) {
            (Entry::Ended { .. }, _) | (_, None) => None,
            (_, Some(order))
                if kept.rows.values().any(|row| row.turn.is_some() && row.order.as_ref() == Some(order)) =>
            {
                Some(Turn::Behind)
            }
            (_, Some(_)) => Some(Turn::Now),
        };
        let mut row = Row {
            order,
            seq: kept.stored,
            turn,
            due: message.accepted_at,
            message,
            state: State::Queued,
            reason: String::new(),
            lease: None,
            ended_at: None,
            attempts,
        };
        match entry {
            Entry::Queued { due } => row.due = due,
            Entry::Leased(_) if turn == Some(Turn::Behind) => {}
            Entry::Leased(lease) => (row.state, row.lease) = (State::InFlight, Some(lease)),
            Entry::Ended { state, reason, at } => (row.state, row.reason, row.ended_at) = (state, reason, Some(at)),
        }
        kept.rows.insert(row.message.id, row);
        Ok(if turn == Some(Turn::Behind) { Accepted::Behind } else { Accepted::Stored })
    }

    async fn open_key(&self, claim: KeyClaim, now: Timestamp) -> Result<KeyState, StoreError> {
        Ok(self.write()?.take_key(&claim, now, KeyState::InFlight))
    }

    async fn close_key(&self, claim: KeyClaim, answer: Option<Answer>) -> Result<(), StoreError> {
        let mut kept = self.write()?;
        let place = (claim.route.clone(), claim.key.clone());
        if let Some(key) = kept.keys.get_mut(&place)
            && key.claim.message == claim.message
        {
            match answer {
                Some(answer) => key.state = KeyState::Answered(answer),
                None if key.state == KeyState::InFlight => drop(kept.keys.remove(&place)),
                None => {}
            }
        }
        Ok(())
    }

    async fn claim_due(&self, lanes: Vec<LaneClaim>, now: Timestamp, lease: Lease) -> Result<Claimed, StoreError> {
        let mut kept = self.write()?;
        let mut claimed = Claimed::default();
        self.asked.fetch_add(u32::try_from(lanes.len()).unwrap_or(u32::MAX), Ordering::SeqCst);
        for lane in lanes {
            let mut waiting: Vec<&mut Row> = kept
                .rows
                .values_mut()
                .filter(|row| row.message.route == lane.route && row.claimable_at().is_some())
                .collect();
            waiting.sort_by_key(|row| (row.due, row.seq));
            let (mut taken, mut retries) = (0, 0);
            let mut next = NextDue::default();
            for row in waiting {
                let Some(claimable_at) = row.claimable_at() else { continue };
                let lapsed = row.state == State::InFlight;
                let retry = !lapsed && row.message.progress.attempts > 0;
                if taken < lane.limit && claimable_at <= now && (!retry || retries < lane.retries) {
                    taken += 1;
                    retries += usize::from(retry);
                    if lapsed {
                        row.interrupt(now);
                        claimed.lapsed.insert(row.message.id);
                    }
                    (row.state, row.lease) = (State::InFlight, Some(lease.clone()));
                    claimed.messages.push(row.message.clone());
                } else {
                    let soonest = if retry { &mut next.retry } else { &mut next.first };
                    *soonest = Some(soonest.map_or(claimable_at, |known| known.min(claimable_at)));
                }
            }
            if next.earliest().is_some() {
                claimed.next_due.insert(lane.route, next);
            }
        }
        Ok(claimed)
    }

    async fn finish(&self, finish: Finish) -> Result<Finished, StoreError> {
        let finished = self.write_finish(finish);
        if self.answers_late.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        match self.answers_lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Err(StoreError::Unavailable("the answer is lost".into())),
            Err(_) => finished,
        }
    }

    async fn extend_lease(&self, ids: Vec<MessageId>, lease: Lease) -> Result<Vec<MessageId>, StoreError> {
        let mut kept = self.write()?;
        let mut held = Vec::new();
        for id in ids {
            if let Some(row) = kept.rows.get_mut(&id)
                && row.state == State::InFlight
                && row.lease.as_ref().is_some_and(|known| known.owner == lease.owner)
            {
                row.lease = Some(lease.clone());
                held.push(id);
            }
        }
        Ok(held)
    }

    async fn release(&self, ids: Vec<MessageId>, owner: Owner, now: Timestamp) -> Result<(), StoreError> {
        let mut kept = self.write()?;
        for id in ids {
            if let Some(row) = kept.rows.get_mut(&id)
                && row.state == State::InFlight
                && row.lease.as_ref().is_some_and(|lease| lease.owner == owner)
            {
                (row.state, row.lease) = (State::Queued, None);
                row.interrupt(now);
            }
        }
        Ok(())
    }

    async fn message(&self, id: MessageId) -> Result<Option<Stored>, StoreError> {
        let kept = self.read();
        Ok(kept.rows.get(&id).map(|row| Stored {
            message: row.message.clone(),
            summary: row.summary(),
            attempts: row.attempts.clone(),
            blocked_by: (row.turn == Some(Turn::Behind))
                .then(|| kept.rows.values().find(|other| other.order == row.order && other.turn == Some(Turn::Now)))
                .flatten()
                .map(|other| Blocker { id: other.message.id, state: other.state }),
        }))
    }

    async fn list(&self, filter: Filter) -> Result<Vec<Summary>, StoreError> {
        let limit = if filter.limit == 0 { 100 } else { filter.limit as usize };
        Ok(self.read().fitting(&filter).take(limit).map(Row::summary).collect())
    }

    async fn archived(&self, after: Option<MessageId>, limit: u32) -> Result<Vec<ArchiveLine>, StoreError> {
        let line = |row: &Row| ArchiveLine {
            id: row.message.id,
            uid: row.message.uid(),
            route: row.message.route.to_string(),
            state: row.state,
            accepted_at: row.message.accepted_at,
        };
        let kept = self.read();
        let later = kept.rows.values().filter(|row| after.is_none_or(|after| row.message.id > after));
        Ok(later.take(limit as usize).map(line).collect())
    }

    async fn redrive(&self, selection: Selection, now: Timestamp) -> Result<u64, StoreError> {
        let mut kept = self.write()?;
        let mut redriven = 0;
        for id in kept.selected(&selection) {
            if let Some(row) = kept.rows.get_mut(&id)
                && matches!(row.state, State::Dead | State::Answered | State::Dropped)
            {
                (row.state, row.due, row.ended_at) = (State::Queued, now, None);
                row.message.progress = Progress { journal: row.message.progress.journal, ..Progress::default() };
                row.turn = row.turn.or(row.order.as_ref().map(|_| Turn::Behind));
                let order = row.order.clone();
                kept.let_next(order.as_ref());
                redriven += 1;
            }
        }
        Ok(redriven)
    }

    async fn discard(&self, selection: Selection, now: Timestamp) -> Result<u64, StoreError> {
        let mut kept = self.write()?;
        let mut discarded = 0;
        for id in kept.selected(&selection) {
            if let Some(row) = kept.rows.get_mut(&id)
                && row.state == State::Dead
            {
                (row.state, row.ended_at, row.turn) = (State::Discarded, Some(now), None);
                let order = row.order.clone();
                kept.let_next(order.as_ref());
                discarded += 1;
            }
        }
        Ok(discarded)
    }

    async fn discard_queued(&self, route: String, reason: Option<String>, now: Timestamp) -> Result<u64, StoreError> {
        let mut kept = self.write()?;
        let selected = kept.selected(&selecting::queued_on(route, reason));
        for id in &selected {
            if let Some(row) = kept.rows.get_mut(id) {
                (row.state, row.ended_at, row.turn) = (State::Discarded, Some(now), None);
                if row.reason.is_empty() {
                    row.reason = "its route was not served".to_owned();
                }
                let order = row.order.clone();
                kept.let_next(order.as_ref());
            }
        }
        Ok(selected.len() as u64)
    }

    async fn sweep(&self, retention: Retention, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let mut kept = self.write()?;
        let over = |row: &Row| {
            let keep = match row.state {
                State::Delivered | State::Dropped | State::Discarded => Some(&retention.finished),
                State::Dead | State::Answered => retention.dead.get(&row.message.route),
                State::Queued | State::InFlight => None,
            };
            keep.zip(row.ended_at).is_some_and(|(keep, ended)| ended.after(*keep) < now)
        };
        let gone: Vec<MessageId> =
            kept.rows.values().filter(|row| over(row)).take(limit as usize).map(|row| row.message.id).collect();
        for id in &gone {
            let order = kept.rows.remove(id).and_then(|row| row.order);
            kept.let_next(order.as_ref());
        }
        let before = kept.keys.len() + kept.halves.len();
        kept.keys.retain(|_, key| key.claim.keep_until > now);
        let mut left = (limit as usize).saturating_sub(gone.len());
        kept.halves.retain(|_, half| {
            let ended = half.transaction.ended_at.is_some_and(|ended| ended.after(retention.finished) < now);
            let goes = left > 0 && ended && half.keep_until <= now;
            left -= usize::from(goes);
            !goes
        });
        Ok((gone.len() + before - kept.keys.len() - kept.halves.len()) as u64)
    }

    async fn tally(&self) -> Result<BTreeMap<(String, State), u64>, StoreError> {
        let mut tally = BTreeMap::new();
        for row in self.read().rows.values() {
            *tally.entry((row.message.route.to_string(), row.state)).or_insert(0) += 1;
        }
        Ok(tally)
    }

    async fn backlog(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let mut backlog = BTreeMap::new();
        for row in self.read().rows.values().filter(|row| !row.state.is_terminal()) {
            *backlog.entry(row.message.route.to_string()).or_insert(0) += 1;
        }
        for ((route, _), count) in self.open_transactions().await? {
            *backlog.entry(route).or_insert(0) += count;
        }
        Ok(backlog)
    }

    /// Nothing outlives a host in memory.
    async fn recover(&self, _: Owner, _: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn holds(&self, now: Timestamp) -> Result<Vec<Hold>, StoreError> {
        let holds = self.read().holds.clone();
        Ok(holds
            .into_iter()
            .filter(|(_, until)| *until > now)
            .map(|(destination, until)| Hold { destination, until })
            .collect())
    }

    async fn hold(&self, hold: Hold) -> Result<(), StoreError> {
        self.write()?.hold(hold);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::MemoryStore;
    use crate::store::contract::{acceptance, feeds, keys, leases, model, transactions};

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn memory_does_as_the_model_does(calls in model::calls()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(model::any_calls_leave_what_the_model_leaves(&MemoryStore::default(), calls));
        }
    }

    /// The model knows nothing of keys, and of lost leases only what it was told.
    #[tokio::test]
    async fn memory_keeps_keys_and_leases_as_the_contract_says() {
        let new = MemoryStore::default;
        keys::a_key_is_taken_with_its_message(&new()).await;
        keys::keys_of_different_routes_are_different_keys(&new()).await;
        keys::an_opened_key_is_in_flight_until_it_is_answered(&new()).await;
        keys::a_key_given_back_is_free(&new()).await;
        keys::a_key_that_another_message_opened_since_is_not_closed(&new()).await;
        keys::only_an_opened_key_is_given_back(&new()).await;
        keys::a_message_is_stored_under_the_key_opened_for_it(&new()).await;
        keys::a_key_past_its_time_is_free(&new()).await;
        leases::the_oldest_due_goes_first_and_no_more_than_asked_for(&new()).await;
        leases::a_lease_that_ran_out_is_claimed_again(&new()).await;
        leases::finishing_after_the_lease_was_lost_changes_nothing(&new()).await;
        leases::a_lease_is_prolonged_for_its_holder_only(&new()).await;
        leases::what_is_released_keeps_its_turn(&new()).await;
        acceptance::holds_stand_until_they_run_out(&new()).await;
        acceptance::a_hold_is_written_down_without_a_message(&new()).await;
    }

    #[tokio::test]
    async fn memory_keeps_half_messages_as_the_contract_says() {
        let new = MemoryStore::default;
        transactions::what_is_prepared_is_no_message(&new()).await;
        transactions::a_preparation_is_repeated_under_its_key(&new()).await;
        transactions::what_is_confirmed_is_delivered_whole(&new()).await;
        transactions::what_is_confirmed_may_be_leased_at_once(&new()).await;
        transactions::what_is_confirmed_joins_its_order_then(&new()).await;
        transactions::what_is_cancelled_is_forgotten(&new()).await;
        transactions::the_first_word_holds(&new()).await;
        transactions::of_many_words_at_once_one_is_the_first(&new()).await;
        transactions::one_at_a_time_asks(&new()).await;
        transactions::a_check_that_settles_nothing_is_made_again(&new()).await;
        transactions::an_answer_after_a_word_changes_nothing(&new()).await;
        transactions::an_answer_that_settles_is_counted(&new()).await;
        transactions::what_is_parked_waits_for_a_person_or_its_senders_word(&new()).await;
        transactions::a_list_of_them_goes_from_the_newest(&new()).await;
        transactions::what_is_open_counts_as_not_ended(&new()).await;
        transactions::what_has_ended_is_swept_after_its_key(&new()).await;
    }

    #[tokio::test]
    async fn memory_keeps_feeds_as_the_contract_says() {
        let new = MemoryStore::default;
        feeds::one_host_holds_all_partitions(&new()).await;
        feeds::hosts_share_and_no_partition_is_two_hosts(&new()).await;
        feeds::of_hosts_that_claim_at_once_none_holds_what_another_does(&new()).await;
        feeds::a_partition_goes_on_from_its_checkpoint_at_another_host(&new()).await;
        feeds::who_lost_a_partition_does_not_move_its_checkpoint(&new()).await;
        feeds::who_leaves_is_not_waited_for(&new()).await;
        feeds::a_feed_split_anew_goes_on_from_before_its_smallest_checkpoint(&new()).await;
        feeds::a_feed_that_is_split_anew_before_all_of_it_began_starts_over(&new()).await;
        feeds::feeds_are_told_apart(&new()).await;
    }
}
