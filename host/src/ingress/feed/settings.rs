//! What a feed is set to do.

use std::time::Duration;

use super::table::TableName;
use crate::ingress::source::Connect;
use crate::store::PostgresTarget;

/// Rows of one partition that are read and stored at once, unless configured.
pub const BATCH: u16 = 100;
/// The most that may be configured.
pub const MOST_BATCH: u16 = 1000;
/// The most partitions.
pub const MOST_PARTITIONS: u32 = 64;
/// How often the table is looked at, unless configured.
pub const POLL: Duration = Duration::from_secs(1);
/// How long a partition of a host that died waits for another one, unless configured.
pub const LEASE: Duration = Duration::from_secs(30);

/// What a feed is set to do. Its `Debug` shows no password, as [`PostgresTarget`] does not.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// The source's name.
    pub name: String,
    /// The database that the table is in; its schema is not heeded.
    pub database: PostgresTarget,
    /// The table.
    pub table: TableName,
    /// The column that grows with every insert and update.
    pub cursor: String,
    /// The column that tells rows apart, and by which they are split.
    pub key: String,
    /// How many parts the feed is split into, 1 to [`MOST_PARTITIONS`]: so many hosts can share it at most.
    pub partitions: u32,
    /// Rows of one partition that are read and stored at once, 1 to [`MOST_BATCH`].
    pub batch: u16,
    /// How often the table is looked at while nothing changes.
    pub poll: Duration,
    /// How long a host has a partition to itself without saying that it still reads it.
    pub lease: Duration,
    /// How often connecting is tried again, at the start and after each loss.
    pub connect: Connect,
}
