//! Change feeds: who reads which partition, and how far it has come.

use rusqlite::{Connection, params};

use crate::store::encoding::{millis, timestamp};
use crate::store::feeding::{self, Kept, Split};
use crate::store::{Checkpoint, Lease, Owner, PartitionClaim, PartitionsClaimed, StoreError};

/// Gives a host its partitions.
///
/// # Errors
/// [`StoreError`]
pub(super) fn claim(connection: &Connection, claim: &PartitionClaim) -> Result<PartitionsClaimed, StoreError> {
    let PartitionClaim { feed, lease, now, .. } = claim;
    let mut kept = kept(connection, feed)?;
    match feeding::split(&kept, claim) {
        Split::AsAsked => {}
        Split::Otherwise(partitions) => return Ok(PartitionsClaimed::SplitOtherwise { partitions }),
        Split::Anew(from) => {
            kept = feeding::anew(claim.partitions, &from);
            connection.prepare_cached("DELETE FROM feed_partitions WHERE feed = ?1")?.execute([feed])?;
            for partition in &kept {
                connection
                    .prepare_cached("INSERT INTO feed_partitions (feed, number, cursor) VALUES (?1, ?2, ?3)")?
                    .execute(params![feed, partition.number, from.as_ref().map(|from| from.cursor)])?;
            }
        }
    }
    connection
        .prepare_cached(
            "INSERT INTO feed_hosts (feed, owner, alive_until) VALUES (?1, ?2, ?3)
             ON CONFLICT (feed, owner) DO UPDATE SET alive_until = excluded.alive_until",
        )?
        .execute(params![feed, lease.owner.0, millis(lease.until)])?;
    connection
        .prepare_cached("DELETE FROM feed_hosts WHERE feed = ?1 AND alive_until <= ?2")?
        .execute(params![feed, millis(*now)])?;
    let hosts = connection
        .prepare_cached("SELECT count(*) FROM feed_hosts WHERE feed = ?1")?
        .query_row([feed], |row| row.get(0))?;
    let granted = feeding::granted(&kept, hosts, claim);
    for number in &granted {
        connection
            .prepare_cached(
                "UPDATE feed_partitions SET lease_owner = ?3, lease_until = ?4 WHERE feed = ?1 AND number = ?2",
            )?
            .execute(params![feed, number, lease.owner.0, millis(lease.until)])?;
    }
    Ok(feeding::held(kept, &granted, hosts, claim))
}

fn kept(connection: &Connection, feed: &str) -> Result<Vec<Kept>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT number, lease_owner, lease_until, cursor, cursor_key FROM feed_partitions WHERE feed = ?1
         ORDER BY number",
    )?;
    let rows = statement.query_map([feed], |row| {
        let lease = Option::zip(row.get::<_, Option<String>>(1)?, row.get::<_, Option<i64>>(2)?);
        let (cursor, key): (Option<i64>, _) = (row.get(3)?, row.get(4)?);
        Ok(Kept {
            number: row.get(0)?,
            lease: lease.map(|(owner, until)| Lease { owner: Owner(owner), until: timestamp(until) }),
            checkpoint: cursor.map(|cursor| Checkpoint { cursor, key }),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Writes down how far a partition has come; answers whether `owner` still held it.
///
/// # Errors
/// [`StoreError`]
pub(super) fn checkpoint(
    connection: &Connection,
    feed: &str,
    partition: u32,
    owner: &Owner,
    checkpoint: &Checkpoint,
) -> Result<bool, StoreError> {
    let written = connection
        .prepare_cached(
            "UPDATE feed_partitions SET cursor = ?4, cursor_key = ?5
             WHERE feed = ?1 AND number = ?2 AND lease_owner = ?3",
        )?
        .execute(params![feed, partition, owner.0, checkpoint.cursor, checkpoint.key])?;
    Ok(written > 0)
}

/// Gives one partition back, or all of them.
///
/// # Errors
/// [`StoreError`]
pub(super) fn give_back(
    connection: &Connection,
    feed: &str,
    partition: Option<u32>,
    owner: &Owner,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE feed_partitions SET lease_owner = NULL, lease_until = NULL
             WHERE feed = ?1 AND lease_owner = ?2 AND (?3 IS NULL OR number = ?3)",
        )?
        .execute(params![feed, owner.0, partition])?;
    Ok(())
}

/// Gives all partitions back, and forgets the host.
///
/// # Errors
/// [`StoreError`]
pub(super) fn leave(connection: &Connection, feed: &str, owner: &Owner) -> Result<(), StoreError> {
    give_back(connection, feed, None, owner)?;
    connection
        .prepare_cached("DELETE FROM feed_hosts WHERE feed = ?1 AND owner = ?2")?
        .execute(params![feed, owner.0])?;
    Ok(())
}

/// Takes over what every host but `owner` held.
///
/// # Errors
/// [`StoreError`]
pub(super) fn recover(connection: &Connection, owner: &Owner) -> Result<(), StoreError> {
    connection.execute(
        "UPDATE feed_partitions SET lease_owner = NULL, lease_until = NULL WHERE lease_owner <> ?1",
        [&owner.0],
    )?;
    connection.execute("DELETE FROM feed_hosts WHERE owner <> ?1", [&owner.0])?;
    Ok(())
}
