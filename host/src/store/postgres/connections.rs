//! The connections: few, made when they are needed, given up when they are doubtful.
//!
//! A call waits for its turn, then has a connection to itself. One that broke, or on which an answer did not come in
//! time, is not used again, and neither are those made before it. While the database is away, one call at a time finds
//! out whether it still is, no more often than the pause allows; the others fail at once. So nothing here waits for
//! ever: [`PATIENCE`] bounds every call, whoever does not answer.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::TaskTracker;

use super::failure::Failure;
use super::target::PostgresTarget;
use crate::clock::{Clock, Stopwatch};

/// Connections at most.
pub(super) const CONNECTIONS: usize = 10;

/// How long one call may take, from its turn to its answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The same for what walks over many rows: lists, tallies, sweeps.
pub(super) const LONG_PATIENCE: Duration = Duration::from_secs(60);

/// How long making a connection may take, TLS and all settings included.
const CONNECTING: Duration = Duration::from_secs(5);

/// The pause before a database that is away is tried again: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// How often a transaction is repeated that another one was in the way of.
const REPEATS: u32 = 6;

/// What a session is set to, where the server knows the setting. Statements are prepared and meant to walk along an
/// index, also while a table is new and the planner has seen no statistics of it.
const SETTINGS: &str = "SELECT set_config(name, wanted, false)
    FROM (VALUES ('statement_timeout', '60s'), ('lock_timeout', '8s'),
                 ('idle_in_transaction_session_timeout', '15s'), ('jit', 'off'),
                 ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'),
                 ('plan_cache_mode', 'force_generic_plan')) AS settings (known, wanted)
    JOIN pg_settings ON name = known";

/// All connections to one database.
pub(super) struct Connections {
    target: PostgresTarget,
    tls: Option<MakeRustlsConnect>,
    clock: Arc<dyn Clock>,
    known: Mutex<Known>,
    /// One for each connection; closed with the store.
    turns: Semaphore,
    /// Held while a connection is made: one at a time.
    making: tokio::sync::Mutex<()>,
    /// What drives the connections.
    driving: TaskTracker,
}

/// What is known of the database.
#[derive(Default)]
struct Known {
    idle: Vec<Arc<Line>>,
    /// Counts how often the connections became doubtful.
    generation: u64,
    away: Option<Away>,
}

/// Since when it is away.
struct Away {
    since: Stopwatch,
    pause: Duration,
    why: String,
}

/// One connection.
struct Line {
    client: Client,
    statements: Mutex<HashMap<&'static str, Statement>>,
    generation: u64,
}

/// A connection that one call has to itself.
pub(super) struct Connection<'c> {
    line: Arc<Line>,
    connections: &'c Connections,
    /// A transaction was begun and has not ended.
    open: AtomicBool,
    _turn: SemaphorePermit<'c>,
}

