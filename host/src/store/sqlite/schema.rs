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
//!   turn 1, and if any is behind, one has. `publish` is the uid of the publish that it belongs to, where an event may
//!   have become several messages; `original` the message that it repeats.
//! - `requests`: the long part, never rewritten, so that finishing a message does not write its body again. `headers`
//!   is a sequence of fields, each: one byte of flags (1 = sensitive), the length of the name (2 bytes, big-endian),
//!   the length of the value (4 bytes, big-endian), name, value. Values are bytes.
//! - `attempts`: the journal. `ordinal` counts from 1; `record` is the JSON of a
//!   [`crate::message::AttemptRecord`]. (Its own `number` may repeat: 0 stands for a question asked before an
//!   attempt, and is asked again after a redrive.)
//! - `keys`: idempotency keys. `state` is `opened` (by `owner`, which is serving the request), `answered` (then
//!   `answer_*` are set) or `stored` (then the caller was given `message`).
//! - `holds`: until when each destination is to be left alone.
//! - `transactions`: half messages. `due_at`, set exactly while one is prepared, is when its sender is asked next; while
//!   `lease_owner` is asking, it is when that lease runs out. `checks` were sent, `unreached` in a row were not.
//!   `ended_at` is set exactly when the first word was said; the row stays until then at least `keep_until`, which is
//!   how long its idempotency key is kept. `half_requests` holds the long part, as `requests` does, until that word:
//!   confirming moves it to `requests` in the same transaction, under the same `id`.
//! - `feed_partitions`: how far each partition of a change feed has come: `cursor` and `cursor_key` are those of the last
//!   row that is stored as a message (`cursor_key` is null: of all with that cursor), and who reads it until when.
//!   `feed_hosts`: until when a host counts as one of those that share a feed. `feed` is the source's name, its table,
//!   its cursor's column and that one's type.
//!
//! Two views are for whoever wants to query what was accepted and what became of it, in this file or in a copy of it:
//!
//! - `archive_messages`: a row for each message that is still kept: `message_uid`, `message_id`, `route`, `state`,
//!   `reason`, `idempotency_key`, `original`, `attempts`, `accepted_at`, `ended_at`, `method`, `path`, `body`.
//! - `archive_attempts`: a row for each line of a journal: `message_uid`, `message_id`, `ordinal`, `number`, `route`,
//!   `started_at`, `latency_ms`, `status`, `fault`, `verdict`, `reason`, `transition`, `delay_ms`, `policy`,
//!   `policy_digest`, `record`.
//!
//! Both have `message_uid`, by which they are joined. Ids are text, as everywhere else, with hyphens.
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
const MIGRATIONS: &[&str] = &[FIRST, ORDERS, FEWER_ENTRIES, NO_LISTS, ARCHIVE, TRANSACTIONS, FEEDS];

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

/// An id as it is written everywhere else, from the column that holds its bytes.
macro_rules! written_id {
    ($column:literal) => {
        concat!(
            "lower(substr(hex(",
            $column,
            "), 1, 8) || '-' || substr(hex(",
            $column,
            "), 9, 4) || '-' || substr(hex(",
            $column,
            "), 13, 4) || '-' || substr(hex(",
            $column,
            "), 17, 4) || '-' || substr(hex(",
            $column,
            "), 21))"
        )
    };
}

