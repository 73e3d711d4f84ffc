//! Finding messages that fit a filter, to list them or to amend them.

use std::collections::BTreeSet;

use tokio_postgres::Row;
use uuid::Uuid;

use super::connections::{Connection, Connections, LONG_PATIENCE, PATIENCE};
use super::failure::Failure;
use super::finish;
use super::order::{self, Member};
use super::rows::{self, text, uuid};
use crate::message::{MessageId, State};
use crate::store::encoding::{self, millis};
use crate::store::selecting::{Amendment, STEP, page};
use crate::store::{ArchiveLine, Filter, Selection, Summary};

/// Messages that fit, newest first.
///
/// # Errors
/// [`Failure`]
pub(super) async fn list(connection: Connection<'_>, filter: &Filter) -> Result<Vec<Summary>, Failure> {
    let limit = page(filter);
    let mut found = Vec::new();
    // One walk along the ids for each state, then merged: each walk is bounded by the limit.
    for state in states(filter) {
        for row in select(&connection, state, filter, limit).await? {
            found.push(rows::summary(&row)?);
        }
    }
    found.sort_unstable_by_key(|summary| std::cmp::Reverse(summary.id));
    found.truncate(limit as usize);
    Ok(found)
}

/// The archive's lines after this message (none: from the first), oldest first, at most so many.
///
/// # Errors
/// [`Failure`]
pub(super) async fn archived(
    connection: Connection<'_>,
    after: Option<MessageId>,
    limit: u32,
) -> Result<Vec<ArchiveLine>, Failure> {
    const LINES: &str =
        concat!("SELECT ", encoding::archive_columns!(), " FROM messages WHERE id > $1 ORDER BY id LIMIT $2");
    let after = after.map_or(Uuid::nil(), uuid);
    connection.query(LINES, &[&after, &i64::from(limit)]).await?.iter().map(rows::archive_line).collect()
}

/// The states to look in; none stands for all.
fn states(filter: &Filter) -> BTreeSet<Option<State>> {
    if filter.states.is_empty() { BTreeSet::from([None]) } else { filter.states.iter().copied().map(Some).collect() }
}

/// At most `limit` messages in `state` (none: in any) that fit the filter otherwise, newest first.
async fn select(
    connection: &Connection<'_>,
    state: Option<State>,
    filter: &Filter,
    limit: u32,
) -> Result<Vec<Row>, Failure> {
    macro_rules! query {
        ($which:literal) => {
            concat!(
                "SELECT ",
                encoding::summary_columns!(),
                " FROM messages AS m JOIN requests AS r ON r.id = m.id WHERE ",
                $which,
                " AND m.id < $1 AND ($2::text IS NULL OR m.route = $2)
                  AND ($3::text IS NULL OR position($3 IN m.reason) > 0)
                 ORDER BY m.id DESC LIMIT $4"
            )
        };
    }
    // Along the ids, or along the index that has the ids of a state in order. What is in flight is little.
    let sql = match state {
        None => query!("$5::text IS NULL"),
        Some(State::Delivered) => query!("m.state = $5::text"),
        Some(State::InFlight) => query!("m.state = 'in_flight' AND m.state = $5::text"),
        Some(_) => query!("m.state NOT IN ('in_flight', 'delivered') AND m.state = $5::text"),
    };
    let before = filter.before.map_or(Uuid::max(), uuid);
    let reason = filter.reason.as_deref().map(text);
    connection.query(sql, &[&before, &filter.route, &reason, &i64::from(limit), &state.map(State::as_str)]).await
}

/// Amends what is selected, one bounded step after another; answers how many were. If a step fails, those before it
/// stand.
///
/// # Errors
/// [`Failure`]
pub(super) async fn amend(
    connections: &Connections,
    selection: &Selection,
    amendment: Amendment,
) -> Result<u64, Failure> {
    match selection {
        Selection::Ids(ids) => {
            let mut amended = 0;
            for step in ids.chunks(STEP as usize) {
                amended += amend_these(connections, step, amendment, None).await?;
            }
            Ok(amended)
        }
        Selection::Matching(filter) => amend_matching(connections, filter.clone(), amendment).await,
    }
}