impl Connection<'_> {
    /// Runs one statement, which is a whole transaction unless one was begun. It is prepared on each connection once.
    ///
    /// # Errors
    /// [`Failure`]
    pub(super) async fn query(
        &self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        let known = lock(&self.line.statements).get(sql).cloned();
        let statement = match known {
            Some(statement) => statement,
            None => {
                let statement = self.line.client.prepare(sql).await?;
                lock(&self.line.statements).insert(sql, statement.clone());
                statement
            }
        };
        Ok(self.line.client.query(&statement, parameters).await?)
    }

    /// As [`Connection::query`], for the one row or none that it answers.
    ///
    /// # Errors
    /// [`Failure`]
    pub(super) async fn query_opt(
        &self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, Failure> {
        Ok(self.query(sql, parameters).await?.pop())
    }

    /// Runs statements as they stand, with nothing to fill in.
    ///
    /// # Errors
    /// [`Failure`]
    pub(super) async fn run(&self, sql: &str) -> Result<(), Failure> {
        Ok(self.line.client.batch_execute(sql).await?)
    }

    /// Begins a transaction. Unless [`Connection::commit`] follows, nothing of it stays.
    ///
    /// # Errors
    /// [`Failure`]
    pub(super) async fn begin(&self) -> Result<(), Failure> {
        self.open.store(true, Ordering::Relaxed);
        self.run("BEGIN").await
    }

    /// Ends the transaction for good.
    ///
    /// # Errors
    /// [`Failure`]; unless it is certain, the transaction may have been committed.
    pub(super) async fn commit(&self) -> Result<(), Failure> {
        self.run("COMMIT").await?;
        self.open.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Undoes the transaction.
    ///
    /// # Errors
    /// [`Failure`]
    pub(super) async fn roll_back(&self) -> Result<(), Failure> {
        self.run("ROLLBACK").await?;
        self.open.store(false, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Connection<'_> {
    /// Gives it back, unless it is broken, doubtful, or in the middle of a transaction.
    fn drop(&mut self) {
        let line = Arc::clone(&self.line);
        if line.client.is_closed() || self.open.load(Ordering::Relaxed) {
            return;
        }
        let mut known = lock(&self.connections.known);
        if line.generation == known.generation && !self.connections.turns.is_closed() {
            known.idle.push(line);
        }
    }
}

impl Connections {
    /// None are made yet. Reads the system's certificate authorities, if TLS may be spoken: call it off the async
    /// threads.
    ///
    /// # Errors
    /// [`Failure::Unusable`] when TLS cannot be set up.
    pub(super) fn new(target: PostgresTarget, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        Ok(Self {
            tls: tls_for(&target).map_err(|error| Failure::Unusable(format!("failed to set up TLS: {error}")))?,
            target,
            clock,
            known: Mutex::default(),
            turns: Semaphore::new(CONNECTIONS),
            making: tokio::sync::Mutex::default(),
            driving: TaskTracker::new(),
        })
    }

    /// Where they lead.
    pub(super) fn target(&self) -> &PostgresTarget {
        &self.target
    }

    /// Does `work` on a connection of its own within `patience`; repeats it when another transaction was in its way.
    ///
    /// # Errors
    /// [`Failure`]
    pub(super) async fn call<'a, T: Send>(
        &'a self,
        patience: Duration,
        work: impl Fn(Connection<'a>) -> BoxFuture<'a, Result<T, Failure>> + Send + Sync,
    ) -> Result<T, Failure> {
        let has_connection = AtomicBool::new(false);
        let attempts = async {
            let mut repeats = 0;
            loop {
                has_connection.store(false, Ordering::Relaxed);
                let connection = self.lend().await?;
                has_connection.store(true, Ordering::Relaxed);
                match work(connection).await {
                    Err(failure) if failure.is_passing() && repeats < REPEATS => {
                        repeats += 1;
                        // The longer it goes on, the further apart they are.
                        let most = Duration::from_millis(5 << repeats);
                        self.clock.sleep(self.clock.chance().between(Duration::ZERO, most)).await;
                    }
                    result => return result,
                }
            }
        };
        let mut attempts = std::pin::pin!(attempts);
        let result = tokio::select! {
            result = &mut attempts => result,
            () = self.clock.sleep(patience) => Err(Failure::Late(patience)),
        };
        // Who waited in vain for a turn knows nothing of the connections.
        if let Err(failure) = &result
            && has_connection.load(Ordering::Relaxed)
            && !failure.spares_connection()
        {
            self.doubt();
        }
        result
    }

    /// A connection: an idle one, or else a new one.
    async fn lend(&self) -> Result<Connection<'_>, Failure> {
        let turn = self.turns.acquire().await.map_err(|_| Failure::Closed)?;
        let line = match self.idle() {
            Some(line) => line,
            None => {
                let _making = self.making.lock().await;
                match self.idle() {
                    Some(line) => line,
                    None => self.make().await?,
                }
            }
        };
        Ok(Connection { line, connections: self, open: AtomicBool::new(false), _turn: turn })
    }

    /// The connection used last: what is little used is given up by the server or the network in between, not by us.
    fn idle(&self) -> Option<Arc<Line>> {
        let mut known = lock(&self.known);
        while let Some(line) = known.idle.pop() {
            if !line.client.is_closed() {
                return Some(line);
            }
        }
        None
    }

    /// Makes a connection, unless the database was away a moment ago.
    async fn make(&self) -> Result<Arc<Line>, Failure> {
        let (generation, pause) = {
            let known = lock(&self.known);
            if let Some(away) = &known.away
                && away.since.elapsed() < away.pause
            {
                return Err(Failure::Away(away.why.clone()));
            }
            (known.generation, known.away.as_ref().map_or(PAUSE.0, |away| (away.pause * 2).min(PAUSE.1)))
        };
        let made = tokio::select! {
            made = self.connect() => made,
            () = self.clock.sleep(CONNECTING) => Err(Failure::Late(CONNECTING)),
        };
        let mut known = lock(&self.known);
        match made {
            Ok(client) => {
                known.away = None;
                Ok(Arc::new(Line { client, statements: Mutex::default(), generation }))
            }
            Err(failure) => {
                let why = in_words(&failure);
                tracing::warn!(database = %self.target, error = why, "cannot connect to the database");
                known.away = Some(Away { since: Stopwatch::start(), pause, why });
                Err(failure)
            }
        }
    }

    async fn connect(&self) -> Result<Client, Failure> {
        let client = dial(&self.target, self.tls.as_ref(), &self.driving).await?;
        // The schema's name needs no quotes (`target`).
        let schema = self.target.schema();
        client.batch_execute(&format!("SET search_path TO \"{schema}\"; {SETTINGS}")).await?;
        Ok(client)
    }

    /// After a break or a silence no connection made before it is used again.
    fn doubt(&self) {
        let mut known = lock(&self.known);
        known.generation += 1;
        known.idle.clear();
    }

    /// Lets nobody in any more, waits for the calls under way, and closes the connections.
    pub(super) async fn close(&self) {
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        let calls_end = async {
            if let Ok(turns) = self.turns.acquire_many(all).await {
                turns.forget();
            }
        };
        tokio::select! {
            () = calls_end => {}
            () = self.clock.sleep(PATIENCE) => {}
        }
        self.turns.close();
        lock(&self.known).idle.clear();
        self.driving.close();
        tokio::select! {
            () = self.driving.wait() => {}
            () = self.clock.sleep(Duration::from_secs(1)) => {}
        }
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("target", &self.target).finish_non_exhaustive()
    }
}

/// Makes one connection, which a task of `driving` carries. `tls` is what [`tls_for`] made.
///
/// # Errors
/// When the server cannot be reached, or refuses.
pub(crate) async fn dial(
    target: &PostgresTarget,
    tls: Option<&MakeRustlsConnect>,
    driving: &TaskTracker,
) -> Result<Client, tokio_postgres::Error> {
    let config = target.config();
    Ok(match tls {
        Some(tls) => {
            let (client, connection) = config.connect(tls.clone()).await?;
            driving.spawn(drive(connection));
            client
        }
        None => {
            let (client, connection) = config.connect(NoTls).await?;
            driving.spawn(drive(connection));
            client
        }
    })
}

/// What speaks TLS to `target`, if that may be spoken. Reads the system's certificate authorities: call it off the async
/// threads.
///
/// # Errors
/// When TLS cannot be set up.
pub(crate) fn tls_for(target: &PostgresTarget) -> Result<Option<MakeRustlsConnect>, rustls::Error> {
    target.may_encrypt().then(tls).transpose()
}

/// Carries what a connection sends and receives, until it is dropped or breaks.
async fn drive(connection: impl Future<Output = Result<(), tokio_postgres::Error>> + Send) {
    if let Err(error) = connection.await {
        tracing::debug!(error = in_words(&error), "a connection to the database broke");
    }
}

/// TLS 1.2 and 1.3 by ring, trusting what the system trusts.
fn tls() -> Result<MakeRustlsConnect, rustls::Error> {
    let builder = || {
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
    };
    let config = match builder()?.with_platform_verifier() {
        Ok(trusting) => trusting.with_no_client_auth(),
        Err(error) => {
            tracing::warn!(%error, "no certificate authorities found: a database that speaks TLS will not be trusted");
            builder()?.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

/// An error and what is behind it, in one line.
fn in_words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        behind = error.source();
    }
    words
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
