//! Reading: a message, how many there are, the holds.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::connections::Connection;
use super::failure::Failure;
use super::rows::{self, uuid};
use super::transactions;
use crate::clock::Timestamp;
use crate::message::{MessageId, State};
use crate::store::encoding::{self, millis};
use crate::store::{Blocker, Hold, Stored};

/// A message and its journal, as they were at one moment.
///
/// # Errors
/// [`Failure`]
pub(super) async fn message(connection: Connection<'_>, id: MessageId) -> Result<Option<Stored>, Failure> {
    const MESSAGE: &str = concat!(
        "SELECT m.state, m.reason, m.due_at, m.ended_at, m.order_key, m.turn, b.id AS blocker, b.state AS blocker_state,
             array(SELECT record FROM attempts AS a WHERE a.id = m.id ORDER BY ordinal) AS records, ",
        encoding::message_columns!(),
        " FROM messages AS m LEFT JOIN requests AS r ON r.id = m.id
             LEFT JOIN messages AS b
             ON m.turn = 2 AND b.order_route = m.order_route AND b.order_key = m.order_key AND b.turn = 1
          WHERE m.id = $1"
    );
    let Some(row) = connection.query_opt(MESSAGE, &[&uuid(id)]).await? else { return Ok(None) };
    let records: Vec<&str> = rows::column(&row, "records")?;
    let blocker: Option<Uuid> = rows::column(&row, "blocker")?;
    let blocker_state: Option<&str> = rows::column(&row, "blocker_state")?;
    Ok(Some(Stored {
        message: rows::message(&row)?,
        summary: rows::summary(&row)?,
        attempts: records.into_iter().map(encoding::decode_attempt).collect::<Result<_, _>>()?,
        blocked_by: match blocker.zip(blocker_state) {
            Some((id, state)) => {
                Some(Blocker { id: MessageId::from_bytes(id.into_bytes()), state: encoding::state(state)? })
            }
            None => None,
        },
    }))
}

/// How many messages there are, by route and state. Walks over all of them.
///
/// # Errors
/// [`Failure`]
pub(super) async fn tally(connection: Connection<'_>) -> Result<BTreeMap<(String, State), u64>, Failure> {
    let rows = count(&connection, "SELECT route, state, count(*) AS messages FROM messages GROUP BY route, state");
    let mut tally = BTreeMap::new();
    for row in rows.await? {
        let state = encoding::state(rows::column(&row, "state")?)?;
        tally.insert((rows::column(&row, "route")?, state), rows::column::<i64>(&row, "messages")?.unsigned_abs());
    }
    Ok(tally)
}

/// How many messages have not ended, by route, open transactions counted in. Walks over those.
///
/// # Errors
/// [`Failure`]
pub(super) async fn backlog(connection: Connection<'_>) -> Result<BTreeMap<String, u64>, Failure> {
    const BACKLOG: &str = "SELECT route, count(*) AS messages FROM (
            SELECT route FROM messages WHERE state = 'queued'
            UNION ALL SELECT route FROM messages WHERE state = 'in_flight') AS open GROUP BY route";
    let mut backlog = BTreeMap::new();
    for row in count(&connection, BACKLOG).await? {
        backlog.insert(rows::column(&row, "route")?, rows::column::<i64>(&row, "messages")?.unsigned_abs());
    }
    for ((route, _), count) in transactions::count_open(&connection).await? {
        *backlog.entry(route).or_default() += count;
    }
    Ok(backlog)
}

/// Runs a statement for which walking over a whole table may be the best way.
async fn count(connection: &Connection<'_>, sql: &'static str) -> Result<Vec<tokio_postgres::Row>, Failure> {
    connection.begin().await?;
    connection.run("SET LOCAL enable_seqscan = on").await?;
    let rows = connection.query(sql, &[]).await?;
    connection.commit().await?;
    Ok(rows)
}

/// Holds that have not run out.
///
/// # Errors
/// [`Failure`]
pub(super) async fn holds(connection: Connection<'_>, now: Timestamp) -> Result<Vec<Hold>, Failure> {
    let holds = connection
        .query("SELECT destination, until FROM holds WHERE until > $1 ORDER BY destination", &[&millis(now)])
        .await?;
    let hold = |row| -> Result<Hold, Failure> {
        Ok(Hold { destination: rows::column(row, "destination")?, until: rows::moment(row, "until")? })
    };
    holds.iter().map(hold).collect()
}
