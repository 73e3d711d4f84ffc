//! Removing what need not be kept longer, and giving its space back, a little at a time.

use rusqlite::{Connection, params};

use super::{order, transactions};
use crate::clock::Timestamp;
use crate::store::{Retention, StoreError, encoding};

/// Free pages (of 4 KiB) that stay in the file for the messages to come.
const SPARE_PAGES: i64 = 4096;

/// Pages given back to the file system in one sweep: a few milliseconds' work.
const PAGES_AT_ONCE: i64 = 256;

/// Removes at most `limit` messages, transactions and keys that are past their time, with what belongs to them; holds
/// that have run out go too, uncounted. Answers how many of the former went.
///
/// # Errors
/// [`StoreError`]
pub(super) fn sweep(
    connection: &Connection,
    retention: &Retention,
    now: Timestamp,
    limit: u32,
) -> Result<u64, StoreError> {
    const FINISHED: &str = "SELECT seq FROM messages INDEXED BY messages_finished
        WHERE ended_at IS NOT NULL AND state NOT IN ('answered', 'dead') AND state = ?1 AND ended_at < ?2
        ORDER BY ended_at LIMIT ?3";
    const ASIDE: &str = "SELECT seq FROM messages INDEXED BY messages_aside
        WHERE state IN ('answered', 'dead') AND state = ?1 AND ended_at < ?2 AND route = ?4
        ORDER BY ended_at LIMIT ?3";
    let mut left = limit;
    let cutoff = encoding::before(now, retention.finished);
    for state in ["delivered", "dropped", "discarded"] {
        let mut statement = connection.prepare_cached(FINISHED)?;
        let found = statement.query_map(params![state, cutoff, left], |row| row.get(0))?;
        remove(connection, found, &mut left)?;
    }
    for (route, keep) in &retention.dead {
        for state in ["answered", "dead"] {
            let mut statement = connection.prepare_cached(ASIDE)?;
            let found = statement
                .query_map(params![state, encoding::before(now, *keep), left, route.as_str()], |row| row.get(0))?;
            remove(connection, found, &mut left)?;
        }
    }
    left = left.saturating_sub(transactions::sweep(connection, cutoff, now, left)?);
    let keys = connection
        .prepare_cached(
            "DELETE FROM keys WHERE (route, key) IN
                 (SELECT route, key FROM keys INDEXED BY keys_by_age WHERE keep_until <= ?1 ORDER BY keep_until LIMIT ?2)",
        )?
        .execute(params![encoding::millis(now), left])?;
    left = left.saturating_sub(u32::try_from(keys).unwrap_or(u32::MAX));
    // There are no more holds than destinations.
    connection.prepare_cached("DELETE FROM holds WHERE until <= ?1")?.execute([encoding::millis(now)])?;
    give_space_back(connection)?;
    Ok(u64::from(limit - left))
}

fn remove(
    connection: &Connection,
    found: impl Iterator<Item = rusqlite::Result<i64>>,
    left: &mut u32,
) -> Result<(), StoreError> {
    let found = found.collect::<rusqlite::Result<Vec<_>>>()?;
    for seq in found {
        connection.prepare_cached("DELETE FROM attempts WHERE seq = ?1")?.execute([seq])?;
        connection.prepare_cached("DELETE FROM requests WHERE seq = ?1")?.execute([seq])?;
        let order = connection
            .prepare_cached("DELETE FROM messages WHERE seq = ?1 RETURNING order_route, order_key, turn")?
            .query_row([seq], |row| {
                Ok((row.get::<_, Option<String>>(0)?, row.get::<_, Option<String>>(1)?, row.get(2)?))
            })?;
        // A dead letter that kept its order waiting gives way at last.
        if let (Some(route), Some(key), encoding::TURN_NOW) = order {
            order::let_next(connection, &route, &key)?;
        }
        *left = left.saturating_sub(1);
    }
    Ok(())
}

fn give_space_back(connection: &Connection) -> Result<(), StoreError> {
    let free: i64 = connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    let surplus = (free - SPARE_PAGES).min(PAGES_AT_ONCE);
    if surplus > 0 {
        // Each step of the statement frees one page.
        let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({surplus})"))?;
        let mut steps = statement.query([])?;
        while steps.next()?.is_some() {}
    }
    Ok(())
}
