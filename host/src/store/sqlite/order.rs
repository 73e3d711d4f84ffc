//! Orders: of the messages that came to a route with the same key, only the first that has not ended may be attempted.

use rusqlite::{Connection, params};

use crate::message::RouteName;
use crate::store::{StoreError, encoding};

/// The turn of a message that joins an order now.
///
/// # Errors
/// [`StoreError`]
pub(super) fn turn_in(connection: &Connection, route: &RouteName, key: &str) -> Result<i64, StoreError> {
    let taken = connection
        .prepare_cached(
            "SELECT 1 FROM messages INDEXED BY messages_in_order
             WHERE order_route = ?1 AND order_key = ?2 AND turn > 0 LIMIT 1",
        )?
        .exists(params![route.as_str(), key])?;
    Ok(if taken { encoding::TURN_BEHIND } else { encoding::TURN_NOW })
}

/// Lets the next message of an order have its turn, unless one has it.
///
/// # Errors
/// [`StoreError`]
pub(super) fn let_next(connection: &Connection, route: &str, key: &str) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE messages SET turn = 1
             WHERE seq = (SELECT min(seq) FROM messages INDEXED BY messages_in_order
                          WHERE order_route = ?1 AND order_key = ?2 AND turn > 0 AND turn = 2)
               AND NOT EXISTS (SELECT 1 FROM messages INDEXED BY messages_in_order
                               WHERE order_route = ?1 AND order_key = ?2 AND turn > 0 AND turn = 1)",
        )?
        .execute(params![route, key])?;
    Ok(())
}
