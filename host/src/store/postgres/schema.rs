//! What the schema holds, and how an older one is brought up to date.
//!
//! The table `migrations` says which ones the schema has been through. A migration once released is never edited: the
//! next change is a further entry in [`MIGRATIONS`]. Hosts that start at the same time take their turns.
//!
//! # The stored format
//!
//! Values are as in SQLite (`sqlite/schema.rs`), with these differences:
//!
//! - A message is found by its `id` everywhere; there is no `seq`. Of two that are due at the same moment the one with
//!   the lower id, which is the older one, goes first.
//! - `lines` counts a message's lines in `attempts`, so that the next one's `ordinal` is known without a look.
//! - `place` is a message's place in its order, given out by the order's row in `orders`. That row is what whoever
//!   changes an order locks first; it stands while the order has members. `last` is the last place given out.
//! - `keys.opened_until` is when a key that a host opened is free for another.
//! - A feed has a row in `feeds`, which whoever claims its partitions locks first.
//! - No text can hold U+0000: texts that others choose are escaped (`rows.rs`), U+0000 as `␀0` and `␀` as `␀1`.
//!
//! # Indexes
//!
//! Each is partial, so that a message that was delivered costs as little as possible: beside the primary keys it is
//! entered into `messages_leased` when it is accepted and into `messages_finished` when it ends. Claiming looks at
//! `messages_first`, `messages_retry` and `messages_leased` alone. Every step of a message's life changes an indexed
//! column, so no rewrite can stay on its page (HOT), and room kept free on pages would be wasted.

use std::time::Duration;

use super::connections::{Connection, Connections};
use super::failure::Failure;

/// How the schema comes from each version to the next.
const MIGRATIONS: &[&str] = &[FIRST, ARCHIVE, TRANSACTIONS, FEEDS];

const FIRST: &str = "
CREATE TABLE messages (
    id                uuid PRIMARY KEY,
    route             text NOT NULL,
    state             text NOT NULL,
    due_at            bigint,
    lease_owner       text,
    lease_until       bigint,
    accepted_at       bigint NOT NULL,
    ended_at          bigint,
    reason            text NOT NULL,
    idempotency_key   text,
    attempts          bigint NOT NULL,
    journal           bigint NOT NULL,
    lines             bigint NOT NULL,
    started_at        bigint,
    previous_delay_ns bigint,
    reauthenticated   boolean NOT NULL,
    hops              bigint NOT NULL,
    order_route       text,
    order_key         text,
    place             bigint,
    turn              bigint NOT NULL,
    CHECK (state IN ('queued', 'in_flight', 'delivered', 'answered', 'dead', 'dropped', 'discarded')),
    CHECK ((state IN ('queued', 'in_flight')) = (due_at IS NOT NULL)),
    CHECK ((state IN ('queued', 'in_flight')) = (ended_at IS NULL)),
    CHECK ((state = 'in_flight') = (lease_owner IS NOT NULL)),
    CHECK ((state = 'in_flight') = (lease_until IS NOT NULL)),
    CHECK (turn BETWEEN 0 AND 2 AND (turn = 0 OR order_key IS NOT NULL) AND (turn <> 2 OR state = 'queued'))
);

CREATE INDEX messages_first    ON messages (route, due_at, id) WHERE state = 'queued' AND turn < 2 AND attempts = 0;
CREATE INDEX messages_retry    ON messages (route, due_at, id) WHERE state = 'queued' AND turn < 2 AND attempts > 0;
CREATE INDEX messages_leased   ON messages (route, lease_until) WHERE state = 'in_flight';
CREATE INDEX messages_by_state ON messages (state, id, route) WHERE state NOT IN ('in_flight', 'delivered');
CREATE INDEX messages_finished ON messages (state, ended_at) WHERE state IN ('delivered', 'dropped', 'discarded');
CREATE INDEX messages_aside    ON messages (state, route, ended_at) WHERE state IN ('answered', 'dead');
CREATE INDEX messages_in_order ON messages (order_route, order_key, turn, place) WHERE turn > 0;

