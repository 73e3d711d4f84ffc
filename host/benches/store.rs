//! What a store does in a second, and what a claim costs however long the backlog is.
//!
//! Run it with `cargo bench -p backstop --bench store --profile dev`; it takes about twenty seconds. Figures are of
//! the disk as much as of the code, so the cost of one fsync is printed first. With the URL of a Postgres server in
//! `BACKSTOP_TEST_POSTGRES` (as `tests/run` sets it) the same is measured there, in schemas that are dropped again.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use backstop::clock::{Clock, Stopwatch, SystemClock, Timestamp};
use backstop::message::{
    AttemptRecord, Message, MessageId, Origin, OutcomeSummary, Progress, Provenance, Request, RouteName, State,
    VerdictKind,
};
use backstop::store::sqlite::SqliteStore;
use backstop::store::{
    Acceptance, Entry, Filter, Finish, LaneClaim, Lease, Owner, PostgresStore, PostgresTarget, Store, Then,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};

/// Callers at the same time.
const CALLERS: u64 = 64;

/// Messages that wait while claims are measured.
const BACKLOGS: [u32; 3] = [0, 10_000, 1_000_000];

/// How long each rate is measured.
const MEASURED: Duration = Duration::from_secs(4);

fn main() -> anyhow::Result<()> {
    let place = tempfile::TempDir::new()?;
    println!("one fsync                  {:>10.1?}", fsync(place.path())?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        println!("\nSQLite");
        let store = Arc::new(SqliteStore::open(&place.path().join("rates.db"))?);
        accept_and_finish(store).await?;
        claims_heading();
        for backlog in BACKLOGS {
            let path = place.path().join(format!("{backlog}.db"));
            first(Arc::new(SqliteStore::open(&path)?)).await?;
            fill(&path, backlog)?;
            claims(Arc::new(SqliteStore::open(&path)?), backlog).await?;
        }
        match std::env::var("BACKSTOP_TEST_POSTGRES") {
            Ok(url) => postgres(&url).await,
            Err(_) => {
                println!("\nPostgres: BACKSTOP_TEST_POSTGRES names no server");
                Ok(())
            }
        }
    })
}

fn claims_heading() {
    println!("\n{:>12} {:>12} {:>14} {:>12} {:>12}", "backlog", "claim of 1", "claim of 64", "list of 100", "tally");
}

/// The same on Postgres.
async fn postgres(url: &str) -> anyhow::Result<()> {
    println!("\nPostgres");
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let mut driving = tokio::task::JoinSet::new();
    driving.spawn(connection);
    let open = async |name: &str| {
        let target = PostgresTarget::parse(&format!("{url}?schema={name}"))?;
        anyhow::Ok(Arc::new(PostgresStore::open(&target, Arc::new(SystemClock)).await?))
    };
    let drop = async |name: &str| client.batch_execute(&format!("DROP SCHEMA IF EXISTS {name} CASCADE")).await;
    drop("bench_rates").await?;
    accept_and_finish(open("bench_rates").await?).await?;
    drop("bench_rates").await?;
    claims_heading();
    for backlog in BACKLOGS {
        let name = format!("bench_{backlog}");
        drop(&name).await?;
        first(open(&name).await?).await?;
        client.batch_execute(&fill_postgres(&name, backlog)).await?;
        claims(open(&name).await?, backlog).await?;
        drop(&name).await?;
    }
    Ok(())
}

/// What it takes to have four kilobytes on disk, for comparison.
fn fsync(place: &Path) -> anyhow::Result<Duration> {
    let mut file = File::create(place.join("fsync"))?;
    let watch = Stopwatch::start();
    for _ in 0..100 {
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
    }
    Ok(watch.elapsed() / 100)
}

/// The happy journey of a message: stored under a lease, then finished with one line in its journal.
async fn accept_and_finish(store: Arc<dyn Store>) -> anyhow::Result<()> {
    let messages = Arc::new(AtomicU64::new(0));
    let mut callers = tokio::task::JoinSet::new();
    let watch = Stopwatch::start();
    for _ in 0..CALLERS {
        let (store, messages) = (Arc::clone(&store), Arc::clone(&messages));
        callers.spawn(async move {
            let mut slowest = Duration::ZERO;
            while watch.elapsed() < MEASURED {
                let journey = Stopwatch::start();
                let message = message()?;
                let id = message.id;
                store.accept(acceptance(message, Entry::Leased(lease()))).await?;
                store.finish(finish(id)).await?;
                messages.fetch_add(1, Ordering::Relaxed);
                slowest = slowest.max(journey.elapsed());
            }
            anyhow::Ok(slowest)
        });
    }
    let mut slowest = Duration::ZERO;
    while let Some(caller) = callers.join_next().await {
        slowest = slowest.max(caller??);
    }
    let (count, took) = (messages.load(Ordering::Relaxed), watch.elapsed());
    println!("callers                    {CALLERS:>10}");
    println!("accepted + finished /s     {:>10.0}", count as f64 / took.as_secs_f64());
    println!("mean journey               {:>10.1?}", took * CALLERS as u32 / u32::try_from(count.max(1))?);
    println!("slowest journey            {slowest:>10.1?}");
    Ok(store.close().await?)
}

