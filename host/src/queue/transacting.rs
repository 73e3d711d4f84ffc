//! Half messages on their way through the queue's books: each takes a place in its lane when it is prepared, keeps it as
//! a message once it is confirmed, and gives it back when it is cancelled.
//!
//! A word is never refused for want of room: what is confirmed is ours already.

use std::sync::Arc;

use super::{Lane, Offered, Queue, Waits};
use crate::clock::{Stopwatch, Timestamp};
use crate::message::{Message, MessageId};
use crate::store::{Entry, KeyClaim, Preparation, Prepared, Said, Saying, StoreError};
use crate::transaction::{Transaction, Voice, Word};

/// What became of a word.
#[derive(Clone, Debug, PartialEq)]
pub enum Spoken {
    /// It holds, now or since it was said first: the transaction as it is now.
    Holds(Transaction),
    /// The other word was said before: the transaction as it is.
    Contrary(Transaction),
    /// There is no such transaction, or no more.
    Unknown,
}

impl Queue {
    /// Takes responsibility for a half message. When this returns [`Offered::Accepted`] it is on disk, and nobody
    /// delivers it. Goes on to its end even if the caller does not wait for it.
    ///
    /// # Errors
    /// [`StoreError`]; the half message is then not ours.
    pub async fn prepare(
        self: &Arc<Self>,
        message: Message,
        first_check: Timestamp,
        key: Option<KeyClaim>,
    ) -> Result<Offered, StoreError> {
        let queue = Arc::clone(self);
        self.onward(async move {
            let Some(lane) = queue.lanes.get(&message.route).filter(|lane| lane.route.enabled) else {
                return Ok(Offered::Closed);
            };
            let order = queue.order_of(&lane, &message).await;
            if !lane.enter() {
                return Ok(Offered::Saturated);
            }
            let prepared = queue.store.prepare(Preparation { message, order, first_check, key }).await;
            if !matches!(prepared, Ok(Prepared::Stored)) {
                lane.leave();
            }
            Ok(match prepared? {
                Prepared::Stored => Offered::Accepted,
                Prepared::Key(state) => Offered::Key(state),
            })
        })
        .await
    }

    /// Says a word of a transaction: the first one holds. Where its lane is free, what is confirmed is attempted at once.
    /// Goes on to its end even if the caller does not wait for it.
    ///
    /// # Errors
    /// [`StoreError`]; the caller says it again.
    pub async fn say(self: &Arc<Self>, id: MessageId, word: Word, voice: Voice) -> Result<Spoken, StoreError> {
        let queue = Arc::clone(self);
        self.onward(async move {
            let Some(transaction) = queue.store.transaction(id).await? else { return Ok(Spoken::Unknown) };
            // A route that is gone, or disabled, keeps nobody from speaking: its message waits until the route is back.
            let lanes = queue.lanes.all();
            let lane = lanes.get(transaction.route.as_str()).filter(|lane| lane.route.enabled);
            let at = queue.clock.now();
            let checked = matches!(voice, Voice::Check(_));
            let saying = Saying { id, at, reason: voice.to_string(), checked };
            let said = match word {
                Word::Confirm => queue.confirm(saying, lane).await?,
                Word::Cancel => queue.store.cancel(saying).await?,
            };
            if said == Said::Taken(()) && word == Word::Cancel {
                lane.inspect(|lane| lane.leave());
            }
            let now = queue.store.transaction(id).await?;
            Ok(match (said, now) {
                (Said::Taken(()) | Said::Already, Some(now)) => Spoken::Holds(now),
                (Said::Contrary, Some(now)) => Spoken::Contrary(now),
                (_, None) | (Said::Unknown, Some(_)) => Spoken::Unknown,
            })
        })
        .await
    }

    /// Confirms, with a place in the lane that it has had since it was prepared.
    async fn confirm(self: &Arc<Self>, saying: Saying, lane: Option<&Arc<Lane>>) -> Result<Said<()>, StoreError> {
        let at = saying.at;
        let permit = lane.filter(|lane| self.is_free(lane, at)).and_then(|lane| lane.try_permit(at));
        let entry = match permit {
            Some(_) => Entry::Leased(self.lease()),
            None => Entry::Queued { due: at },
        };
        let asked = Stopwatch::start();
        let confirmed = match self.store.confirm(saying, entry).await? {
            Said::Taken(confirmed) => confirmed,
            Said::Already => return Ok(Said::Already),
            Said::Contrary => return Ok(Said::Contrary),
            Said::Unknown => return Ok(Said::Unknown),
        };
        match (lane, permit) {
            (None, _) => {}
            // Whoever is before it wakes the lane when it ends.
            _ if confirmed.behind => {}
            (Some(lane), Some(permit)) if asked.elapsed() < self.lease_length => {
                self.start(confirmed.message, Arc::clone(lane), permit, false);
            }
            // Without a permit; or the store took longer than the lease lasts, and another host may have it by now.
            (Some(lane), _) => self.expect(lane, Waits::First, self.clock.now()),
        }
        Ok(Said::Taken(()))
    }
}
