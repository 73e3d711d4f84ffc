//! How far this host's clock and the database's are apart.
//!
//! Leases are compared with each host's own clock. A host whose clock is ahead would find the leases of others lapsed
//! that are not, and one whose clock is behind would have its own taken; the database's clock is what they can all be
//! compared with. A host that is further from it than a third of a lease, which is how often leases are prolonged,
//! claims nothing until the clocks agree. What it takes in, and what it has, it attempts all the same.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::connections::Connection;
use super::failure::Failure;
use super::rows;
use crate::clock::{Clock, Stopwatch, Timestamp};
use crate::store::encoding::timestamp;

/// How often the clocks are compared.
const EVERY: Duration = Duration::from_secs(30);

/// How far apart they may be, and how far this host's may have been set since they were compared, before that is said or
/// looked into.
const SLIGHT: Duration = Duration::from_secs(1);

/// A third of a lease: no further may they be apart.
const SHARE: u32 = 3;

/// The comparison of the clocks.
pub(super) struct Clocks {
    clock: Arc<dyn Clock>,
    known: Mutex<Option<Compared>>,
}

/// What the last comparison found.
#[derive(Clone, Copy)]
struct Compared {
    since: Stopwatch,
    /// What this host's clock showed then.
    at: Timestamp,
    apart: Apart,
}

/// How far this host's clock is surely from the database's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Apart {
    Ahead(Duration),
    Behind(Duration),
}

impl Apart {
    /// The database was asked for its time at `asked` and had answered at `answered`, both by this host's clock. Whatever
    /// the time that took may explain is not counted.
    fn between(asked: Timestamp, database: Timestamp, answered: Timestamp) -> Self {
        let (ahead, behind) = (asked.since(database), database.since(answered));
        if behind.is_zero() { Self::Ahead(ahead) } else { Self::Behind(behind) }
    }

    const fn by(self) -> Duration {
        match self {
            Self::Ahead(by) | Self::Behind(by) => by,
        }
    }

    /// Whether messages may be claimed under a lease of this length.
    fn allows(self, lease: Duration) -> bool {
        self.by() <= lease / SHARE
    }
}

impl std::fmt::Display for Apart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ahead(by) => write!(f, "{by:?} ahead of"),
            Self::Behind(by) => write!(f, "{by:?} behind"),
        }
    }
}

impl Clocks {
    /// None have been compared yet.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, known: Mutex::default() }
    }

    /// Checks that messages may be claimed under a lease of this length.
    ///
    /// # Errors
    /// [`Failure::ClocksApart`] when they may not.
    pub(super) async fn check(&self, connection: &Connection<'_>, lease: Duration) -> Result<(), Failure> {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let apart = match known.filter(|known| !known.is_stale(self.clock.now()) && known.apart.allows(lease)) {
            Some(known) => known.apart,
            None => self.compare(connection).await?,
        };
        if apart.allows(lease) { Ok(()) } else { Err(Failure::ClocksApart { apart, most: lease / SHARE }) }
    }

    /// Compares them now, and says so in the log when they come to be apart.
    ///
    /// # Errors
    /// [`Failure`]
    pub(super) async fn compare(&self, connection: &Connection<'_>) -> Result<Apart, Failure> {
        let asked = self.clock.now();
        let row = connection
            .query_opt("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now", &[])
            .await?;
        let answered = self.clock.now();
        let database = row.map_or(Ok(asked), |row| rows::column(&row, "now").map(timestamp))?;
        let apart = Apart::between(asked, database, answered);
        let compared = Compared { since: Stopwatch::start(), at: answered, apart };
        let before = self.known.lock().unwrap_or_else(PoisonError::into_inner).replace(compared);
        let was_said = before.is_some_and(|before| before.apart.by() > SLIGHT);
        match (apart.by() > SLIGHT, was_said) {
            (true, false) => {
                tracing::warn!("this host's clock is {apart} the database's: hosts that share it need the same time")
            }
            (false, true) => tracing::info!("this host's clock and the database's agree again"),
            _ => {}
        }
        Ok(apart)
    }
}

impl Compared {
    /// Whether they are to be compared anew: it is long ago, or this host's clock was set since.
    fn is_stale(&self, now: Timestamp) -> bool {
        let passed = self.since.elapsed();
        let shown = now.since(self.at);
        passed >= EVERY || shown.abs_diff(passed) > SLIGHT || now < self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + millis)
    }

    #[test]
    fn only_what_the_time_of_the_question_does_not_explain_is_counted() {
        let millis = Duration::from_millis;
        for (database, apart) in [
            (100, Apart::Ahead(millis(0))),
            (300, Apart::Ahead(millis(0))),
            (500, Apart::Ahead(millis(0))),
            (40, Apart::Ahead(millis(60))),
            (570, Apart::Behind(millis(70))),
        ] {
            assert_eq!(Apart::between(at(100), at(database), at(500)), apart, "{database}");
        }
    }

    #[test]
    fn a_third_of_a_lease_may_be_between_them() {
        let lease = Duration::from_secs(30);
        for apart in [Apart::Ahead, Apart::Behind] {
            assert!(apart(Duration::from_secs(10)).allows(lease));
            assert!(!apart(Duration::from_millis(10_001)).allows(lease));
        }
    }
}
