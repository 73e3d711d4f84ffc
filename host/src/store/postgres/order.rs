//! Orders: of the messages that came to a route with the same key, only the first that has not ended may be attempted.
//!
//! Hosts change the same order at the same time. Whoever does locks the order's row first, and only then looks at its
//! messages and changes them; so each sees what the others did. The row goes with the last message of the order.

use super::connections::Connection;
use super::failure::Failure;
use super::rows;
use crate::clock::Timestamp;
use crate::message::RouteName;
use crate::store::encoding;

/// A message's membership in an order.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) route: String,
    /// The key, as the column holds it.
    pub(super) key: String,
    pub(super) place: i64,
}

/// The place of a message that came then, unless others that are before it have a later one.
pub(super) fn earliest_place(accepted_at: Timestamp) -> i64 {
    encoding::millis(accepted_at).saturating_mul(1024)
}

/// Locks an order until the transaction ends, and gives out its next place, which is `least` or later.
///
/// # Errors
/// [`Failure`]
pub(super) async fn lock(connection: &Connection<'_>, route: &str, key: &str, least: i64) -> Result<i64, Failure> {
    let row = connection
        .query_opt(
            "INSERT INTO orders AS o (route, key, last) VALUES ($1, $2, $3)
             ON CONFLICT (route, key) DO UPDATE SET last = greatest(o.last + 1, excluded.last) RETURNING last",
            &[&route, &key, &least],
        )
        .await?;
    row.map_or(Ok(least), |row| rows::column(&row, "last"))
}

/// Joins a message to an order: its place and its turn. The order stays locked until the transaction ends.
///
/// # Errors
/// [`Failure`]
pub(super) async fn join(
    connection: &Connection<'_>,
    route: &RouteName,
    key: &str,
    accepted_at: Timestamp,
) -> Result<(i64, i64), Failure> {
    let place = lock(connection, route.as_str(), key, earliest_place(accepted_at)).await?;
    let taken = connection
        .query_opt(
            "SELECT 1::bigint AS one FROM messages WHERE order_route = $1 AND order_key = $2 AND turn > 0 LIMIT 1",
            &[&route.as_str(), &key],
        )
        .await?;
    Ok((place, if taken.is_some() { encoding::TURN_BEHIND } else { encoding::TURN_NOW }))
}

/// Lets the next message of a locked order have its turn, unless one has it. The row of an order without messages goes.
///
/// # Errors
/// [`Failure`]
pub(super) async fn let_next(connection: &Connection<'_>, order: &Member) -> Result<(), Failure> {
    let next = connection
        .query(
            "UPDATE messages SET turn = 1
             WHERE id = (SELECT id FROM messages WHERE order_route = $1 AND order_key = $2 AND turn = 2
                         ORDER BY place LIMIT 1)
               AND NOT EXISTS (SELECT 1 FROM messages WHERE order_route = $1 AND order_key = $2 AND turn = 1)
             RETURNING id",
            &[&order.route, &order.key],
        )
        .await?;
    if next.is_empty() {
        connection
            .query(
                "DELETE FROM orders WHERE route = $1 AND key = $2
                   AND NOT EXISTS (SELECT 1 FROM messages WHERE order_route = $1 AND order_key = $2 AND turn > 0)",
                &[&order.route, &order.key],
            )
            .await?;
    }
    Ok(())
}
