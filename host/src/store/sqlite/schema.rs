//! What the file holds, and how an older file is brought up to date.
//!
//! The file is marked by its `application_id`; `user_version` counts the migrations it has been through. A migration
//! once released is never edited: the next change is a further entry in [`MIGRATIONS`].
//!
//! # The stored format
//!
//! Moments are milliseconds since the Unix epoch; states are [`crate::message::State::as_str`].
//!
//! - `messages`: one short row for each message, rewritten at every step of its life. `seq` orders them as they were
//!   stored. `due_at` stands until the message ends (a released message keeps its turn); `lease_*` are set exactly
//!   while it is in flight, `ended_at` exactly when it has ended: the table checks this itself.
//!   `previous_delay_ns` is in nanoseconds. A message with an `order_key` belongs to the order of that key on
//!   `order_route`, the route it came to: `turn` is 1 while it is the one that may be attempted (or, dead, keeps the
//!   others waiting), 2 while it is behind another, 0 in no order or out of it. In each order at most one message has
//!   turn 1, and if any is behind, one has.
//! - `requests`: the long part, never rewritten, so that finishing a message does not write its body again. `headers`
//!   is a sequence of fields, each: one byte of flags (1 = sensitive), the length of the name (2 bytes, big-endian),
//!   the length of the value (4 bytes, big-endian), name, value. Values are bytes.
//! - `attempts`: the journal. `ordinal` counts from 1; `record` is the JSON of a
//!   [`crate::message::AttemptRecord`]. (Its own `number` may repeat: 0 stands for a question asked before an
//!   attempt, and is asked again after a redrive.)
//! - `keys`: idempotency keys. `state` is `opened` (by `owner`, which is serving the request), `answered` (then
//!   `answer_*` are set) or `stored` (then the caller was given `message`).
//! - `holds`: until when each destination is to be left alone.
//!
//! # Indexes
//!
//! Each is partial, so that a message that was delivered, as nearly all are, costs as little as possible: claiming
//! looks at `messages_due` and `messages_leased` alone and costs the same whatever else is in the file; listing by
//! state walks `messages_by_state`, newest first, except for delivered messages, which are found along their ids, and
//! those in flight, of which there are few and which are found along their leases;
//! sweeping walks `messages_finished` or `messages_aside`, oldest first. A tally is the one question that walks over
//! every message, and it reads indexes only: counters kept by triggers were tried, and cost a third of the rate at
//! which messages go through. Statements name their index, so a changed
//! plan is an error and not a slow day.

use rusqlite::{Connection, TransactionBehavior};

use crate::store::StoreError;

/// Marks a Backstop store: "BSTP".
pub(super) const APPLICATION_ID: i32 = 0x4253_5450;

/// How a file comes from each version to the next.
const MIGRATIONS: &[&str] = &[FIRST, ORDERS, FEWER_ENTRIES, NO_LISTS];

const FIRST: &str = "
CREATE TABLE messages (
    seq               INTEGER PRIMARY KEY,
    id                BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    route             TEXT NOT NULL,
    state             TEXT NOT NULL,
    due_at            INTEGER,
    lease_owner       TEXT,
    lease_until       INTEGER,
    accepted_at       INTEGER NOT NULL,
    ended_at          INTEGER,
    reason            TEXT NOT NULL,
    idempotency_key   TEXT,
    attempts          INTEGER NOT NULL,
    journal           INTEGER NOT NULL,
    started_at        INTEGER,
    previous_delay_ns INTEGER,
    reauthenticated   INTEGER NOT NULL,
    hops              INTEGER NOT NULL,
    CHECK (state IN ('queued', 'in_flight', 'delivered', 'answered', 'dead', 'dropped', 'discarded')),
    CHECK ((state IN ('queued', 'in_flight')) = (due_at IS NOT NULL)),
    CHECK ((state IN ('queued', 'in_flight')) = (ended_at IS NULL)),
    CHECK ((state = 'in_flight') = (lease_owner IS NOT NULL)),
    CHECK ((state = 'in_flight') = (lease_until IS NOT NULL))
) STRICT;

CREATE INDEX messages_due      ON messages (route, due_at)           WHERE state = 'queued';
CREATE INDEX messages_leased   ON messages (route, lease_until)      WHERE state = 'in_flight';
CREATE INDEX messages_by_state ON messages (state, id, route)        WHERE state <> 'delivered';
CREATE INDEX messages_finished ON messages (state, ended_at, route) WHERE state IN ('delivered', 'dropped', 'discarded');
CREATE INDEX messages_aside    ON messages (state, route, ended_at)  WHERE state IN ('answered', 'dead');

CREATE TABLE requests (
    seq     INTEGER PRIMARY KEY,
    method  TEXT NOT NULL,
    path    TEXT NOT NULL,
    headers BLOB NOT NULL,
    body    BLOB NOT NULL
) STRICT;

