//! The store's part in change feeds (`crate::ingress::feed`): who reads which partition, and how far it has come.
//!
//! A feed is split into partitions, numbered from 0. Each is read by the host that holds its lease, and its checkpoint
//! says where the next holder goes on. What is decided is decided here, by a pure function of what the store holds; the
//! stores lock, ask, and write down.

use async_trait::async_trait;

use super::{Lease, Owner, StoreError};
use crate::clock::Timestamp;

/// A part of the seam [`Store`](super::Store): where feeds keep their place.
#[async_trait]
pub trait Feeding: Send + Sync + 'static {
    /// Says that a host is alive on a feed, prolongs the leases that it holds there, and gives it partitions that are
    /// free or whose lease has run out, up to its [`share`]. Where the feed is split into another number of partitions
    /// than asked for, it is split anew as soon as no other host holds one of the old: every new one goes on from before
    /// the smallest checkpoint of the old.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is then changed, as far as that is certain.
    async fn claim_partitions(&self, claim: PartitionClaim) -> Result<PartitionsClaimed, StoreError>;

    /// Writes down how far a partition has come, if `owner` still holds it. Answers whether that was so; otherwise
    /// nothing is changed.
    ///
    /// # Errors
    /// [`StoreError`]; the caller says it again.
    async fn checkpoint(
        &self,
        feed: String,
        partition: u32,
        owner: Owner,
        checkpoint: Checkpoint,
    ) -> Result<bool, StoreError>;

    /// Gives one partition back, for another host to take, if `owner` holds it.
    ///
    /// # Errors
    /// [`StoreError`]; its lease runs out by itself.
    async fn give_back(&self, feed: String, partition: u32, owner: Owner) -> Result<(), StoreError>;

    /// Gives all partitions back, and no longer counts `owner` among the hosts of the feed.
    ///
    /// # Errors
    /// [`StoreError`]; what it holds runs out by itself.
    async fn leave_feed(&self, feed: String, owner: Owner) -> Result<(), StoreError>;
}

/// What a host asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionClaim {
    /// The feed: its source, its table and its cursor, in one text. Hosts that share a store agree on it.
    pub feed: String,
    /// How many partitions it is split into, at least 1.
    pub partitions: u32,
    /// When the host asks.
    pub now: Timestamp,
    /// Who it is, and until when it is alive and holds what it holds unless it asks again.
    pub lease: Lease,
}

/// What a host was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionsClaimed {
    /// These are its own until the lease runs out.
    Held {
        /// All that it holds now, by number.
        partitions: Vec<Partition>,
        /// How many it should hold at most: what is over that it gives back.
        share: u32,
    },
    /// Nothing: other hosts hold partitions of the same feed, split into another number. It is to ask again.
    SplitOtherwise {
        /// Their number.
        partitions: u32,
    },
}

/// A partition that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 0.
    pub number: u32,
    /// How far it has come; none: it has not begun.
    pub checkpoint: Option<Checkpoint>,
}

/// How far a partition has come: every row up to here is stored as a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The cursor of the last row, as a number that sorts as the cursor does.
    pub cursor: i64,
    /// The key of the last row; none: every row with this cursor is done.
    pub key: Option<String>,
}

/// How many partitions one of so many hosts that are alive holds at most.
pub fn share(partitions: u32, hosts: u32) -> u32 {
    partitions.div_ceil(hosts.max(1))
}

/// A partition as the store holds it.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) number: u32,
    pub(super) lease: Option<Lease>,
    pub(super) checkpoint: Option<Checkpoint>,
}

impl Kept {
    /// Whether somebody other than `owner` holds it at `now`.
    fn is_held_by_another(&self, owner: &Owner, now: Timestamp) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.owner != *owner && lease.until > now)
    }

    fn is_held_by(&self, owner: &Owner) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.owner == *owner)
    }
}

/// How the feed stands to the number of partitions that a host asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Split {
    /// It is split so.
    AsAsked,
    /// It is to be split so, every partition going on from here.
    Anew(Option<Checkpoint>),
    /// Others hold it split into so many.
    Otherwise(u32),
}

/// How the partitions that are `kept` stand to `claim`.
pub(super) fn split(kept: &[Kept], claim: &PartitionClaim) -> Split {
    let count = u32::try_from(kept.len()).unwrap_or(u32::MAX);
    if count == claim.partitions {
        return Split::AsAsked;
    }
    if kept.iter().any(|partition| partition.is_held_by_another(&claim.lease.owner, claim.now)) {
        return Split::Otherwise(count);
    }
    // One that has not begun sorts before all others. The keys of rows with the smallest cursor sort as their column
    // does, which the store does not know: those rows are read again, and known again.
    let smallest = kept.iter().map(|partition| partition.checkpoint.as_ref().map(|at| at.cursor)).min().flatten();
    let before = smallest.and_then(|cursor: i64| cursor.checked_sub(1));
    Split::Anew(before.map(|cursor| Checkpoint { cursor, key: None }))
}

