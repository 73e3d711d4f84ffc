//! Writing down attempts and what follows from them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio_postgres::types::ToSql;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::batches::{Batches, Work};
use super::connections::{Connection, Connections, PATIENCE};
use super::failure::Failure;
use super::order::{self, Member};
use super::rows::{self, text, uuid};
use crate::message::{MessageId, RouteName};
use crate::store::encoding::{self, FinishColumns, millis, nanos};
use crate::store::{Finish, Finished, Hold, StoreError};

/// Finishes those whose lease is still held, each with a line in its journal. One that leaves its order is left out,
/// unless that order is locked (`$19`).
const FINISH: &str = "
    WITH n AS (
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[],
            $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::boolean[], $13::bigint[], $14::boolean[],
            $15::text[])
            AS n (id, owner, state, route, due_at, ended_at, reason, attempts, journal, started_at, previous_delay_ns,
                  reauthenticated, hops, leaves, record)),
    m AS (
        UPDATE messages AS m SET state = n.state, route = coalesce(n.route, m.route), due_at = n.due_at,
            ended_at = n.ended_at, reason = n.reason, attempts = n.attempts, journal = n.journal, lines = m.lines + 1,
            started_at = n.started_at, previous_delay_ns = n.previous_delay_ns, reauthenticated = n.reauthenticated,
            hops = n.hops, turn = CASE WHEN n.leaves THEN 0 ELSE m.turn END, lease_owner = NULL, lease_until = NULL
        FROM n
        WHERE m.id = n.id AND m.state = 'in_flight' AND m.lease_owner = n.owner
          AND ($19 OR NOT n.leaves OR m.turn = 0)
        RETURNING m.id, m.lines, n.record),
    a AS (INSERT INTO attempts (id, ordinal, record) SELECT id, lines, record FROM m),
    h AS (
        INSERT INTO holds AS h (destination, until)
        SELECT destination, max(until) FROM unnest($16::uuid[], $17::text[], $18::bigint[]) AS n (id, destination, until)
        WHERE id IN (SELECT id FROM m) GROUP BY destination ORDER BY destination
        ON CONFLICT (destination) DO UPDATE SET until = excluded.until WHERE h.until < excluded.until)
    SELECT id FROM m";

/// A finish whose attempt is encoded already.
struct EncodedFinish {
    finish: Finish,
    record: String,
}

/// The columns of many finishes.
#[derive(Default)]
struct Columns<'c> {
    id: Vec<Uuid>,
    owner: Vec<&'c str>,
    state: Vec<&'static str>,
    route: Vec<Option<&'c str>>,
    due_at: Vec<Option<i64>>,
    ended_at: Vec<Option<i64>>,
    reason: Vec<Cow<'c, str>>,
    attempts: Vec<i64>,
    journal: Vec<i64>,
    started_at: Vec<Option<i64>>,
    previous_delay: Vec<Option<i64>>,
    reauthenticated: Vec<bool>,
    hops: Vec<i64>,
    leaves: Vec<bool>,
    record: Vec<&'c str>,
    hold_id: Vec<Uuid>,
    hold_destination: Vec<&'c str>,
    hold_until: Vec<i64>,
}

impl<'c> Columns<'c> {
    fn push(&mut self, call: &'c EncodedFinish) {
        let finish = &call.finish;
        let columns = FinishColumns::of(finish);
        let id = uuid(finish.id);
        self.id.push(id);
        self.owner.push(&finish.owner.0);
        self.state.push(columns.state.as_str());
        self.route.push(columns.route.map(RouteName::as_str));
        self.due_at.push(columns.due_at.map(millis));
        self.ended_at.push(columns.ended_at.map(millis));
        self.reason.push(text(columns.reason));
        self.attempts.push(finish.progress.attempts.into());
        self.journal.push(finish.progress.journal.into());
        self.started_at.push(finish.progress.started_at.map(millis));
        self.previous_delay.push(finish.progress.previous_delay.map(nanos));
        self.reauthenticated.push(finish.progress.reauthenticated);
        self.hops.push(finish.progress.hops.into());
        self.leaves.push(columns.leaves_order);
        self.record.push(&call.record);
        if let Some(hold) = &finish.hold {
            self.hold_id.push(id);
            self.hold_destination.push(&hold.destination);
            self.hold_until.push(millis(hold.until));
        }
    }