CREATE TABLE attempts (
    seq     INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    record  TEXT NOT NULL,
    PRIMARY KEY (seq, ordinal)
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
    route          TEXT NOT NULL,
    key            TEXT NOT NULL,
    fingerprint    BLOB NOT NULL CHECK (length(fingerprint) = 32),
    message        BLOB NOT NULL CHECK (length(message) = 16),
    owner          TEXT NOT NULL,
    keep_until     INTEGER NOT NULL,
    state          TEXT NOT NULL CHECK (state IN ('opened', 'answered', 'stored')),
    answer_status  INTEGER,
    answer_headers BLOB,
    answer_body    BLOB,
    PRIMARY KEY (route, key),
    CHECK ((state = 'answered') = (answer_status IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX keys_by_age ON keys (keep_until);

CREATE TABLE holds (
    destination TEXT PRIMARY KEY,
    until       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Orders by key, and retries that can be told from first attempts.
const ORDERS: &str = "
ALTER TABLE messages ADD COLUMN order_route TEXT;
ALTER TABLE messages ADD COLUMN order_key TEXT;
ALTER TABLE messages ADD COLUMN turn INTEGER NOT NULL DEFAULT 0
    CHECK (turn BETWEEN 0 AND 2 AND (turn = 0 OR order_key IS NOT NULL) AND (turn <> 2 OR state = 'queued'));

DROP INDEX messages_due;
CREATE INDEX messages_due      ON messages (route, (attempts > 0), due_at) WHERE state = 'queued' AND turn < 2;
CREATE INDEX messages_in_order ON messages (order_route, order_key, turn, seq) WHERE turn > 0;
";

/// A message on its way is found along its lease, so that one that is delivered at once never enters the index by state.
const FEWER_ENTRIES: &str = "
DROP INDEX messages_by_state;
CREATE INDEX messages_by_state ON messages (state, id, route) WHERE state NOT IN ('delivered', 'in_flight');
";

/// The same rules without a list of more than two values: SQLite builds a temporary tree of such a list each time a row
/// is written. A table's own rules cannot be changed, so its rows move to a new one.
const NO_LISTS: &str = "
CREATE TABLE moved (
    seq               INTEGER PRIMARY KEY,
    id                BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    route             TEXT NOT NULL,
    state             TEXT NOT NULL,
    due_at            INTEGER,
    lease_owner       TEXT,
    lease_until       INTEGER,
    accepted_at       INTEGER NOT NULL,
    ended_at          INTEGER,
    reason            TEXT NOT NULL,
    idempotency_key   TEXT,
    attempts          INTEGER NOT NULL,
    journal           INTEGER NOT NULL,
    started_at        INTEGER,
    previous_delay_ns INTEGER,
    reauthenticated   INTEGER NOT NULL,
    hops              INTEGER NOT NULL,
    order_route       TEXT,
    order_key         TEXT,
    turn              INTEGER NOT NULL DEFAULT 0,
    CHECK (state = 'in_flight' OR state = 'delivered' OR state = 'queued' OR state = 'answered' OR state = 'dead'
           OR state = 'dropped' OR state = 'discarded'),
    CHECK ((state = 'queued' OR state = 'in_flight') = (due_at IS NOT NULL)),
    CHECK ((due_at IS NULL) = (ended_at IS NOT NULL)),
    CHECK ((state = 'in_flight') = (lease_owner IS NOT NULL)),
    CHECK ((state = 'in_flight') = (lease_until IS NOT NULL)),
    CHECK (turn BETWEEN 0 AND 2 AND (turn = 0 OR order_key IS NOT NULL) AND (turn <> 2 OR state = 'queued'))
) STRICT;
INSERT INTO moved (seq, id, route, state, due_at, lease_owner, lease_until, accepted_at, ended_at, reason,
                   idempotency_key, attempts, journal, started_at, previous_delay_ns, reauthenticated, hops,
                   order_route, order_key, turn)
    SELECT seq, id, route, state, due_at, lease_owner, lease_until, accepted_at, ended_at, reason,
           idempotency_key, attempts, journal, started_at, previous_delay_ns, reauthenticated, hops,
           order_route, order_key, turn FROM messages;
DROP TABLE messages;
ALTER TABLE moved RENAME TO messages;

CREATE INDEX messages_due      ON messages (route, (attempts > 0), due_at) WHERE state = 'queued' AND turn < 2;
CREATE INDEX messages_in_order ON messages (order_route, order_key, turn, seq) WHERE turn > 0;
CREATE INDEX messages_leased   ON messages (route, lease_until) WHERE state = 'in_flight';
CREATE INDEX messages_by_state ON messages (state, id, route) WHERE state NOT IN ('delivered', 'in_flight');
CREATE INDEX messages_finished ON messages (state, ended_at, route)
    WHERE ended_at IS NOT NULL AND state NOT IN ('answered', 'dead');
CREATE INDEX messages_aside    ON messages (state, route, ended_at) WHERE state IN ('answered', 'dead');
";

/// Makes sure the file is a Backstop store of this version, migrating an older one and filling an empty one.
///
/// # Errors
/// [`StoreError::Unusable`] when it is another program's, damaged, or of a newer version.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), StoreError> {
    // The one write lock is held from the look to the last migration.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = version(&transaction)?;
    let pending = MIGRATIONS.get(version..).unwrap_or_default();
    for migration in pending {
        transaction.execute_batch(migration)?;
    }
    if !pending.is_empty() {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX))?;
    }
    Ok(transaction.commit()?)
}

/// How many migrations the file has been through. Changes nothing.
///
/// # Errors
/// As [`prepare`].
pub(super) fn version(connection: &Connection) -> Result<usize, StoreError> {
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let objects: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, usize::try_from(version).ok()) {
        (0, Some(0)) if objects == 0 => Ok(0),
        (APPLICATION_ID, Some(version)) if version <= MIGRATIONS.len() => Ok(version),
        (APPLICATION_ID, _) => Err(StoreError::Unusable(format!(
            "its file was written by a newer version of Backstop (schema {version}, this one knows up to {})",
            MIGRATIONS.len()
        ))),
        _ => Err(StoreError::Unusable("its file is a SQLite database of another program".to_owned())),
    }
}
