//! Finding messages that fit a filter, to list them or to amend them.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{order, rows};
use crate::message::{MessageId, State};
use crate::store::selecting::{Amendment, STEP, page};
use crate::store::{ArchiveLine, Filter, Selection, StoreError, Summary, encoding};

/// Greater than every id, which has 16 bytes.
const BEYOND_IDS: [u8; 17] = [0xff; 17];

/// Messages that fit, newest first.
///
/// # Errors
/// [`StoreError`]
pub(super) fn list(connection: &Connection, filter: &Filter) -> Result<Vec<Summary>, StoreError> {
    let limit = page(filter);
    let mut found = Vec::new();
    if filter.states.is_empty() {
        found = select(connection, None, filter, limit, rows::summary)?;
    } else {
        // One walk along the ids for each state, then merged: each walk is bounded by the limit.
        for state in filter.states.iter().collect::<BTreeSet<_>>() {
            found.append(&mut select(connection, Some(*state), filter, limit, rows::summary)?);
        }
        found.sort_unstable_by_key(|summary: &Summary| std::cmp::Reverse(summary.id));
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    Ok(found)
}

/// The archive's lines after this message (none: from the first), oldest first, at most so many.
///
/// # Errors
/// [`StoreError`]
pub(super) fn archived(
    connection: &Connection,
    after: Option<MessageId>,
    limit: u32,
) -> Result<Vec<ArchiveLine>, StoreError> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        encoding::archive_columns!(),
        " FROM messages WHERE id > ?1 ORDER BY id LIMIT ?2"
    ))?;
    let after = after.as_ref().map_or(&[][..], |id| id.as_bytes());
    let mut found = statement.query(params![after, limit])?;
    let mut lines = Vec::new();
    while let Some(row) = found.next()? {
        lines.push(rows::archive_line(row)?);
    }
    Ok(lines)
}

