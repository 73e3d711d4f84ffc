//! The partitions of a feed are shared by the hosts that are alive on it, each is held by one at a time, and its place
//! outlives its holder.

use super::{at, lease, owner};
use crate::clock::Timestamp;
use crate::store::{Checkpoint, Partition, PartitionClaim, PartitionsClaimed, Store};

const FEED: &str = "scans public.scans changed";

/// What `by` holds after it asked for `partitions`, and its share.
async fn claims(
    store: &dyn Store,
    by: &str,
    partitions: u32,
    now: Timestamp,
    until: Timestamp,
) -> (Vec<Partition>, u32) {
    let claim = PartitionClaim { feed: FEED.to_owned(), partitions, now, lease: lease(by, until) };
    match store.claim_partitions(claim).await.unwrap() {
        PartitionsClaimed::Held { partitions, share } => (partitions, share),
        otherwise @ PartitionsClaimed::SplitOtherwise { .. } => panic!("{by} was given nothing: {otherwise:?}"),
    }
}

async fn numbers(store: &dyn Store, by: &str, partitions: u32, now: Timestamp, until: Timestamp) -> Vec<u32> {
    claims(store, by, partitions, now, until).await.0.into_iter().map(|partition| partition.number).collect()
}

fn place(cursor: i64, key: Option<&str>) -> Checkpoint {
    Checkpoint { cursor, key: key.map(str::to_owned) }
}

async fn notes(store: &dyn Store, by: &str, partition: u32, checkpoint: Checkpoint) -> bool {
    store.checkpoint(FEED.to_owned(), partition, owner(by), checkpoint).await.unwrap()
}

pub(in crate::store) async fn one_host_holds_all_partitions(store: &dyn Store) {
    let (held, share) = claims(store, "a", 3, at(0), at(30)).await;
    let unbegun = |number| Partition { number, checkpoint: None };
    assert_eq!((held, share), (vec![unbegun(0), unbegun(1), unbegun(2)], 3));
}

pub(in crate::store) async fn hosts_share_and_no_partition_is_two_hosts(store: &dyn Store) {
    assert_eq!(numbers(store, "a", 4, at(0), at(30)).await, [0, 1, 2, 3]);
    // There is a second one, and nothing left for it; the first one's share is smaller now.
    assert_eq!(claims(store, "b", 4, at(1), at(31)).await, (vec![], 2));
    let (held, share) = claims(store, "a", 4, at(2), at(32)).await;
    assert_eq!((held.len(), share), (4, 2));
    for partition in [2, 3] {
        store.give_back(FEED.to_owned(), partition, owner("a")).await.unwrap();
    }
    assert_eq!(numbers(store, "a", 4, at(3), at(33)).await, [0, 1]);
    assert_eq!(numbers(store, "b", 4, at(3), at(33)).await, [2, 3]);
    assert_eq!(numbers(store, "a", 4, at(4), at(34)).await, [0, 1]);
}

pub(in crate::store) async fn of_hosts_that_claim_at_once_none_holds_what_another_does(store: &dyn Store) {
    let claims = ["a", "b", "c", "d"].map(|by| numbers(store, by, 8, at(0), at(30)));
    let mut held: Vec<u32> = futures_util::future::join_all(claims).await.concat();
    held.sort_unstable();
    assert_eq!(held, [0, 1, 2, 3, 4, 5, 6, 7]);
}

pub(in crate::store) async fn a_partition_goes_on_from_its_checkpoint_at_another_host(store: &dyn Store) {
    numbers(store, "a", 1, at(0), at(30)).await;
    assert!(notes(store, "a", 0, place(-7, Some("k\u{fc}"))).await);
    assert_eq!(numbers(store, "b", 1, at(29), at(59)).await, [] as [u32; 0], "its holder is alive");
    let (held, share) = claims(store, "b", 1, at(30), at(60)).await;
    let begun = Partition { number: 0, checkpoint: Some(place(-7, Some("k\u{fc}"))) };
    assert_eq!((held, share), (vec![begun], 1));
}

pub(in crate::store) async fn who_lost_a_partition_does_not_move_its_checkpoint(store: &dyn Store) {
    numbers(store, "a", 1, at(0), at(30)).await;
    assert!(notes(store, "a", 0, place(5, None)).await);
    numbers(store, "b", 1, at(30), at(60)).await;
    assert!(!notes(store, "a", 0, place(9, None)).await);
    assert!(notes(store, "b", 0, place(6, None)).await);
    assert!(!notes(store, "b", 1, place(6, None)).await, "there is no such partition");
    let (held, _) = claims(store, "b", 1, at(31), at(61)).await;
    assert_eq!(held, [Partition { number: 0, checkpoint: Some(place(6, None)) }]);
}

pub(in crate::store) async fn who_leaves_is_not_waited_for(store: &dyn Store) {
    numbers(store, "a", 2, at(0), at(30)).await;
    store.leave_feed(FEED.to_owned(), owner("a")).await.unwrap();
    let (held, share) = claims(store, "b", 2, at(1), at(31)).await;
    assert_eq!((held.len(), share), (2, 2));
}

pub(in crate::store) async fn a_feed_split_anew_goes_on_from_before_its_smallest_checkpoint(store: &dyn Store) {
    numbers(store, "a", 2, at(0), at(30)).await;
    assert!(notes(store, "a", 0, place(100, None)).await);
    assert!(notes(store, "a", 1, place(40, Some("x"))).await);
    let asked = PartitionClaim { feed: FEED.to_owned(), partitions: 4, now: at(1), lease: lease("b", at(31)) };
    let answer = store.claim_partitions(asked).await.unwrap();
    assert_eq!(answer, PartitionsClaimed::SplitOtherwise { partitions: 2 }, "its holder reads it as two");
    assert_eq!(numbers(store, "a", 2, at(2), at(32)).await, [0, 1], "who waits takes no share");
    let (held, _) = claims(store, "b", 4, at(32), at(62)).await;
    let from = Some(place(39, None));
    let all: Vec<_> = (0..4).map(|number| Partition { number, checkpoint: from.clone() }).collect();
    assert_eq!(held, all);
    assert!(!notes(store, "a", 1, place(50, None)).await, "what was held of the old split is lost");
}

pub(in crate::store) async fn a_feed_that_is_split_anew_before_all_of_it_began_starts_over(store: &dyn Store) {
    numbers(store, "a", 2, at(0), at(30)).await;
    assert!(notes(store, "a", 0, place(100, None)).await);
    let (held, _) = claims(store, "a", 1, at(1), at(31)).await;
    assert_eq!(held, [Partition { number: 0, checkpoint: None }]);
}

pub(in crate::store) async fn feeds_are_told_apart(store: &dyn Store) {
    numbers(store, "a", 1, at(0), at(30)).await;
    let other = PartitionClaim { feed: "other".to_owned(), partitions: 1, now: at(0), lease: lease("b", at(30)) };
    let claimed = store.claim_partitions(other).await.unwrap();
    assert!(matches!(claimed, PartitionsClaimed::Held { partitions, share: 1 } if partitions.len() == 1));
}