CREATE TABLE requests (
    id      uuid PRIMARY KEY,
    method  text NOT NULL,
    path    text NOT NULL,
    headers bytea NOT NULL,
    body    bytea NOT NULL
);

CREATE TABLE attempts (
    id      uuid NOT NULL,
    ordinal bigint NOT NULL,
    record  text NOT NULL,
    PRIMARY KEY (id, ordinal)
);

CREATE TABLE orders (
    route text NOT NULL,
    key   text NOT NULL,
    last  bigint NOT NULL,
    PRIMARY KEY (route, key)
);

CREATE TABLE keys (
    route          text NOT NULL,
    key            text NOT NULL,
    fingerprint    bytea NOT NULL CHECK (length(fingerprint) = 32),
    message        uuid NOT NULL,
    owner          text NOT NULL,
    opened_until   bigint NOT NULL,
    keep_until     bigint NOT NULL,
    state          text NOT NULL CHECK (state IN ('opened', 'answered', 'stored')),
    answer_status  bigint,
    answer_headers bytea,
    answer_body    bytea,
    PRIMARY KEY (route, key),
    CHECK ((state = 'answered') = (answer_status IS NOT NULL))
);

CREATE INDEX keys_by_age ON keys (keep_until);

CREATE TABLE holds (
    destination text PRIMARY KEY,
    until       bigint NOT NULL
);
";

/// What a message came of; and the archive, as others may query it.
const ARCHIVE: &str = "
ALTER TABLE messages ADD COLUMN publish uuid;
ALTER TABLE messages ADD COLUMN original uuid;

CREATE VIEW archive_messages AS
    SELECT coalesce(m.publish, m.id)::text AS message_uid, m.id::text AS message_id, m.route, m.state, m.reason,
           m.idempotency_key, m.original::text AS original, m.journal AS attempts, to_timestamp(m.accepted_at / 1000.0) AS accepted_at,
           to_timestamp(m.ended_at / 1000.0) AS ended_at, r.method, r.path, r.body
    FROM messages m JOIN requests r ON r.id = m.id;

