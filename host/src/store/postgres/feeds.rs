//! Change feeds: who reads which partition, and how far it has come.
//!
//! Whoever claims locks the feed's row first, so that hosts that claim at once do so one after the other.

use tokio_postgres::Row;

use super::connections::Connection;
use super::failure::Failure;
use super::rows::{column, moment_or_none, plain, text};
use crate::store::encoding::{millis, unreadable};
use crate::store::feeding::{self, Kept, Split};
use crate::store::{Checkpoint, Lease, Owner, PartitionClaim, PartitionsClaimed};

/// Gives a host its partitions.
///
/// # Errors
/// [`Failure`]
pub(super) async fn claim(connection: Connection<'_>, claim: &PartitionClaim) -> Result<PartitionsClaimed, Failure> {
    const READ: &str = "SELECT number, lease_owner, lease_until, cursor, cursor_key FROM feed_partitions
        WHERE feed = $1 ORDER BY number";
    let PartitionClaim { feed, lease, now, .. } = claim;
    let (owner, until) = (&lease.owner.0, millis(lease.until));
    connection.query("INSERT INTO feeds (feed) VALUES ($1) ON CONFLICT (feed) DO NOTHING", &[feed]).await?;
    connection.begin().await?;
    connection.query("SELECT feed FROM feeds WHERE feed = $1 FOR UPDATE", &[feed]).await?;
    let mut kept =
        connection.query(READ, &[feed]).await?.iter().map(partition).collect::<Result<Vec<Kept>, Failure>>()?;
    match feeding::split(&kept, claim) {
        Split::AsAsked => {}
        Split::Otherwise(partitions) => {
            connection.roll_back().await?;
            return Ok(PartitionsClaimed::SplitOtherwise { partitions });
        }
        Split::Anew(from) => {
            kept = feeding::anew(claim.partitions, &from);
            connection.query("DELETE FROM feed_partitions WHERE feed = $1", &[feed]).await?;
            let numbers: Vec<i64> = kept.iter().map(|partition| i64::from(partition.number)).collect();
            let cursor = from.map(|from| from.cursor);
            connection
                .query(
                    "INSERT INTO feed_partitions (feed, number, cursor) SELECT $1, n, $3 FROM unnest($2::bigint[]) AS n",
                    &[feed, &numbers, &cursor],
                )
                .await?;
        }
    }
    connection
        .query(
            "INSERT INTO feed_hosts (feed, owner, alive_until) VALUES ($1, $2, $3)
             ON CONFLICT (feed, owner) DO UPDATE SET alive_until = excluded.alive_until",
            &[feed, owner, &until],
        )
        .await?;
    connection.query("DELETE FROM feed_hosts WHERE feed = $1 AND alive_until <= $2", &[feed, &millis(*now)]).await?;
    let counted = connection.query_opt("SELECT count(*) AS hosts FROM feed_hosts WHERE feed = $1", &[feed]).await?;
    let hosts = counted.map_or(Ok(1), |row| column::<i64>(&row, "hosts"))?;
    let hosts = u32::try_from(hosts).unwrap_or(u32::MAX);
    let granted = feeding::granted(&kept, hosts, claim);
    let numbers: Vec<i64> = granted.iter().copied().map(i64::from).collect();
    connection
        .query(
            "UPDATE feed_partitions SET lease_owner = $3, lease_until = $4 WHERE feed = $1 AND number = ANY ($2)",
            &[feed, &numbers, owner, &until],
        )
        .await?;
    connection.commit().await?;
    Ok(feeding::held(kept, &granted, hosts, claim))
}

fn partition(row: &Row) -> Result<Kept, Failure> {
    let lease = Option::zip(column::<Option<String>>(row, "lease_owner")?, moment_or_none(row, "lease_until")?);
    let key = column::<Option<&str>>(row, "cursor_key")?.map(plain);
    Ok(Kept {
        number: u32::try_from(column::<i64>(row, "number")?).map_err(unreadable)?,
        lease: lease.map(|(owner, until)| Lease { owner: Owner(owner), until }),
        checkpoint: column::<Option<i64>>(row, "cursor")?.map(|cursor| Checkpoint { cursor, key }),
    })
}

/// Writes down how far a partition has come; answers whether `owner` still held it.
///
/// # Errors
/// [`Failure`]
pub(super) async fn checkpoint(
    connection: Connection<'_>,
    feed: &str,
    partition: u32,
    owner: &Owner,
    checkpoint: &Checkpoint,
) -> Result<bool, Failure> {
    let written = connection
        .query(
            "UPDATE feed_partitions SET cursor = $4, cursor_key = $5
             WHERE feed = $1 AND number = $2 AND lease_owner = $3 RETURNING number",
            &[&feed, &i64::from(partition), &owner.0, &checkpoint.cursor, &checkpoint.key.as_deref().map(text)],
        )
        .await?;
    Ok(!written.is_empty())
}

/// Gives one partition back, or all of them.
///
/// # Errors
/// [`Failure`]
pub(super) async fn give_back(
    connection: &Connection<'_>,
    feed: &str,
    partition: Option<u32>,
    owner: &Owner,
) -> Result<(), Failure> {
    connection
        .query(
            "UPDATE feed_partitions SET lease_owner = NULL, lease_until = NULL
             WHERE feed = $1 AND lease_owner = $2 AND ($3::bigint IS NULL OR number = $3)",
            &[&feed, &owner.0, &partition.map(i64::from)],
        )
        .await?;
    Ok(())
}

/// Gives all partitions back, and forgets the host.
///
/// # Errors
/// [`Failure`]
pub(super) async fn leave(connection: &Connection<'_>, feed: &str, owner: &Owner) -> Result<(), Failure> {
    give_back(connection, feed, None, owner).await?;
    connection.query("DELETE FROM feed_hosts WHERE feed = $1 AND owner = $2", &[&feed, &owner.0]).await?;
    Ok(())
}