/// The numbers of the partitions that the claiming host holds from now on: its own, and of the free ones as many as its
/// share leaves room for, the lowest first.
pub(super) fn granted(kept: &[Kept], hosts: u32, claim: &PartitionClaim) -> Vec<u32> {
    let owner = &claim.lease.owner;
    let (own, others): (Vec<&Kept>, Vec<&Kept>) = kept.iter().partition(|partition| partition.is_held_by(owner));
    let room = (share(claim.partitions, hosts) as usize).saturating_sub(own.len());
    let free = others.into_iter().filter(|partition| !partition.is_held_by_another(owner, claim.now));
    let mut numbers: Vec<u32> = own.iter().map(|partition| partition.number).collect();
    numbers.extend(free.map(|partition| partition.number).take(room));
    numbers.sort_unstable();
    numbers
}

/// What the host holds, once it was granted these.
pub(super) fn held(kept: Vec<Kept>, granted: &[u32], hosts: u32, claim: &PartitionClaim) -> PartitionsClaimed {
    let partitions = kept.into_iter().filter(|partition| granted.contains(&partition.number));
    let partitions = partitions.map(|Kept { number, checkpoint, .. }| Partition { number, checkpoint }).collect();
    PartitionsClaimed::Held { partitions, share: share(claim.partitions, hosts) }
}

/// The partitions of a feed that is split anew.
pub(super) fn anew(partitions: u32, from: &Option<Checkpoint>) -> Vec<Kept> {
    (0..partitions).map(|number| Kept { number, lease: None, checkpoint: from.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn claim(partitions: u32, by: &str) -> PartitionClaim {
        let lease = Lease { owner: Owner(by.to_owned()), until: Timestamp::from_millis(2_000) };
        PartitionClaim { feed: "scans".to_owned(), partitions, now: NOW, lease }
    }

    prop_compose! {
        fn partition()(
            owner in prop::option::of("[abc]"), until in 0_u64..2_000, cursor in prop::option::of(prop_oneof![-5_i64..5, Just(i64::MIN)]),
        ) -> (Option<Lease>, Option<Checkpoint>) {
            let lease = owner.map(|owner| Lease { owner: Owner(owner), until: Timestamp::from_millis(until) });
            (lease, cursor.map(|cursor| Checkpoint { cursor, key: Some("7".to_owned()) }))
        }
    }

    fn kept() -> impl Strategy<Value = Vec<Kept>> {
        prop::collection::vec(partition(), 1..9).prop_map(|all| {
            let numbered = (0..).zip(all);
            numbered.map(|(number, (lease, checkpoint))| Kept { number, lease, checkpoint }).collect()
        })
    }

    proptest! {
        #[test]
        fn nobody_is_granted_what_another_holds_nor_more_than_a_share_beside_its_own(
            kept in kept(), hosts in 1_u32..5
        ) {
            let claim = claim(u32::try_from(kept.len()).unwrap(), "a");
            let granted = granted(&kept, hosts, &claim);
            let own = kept.iter().filter(|partition| partition.is_held_by(&claim.lease.owner)).count();
            prop_assert!(granted.len() <= own.max(share(claim.partitions, hosts) as usize));
            for partition in &kept {
                let taken = granted.contains(&partition.number);
                prop_assert!(!(taken && partition.is_held_by_another(&claim.lease.owner, NOW)));
                prop_assert!(taken || !partition.is_held_by(&claim.lease.owner), "what is held stays held");
            }
        }

        #[test]
        fn the_shares_of_all_hosts_cover_all_partitions(partitions in 1_u32..65, hosts in 1_u32..70) {
            prop_assert!(share(partitions, hosts) * hosts >= partitions);
            prop_assert!(share(partitions, hosts) >= 1);
        }

        #[test]
        fn a_feed_split_anew_leaves_no_row_out(kept in kept(), partitions in 1_u32..9) {
            match split(&kept, &claim(partitions, "a")) {
                Split::AsAsked => prop_assert_eq!(kept.len(), partitions as usize),
                Split::Otherwise(count) => prop_assert_eq!(kept.len(), count as usize),
                Split::Anew(from) => for partition in &kept {
                    let old = partition.checkpoint.as_ref().map(|at| at.cursor);
                    prop_assert!(from.as_ref().map(|from| from.cursor) < old || old.is_none() && from.is_none());
                },
            }
        }
    }
}
