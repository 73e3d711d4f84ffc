//! Idempotency keys: who came first, and what they were told.
//!
//! A key is free when there is no row for it, when the row is past its `keep_until`, or when another host opened it and
//! its `opened_until` is over: that host is gone, or has long answered. Taking a key is one statement on one row, so of
//! many that come at once, on whatever hosts, one finds it free.

use http::StatusCode;

use super::connections::Connection;
use super::failure::Failure;
use super::rows::{self, text, uuid};
use crate::clock::Timestamp;
use crate::message::{Answer, MessageId};
use crate::store::encoding::{self, millis, unreadable};
use crate::store::{KeyClaim, KeyState};

/// How often a key is looked at again that was taken, and when looked at was free.
const LOOKS: u32 = 3;

macro_rules! take {
    ($state:literal, $or:literal) => {
        concat!(
            "INSERT INTO keys AS k (route, key, fingerprint, message, owner, opened_until, keep_until, state)
             VALUES ($1, $2, $3, $4, $5, $6, $7, '",
            $state,
            "')
             ON CONFLICT (route, key) DO UPDATE SET fingerprint = excluded.fingerprint, message = excluded.message,
                 owner = excluded.owner, opened_until = excluded.opened_until, keep_until = excluded.keep_until,
                 state = excluded.state, answer_status = NULL, answer_headers = NULL, answer_body = NULL
             WHERE k.keep_until <= $8
                OR (k.state = 'opened' AND k.owner <> excluded.owner AND k.opened_until <= $8)",
            $or,
            " RETURNING true AS taken"
        )
    };
}

const OPEN: &str = take!("opened", "");
const STORE: &str = take!(
    "stored",
    " OR (k.state = 'opened' AND k.owner = excluded.owner AND k.message = excluded.message
          AND k.fingerprint = excluded.fingerprint)"
);

/// Takes a key for a request that is being served, if it is free.
///
/// # Errors
/// [`Failure`]
pub(super) async fn open(connection: Connection<'_>, claim: &KeyClaim, now: Timestamp) -> Result<KeyState, Failure> {
    take(&connection, OPEN, claim, claim.message, now).await
}

/// Takes a key for a message that is stored in the same transaction, if it is free or was opened for that message.
///
/// # Errors
/// [`Failure`]
pub(super) async fn store(
    connection: &Connection<'_>,
    claim: &KeyClaim,
    message: MessageId,
    now: Timestamp,
) -> Result<KeyState, Failure> {
    take(connection, STORE, claim, message, now).await
}

async fn take(
    connection: &Connection<'_>,
    sql: &'static str,
    claim: &KeyClaim,
    message: MessageId,
    now: Timestamp,
) -> Result<KeyState, Failure> {
    for _ in 0..LOOKS {
        let taken = connection
            .query_opt(
                sql,
                &[
                    &claim.route.as_str(),
                    &text(&claim.key),
                    &&claim.fingerprint[..],
                    &uuid(message),
                    &claim.owner.0,
                    &millis(claim.opened_until),
                    &millis(claim.keep_until),
                    &millis(now),
                ],
            )
            .await?;
        if taken.is_some() {
            return Ok(KeyState::Fresh);
        }
        if let Some(known) = find(connection, claim).await? {
            return Ok(known);
        }
        // It was given back in between.
    }
    Ok(KeyState::InFlight)
}

/// What is known of a key that was just found not to be free. One that was given back since counts as in flight: its
/// caller comes again.
///
/// # Errors
/// [`Failure`]
pub(super) async fn look(connection: &Connection<'_>, claim: &KeyClaim) -> Result<KeyState, Failure> {
    Ok(find(connection, claim).await?.unwrap_or(KeyState::InFlight))
}

async fn find(connection: &Connection<'_>, claim: &KeyClaim) -> Result<Option<KeyState>, Failure> {
    let found = connection
        .query_opt(
            "SELECT state, fingerprint, message AS id, answer_status, answer_headers, answer_body
             FROM keys WHERE route = $1 AND key = $2",
            &[&claim.route.as_str(), &text(&claim.key)],
        )
        .await?;
    let Some(row) = found else { return Ok(None) };
    let state: &str = rows::column(&row, "state")?;
    let fingerprint: &[u8] = rows::column(&row, "fingerprint")?;
    Ok(Some(match state {
        _ if fingerprint != claim.fingerprint => KeyState::OtherPayload,
        "opened" => KeyState::InFlight,
        "answered" => KeyState::Answered(Answer {
            status: u16::try_from(rows::column::<i64>(&row, "answer_status")?)
                .map_err(unreadable)
                .and_then(|status| StatusCode::from_u16(status).map_err(unreadable))?,
            headers: encoding::decode_headers(rows::column(&row, "answer_headers")?)?,
            body: rows::column::<Vec<u8>>(&row, "answer_body")?.into(),
        }),
        _ => KeyState::Stored(rows::id(&row)?),
    }))
}

/// Writes down the answer given under a key that this message opened (or was stored under since), or gives the key it
/// opened back. Any other key stays as it is: one that is closed late may be another message's by now.
///
/// # Errors
/// [`Failure`]
pub(super) async fn close(
    connection: Connection<'_>,
    claim: &KeyClaim,
    answer: Option<&Answer>,
) -> Result<(), Failure> {
    let (route, key, message) = (claim.route.as_str(), text(&claim.key), uuid(claim.message));
    match answer {
        None => {
            connection
                .query(
                    "DELETE FROM keys WHERE route = $1 AND key = $2 AND message = $3 AND state = 'opened'",
                    &[&route, &key, &message],
                )
                .await?;
        }
        Some(answer) => {
            connection
                .query(
                    "UPDATE keys SET state = 'answered', answer_status = $4, answer_headers = $5, answer_body = $6
                     WHERE route = $1 AND key = $2 AND message = $3 AND state <> 'answered'",
                    &[
                        &route,
                        &key,
                        &message,
                        &i64::from(answer.status.as_u16()),
                        &encoding::encode_headers(&answer.headers),
                        &&answer.body[..],
                    ],
                )
                .await?;
        }
    }
    Ok(())
}