/// At most `limit` messages in `state` (none: in any) that fit the filter otherwise, newest first.
fn select<T>(
    connection: &Connection,
    state: Option<State>,
    filter: &Filter,
    limit: u32,
    read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    macro_rules! query {
        ($which:literal) => {
            concat!(
                "SELECT ",
                encoding::summary_columns!(),
                " FROM messages m ",
                $which,
                " AND m.id < ?1 AND (?2 IS NULL OR m.route = ?2) AND (?3 IS NULL OR instr(m.reason, ?3) > 0)
                 ORDER BY m.id DESC LIMIT ?4"
            )
        };
    }
    // Along the ids, or along the index in which every state but the most frequent has its own ids in order; those in
    // flight are few, and sorted.
    let sql = match state {
        None => query!("JOIN requests r ON r.seq = m.seq WHERE ?5 IS NULL"),
        Some(State::Delivered) => query!("JOIN requests r ON r.seq = m.seq WHERE +m.state = ?5"),
        Some(State::InFlight) => query!(
            "INDEXED BY messages_leased JOIN requests r ON r.seq = m.seq WHERE m.state = 'in_flight' AND m.state = ?5"
        ),
        Some(_) => query!(
            "INDEXED BY messages_by_state JOIN requests r ON r.seq = m.seq
             WHERE m.state NOT IN ('delivered', 'in_flight') AND m.state = ?5"
        ),
    };
    let before = filter.before.as_ref().map_or(&BEYOND_IDS[..], |id| id.as_bytes());
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![before, filter.route, filter.reason, limit, state.map(State::as_str)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// Amends one message; answers whether it was in a state for that.
fn apply(amendment: Amendment, connection: &Connection, id: MessageId) -> Result<bool, StoreError> {
    // What is redriven joins its order again, before those that came after it, unless it never left.
    let (sql, now) = match amendment {
        Amendment::Redrive { now } => (
            "UPDATE messages SET state = 'queued', due_at = ?2, ended_at = NULL, attempts = 0, started_at = NULL,
                 previous_delay_ns = NULL, reauthenticated = 0, hops = 0,
                 turn = CASE WHEN turn = 0 AND order_key IS NOT NULL THEN 2 ELSE turn END
             WHERE id = ?1 AND state IN ('answered', 'dead', 'dropped') RETURNING order_route, order_key",
            now,
        ),
        Amendment::Discard { now } => (
            "UPDATE messages SET state = 'discarded', ended_at = ?2, turn = 0 WHERE id = ?1 AND state = 'dead'
             RETURNING order_route, order_key",
            now,
        ),
        Amendment::DiscardQueued { now } => (
            "UPDATE messages SET state = 'discarded', due_at = NULL, ended_at = ?2, turn = 0,
                 reason = CASE reason WHEN '' THEN 'its route was not served' ELSE reason END
             WHERE id = ?1 AND state = 'queued' RETURNING order_route, order_key",
            now,
        ),
    };
    let amended = connection
        .prepare_cached(sql)?
        .query_row(params![id.as_bytes(), encoding::millis(now)], |row| {
            Ok((row.get::<_, Option<String>>(0)?, row.get::<_, Option<String>>(1)?))
        })
        .optional()?;
    if let Some((Some(route), Some(key))) = &amended {
        order::let_next(connection, route, key)?;
    }
    Ok(amended.is_some())
}

/// What of a selection is still to be amended.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    selection: Selection,
    /// How many more may be; none means any number.
    left: Option<u32>,
}

impl Cursor {
    /// The whole selection.
    pub(super) fn new(selection: Selection) -> Self {
        let left = match &selection {
            Selection::Matching(filter) if filter.limit > 0 => Some(filter.limit),
            _ => None,
        };
        Self { selection, left }
    }
}

/// What one step did.
#[derive(Debug)]
pub(super) struct Amended {
    /// Messages amended.
    pub(super) amended: u64,
    /// What is left to do.
    pub(super) rest: Option<Cursor>,
}

/// Amends the next few messages of a selection.
///
/// # Errors
/// [`StoreError`]
pub(super) fn amend(connection: &Connection, cursor: Cursor, amendment: Amendment) -> Result<Amended, StoreError> {
    let Cursor { selection, left } = cursor;
    let (ids, rest) = match selection {
        Selection::Ids(mut ids) => {
            let later = ids.split_off(ids.len().min(STEP as usize));
            (ids, (!later.is_empty()).then_some(Selection::Ids(later)))
        }
        Selection::Matching(filter) => next_matching(connection, filter, left, amendment)?,
    };
    let mut amended: u32 = 0;
    for id in ids {
        amended += u32::from(apply(amendment, connection, id)?);
    }
    let left = left.map(|left| left.saturating_sub(amended));
    let rest = rest.filter(|_| left != Some(0)).map(|selection| Cursor { selection, left });
    Ok(Amended { amended: amended.into(), rest })
}

/// The next few messages that fit and may be amended, newest first, and the filter for those after them. A message
/// that comes to fit meanwhile is newer or is met on the way; the walk goes one way only, so it ends.
fn next_matching(
    connection: &Connection,
    filter: Filter,
    left: Option<u32>,
    amendment: Amendment,
) -> Result<(Vec<MessageId>, Option<Selection>), StoreError> {
    let limit = left.map_or(STEP, |left| left.min(STEP));
    let states: BTreeSet<State> = amendment
        .from()
        .iter()
        .copied()
        .filter(|state| filter.states.is_empty() || filter.states.contains(state))
        .collect();
    let mut ids: Vec<MessageId> = Vec::new();
    for state in states {
        ids.append(&mut select(connection, Some(state), &filter, limit, |row| Ok(MessageId::from_bytes(row.get(0)?)))?);
    }
    ids.sort_unstable_by(|a, b| b.cmp(a));
    ids.truncate(limit as usize);
    let rest = match ids.last() {
        Some(last) if ids.len() == limit as usize => {
            Some(Selection::Matching(Filter { before: Some(*last), ..filter }))
        }
        _ => None,
    };
    Ok((ids, rest))
}
