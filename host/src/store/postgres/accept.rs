//! Taking responsibility for messages.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::batches::{Work, all_or_each};
use super::connections::{Connection, Connections, PATIENCE};
use super::failure::Failure;
use super::rows::{text, uuid};
use super::{keys, order, rows};
use crate::store::encoding::{self, EncodedAcceptance, EntryColumns, millis, nanos};
use crate::store::{Acceptance, Accepted, Entry, KeyClaim, KeyState};

/// Stores messages, their requests, the attempts already made and the holds that come with them, in one statement.
/// `$keys` comes before, and `$only` says which messages are stored because of it.
macro_rules! accept {
    ($keys:literal, $only:literal) => {
        concat!(
            "WITH ",
            $keys,
            " m AS (
                INSERT INTO messages (id, route, state, due_at, lease_owner, lease_until, accepted_at, ended_at, reason,
                    idempotency_key, attempts, journal, lines, started_at, previous_delay_ns, reauthenticated, hops,
                    order_route, order_key, place, turn, publish, original)
                SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::bigint[],
                    $7::bigint[], $8::bigint[], $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[],
                    $14::bigint[], $15::bigint[], $16::boolean[], $17::bigint[], $18::text[], $19::text[],
                    $20::bigint[], $21::bigint[], $22::uuid[], $23::uuid[]) AS n (id)",
            $only,
            " RETURNING id),
             r AS (
                INSERT INTO requests (id, method, path, headers, body)
                SELECT * FROM unnest($1::uuid[], $24::text[], $25::text[], $26::bytea[], $27::bytea[]) AS n (id)",
            $only,
            "),
             a AS (
                INSERT INTO attempts (id, ordinal, record)
                SELECT * FROM unnest($28::uuid[], $29::bigint[], $30::text[]) AS n (id)",
            $only,
            "),
             h AS (
                INSERT INTO holds AS h (destination, until)
                SELECT destination, max(until) FROM unnest($31::uuid[], $32::text[], $33::bigint[])
                    AS n (id, destination, until)",
            $only,
            " GROUP BY destination ORDER BY destination
                ON CONFLICT (destination) DO UPDATE SET until = excluded.until WHERE h.until < excluded.until)
             SELECT id FROM m"
        )
    };
}

const ACCEPT: &str = accept!("", "");

/// With their idempotency keys: those whose key is not free are not stored.
const ACCEPT_WITH_KEYS: &str = accept!(
    "k AS (
        INSERT INTO keys AS k (route, key, fingerprint, message, owner, opened_until, keep_until, state)
        SELECT *, 'stored' FROM unnest($34::text[], $35::text[], $36::bytea[], $1::uuid[], $37::text[], $38::bigint[],
            $39::bigint[])
        ON CONFLICT (route, key) DO UPDATE SET fingerprint = excluded.fingerprint, message = excluded.message,
            owner = excluded.owner, opened_until = excluded.opened_until, keep_until = excluded.keep_until,
            state = excluded.state, answer_status = NULL, answer_headers = NULL, answer_body = NULL
        WHERE k.keep_until <= $40
           OR (k.state = 'opened' AND k.owner <> excluded.owner AND k.opened_until <= $40)
           OR (k.state = 'opened' AND k.owner = excluded.owner AND k.message = excluded.message
               AND k.fingerprint = excluded.fingerprint)
        RETURNING message),",
    " WHERE id IN (SELECT message FROM k)"
);

/// The columns of many messages.
#[derive(Default)]
struct Columns<'c> {
    id: Vec<Uuid>,
    route: Vec<&'c str>,
    state: Vec<&'static str>,
    due_at: Vec<Option<i64>>,
    lease_owner: Vec<Option<&'c str>>,
    lease_until: Vec<Option<i64>>,
    accepted_at: Vec<i64>,
    ended_at: Vec<Option<i64>>,
    reason: Vec<Cow<'c, str>>,
    idempotency_key: Vec<Option<Cow<'c, str>>>,
    attempts: Vec<i64>,
    journal: Vec<i64>,
    lines: Vec<i64>,
    started_at: Vec<Option<i64>>,
    previous_delay: Vec<Option<i64>>,
    reauthenticated: Vec<bool>,
    hops: Vec<i64>,
    order_route: Vec<Option<&'c str>>,
    order_key: Vec<Option<Cow<'c, str>>>,
    place: Vec<Option<i64>>,
    turn: Vec<i64>,
    publish: Vec<Option<Uuid>>,
    original: Vec<Option<Uuid>>,
    method: Vec<&'c str>,
    path: Vec<Cow<'c, str>>,
    headers: Vec<&'c [u8]>,
    body: Vec<&'c [u8]>,
    attempt_id: Vec<Uuid>,
    attempt_ordinal: Vec<i64>,
    attempt_record: Vec<&'c str>,
    hold_id: Vec<Uuid>,
    hold_destination: Vec<&'c str>,
    hold_until: Vec<i64>,
}

