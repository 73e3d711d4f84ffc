//! Values as the columns hold them, and back. What cannot be read back is [`Failure::Unusable`].

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use super::failure::Failure;
use crate::clock::Timestamp;
use crate::message::{Message, MessageId, Origin, Progress, Request, RouteName};
use crate::store::encoding::{self, timestamp, unreadable};
use crate::store::{ArchiveLine, Summary};

/// A message from `encoding::message_columns`.
///
/// # Errors
/// [`Failure::Unusable`]
pub(super) fn message(row: &Row) -> Result<Message, Failure> {
    let route: &str = column(row, "route")?;
    let method: &str = column(row, "method")?;
    let previous_delay: Option<i64> = column(row, "previous_delay_ns")?;
    Ok(Message {
        id: id(row)?,
        route: RouteName::new(route).map_err(unreadable)?,
        idempotency_key: column::<Option<&str>>(row, "idempotency_key")?.map(plain),
        accepted_at: moment(row, "accepted_at")?,
        progress: Progress {
            attempts: count(row, "attempts")?,
            journal: count(row, "journal")?,
            started_at: moment_or_none(row, "started_at")?,
            previous_delay: previous_delay.map(|nanos| Duration::from_nanos(nanos.unsigned_abs())),
            reauthenticated: column(row, "reauthenticated")?,
            hops: u8::try_from(column::<i64>(row, "hops")?).map_err(unreadable)?,
        },
        request: Arc::new(Request {
            method: Method::from_bytes(method.as_bytes()).map_err(unreadable)?,
            path: plain(column(row, "path")?),
            headers: encoding::decode_headers(column(row, "headers")?)?,
            body: Bytes::from(column::<Vec<u8>>(row, "body")?),
        }),
        origin: Origin { publish: id_or_none(row, "publish")?, original: id_or_none(row, "original")? },
    })
}

/// A line of a list from `encoding::summary_columns`.
///
/// # Errors
/// [`Failure::Unusable`]
pub(super) fn summary(row: &Row) -> Result<Summary, Failure> {
    Ok(Summary {
        id: id(row)?,
        route: column(row, "route")?,
        state: encoding::state(column(row, "state")?)?,
        reason: plain(column(row, "reason")?),
        attempts: count(row, "journal")?,
        method: column(row, "method")?,
        path: plain(column(row, "path")?),
        accepted_at: moment(row, "accepted_at")?,
        due_at: moment_or_none(row, "due_at")?,
        ended_at: moment_or_none(row, "ended_at")?,
        order_key: column::<Option<&str>>(row, "order_key")?.map(plain),
        turn: encoding::turn(column(row, "turn")?),
    })
}

/// A line of the archive from `encoding::archive_columns`.
///
/// # Errors
/// [`Failure::Unusable`]
pub(super) fn archive_line(row: &Row) -> Result<ArchiveLine, Failure> {
    let uid: Uuid = column(row, "uid")?;
    Ok(ArchiveLine {
        id: id(row)?,
        uid: MessageId::from_bytes(uid.into_bytes()),
        route: column(row, "route")?,
        state: encoding::state(column(row, "state")?)?,
        accepted_at: moment(row, "accepted_at")?,
    })
}

/// A column by its name.
///
/// # Errors
/// [`Failure::Unusable`] when it holds something else.
pub(super) fn column<'row, T: FromSql<'row>>(row: &'row Row, name: &str) -> Result<T, Failure> {
    row.try_get(name).map_err(|error| unreadable(error).into())
}

/// The column `id`.
///
/// # Errors
/// [`Failure::Unusable`]
pub(super) fn id(row: &Row) -> Result<MessageId, Failure> {
    Ok(MessageId::from_bytes(column::<Uuid>(row, "id")?.into_bytes()))
}

fn id_or_none(row: &Row, name: &str) -> Result<Option<MessageId>, Failure> {
    Ok(column::<Option<Uuid>>(row, name)?.map(|id| MessageId::from_bytes(id.into_bytes())))
}

/// A message's id as the tables hold it.
pub(super) fn uuid(id: MessageId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

pub(super) fn moment(row: &Row, name: &str) -> Result<Timestamp, Failure> {
    column(row, name).map(timestamp)
}

pub(super) fn moment_or_none(row: &Row, name: &str) -> Result<Option<Timestamp>, Failure> {
    Ok(column::<Option<i64>>(row, name)?.map(timestamp))
}

/// A number of attempts.
pub(super) fn count(row: &Row, name: &str) -> Result<u32, Failure> {
    u32::try_from(column::<i64>(row, name)?).map_err(|error| unreadable(error).into())
}

/// A text as a column can hold it: U+0000 becomes `␀0`, and so that this can be undone `␀` becomes `␀1`.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    if text.contains(['\0', '␀']) {
        Cow::Owned(text.replace('␀', "␀1").replace('\0', "␀0"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The text that a column stands for.
pub(super) fn plain(text: &str) -> String {
    if text.contains('␀') { text.replace("␀0", "\0").replace("␀1", "␀") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_comes_back_as_it_went_and_holds_no_nul(written in "[a01\0␀ü]{0,12}") {
            let kept = text(&written);
            prop_assert!(!kept.contains('\0'));
            prop_assert_eq!(plain(&kept), written);
        }

        #[test]
        fn different_texts_stay_different(one in "[0\0␀]{0,6}", other in "[0\0␀]{0,6}") {
            prop_assert_eq!(text(&one) == text(&other), one == other);
        }
    }
}