    /// Writes them; answers which were.
    async fn write(&self, connection: &Connection<'_>, orders_are_locked: bool) -> Result<HashSet<Uuid>, Failure> {
        let parameters: [&(dyn ToSql + Sync); 19] = [
            &self.id,
            &self.owner,
            &self.state,
            &self.route,
            &self.due_at,
            &self.ended_at,
            &self.reason,
            &self.attempts,
            &self.journal,
            &self.started_at,
            &self.previous_delay,
            &self.reauthenticated,
            &self.hops,
            &self.leaves,
            &self.record,
            &self.hold_id,
            &self.hold_destination,
            &self.hold_until,
            &orders_are_locked,
        ];
        let written = connection.query(FINISH, &parameters).await?;
        written.iter().map(|row| rows::column(row, "id")).collect()
    }
}

/// Finishes that were left out of their batch, written side by side. They wait for one another on their order's row: not
/// on all connections at once.
const ALONE: usize = 3;

/// What writes finishes down: in batches, and by themselves those that cannot be written with others. No batch waits
/// for those, so a busy order delays nobody else's reply.
pub(super) struct Finishes {
    together: Batches<Together>,
    alone: Arc<Alone>,
    tasks: TaskTracker,
}

impl Finishes {
    /// Starts the task that serves the batches on `tasks`, where those that go alone are done as well.
    pub(super) fn start(connections: &Arc<Connections>, tasks: &TaskTracker) -> Self {
        let doubts = Arc::new(Doubts::default());
        let together = Together { connections: Arc::clone(connections), doubts: Arc::clone(&doubts) };
        let alone = Alone { connections: Arc::clone(connections), doubts, turns: Semaphore::new(ALONE) };
        Self { together: Batches::start(together, tasks), alone: Arc::new(alone), tasks: tasks.clone() }
    }

    /// Writes one down. A caller that stops waiting does not stop it.
    ///
    /// # Errors
    /// [`StoreError`]
    pub(super) async fn finish(&self, finish: Finish) -> Result<Finished, StoreError> {
        let record = encoding::encode_attempt(&finish.attempt)?;
        let call = Arc::new(EncodedFinish { finish, record });
        if self.together.run(Arc::clone(&call)).await? {
            return Ok(Finished::Done);
        }
        let alone = Arc::clone(&self.alone);
        let finishing = self.tasks.spawn(async move { alone.finish(&call).await });
        Ok(finishing.await.unwrap_or(Err(Failure::Closed))?)
    }

    /// Takes no further call. Those that wait are done.
    pub(super) fn stop(&self) {
        self.together.stop();
    }

    /// Takes note that it is not known whether this message's finish was written.
    #[cfg(test)]
    pub(super) fn doubt(&self, id: MessageId) {
        self.alone.doubts.add(id);
    }
}

/// The finishes of which it is not known whether they were written: a connection broke meanwhile. When they come again,
/// the journal says. No more than this host has in flight.
#[derive(Default)]
struct Doubts(Mutex<HashSet<MessageId>>);

impl Doubts {
    fn add(&self, id: MessageId) {
        self.ids().insert(id);
    }

    fn concern(&self, id: MessageId) -> bool {
        self.ids().contains(&id)
    }

    fn settle(&self, id: MessageId) {
        self.ids().remove(&id);
    }

    fn ids(&self) -> MutexGuard<'_, HashSet<MessageId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The batches of finishes. A call is answered whether it was written; if not, it is to be looked at alone.
struct Together {
    connections: Arc<Connections>,
    doubts: Arc<Doubts>,
}

impl Together {
    /// Writes those that can be written together; answers which were.
    async fn write(&self, calls: &[Arc<EncodedFinish>]) -> Result<HashSet<Uuid>, Failure> {
        // Rows are locked in this order everywhere, so that nobody waits for another in a circle. Of two finishes of
        // one message only one is part of this; the other finds the lease gone.
        let mut together: Vec<&EncodedFinish> = calls.iter().map(Arc::as_ref).collect();
        together.sort_by_key(|call| call.finish.id);
        together.dedup_by_key(|call| call.finish.id);
        let mut columns = Columns::default();
        together.iter().for_each(|call| columns.push(call));
        let columns = &columns;
        self.connections
            .call(PATIENCE, |connection| Box::pin(async move { columns.write(&connection, false).await }))
            .await
    }
}

impl Work for Together {
    type Call = Arc<EncodedFinish>;
    type Answer = bool;