/// A template for the backlog, and what is claimed when there is none.
async fn first(store: Arc<dyn Store>) -> anyhow::Result<()> {
    store.accept(acceptance(message()?, Entry::Queued { due: now() })).await?;
    Ok(store.close().await?)
}

/// What claims, lists and tallies cost behind a backlog of messages that are due.
async fn claims(store: Arc<dyn Store>, backlog: u32) -> anyhow::Result<()> {
    const ROUNDS: u32 = 50;
    let mut took = Vec::new();
    for limit in [1, 64] {
        let mut total = Duration::ZERO;
        for _ in 0..ROUNDS {
            let lanes = vec![LaneClaim { route: route()?, limit, retries: limit }];
            let watch = Stopwatch::start();
            let claimed = store.claim_due(lanes, now().after(Duration::from_secs(1)), lease()).await?;
            total += watch.elapsed();
            let ids = claimed.messages.iter().map(|message| message.id).collect();
            store.release(ids, owner(), now()).await?;
        }
        took.push(total / ROUNDS);
    }
    let watch = Stopwatch::start();
    store.list(Filter { states: vec![State::Queued], ..Filter::default() }).await?;
    took.push(watch.elapsed());
    let watch = Stopwatch::start();
    store.tally().await?;
    took.push(watch.elapsed());
    store.close().await?;
    let [one, many, list, tally] = took[..] else { anyhow::bail!("four figures were measured") };
    println!("{backlog:>12} {one:>12.1?} {many:>14.1?} {list:>12.1?} {tally:>12.1?}");
    Ok(())
}

/// Multiplies the one message in the file. The store itself would take minutes to accept a million of them, each
/// safely; this only prepares the ground.
fn fill(path: &Path, backlog: u32) -> anyhow::Result<()> {
    let connection = rusqlite::Connection::open(path)?;
    connection.execute_batch(&format!(
        "PRAGMA synchronous = OFF;
         BEGIN;
         CREATE TEMP TABLE more AS
             WITH RECURSIVE more (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM more WHERE n < {backlog})
             SELECT n FROM more WHERE n <= {backlog};
         INSERT INTO messages (seq, id, route, state, due_at, accepted_at, reason, attempts, journal, reauthenticated, hops)
             SELECT seq + n, CAST(printf('%016d', n) AS BLOB), route, state, due_at + n % 1000,
                    accepted_at, reason, attempts, journal, reauthenticated, hops
             FROM messages, more;
         INSERT INTO requests SELECT seq + n, method, path, headers, x'7b7d' FROM requests, more;
         COMMIT;"
    ))
    .context("failed to prepare the backlog")
}

/// The same on Postgres.
fn fill_postgres(schema: &str, backlog: u32) -> String {
    format!(
        "SET search_path TO {schema};
         INSERT INTO messages (id, route, state, due_at, accepted_at, reason, attempts, journal, lines, reauthenticated,
                               hops, turn)
             SELECT lpad(to_hex(n), 32, '0')::uuid, route, state, due_at + n % 1000, accepted_at, reason, attempts,
                    journal, lines, reauthenticated, hops, turn
             FROM messages, generate_series(1, {backlog}) AS n;
         INSERT INTO requests SELECT lpad(to_hex(n), 32, '0')::uuid, method, path, headers, '{{}}'
             FROM requests, generate_series(1, {backlog}) AS n;"
    )
}

fn now() -> Timestamp {
    SystemClock.now()
}

fn owner() -> Owner {
    Owner("0198c3a2-7a55-7000-8000-000000000000".to_owned())
}

fn lease() -> Lease {
    Lease { owner: owner(), until: now().after(Duration::from_secs(60)) }
}

fn route() -> anyhow::Result<RouteName> {
    Ok(RouteName::new("orders")?)
}

fn message() -> anyhow::Result<Message> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("user-agent", HeaderValue::from_static("bench/1"));
    headers.insert("traceparent", HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    let now = now();
    Ok(Message {
        id: MessageId::new(now),
        route: route()?,
        request: Arc::new(Request {
            method: Method::POST,
            path: "/v1/orders?notify=true".to_owned(),
            headers,
            body: Bytes::from_static(&[b'x'; 1024]),
        }),
        idempotency_key: None,
        accepted_at: now,
        progress: Progress::default(),
        origin: Origin::default(),
    })
}

fn acceptance(message: Message, entry: Entry) -> Acceptance {
    Acceptance { message, entry, attempts: Vec::new(), key: None, hold: None, order: None }
}

fn finish(id: MessageId) -> Finish {
    let now = now();
    Finish {
        is_awaited: true,
        id,
        owner: owner(),
        attempt: AttemptRecord {
            number: 1,
            route: "orders".to_owned(),
            started_at: now,
            latency_ms: 17,
            outcome: OutcomeSummary { status: Some(200), ..OutcomeSummary::default() },
            verdict: VerdictKind::Accept,
            reason: "200 OK".to_owned(),
            delay_ms: None,
            transition: "delivered".to_owned(),
            clamped: Vec::new(),
            withheld: None,
            provenance: Provenance { fuel: 1234, took_ns: 900, ..Provenance::default() },
        },
        then: Then::End { state: State::Delivered, reason: "200 OK".to_owned(), at: now },
        progress: Progress { attempts: 1, journal: 1, started_at: Some(now), ..Progress::default() },
        hold: None,
        blocks: false,
    }
}
