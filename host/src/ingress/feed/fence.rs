//! The fence: waits until every transaction has ended that may still write a row with a cursor that is already passed.
//!
//! The claim: once [`Fence::pass`] has returned for the upper bound *U*, a statement that begins afterwards sees every
//! row that will ever have a cursor up to *U*, under the conditions that the [module](super) names.
//!
//! The proof. Let *T* write such a row, and *c* ≤ *U* be its cursor, which *T* drew itself. *U* was visible when it was
//! read, so somebody had drawn it before, and cursors are drawn in their order: *T* had drawn *c* by then, and was
//! running. (Of times, *U* is a second old when it is read, and *T* began within a second of its time.) Only then are the
//! running transactions noted. Either *T* had ended, and whoever looks from then on sees what it wrote; or it was
//! prepared, which step 3 looks for; or it was running, and was noted. A transaction holds an exclusive lock on its
//! virtual id from its beginning, before its first statement, until after its end is visible to others (PostgreSQL
//! documentation, "Transactions and Identifiers" and "pg_locks"); so when the lock is gone *T* has ended, or is
//! prepared. A prepared transaction is in `pg_prepared_xacts` from before its virtual id goes until after its end is
//! visible. Those are noted after the virtual ids are gone, and waited for.
//!
//! What would not do: to wait until no transaction id below a certain one runs (`pg_snapshot_xmin`). A transaction has no
//! id before it writes, and may have drawn its cursor by then; it may then be given any later id, and be prepared under
//! it.
//!
//! Left out are transactions in other databases, and those of processes that run as no user (autovacuum), which write no
//! rows of their own. Whoever may read neither others' queries nor their states still sees all that is needed; only the
//! age of what is waited for is then unknown.

use std::collections::BTreeSet;
use std::time::Duration;

use super::failure::FeedFailure;
use super::line::Line;
use super::shown::{Progress, Waiting};
use crate::clock::{Clock, Stopwatch};

/// The first pause before it is looked again whether what is waited for has ended; each is twice as long as the one
/// before.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
/// After how long a wait is logged.
const LONG: Duration = Duration::from_secs(30);

/// The transactions that run, or of these those that run still: `$1` names them, unless it is null.
const RUNNING: &str = "
    SELECT l.virtualxid::text, l.pid, extract(epoch FROM clock_timestamp() - a.xact_start)::float8
    FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.granted AND l.pid <> pg_backend_pid()
        AND ($1::text[] IS NULL OR l.virtualxid = ANY ($1))
        AND (a.pid IS NULL OR (a.usesysid IS NOT NULL AND a.datid =
            (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())))
    ORDER BY a.xact_start";

/// The prepared transactions, by their ids and names, the oldest first.
const PREPARED: &str = "
    SELECT transaction::text, gid, extract(epoch FROM clock_timestamp() - prepared)::float8
    FROM pg_catalog.pg_prepared_xacts WHERE database = current_database() ORDER BY prepared";

/// What a fence works with.
pub(super) struct Fence<'a> {
    pub(super) source: &'a str,
    pub(super) line: &'a Line,
    pub(super) clock: &'a dyn Clock,
    pub(super) progress: &'a Progress,
    /// The longest pause between two looks.
    pub(super) longest_pause: Duration,
}

impl Fence<'_> {
    /// Waits until every transaction has ended that runs now. The upper bound must have been read before, in a statement
    /// of its own.
    ///
    /// # Errors
    /// [`FeedFailure`]; the fence has not passed then.
    pub(super) async fn pass(&self) -> Result<(), FeedFailure> {
        let wait = &mut Wait { since: Stopwatch::start(), pause: SHORTEST_PAUSE, said: false };
        let mut noted: Option<Vec<String>> = None;
        loop {
            let running = self.line.query(RUNNING, &[&noted]).await?;
            let Some(oldest) = running.first() else { break };
            let age = oldest.try_get::<_, Option<f64>>(2)?;
            self.wait(wait, Waiting::running(oldest.try_get(1)?, age, running.len())).await;
            noted = Some(running.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?);
        }
        let mut noted: Option<BTreeSet<String>> = None;
        loop {
            let mut left = BTreeSet::new();
            let mut oldest = None;
            for row in self.line.query(PREPARED, &[]).await? {
                let id: String = row.try_get(0)?;
                if noted.as_ref().is_none_or(|noted| noted.contains(&id)) {
                    oldest = oldest.or(Some((row.try_get::<_, String>(1)?, row.try_get::<_, Option<f64>>(2)?)));
                    left.insert(id);
                }
            }
            let Some((name, age)) = oldest else { break };
            self.wait(wait, Waiting::prepared(name, age, left.len())).await;
            noted = Some(left);
        }
        self.progress.waits_for(None, self.clock.now());
        Ok(())
    }

    async fn wait(&self, wait: &mut Wait, waiting: Waiting) {
        if !wait.said && wait.since.elapsed() >= LONG {
            wait.said = true;
            let Waiting { pid, prepared, age_seconds, transactions } = &waiting;
            tracing::warn!(
                source = self.source,
                pid,
                prepared,
                age_seconds,
                transactions,
                "the feed has waited for more than {} s: a transaction that may write earlier rows is still running",
                LONG.as_secs()
            );
        }
        self.progress.waits_for(Some(waiting), self.clock.now());
        self.clock.sleep(wait.pause).await;
        wait.pause = (wait.pause * 2).min(self.longest_pause);
    }
}

/// How long it has been waited.
struct Wait {
    since: Stopwatch,
    pause: Duration,
    said: bool,
}
