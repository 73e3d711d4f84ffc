//! Values as the tables hold them, and back. What cannot be read back is [`StoreError::Unusable`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use rusqlite::Row;

use crate::message::{Message, MessageId, Origin, Progress, Request, RouteName};
use crate::store::encoding::{decode_headers, state, timestamp, turn, unreadable};
use crate::store::{ArchiveLine, StoreError, Summary};

/// A message from `encoding::message_columns`.
pub(super) fn message(row: &Row<'_>) -> Result<Message, StoreError> {
    let route: String = row.get(1)?;
    let method: String = row.get(10)?;
    let headers = decode_headers(row.get_ref(12)?.as_blob().map_err(unreadable)?)?;
    Ok(Message {
        id: MessageId::from_bytes(row.get(0)?),
        route: RouteName::new(&route).map_err(unreadable)?,
        idempotency_key: row.get(2)?,
        accepted_at: timestamp(row.get(3)?),
        progress: Progress {
            attempts: row.get(4)?,
            journal: row.get(5)?,
            started_at: row.get::<_, Option<i64>>(6)?.map(timestamp),
            previous_delay: row.get::<_, Option<i64>>(7)?.map(|nanos| Duration::from_nanos(nanos.unsigned_abs())),
            reauthenticated: row.get(8)?,
            hops: row.get(9)?,
        },
        request: Arc::new(Request {
            method: Method::from_bytes(method.as_bytes()).map_err(unreadable)?,
            path: row.get(11)?,
            headers,
            body: Bytes::from(row.get::<_, Vec<u8>>(13)?),
        }),
        origin: Origin {
            publish: row.get::<_, Option<[u8; 16]>>(14)?.map(MessageId::from_bytes),
            original: row.get::<_, Option<[u8; 16]>>(15)?.map(MessageId::from_bytes),
        },
    })
}

/// A line of a list from `encoding::summary_columns`.
pub(super) fn summary(row: &Row<'_>) -> Result<Summary, StoreError> {
    Ok(Summary {
        id: MessageId::from_bytes(row.get(0)?),
        route: row.get(1)?,
        state: state(row.get_ref(2)?.as_str().map_err(unreadable)?)?,
        reason: row.get(3)?,
        attempts: row.get(4)?,
        method: row.get(5)?,
        path: row.get(6)?,
        accepted_at: timestamp(row.get(7)?),
        due_at: row.get::<_, Option<i64>>(8)?.map(timestamp),
        ended_at: row.get::<_, Option<i64>>(9)?.map(timestamp),
        order_key: row.get(10)?,
        turn: turn(row.get(11)?),
    })
}

/// A line of the archive from `encoding::archive_columns`.
pub(super) fn archive_line(row: &Row<'_>) -> Result<ArchiveLine, StoreError> {
    Ok(ArchiveLine {
        id: MessageId::from_bytes(row.get(0)?),
        uid: MessageId::from_bytes(row.get(1)?),
        route: row.get(2)?,
        state: state(row.get_ref(3)?.as_str().map_err(unreadable)?)?,
        accepted_at: timestamp(row.get(4)?),
    })
}