impl<'c> Columns<'c> {
    fn of(calls: impl IntoIterator<Item = &'c EncodedAcceptance>) -> Self {
        let mut columns = Self::default();
        for call in calls {
            columns.push(call, None);
        }
        columns
    }

    /// Adds a message; one in an order with its place and its turn.
    fn push(&mut self, call: &'c EncodedAcceptance, ordered: Option<(i64, i64)>) {
        let Acceptance { message, entry, attempts, hold, order, .. } = &call.acceptance;
        let behind = ordered.is_some_and(|(_, turn)| turn == encoding::TURN_BEHIND);
        let columns = EntryColumns::of(entry, attempts, behind, message.accepted_at);
        let id = uuid(message.id);
        self.id.push(id);
        self.route.push(message.route.as_str());
        self.state.push(columns.state.as_str());
        self.due_at.push(columns.due_at.map(millis));
        self.lease_owner.push(columns.lease.map(|(owner, _)| owner));
        self.lease_until.push(columns.lease.map(|(_, until)| millis(until)));
        self.accepted_at.push(millis(message.accepted_at));
        self.ended_at.push(columns.ended_at.map(millis));
        self.reason.push(text(columns.reason));
        self.idempotency_key.push(message.idempotency_key.as_deref().map(text));
        let progress = &message.progress;
        self.attempts.push(progress.attempts.into());
        self.journal.push(progress.journal.into());
        self.lines.push(i64::try_from(call.attempts.len()).unwrap_or(i64::MAX));
        self.started_at.push(progress.started_at.map(millis));
        self.previous_delay.push(progress.previous_delay.map(nanos));
        self.reauthenticated.push(progress.reauthenticated);
        self.hops.push(progress.hops.into());
        self.order_route.push(order.as_ref().map(|_| message.route.as_str()));
        self.order_key.push(order.as_deref().map(text));
        self.place.push(order.as_ref().map(|_| match ordered {
            Some((place, _)) => place,
            None => order::earliest_place(message.accepted_at),
        }));
        self.turn.push(ordered.map_or(encoding::TURN_NONE, |(_, turn)| turn));
        self.publish.push(message.origin.publish.map(uuid));
        self.original.push(message.origin.original.map(uuid));
        self.method.push(message.request.method.as_str());
        self.path.push(text(&message.request.path));
        self.headers.push(&call.headers);
        self.body.push(&message.request.body);
        for (ordinal, record) in (1..).zip(&call.attempts) {
            self.attempt_id.push(id);
            self.attempt_ordinal.push(ordinal);
            self.attempt_record.push(record);
        }
        if let Some(hold) = hold {
            self.hold_id.push(id);
            self.hold_destination.push(&hold.destination);
            self.hold_until.push(millis(hold.until));
        }
    }

    fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        vec![
            &self.id,
            &self.route,
            &self.state,
            &self.due_at,
            &self.lease_owner,
            &self.lease_until,
            &self.accepted_at,
            &self.ended_at,
            &self.reason,
            &self.idempotency_key,
            &self.attempts,
            &self.journal,
            &self.lines,
            &self.started_at,
            &self.previous_delay,
            &self.reauthenticated,
            &self.hops,
            &self.order_route,
            &self.order_key,
            &self.place,
            &self.turn,
            &self.publish,
            &self.original,
            &self.method,
            &self.path,
            &self.headers,
            &self.body,
            &self.attempt_id,
            &self.attempt_ordinal,
            &self.attempt_record,
            &self.hold_id,
            &self.hold_destination,
            &self.hold_until,
        ]
    }
}

/// The batches of messages without an idempotency key and in no order.
pub(super) struct Plain(pub(super) Arc<Connections>);

impl Work for Plain {
    type Call = EncodedAcceptance;
    type Answer = Accepted;

    fn weight(call: &EncodedAcceptance) -> usize {
        call.acceptance.message.request.body.len()
    }

    async fn run(&self, calls: &[EncodedAcceptance]) -> Vec<Result<Accepted, Failure>> {
        all_or_each(calls, |calls| {
            self.0.call(PATIENCE, move |connection| {
                Box::pin(async move {
                    connection.query(ACCEPT, &Columns::of(calls).parameters()).await?;
                    Ok(vec![Accepted::Stored; calls.len()])
                })
            })
        })
        .await
    }
}

/// The batches of messages with an idempotency key.
pub(super) struct Keyed(pub(super) Arc<Connections>);

impl Work for Keyed {
    type Call = EncodedAcceptance;
    type Answer = Accepted;

    fn weight(call: &EncodedAcceptance) -> usize {
        call.acceptance.message.request.body.len()
    }

    async fn run(&self, calls: &[EncodedAcceptance]) -> Vec<Result<Accepted, Failure>> {
        all_or_each(calls, |calls| {
            self.0.call(PATIENCE, move |connection| Box::pin(async move { accept_keyed(&connection, calls).await }))
        })
        .await
    }
}