/// What a message came of; and the archive, as others may query it.
const ARCHIVE: &str = concat!(
    "
ALTER TABLE messages ADD COLUMN publish BLOB CHECK (publish IS NULL OR length(publish) = 16);
ALTER TABLE messages ADD COLUMN original BLOB CHECK (original IS NULL OR length(original) = 16);

CREATE VIEW archive_messages AS
    SELECT ",
    written_id!("coalesce(m.publish, m.id)"),
    " AS message_uid, ",
    written_id!("m.id"),
    " AS message_id, m.route, m.state,
           m.reason, m.idempotency_key, CASE WHEN m.original IS NOT NULL THEN ",
    written_id!("m.original"),
    " END AS original, m.journal AS attempts,
           strftime('%Y-%m-%dT%H:%M:%fZ', m.accepted_at / 1000.0, 'unixepoch') AS accepted_at,
           strftime('%Y-%m-%dT%H:%M:%fZ', m.ended_at / 1000.0, 'unixepoch') AS ended_at,
           r.method, r.path, r.body
    FROM messages m JOIN requests r ON r.seq = m.seq;

CREATE VIEW archive_attempts AS
    SELECT ",
    written_id!("coalesce(m.publish, m.id)"),
    " AS message_uid, ",
    written_id!("m.id"),
    " AS message_id, a.ordinal,
           a.record ->> '$.number' AS number, a.record ->> '$.route' AS route,
           a.record ->> '$.started_at' AS started_at, a.record ->> '$.latency_ms' AS latency_ms,
           a.record ->> '$.outcome.status' AS status, a.record ->> '$.outcome.fault' AS fault,
           a.record ->> '$.verdict' AS verdict, a.record ->> '$.reason' AS reason,
           a.record ->> '$.transition' AS transition, a.record ->> '$.delay_ms' AS delay_ms,
           a.record ->> '$.provenance.policy.name' AS policy,
           a.record ->> '$.provenance.policy.digest' AS policy_digest, a.record
    FROM attempts a JOIN messages m ON m.seq = a.seq;
"
);

/// Half messages.
const TRANSACTIONS: &str = "
CREATE TABLE transactions (
    seq             INTEGER PRIMARY KEY,
    id              BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    route           TEXT NOT NULL,
    state           TEXT NOT NULL,
    prepared_at     INTEGER NOT NULL,
    due_at          INTEGER,
    lease_owner     TEXT,
    checks          INTEGER NOT NULL,
    unreached       INTEGER NOT NULL,
    reason          TEXT NOT NULL,
    ended_at        INTEGER,
    keep_until      INTEGER NOT NULL,
    idempotency_key TEXT,
    order_key       TEXT,
    method          TEXT NOT NULL,
    path            TEXT NOT NULL,
    CHECK (state = 'prepared' OR state = 'confirmed' OR state = 'cancelled' OR state = 'parked'),
    CHECK ((state = 'prepared') = (due_at IS NOT NULL)),
    CHECK (state = 'prepared' OR lease_owner IS NULL),
    CHECK ((state = 'confirmed' OR state = 'cancelled') = (ended_at IS NOT NULL))
) STRICT;

CREATE INDEX transactions_due   ON transactions (route, due_at)     WHERE state = 'prepared';
CREATE INDEX transactions_open  ON transactions (state, id, route) WHERE state IN ('prepared', 'parked');
CREATE INDEX transactions_ended ON transactions (ended_at)          WHERE ended_at IS NOT NULL;

CREATE TABLE half_requests (
    seq     INTEGER PRIMARY KEY,
    headers BLOB NOT NULL,
    body    BLOB NOT NULL
) STRICT;
";

/// Change feeds.
const FEEDS: &str = "
CREATE TABLE feed_partitions (
    feed        TEXT NOT NULL,
    number      INTEGER NOT NULL,
    lease_owner TEXT,
    lease_until INTEGER,
    cursor      INTEGER,
    cursor_key  TEXT,
    PRIMARY KEY (feed, number),
    CHECK ((lease_owner IS NULL) = (lease_until IS NULL)),
    CHECK (cursor IS NOT NULL OR cursor_key IS NULL)
) STRICT, WITHOUT ROWID;

CREATE TABLE feed_hosts (
    feed        TEXT NOT NULL,
    owner       TEXT NOT NULL,
    alive_until INTEGER NOT NULL,
    PRIMARY KEY (feed, owner)
) STRICT, WITHOUT ROWID;
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