/// Walks from the newest to the oldest. A message that comes to fit meanwhile is newer or is met on the way; the walk
/// goes one way only, so it ends.
async fn amend_matching(connections: &Connections, mut filter: Filter, amendment: Amendment) -> Result<u64, Failure> {
    let most = if filter.limit == 0 { u64::MAX } else { filter.limit.into() };
    let states: Vec<State> = amendment
        .from()
        .iter()
        .copied()
        .filter(|state| filter.states.is_empty() || filter.states.contains(state))
        .collect();
    let mut amended = 0;
    while amended < most {
        let step = u32::try_from(most - amended).unwrap_or(STEP).min(STEP);
        let (states, filtered) = (&states, &filter);
        let mut ids = connections
            .call(LONG_PATIENCE, |connection| {
                Box::pin(async move {
                    let mut ids: Vec<MessageId> = Vec::new();
                    for state in states {
                        let found = select(&connection, Some(*state), filtered, step).await?;
                        ids.extend(found.iter().map(rows::id).collect::<Result<Vec<_>, _>>()?);
                    }
                    Ok(ids)
                })
            })
            .await?;
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.truncate(step as usize);
        amended += amend_these(connections, &ids, amendment, filter.route.as_deref()).await?;
        match ids.last() {
            Some(last) if ids.len() == step as usize => filter.before = Some(*last),
            _ => break,
        }
    }
    Ok(amended)
}

/// Amends those of these that are in a state for it, and on `route` if that is given (another host may have moved them
/// on since they were found): at once what belongs to no order, the others one by one.
async fn amend_these(
    connections: &Connections,
    ids: &[MessageId],
    amendment: Amendment,
    route: Option<&str>,
) -> Result<u64, Failure> {
    let ids: Vec<Uuid> = ids.iter().copied().map(uuid).collect();
    let ids = &ids;
    let (mut amended, ordered) = connections
        .call(PATIENCE, |connection| {
            Box::pin(async move {
                let amended = apply(&connection, ids, amendment, route, false).await?;
                Ok((amended, members(&connection, ids, amendment).await?))
            })
        })
        .await?;
    for (id, order) in &ordered {
        amended += connections
            .call(PATIENCE, |connection| {
                Box::pin(async move {
                    connection.begin().await?;
                    order::lock(&connection, &order.route, &order.key, order.place).await?;
                    let amended = apply(&connection, std::slice::from_ref(id), amendment, route, true).await?;
                    order::let_next(&connection, order).await?;
                    connection.commit().await?;
                    Ok(amended)
                })
            })
            .await?;
    }
    Ok(amended)
}

async fn apply(
    connection: &Connection<'_>,
    ids: &[Uuid],
    amendment: Amendment,
    route: Option<&str>,
    in_order: bool,
) -> Result<u64, Failure> {
    let (sql, now) = match amendment {
        Amendment::Redrive { now } => (
            "UPDATE messages SET state = 'queued', due_at = $2, ended_at = NULL, attempts = 0, started_at = NULL,
                 previous_delay_ns = NULL, reauthenticated = false, hops = 0,
                 turn = CASE WHEN turn = 0 AND order_key IS NOT NULL THEN 2 ELSE turn END
             WHERE id = ANY ($1) AND state IN ('answered', 'dead', 'dropped') AND (order_key IS NOT NULL) = $3
               AND ($4::text IS NULL OR route = $4) RETURNING id",
            now,
        ),
        Amendment::Discard { now } => (
            "UPDATE messages SET state = 'discarded', ended_at = $2, turn = 0
             WHERE id = ANY ($1) AND state = 'dead' AND (order_key IS NOT NULL) = $3
               AND ($4::text IS NULL OR route = $4) RETURNING id",
            now,
        ),
        Amendment::DiscardQueued { now } => (
            "UPDATE messages SET state = 'discarded', due_at = NULL, ended_at = $2, turn = 0,
                 reason = CASE reason WHEN '' THEN 'its route was not served' ELSE reason END
             WHERE id = ANY ($1) AND state = 'queued' AND (order_key IS NOT NULL) = $3
               AND ($4::text IS NULL OR route = $4) RETURNING id",
            now,
        ),
    };
    Ok(connection.query(sql, &[&ids, &millis(now), &in_order, &route]).await?.len() as u64)
}

/// Those of these that belong to an order and are in a state to be amended, oldest first.
async fn members(
    connection: &Connection<'_>,
    ids: &[Uuid],
    amendment: Amendment,
) -> Result<Vec<(Uuid, Member)>, Failure> {
    let from: Vec<&str> = amendment.from().iter().map(|state| state.as_str()).collect();
    let found = connection
        .query(
            "SELECT id, order_route, order_key, place FROM messages
             WHERE id = ANY ($1) AND state = ANY ($2) AND order_key IS NOT NULL ORDER BY place",
            &[&ids, &from],
        )
        .await?;
    let mut members = Vec::new();
    for row in &found {
        if let Some(order) = finish::member(row)? {
            members.push((rows::column(row, "id")?, order));
        }
    }
    Ok(members)
}
