//! Removing what need not be kept longer, a little at a time. Hosts that sweep at once pass over each other's rows.

use uuid::Uuid;

use super::connections::Connection;
use super::failure::Failure;
use super::{finish, order, rows, transactions};
use crate::clock::Timestamp;
use crate::store::Retention;
use crate::store::encoding::{self, millis};

/// Removes the messages that `$found` names, with what belongs to them. One that has a turn in an order is left.
macro_rules! remove {
    ($found:literal) => {
        concat!(
            "WITH gone AS MATERIALIZED (SELECT id FROM messages WHERE turn = 0 AND ",
            $found,
            " ORDER BY ended_at LIMIT $3 FOR UPDATE SKIP LOCKED),
             a AS (DELETE FROM attempts WHERE id IN (SELECT id FROM gone)),
             r AS (DELETE FROM requests WHERE id IN (SELECT id FROM gone))
             DELETE FROM messages WHERE id IN (SELECT id FROM gone) RETURNING id"
        )
    };
}

const FINISHED: &str = remove!("state IN ('delivered', 'dropped', 'discarded') AND state = $1 AND ended_at < $2");
const ASIDE: &str = remove!("state IN ('answered', 'dead') AND state = $1 AND ended_at < $2 AND route = $4");

/// Removes at most `limit` messages, transactions and keys that are past their time; holds that have run out go too,
/// uncounted. Answers how many of the former went. Each kind goes in a transaction of its own: if one fails, those before it
/// stand.
///
/// # Errors
/// [`Failure`]
pub(super) async fn sweep(
    connection: Connection<'_>,
    retention: &Retention,
    now: Timestamp,
    limit: u32,
) -> Result<u64, Failure> {
    let mut left = i64::from(limit);
    let cutoff = encoding::before(now, retention.finished);
    for state in ["delivered", "dropped", "discarded"] {
        left -= count(connection.query(FINISHED, &[&state, &cutoff, &left]).await?.len());
    }
    for (route, keep) in &retention.dead {
        let cutoff = encoding::before(now, *keep);
        for state in ["answered", "dead"] {
            left -= count(connection.query(ASIDE, &[&state, &cutoff, &left, &route.as_str()]).await?.len());
        }
        left -= remove_from_orders(&connection, route.as_str(), cutoff, left).await?;
    }
    left -= count(transactions::sweep(&connection, cutoff, now, left).await?);
    let keys = connection
        .query(
            "DELETE FROM keys WHERE (route, key) IN
                 (SELECT route, key FROM keys WHERE keep_until <= $1 ORDER BY keep_until LIMIT $2
                  FOR UPDATE SKIP LOCKED)
             RETURNING 1::bigint",
            &[&millis(now), &left],
        )
        .await?;
    left -= count(keys.len());
    // There are no more holds than destinations.
    connection.query("DELETE FROM holds WHERE until <= $1", &[&millis(now)]).await?;
    Ok((i64::from(limit) - left).unsigned_abs())
}

/// Removes dead letters that keep their orders waiting; these give way at last. One at a time: each order is locked.
async fn remove_from_orders(connection: &Connection<'_>, route: &str, cutoff: i64, limit: i64) -> Result<i64, Failure> {
    const FOUND: &str = "SELECT id, order_route, order_key, place FROM messages
        WHERE state IN ('answered', 'dead') AND state = 'dead' AND route = $1 AND ended_at < $2 AND turn > 0
        ORDER BY ended_at LIMIT $3";
    const REMOVE: &str = "WITH gone AS (DELETE FROM messages WHERE id = $1 AND state = 'dead' RETURNING id),
        a AS (DELETE FROM attempts WHERE id IN (SELECT id FROM gone)),
        r AS (DELETE FROM requests WHERE id IN (SELECT id FROM gone))
        SELECT id FROM gone";
    let mut removed = 0;
    for row in connection.query(FOUND, &[&route, &cutoff, &limit]).await? {
        let (id, order): (Uuid, _) = (rows::column(&row, "id")?, finish::member(&row)?);
        let Some(order) = order else { continue };
        connection.begin().await?;
        order::lock(connection, &order.route, &order.key, order.place).await?;
        removed += count(connection.query(REMOVE, &[&id]).await?.len());
        order::let_next(connection, &order).await?;
        connection.commit().await?;
    }
    Ok(removed)
}

fn count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
