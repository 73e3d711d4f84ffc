//! Leases: claiming what is due, prolonging, giving back.

use std::collections::BTreeMap;

use tokio_postgres::Row;
use uuid::Uuid;

use super::connections::Connection;
use super::failure::Failure;
use super::rows::{self, uuid};
use crate::clock::Timestamp;
use crate::message::{AttemptRecord, Message, MessageId, RouteName};
use crate::store::encoding::{self, millis, timestamp};
use crate::store::{Claimed, LaneClaim, Lease, NextDue, Owner};

/// Puts what is due in each lane under the lease, the oldest due first. Rows that another claimer has locked are passed
/// over, so that no two wait for each other and no message goes to both.
const CLAIM: &str = concat!(
    "WITH lanes AS (
        SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS l (route, most, retries)),
     picked AS MATERIALIZED (
        SELECT d.* FROM lanes l CROSS JOIN LATERAL (
            SELECT * FROM (
                SELECT * FROM (
                    SELECT id, due_at, false AS lapsed FROM messages
                    WHERE state = 'queued' AND turn < 2 AND attempts = 0 AND route = l.route AND due_at <= $4
                    ORDER BY due_at, id LIMIT l.most FOR UPDATE SKIP LOCKED) AS first
                UNION ALL
                SELECT * FROM (
                    SELECT id, due_at, false AS lapsed FROM messages
                    WHERE state = 'queued' AND turn < 2 AND attempts > 0 AND route = l.route AND due_at <= $4
                    ORDER BY due_at, id LIMIT least(l.most, l.retries) FOR UPDATE SKIP LOCKED) AS retry
                UNION ALL
                SELECT * FROM (
                    SELECT id, due_at, true AS lapsed FROM messages
                    WHERE state = 'in_flight' AND route = l.route AND lease_until <= $4
                    ORDER BY due_at, id LIMIT l.most FOR UPDATE SKIP LOCKED) AS leased
            ) AS due ORDER BY due_at, id LIMIT l.most) AS d)
     UPDATE messages AS m SET state = 'in_flight', lease_owner = $5, lease_until = $6,
         journal = m.journal + CASE WHEN p.lapsed THEN 1 ELSE 0 END,
         lines = m.lines + CASE WHEN p.lapsed THEN 1 ELSE 0 END
     FROM picked AS p LEFT JOIN requests AS r ON r.id = p.id
     WHERE m.id = p.id
     RETURNING m.due_at, m.lines, p.lapsed, ",
    encoding::message_columns!()
);

/// When the next messages of each lane are due, those just taken (`$2`) apart.
const NEXT_DUE: &str = "
    SELECT route,
        (SELECT due_at FROM messages AS m WHERE state = 'queued' AND turn < 2 AND attempts = 0 AND m.route = l.route
         ORDER BY due_at LIMIT 1) AS first,
        (SELECT due_at FROM messages AS m WHERE state = 'queued' AND turn < 2 AND attempts > 0 AND m.route = l.route
         ORDER BY due_at LIMIT 1) AS retry,
        (SELECT lease_until FROM messages AS m WHERE state = 'in_flight' AND m.route = l.route AND m.id <> ALL ($2)
         ORDER BY lease_until LIMIT 1) AS leased
    FROM unnest($1::text[]) AS l (route)";

/// Claims what is due: queued messages, and those whose lease ran out.
///
/// A message that cannot be read is claimed and left out, and so holds nobody up; it is reported each time its lease
/// has run out.
///
/// # Errors
/// [`Failure`]
pub(super) async fn claim_due(
    connection: Connection<'_>,
    lanes: &[LaneClaim],
    now: Timestamp,
    lease: &Lease,
) -> Result<Claimed, Failure> {
    let routes: Vec<&str> = lanes.iter().map(|lane| lane.route.as_str()).collect();
    let most: Vec<i64> = lanes.iter().map(|lane| i64::try_from(lane.limit).unwrap_or(i64::MAX)).collect();
    let retries: Vec<i64> = lanes.iter().map(|lane| i64::try_from(lane.retries).unwrap_or(i64::MAX)).collect();
    connection.begin().await?;
    let taken = connection
        .query(CLAIM, &[&routes, &most, &retries, &millis(now), &lease.owner.0, &millis(lease.until)])
        .await?;
    let rows: Vec<&Row> = taken.iter().filter(|row| rows::column::<bool>(row, "lapsed").unwrap_or(false)).collect();
    let lapsed = rows.iter().copied().map(rows::id).collect::<Result<_, _>>()?;
    interrupt(&connection, rows, now).await?;
    let next_due = next_due(&connection, &routes, &taken).await?;
    connection.commit().await?;

    let mut messages: Vec<(i64, Message)> = Vec::with_capacity(taken.len());
    for row in &taken {
        match (rows::column(row, "due_at"), rows::message(row)) {
            (Ok(due), Ok(message)) => messages.push((due, message)),
            (Err(failure), _) | (_, Err(failure)) => {
                let (id, route) = (rows::id(row).map(|id| id.to_string()), rows::column::<&str>(row, "route"));
                let (id, route) = (id.unwrap_or_default(), route.unwrap_or_default());
                tracing::error!(message_id = id, route, %failure, "a message cannot be read and is passed over");
            }
        }
    }
    messages.sort_unstable_by_key(|(due, message)| (*due, message.id));
    Ok(Claimed { messages: messages.into_iter().map(|(_, message)| message).collect(), lapsed, next_due })
}