async fn accept_keyed(connection: &Connection<'_>, calls: &[EncodedAcceptance]) -> Result<Vec<Accepted>, Failure> {
    let mut answers: Vec<Option<Accepted>> = vec![None; calls.len()];
    while answers.contains(&None) {
        // One statement can take each key once: a repeat that came at the same moment goes in a later round.
        let mut names = HashSet::new();
        let round = answers.iter_mut().zip(calls).filter(|(answer, _)| answer.is_none());
        let round: Vec<_> = round.filter(|(_, call)| names.insert(claim_of(call).map(name_of))).collect();
        let stored = store_keyed(connection, round.iter().map(|(_, call)| *call)).await?;
        for (answer, call) in round {
            *answer = Some(match claim_of(call) {
                Some(claim) if !stored.contains(&uuid(call.acceptance.message.id)) => {
                    match keys::look(connection, claim).await? {
                        // Stored by this very call, before a later round of it failed and all were repeated.
                        KeyState::Stored(message) if message == call.acceptance.message.id => Accepted::Stored,
                        known => Accepted::Key(known),
                    }
                }
                _ => Accepted::Stored,
            });
        }
    }
    Ok(answers.into_iter().flatten().collect())
}

fn claim_of(call: &EncodedAcceptance) -> Option<&KeyClaim> {
    call.acceptance.key.as_ref()
}

fn name_of(claim: &KeyClaim) -> (&str, &str) {
    (claim.route.as_str(), &claim.key)
}

/// Stores those whose key is free; answers which.
async fn store_keyed<'c>(
    connection: &Connection<'_>,
    calls: impl Iterator<Item = &'c EncodedAcceptance>,
) -> Result<HashSet<Uuid>, Failure> {
    let mut keyed: Vec<(&KeyClaim, &EncodedAcceptance)> =
        calls.filter_map(|call| claim_of(call).map(|claim| (claim, call))).collect();
    // Two hosts that take the same keys take them in the same order, so that neither waits for the other in a circle.
    keyed.sort_unstable_by_key(|(claim, _)| name_of(claim));
    let columns = Columns::of(keyed.iter().map(|(_, call)| *call));
    let routes: Vec<&str> = keyed.iter().map(|(claim, _)| claim.route.as_str()).collect();
    let names: Vec<_> = keyed.iter().map(|(claim, _)| text(&claim.key)).collect();
    let fingerprints: Vec<&[u8]> = keyed.iter().map(|(claim, _)| &claim.fingerprint[..]).collect();
    let owners: Vec<&str> = keyed.iter().map(|(claim, _)| claim.owner.0.as_str()).collect();
    let opened_until: Vec<i64> = keyed.iter().map(|(claim, _)| millis(claim.opened_until)).collect();
    let keep_until: Vec<i64> = keyed.iter().map(|(claim, _)| millis(claim.keep_until)).collect();
    let now = keyed.iter().map(|(_, call)| millis(call.acceptance.message.accepted_at)).min().unwrap_or(0);
    let mut parameters = columns.parameters();
    parameters.extend::<[&(dyn ToSql + Sync); 7]>([
        &routes,
        &names,
        &fingerprints,
        &owners,
        &opened_until,
        &keep_until,
        &now,
    ]);
    let stored = connection.query(ACCEPT_WITH_KEYS, &parameters).await?;
    stored.iter().map(|row| rows::column(row, "id")).collect()
}

/// Stores a message that belongs to an order, in a transaction of its own.
///
/// # Errors
/// [`Failure`]
pub(super) async fn accept_in_order(connection: Connection<'_>, call: &EncodedAcceptance) -> Result<Accepted, Failure> {
    let Acceptance { message, key, .. } = &call.acceptance;
    connection.begin().await?;
    if let Some(claim) = key {
        match keys::store(&connection, claim, message.id, message.accepted_at).await? {
            KeyState::Fresh => {}
            used => {
                connection.roll_back().await?;
                return Ok(Accepted::Key(used));
            }
        }
    }
    let behind = store(&connection, call).await?;
    connection.commit().await?;
    Ok(if behind { Accepted::Behind } else { Accepted::Stored })
}

/// Stores a message within a transaction that was begun, whatever its idempotency key; answers whether it is behind
/// another one of its order.
///
/// # Errors
/// [`Failure`]
pub(super) async fn store(connection: &Connection<'_>, call: &EncodedAcceptance) -> Result<bool, Failure> {
    let Acceptance { message, entry, order, .. } = &call.acceptance;
    let ordered = match (entry, order) {
        (Entry::Queued { .. } | Entry::Leased(_), Some(key)) => {
            Some(order::join(connection, &message.route, &text(key), message.accepted_at).await?)
        }
        _ => None,
    };
    let mut columns = Columns::default();
    columns.push(call, ordered);
    connection.query(ACCEPT, &columns.parameters()).await?;
    Ok(ordered.is_some_and(|(_, turn)| turn == encoding::TURN_BEHIND))
}