    fn weight(_: &Arc<EncodedFinish>) -> usize {
        0
    }

    async fn run(&self, calls: &[Arc<EncodedFinish>]) -> Vec<Result<bool, Failure>> {
        let mut written = match self.write(calls).await {
            Ok(written) => written,
            // Each alone, so that only the one fails that cannot be written.
            Err(failure) if failure.is_about_a_row() => HashSet::new(),
            Err(failure) => {
                if !failure.is_certain() {
                    calls.iter().for_each(|call| self.doubts.add(call.finish.id));
                }
                return calls.iter().map(|_| Err(failure.clone())).collect();
            }
        };
        let mut answers = Vec::with_capacity(calls.len());
        for call in calls {
            // Removed, so that a second one of the same message is looked at by itself.
            let is_written = written.remove(&uuid(call.finish.id));
            if is_written {
                self.doubts.settle(call.finish.id);
            }
            answers.push(Ok(is_written));
        }
        answers
    }
}

/// What was left out of a batch.
struct Alone {
    connections: Arc<Connections>,
    doubts: Arc<Doubts>,
    turns: Semaphore,
}

impl Alone {
    /// Writes one in a transaction of its own, when it is its turn.
    async fn finish(&self, call: &EncodedFinish) -> Result<Finished, Failure> {
        let id = call.finish.id;
        let _turn = self.turns.acquire().await.map_err(|_| Failure::Closed)?;
        let in_doubt = self.doubts.concern(id);
        let answer =
            self.connections.call(PATIENCE, |connection| Box::pin(finish_alone(connection, call, in_doubt))).await;
        match &answer {
            Ok(_) => self.doubts.settle(id),
            Err(failure) if failure.is_certain() => {}
            Err(_) => self.doubts.add(id),
        }
        answer
    }
}

/// Finishes one that was left out of its batch: because its order must be locked, or because the lease is lost. One that
/// was in doubt may have been written before.
async fn finish_alone(
    connection: Connection<'_>,
    call: &EncodedFinish,
    was_in_doubt: bool,
) -> Result<Finished, Failure> {
    let id = uuid(call.finish.id);
    connection.begin().await?;
    let held = connection
        .query_opt(
            "SELECT order_route, order_key, place FROM messages
             WHERE id = $1 AND state = 'in_flight' AND lease_owner = $2",
            &[&id, &call.finish.owner.0],
        )
        .await?;
    let order = held.as_ref().map(member).transpose()?.flatten();
    if let Some(order) = &order {
        order::lock(&connection, &order.route, &order.key, order.place).await?;
    }
    let mut columns = Columns::default();
    columns.push(call);
    let finished = if held.is_some() && !columns.write(&connection, true).await?.is_empty() {
        if let Some(order) = &order
            && columns.leaves == [true]
        {
            order::let_next(&connection, order).await?;
        }
        Finished::Done
    } else if was_in_doubt && is_in_journal(&connection, id, &call.record).await? {
        Finished::Done
    } else {
        Finished::LeaseLost
    };
    connection.commit().await?;
    Ok(finished)
}

/// Writes a hold down. Of two holds on one destination the later end counts.
///
/// # Errors
/// [`Failure`]
pub(super) async fn hold(connection: Connection<'_>, hold: &Hold) -> Result<(), Failure> {
    connection
        .query(
            "INSERT INTO holds AS h (destination, until) VALUES ($1, $2)
             ON CONFLICT (destination) DO UPDATE SET until = excluded.until WHERE h.until < excluded.until",
            &[&hold.destination, &millis(hold.until)],
        )
        .await?;
    Ok(())
}

/// The order that the columns `order_route`, `order_key` and `place` name, if any.
///
/// # Errors
/// [`Failure::Unusable`]
pub(super) fn member(row: &tokio_postgres::Row) -> Result<Option<Member>, Failure> {
    let route: Option<String> = rows::column(row, "order_route")?;
    let key: Option<String> = rows::column(row, "order_key")?;
    let place: Option<i64> = rows::column(row, "place")?;
    Ok(route.zip(key).map(|(route, key)| Member { route, key, place: place.unwrap_or(0) }))
}

async fn is_in_journal(connection: &Connection<'_>, id: Uuid, record: &str) -> Result<bool, Failure> {
    let found = connection
        .query_opt("SELECT 1::bigint AS one FROM attempts WHERE id = $1 AND record = $2", &[&id, &record])
        .await?;
    Ok(found.is_some())
}