async fn next_due(
    connection: &Connection<'_>,
    routes: &[&str],
    taken: &[Row],
) -> Result<BTreeMap<RouteName, NextDue>, Failure> {
    let taken: Vec<Uuid> = taken.iter().map(|row| rows::column(row, "id")).collect::<Result<_, _>>()?;
    let mut next_due = BTreeMap::new();
    for row in connection.query(NEXT_DUE, &[&routes, &taken]).await? {
        let soonest = |name| rows::column::<Option<i64>>(&row, name);
        let first = [soonest("first")?, soonest("leased")?].into_iter().flatten().min();
        let next = NextDue { first: first.map(timestamp), retry: soonest("retry")?.map(timestamp) };
        if next.earliest().is_some() {
            let route = RouteName::new(rows::column(&row, "route")?).map_err(encoding::unreadable)?;
            next_due.insert(route, next);
        }
    }
    Ok(next_due)
}

/// Prolongs leases; answers the messages that are still held.
///
/// # Errors
/// [`Failure`]
pub(super) async fn extend_lease(
    connection: Connection<'_>,
    ids: &[MessageId],
    lease: &Lease,
) -> Result<Vec<MessageId>, Failure> {
    let named: Vec<Uuid> = ids.iter().copied().map(uuid).collect();
    // Locked in the order of their ids, as finishing does.
    let held = connection
        .query(
            "UPDATE messages SET lease_until = $3
             WHERE id IN (SELECT id FROM messages WHERE id = ANY ($1) AND state = 'in_flight' AND lease_owner = $2
                          ORDER BY id FOR UPDATE)
             RETURNING id",
            &[&named, &lease.owner.0, &millis(lease.until)],
        )
        .await?;
    let held = held.iter().map(rows::id).collect::<Result<std::collections::HashSet<_>, _>>()?;
    Ok(ids.iter().copied().filter(|id| held.contains(id)).collect())
}

/// Gives messages back, each with the turn it had and its attempt written down as interrupted.
///
/// # Errors
/// [`Failure`]
pub(super) async fn release(
    connection: Connection<'_>,
    ids: &[MessageId],
    owner: &Owner,
    now: Timestamp,
) -> Result<(), Failure> {
    let named: Vec<Uuid> = ids.iter().copied().map(uuid).collect();
    connection.begin().await?;
    let released = connection
        .query(
            "UPDATE messages SET state = 'queued', lease_owner = NULL, lease_until = NULL, journal = journal + 1,
                 lines = lines + 1
             WHERE id IN (SELECT id FROM messages WHERE id = ANY ($1) AND state = 'in_flight' AND lease_owner = $2
                          ORDER BY id FOR UPDATE)
             RETURNING id, journal, lines, route",
            &[&named, &owner.0],
        )
        .await?;
    interrupt(&connection, released.iter().collect(), now).await?;
    connection.commit().await
}

/// Writes down that the attempts on these messages were interrupted. Their `journal` and `lines` count it already.
async fn interrupt(connection: &Connection<'_>, messages: Vec<&Row>, now: Timestamp) -> Result<(), Failure> {
    if messages.is_empty() {
        return Ok(());
    }
    let (mut ids, mut ordinals, mut records) = (Vec::<Uuid>::new(), Vec::<i64>::new(), Vec::new());
    for row in messages {
        let record = AttemptRecord::interrupted(rows::count(row, "journal")?, rows::column(row, "route")?, now);
        ids.push(rows::column(row, "id")?);
        ordinals.push(rows::column(row, "lines")?);
        records.push(encoding::encode_attempt(&record)?);
    }
    connection
        .query(
            "INSERT INTO attempts (id, ordinal, record) SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[])",
            &[&ids, &ordinals, &records],
        )
        .await?;
    Ok(())
}