CREATE VIEW archive_attempts AS
    SELECT coalesce(m.publish, m.id)::text AS message_uid, m.id::text AS message_id, a.ordinal,
           (a.record::json ->> 'number')::bigint AS number, a.record::json ->> 'route' AS route,
           a.record::json ->> 'started_at' AS started_at, (a.record::json ->> 'latency_ms')::bigint AS latency_ms,
           (a.record::json #>> '{outcome,status}')::bigint AS status, a.record::json #>> '{outcome,fault}' AS fault,
           a.record::json ->> 'verdict' AS verdict, a.record::json ->> 'reason' AS reason,
           a.record::json ->> 'transition' AS transition, (a.record::json ->> 'delay_ms')::bigint AS delay_ms,
           a.record::json #>> '{provenance,policy,name}' AS policy,
           a.record::json #>> '{provenance,policy,digest}' AS policy_digest, a.record
    FROM attempts a JOIN messages m ON m.id = a.id;
";

/// Half messages.
const TRANSACTIONS: &str = "
CREATE TABLE transactions (
    id              uuid PRIMARY KEY,
    route           text NOT NULL,
    state           text NOT NULL,
    prepared_at     bigint NOT NULL,
    due_at          bigint,
    lease_owner     text,
    checks          bigint NOT NULL,
    unreached       bigint NOT NULL,
    reason          text NOT NULL,
    ended_at        bigint,
    keep_until      bigint NOT NULL,
    idempotency_key text,
    order_key       text,
    method          text NOT NULL,
    path            text NOT NULL,
    CHECK (state IN ('prepared', 'parked', 'confirmed', 'cancelled')),
    CHECK ((state = 'prepared') = (due_at IS NOT NULL)),
    CHECK (state = 'prepared' OR lease_owner IS NULL),
    CHECK ((state IN ('confirmed', 'cancelled')) = (ended_at IS NOT NULL))
);

CREATE INDEX transactions_due   ON transactions (route, due_at, id) WHERE state = 'prepared';
CREATE INDEX transactions_open  ON transactions (state, id, route)  WHERE state IN ('prepared', 'parked');
CREATE INDEX transactions_ended ON transactions (ended_at)           WHERE ended_at IS NOT NULL;

CREATE TABLE half_requests (
    id      uuid PRIMARY KEY,
    headers bytea NOT NULL,
    body    bytea NOT NULL
);
";

/// Change feeds.
const FEEDS: &str = "
CREATE TABLE feeds (
    feed text PRIMARY KEY
);

CREATE TABLE feed_partitions (
    feed        text NOT NULL,
    number      bigint NOT NULL,
    lease_owner text,
    lease_until bigint,
    cursor      bigint,
    cursor_key  text,
    PRIMARY KEY (feed, number),
    CHECK ((lease_owner IS NULL) = (lease_until IS NULL)),
    CHECK (cursor IS NOT NULL OR cursor_key IS NULL)
);

CREATE TABLE feed_hosts (
    feed        text NOT NULL,
    owner       text NOT NULL,
    alive_until bigint NOT NULL,
    PRIMARY KEY (feed, owner)
);
";

/// How long a start waits for another host that migrates.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes sure the schema is there and of this version, migrating an older one.
///
/// # Errors
/// [`Failure::Unusable`] when it is of a newer version, or the database does not keep text as UTF-8.
pub(super) async fn prepare(connections: &Connections) -> Result<(), Failure> {
    connections.call(PATIENCE, |connection| Box::pin(migrate(connection, connections.target().schema()))).await
}

async fn migrate(connection: Connection<'_>, schema: &str) -> Result<(), Failure> {
    let encoding = connection.query_opt("SHOW server_encoding", &[]).await?;
    let encoding: String = encoding.map(|row| row.try_get(0)).transpose()?.unwrap_or_default();
    if encoding != "UTF8" {
        return Err(Failure::Unusable(format!("the database keeps text as {encoding}, and must as UTF8")));
    }
    if let Some(version) = version(&connection).await? {
        let pending = pending(version)?;
        if pending.is_empty() {
            return Ok(());
        }
    } else {
        // Of hosts that start at once, one makes them and the others find them; that is all that is done outside the
        // lock. A user who may not make schemas can have one made.
        make(&connection, &format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\"")).await?;
        make(&connection, "CREATE TABLE IF NOT EXISTS migrations (id bigint PRIMARY KEY, version bigint NOT NULL)")
            .await?;
        connection.run("INSERT INTO migrations (id, version) VALUES (1, 0) ON CONFLICT (id) DO NOTHING").await?;
    }
    connection.begin().await?;
    let row = connection.query_opt("SELECT version FROM migrations WHERE id = 1 FOR UPDATE", &[]).await?;
    let version: i64 = row.map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
    for migration in pending(version)? {
        connection.run(migration).await?;
    }
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    connection.query("UPDATE migrations SET version = $1 WHERE id = 1", &[&known]).await?;
    connection.commit().await
}

/// Which migrations the schema has been through; none when there is no such table.
async fn version(connection: &Connection<'_>) -> Result<Option<i64>, Failure> {
    // Preparing a statement on a table that is not there is an error, so it is looked for first.
    let found = connection
        .query_opt(
            "SELECT 1::bigint FROM information_schema.tables
             WHERE table_schema = current_schema() AND table_name = 'migrations'",
            &[],
        )
        .await?;
    if found.is_none() {
        return Ok(None);
    }
    let row = connection.query_opt("SELECT version FROM migrations WHERE id = 1", &[]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// What is still to be done to a schema of this version.
fn pending(version: i64) -> Result<&'static [&'static str], Failure> {
    usize::try_from(version).ok().and_then(|version| MIGRATIONS.get(version..)).ok_or_else(|| {
        Failure::Unusable(format!(
            "its schema was written by a newer version of Backstop (schema {version}, this one knows up to {})",
            MIGRATIONS.len()
        ))
    })
}

/// Makes something unless it exists. That another host made it at the same moment is an error that is none.
async fn make(connection: &Connection<'_>, sql: &str) -> Result<(), Failure> {
    match connection.run(sql).await {
        Err(Failure::Refused { code, .. }) if matches!(code.code(), "23505" | "42P06" | "42P07" | "42710") => Ok(()),
        result => result,
    }
}
