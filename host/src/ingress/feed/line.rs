//! The connection to the table's database: one for each host, on which nothing is written.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};
use tokio_util::task::TaskTracker;

use super::failure::FeedFailure;
use crate::clock::Clock;
use crate::store::PostgresTarget;
use crate::store::postgres::{dial, tls_for};

/// How long connecting may take, TLS included.
const CONNECTING: Duration = Duration::from_secs(15);

/// How long one statement may take: the server gives it up then, and a little later so does the host.
const PATIENCE: Duration = Duration::from_secs(70);

/// What a session is set to: it writes nothing, the text of a value does not depend on the database's settings, and a
/// table whose rows it may not all see is an error rather than a feed with holes.
const SESSION: &str = "SET search_path TO pg_catalog; SET default_transaction_read_only TO on;
    SET default_transaction_isolation TO 'read committed'; SET \"TimeZone\" TO 'UTC'; SET \"DateStyle\" TO 'ISO';
    SET \"IntervalStyle\" TO 'iso_8601'; SET bytea_output TO 'hex'; SET extra_float_digits TO 1;
    SET statement_timeout TO '60s'; SET row_security TO off";

/// A connection. It ends when it is dropped.
pub(super) struct Line {
    client: Client,
    clock: Arc<dyn Clock>,
}

impl Line {
    /// Connects.
    ///
    /// # Errors
    /// [`FeedFailure`]
    pub(super) async fn open(database: &PostgresTarget, clock: &Arc<dyn Clock>) -> Result<Self, FeedFailure> {
        let target = database.clone();
        // Reads the system's certificate authorities.
        let tls = tokio::task::spawn_blocking(move || tls_for(&target)).await;
        let tls = tls.map_err(|_| FeedFailure::BrokeOff)?.map_err(|error| FeedFailure::Tls(error.to_string()))?;
        // What carries the connection ends with the client, and so belongs to nobody else.
        let driving = TaskTracker::new();
        let connecting = async {
            let client = dial(database, tls.as_ref(), &driving).await?;
            client.batch_execute(SESSION).await?;
            Ok(client)
        };
        tokio::select! {
            client = connecting => client.map(|client| Self { client, clock: Arc::clone(clock) }),
            () = clock.sleep(CONNECTING) => Err(FeedFailure::Late(CONNECTING)),
        }
    }

    /// Runs one statement, which is a transaction of its own.
    ///
    /// # Errors
    /// [`FeedFailure`]; after [`FeedFailure::Late`] the connection is to be given up.
    pub(super) async fn query(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, FeedFailure> {
        tokio::select! {
            rows = self.client.query(sql, parameters) => Ok(rows?),
            () = self.clock.sleep(PATIENCE) => Err(FeedFailure::Late(PATIENCE)),
        }
    }

    /// As [`Line::query`], for the one row or none that it answers.
    ///
    /// # Errors
    /// As [`Line::query`].
    pub(super) async fn query_opt(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, FeedFailure> {
        Ok(self.query(sql, parameters).await?.pop())
    }
}
