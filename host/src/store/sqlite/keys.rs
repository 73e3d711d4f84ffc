//! Idempotency keys: who came first, and what they were told.
//!
//! A key is free when there is no row for it, when the row is past its `keep_until`, or when the host that opened it
//! is not the one that asks now: there is only one host at a time, so that one is gone and its caller's connection
//! broke.

use http::StatusCode;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::clock::Timestamp;
use crate::message::{Answer, MessageId};
use crate::store::{KeyClaim, KeyState, StoreError, encoding};

/// Takes a key for a request that is being served, if it is free.
///
/// # Errors
/// [`StoreError`]
pub(super) fn open(connection: &Connection, claim: &KeyClaim, now: Timestamp) -> Result<KeyState, StoreError> {
    match find(connection, claim, now)? {
        Found::Free => write(connection, claim, "opened"),
        Found::Opened(_) => Ok(KeyState::InFlight),
        Found::Used(used) => Ok(used),
    }
}

/// Takes a key for a message that is stored in the same transaction, if it is free or was opened for that message.
///
/// # Errors
/// [`StoreError`]
pub(super) fn store(connection: &Connection, claim: &KeyClaim, now: Timestamp) -> Result<KeyState, StoreError> {
    match find(connection, claim, now)? {
        Found::Free => write(connection, claim, "stored"),
        Found::Opened(message) if message == claim.message => write(connection, claim, "stored"),
        Found::Opened(_) => Ok(KeyState::InFlight),
        Found::Used(used) => Ok(used),
    }
}

/// Writes down the answer given under a key that this message opened (or was stored under since), or gives the key it
/// opened back. Any other key stays as it is: one that is closed late may be another message's by now.
///
/// # Errors
/// [`StoreError`]
pub(super) fn close(connection: &Connection, claim: &KeyClaim, answer: Option<&Answer>) -> Result<(), StoreError> {
    let (route, key, message) = (claim.route.as_str(), &claim.key, claim.message.as_bytes());
    match answer {
        None => connection
            .prepare_cached("DELETE FROM keys WHERE route = ?1 AND key = ?2 AND message = ?3 AND state = 'opened'")?
            .execute(params![route, key, message])?,
        Some(answer) => connection
            .prepare_cached(
                "UPDATE keys SET state = 'answered', answer_status = ?4, answer_headers = ?5, answer_body = ?6
                 WHERE route = ?1 AND key = ?2 AND message = ?3 AND state <> 'answered'",
            )?
            .execute(params![
                route,
                key,
                message,
                answer.status.as_u16(),
                encoding::encode_headers(&answer.headers),
                &answer.body[..]
            ])?,
    };
    Ok(())
}

/// Frees the keys that hosts other than `owner` had opened.
///
/// # Errors
/// [`StoreError`]
pub(super) fn recover(connection: &Connection, owner: &str) -> Result<(), StoreError> {
    connection.execute("DELETE FROM keys WHERE state = 'opened' AND owner <> ?1", [owner])?;
    Ok(())
}

/// What there is under a key.
enum Found {
    Free,
    /// Opened, by the same host and with the same payload, for this message.
    Opened(MessageId),
    Used(KeyState),
}

fn find(connection: &Connection, claim: &KeyClaim, now: Timestamp) -> Result<Found, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT state, owner, fingerprint, message, answer_status, answer_headers, answer_body
         FROM keys WHERE route = ?1 AND key = ?2 AND keep_until > ?3",
    )?;
    let found = statement
        .query_row(params![claim.route.as_str(), claim.key, encoding::millis(now)], |row| Ok(read(row, claim)))
        .optional()?;
    found.unwrap_or(Ok(Found::Free))
}

fn read(row: &Row<'_>, claim: &KeyClaim) -> Result<Found, StoreError> {
    let state: String = row.get(0)?;
    let owner: String = row.get(1)?;
    let fingerprint: [u8; 32] = row.get(2)?;
    let message = MessageId::from_bytes(row.get(3)?);
    Ok(match state.as_str() {
        "opened" if owner != claim.owner.0 => Found::Free,
        _ if fingerprint != claim.fingerprint => Found::Used(KeyState::OtherPayload),
        "opened" => Found::Opened(message),
        "answered" => Found::Used(KeyState::Answered(Answer {
            status: StatusCode::from_u16(row.get(4)?).map_err(encoding::unreadable)?,
            headers: encoding::decode_headers(row.get_ref(5)?.as_blob().map_err(encoding::unreadable)?)?,
            body: row.get::<_, Vec<u8>>(6)?.into(),
        })),
        _ => Found::Used(KeyState::Stored(message)),
    })
}

fn write(connection: &Connection, claim: &KeyClaim, state: &str) -> Result<KeyState, StoreError> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO keys (route, key, fingerprint, message, owner, keep_until, state)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            claim.route.as_str(),
            claim.key,
            claim.fingerprint,
            claim.message.as_bytes(),
            claim.owner.0,
            encoding::millis(claim.keep_until),
            state,
        ])?;
    Ok(KeyState::Fresh)
}
