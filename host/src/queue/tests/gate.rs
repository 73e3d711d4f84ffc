//! What a lane's gate promises: rate, circuit breaker, retry budget; and orders.

use futures_util::FutureExt as _;

use super::*;
use crate::config::{Breaker, OnFailure, Order, OrderKey, Rate, RetryBudget};
use crate::message::Withheld;

const BREAKER: Breaker = Breaker {
    failures: 0.5,
    window: Duration::from_secs(10),
    min_attempts: 3,
    open_for: Duration::from_secs(30),
    probes: 1,
};

fn ordered(on_failure: OnFailure) -> Arc<Route> {
    route("a", |route| {
        let key = OrderKey::Header(http::HeaderName::from_static("x-key"));
        route.order = Some(Order { key, on_failure });
        route.envelope.max_attempts = 3;
    })
}

impl Bench {
    async fn accept_all(&self, route: &str, count: usize) -> Vec<MessageId> {
        let mut accepted = Vec::new();
        for _ in 0..count {
            accepted.push(self.accept(route).await);
        }
        accepted
    }

    async fn until_delivered(&self, ids: &[MessageId]) {
        for id in ids {
            self.until(*id, State::Delivered).await;
        }
    }

    /// The messages seen, in order.
    fn order_seen(&self) -> Vec<MessageId> {
        self.vendor.seen.lock().unwrap().iter().map(|(_, id, _)| *id).collect()
    }
}

#[tokio::test]
async fn no_more_attempts_begin_than_the_rate_allows_retries_counted() {
    let rate = Rate { per_second: 2.0, burst: 3 };
    let bench = Bench::with(vec![route("a", |route| route.rate = Some(rate))]).await;
    bench.script("a", (0..8).map(|_| Act::Answer(503)));
    let accepted = bench.accept_all("a", 12).await;
    bench.until_delivered(&accepted).await;
    let seen = bench.seen("a");
    assert_eq!(seen.len(), 20, "twelve deliveries and eight retries");
    for (first, from) in seen.iter().enumerate() {
        for (last, to) in seen.iter().enumerate().skip(first) {
            assert!((last - first + 1) as f64 <= 3.0 + 2.0 * (to - from) + 1e-6, "{seen:?}");
        }
    }
    assert!(seen[19] <= 17.0 / 2.0 + 1.0, "and no fewer: {seen:?}");
}

#[tokio::test]
async fn a_breaker_opens_spares_messages_their_attempts_and_closes_after_a_probe() {
    let bench = Bench::with(vec![route("a", |route| route.breaker = Some(BREAKER))]).await;
    bench.script("a", (0..3).map(|_| Act::Answer(503)));
    let first = bench.accept_all("a", 3).await;
    bench.clock.until("three failures", || bench.seen("a").len() == 3).await;
    bench.clock.until("it opens", || bench.lane("a").shut(bench.clock.now()).is_some()).await;
    let later = bench.accept_all("a", 5).await;
    // The vendor is slow to come back, so that a second probe at once would be seen.
    bench.script("a", [Act::Slow(Duration::from_secs(2))]);
    bench.until_delivered(&[first, later.clone()].concat()).await;
    let seen = bench.seen("a");
    assert!(seen[3] >= 30.0, "nothing while it is open: {seen:?}");
    assert!(seen[4] - seen[3] >= 2.0, "and one probe at a time: {seen:?}");
    assert_eq!(bench.store.journal(later[0]).len(), 1, "who waited used no attempt");
}

#[tokio::test]
async fn a_probe_that_panics_leaves_its_place_to_the_next() {
    let bench = Bench::with(vec![route("a", |route| route.breaker = Some(BREAKER))]).await;
    bench.script("a", [Act::Answer(503), Act::Answer(503), Act::Answer(503), Act::Panic]);
    let accepted = bench.accept_all("a", 3).await;
    bench.until_delivered(&accepted).await;
    let seen = bench.seen("a");
    assert!(seen[4] - seen[3] < 1.0, "the next probe does not wait for the first one's lease: {seen:?}");
}

#[tokio::test]
async fn answers_that_are_final_do_not_open_a_breaker() {
    let bench = Bench::with(vec![route("a", |route| route.breaker = Some(BREAKER))]).await;
    bench.script("a", (0..20).map(|_| Act::Answer(404)));
    for id in bench.accept_all("a", 20).await {
        bench.until(id, State::Dead).await;
    }
    assert!(bench.clock.now().since(START) < Duration::from_secs(1));
}

#[tokio::test]
async fn retries_beyond_the_budget_are_withheld_and_made_in_the_end() {
    let budget = RetryBudget { share: 0.2, reserve: 1, window: Duration::from_secs(1) };
    let bench = Bench::with(vec![route("a", |route| {
        (route.retry_budget, route.concurrency) = (Some(budget), 20);
    })])
    .await;
    bench.script("a", (0..20).map(|_| Act::Answer(503)));
    let accepted = bench.accept_all("a", 20).await;
    bench.clock.until("all failed once", || bench.seen("a").len() == 20).await;
    let fresh = bench.accept_all("a", 1).await;
    bench.until_delivered(&fresh).await;
    assert!(bench.clock.now().since(START) < Duration::from_secs(1), "first attempts are not withheld");
    bench.until_delivered(&accepted).await;
    let retries: Vec<f64> = bench.seen("a").into_iter().skip(21).collect();
    assert!(retries.windows(2).skip(5).all(|pair| pair[1] - pair[0] >= 0.9), "one a second, by and by: {retries:?}");
    let withheld = |id: &MessageId| bench.store.journal(*id)[1].withheld == Some(Withheld::RetryBudget);
    let count = accepted.iter().filter(|id| withheld(id)).count();
    assert!(count >= 14, "all but the first few say so: {count}");
    assert_eq!(bench.lane("a").status(bench.clock.now()).withheld, count as u64);
    assert!(accepted.iter().all(|id| bench.store.journal(*id).len() == 2), "none cost a message an attempt");
}

#[tokio::test]
async fn messages_of_one_key_go_one_after_the_other_and_others_go_on() {
    let bench = Bench::with(vec![ordered(OnFailure::Block)]).await;
    let quickly = Duration::from_millis(100);
    bench.script("a", [Act::Answer(503), Act::Slow(quickly), Act::Slow(quickly), Act::Answer(503)]);
    let first = bench.accept_in("a", Some("k")).await;
    let others = [bench.accept_in("a", Some("other")).await, bench.accept_in("a", None).await];
    let next = [bench.accept_in("a", Some("k")).await, bench.accept_in("a", Some("k")).await];
    bench.until_delivered(&others).await;
    assert_eq!(bench.store.state(first), Some(State::Queued), "its retry is due in a second");
    bench.until_delivered(&[first, next[0], next[1]]).await;
    let of_the_key: Vec<MessageId> =
        bench.order_seen().into_iter().filter(|id| *id == first || next.contains(id)).collect();
    assert_eq!(of_the_key, [first, first, first, next[0], next[1]]);
    let seen = bench.seen("a");
    assert!(seen[6] - seen[4] < 0.1, "the next one goes as soon as the one before it has ended: {seen:?}");
}

#[tokio::test]
async fn behind_a_dead_letter_the_others_wait_until_it_is_discarded() {
    let bench = Bench::with(vec![ordered(OnFailure::Block)]).await;
    bench.script("a", [Act::Answer(404)]);
    let first = bench.accept_in("a", Some("k")).await;
    let next = bench.accept_in("a", Some("k")).await;
    bench.until(first, State::Dead).await;
    bench.clock.pass(Duration::from_secs(60)).await;
    assert_eq!(bench.store.state(next), Some(State::Queued));
    bench.queue.discard(Selection::Ids(vec![first])).await.unwrap();
    let discarded = bench.clock.now();
    bench.until(next, State::Delivered).await;
    assert!(bench.clock.now().since(discarded) < Duration::from_secs(1), "it goes at once");
}

#[tokio::test]
async fn where_a_route_says_skip_a_dead_letter_holds_nobody_up() {
    let bench = Bench::with(vec![ordered(OnFailure::Skip)]).await;
    bench.script("a", [Act::Answer(404)]);
    let first = bench.accept_in("a", Some("k")).await;
    let next = bench.accept_in("a", Some("k")).await;
    bench.until(first, State::Dead).await;
    bench.until(next, State::Delivered).await;
    assert!(bench.clock.now().since(START) < Duration::from_secs(1));
}

#[tokio::test]
async fn a_breaker_keeps_its_state_through_a_reload_that_does_not_concern_it() {
    let with = |concurrency| route("a", |route| (route.breaker, route.concurrency) = (Some(BREAKER), concurrency));
    let bench = Bench::with(vec![with(4)]).await;
    bench.script("a", (0..3).map(|_| Act::Answer(503)));
    bench.accept_all("a", 3).await;
    bench.clock.until("it opens", || bench.lane("a").shut(bench.clock.now()).is_some()).await;
    bench.queue.set_routes(&[with(8)], &BTreeMap::new());
    assert!(matches!(bench.lane("a").shut(bench.clock.now()), Some(Shut::Open(_))));
    let other = Breaker { min_attempts: 5, ..BREAKER };
    bench.queue.set_routes(&[route("a", |route| route.breaker = Some(other))], &BTreeMap::new());
    assert_eq!(bench.lane("a").shut(bench.clock.now()), None, "new settings begin anew");
}

#[tokio::test]
async fn a_thousand_lanes_are_looked_at_no_more_than_they_have_to_do() {
    let routes: Vec<Arc<Route>> = (0..1000).map(|number| plain(&format!("r{number}"))).collect();
    let bench = Bench::with(routes).await;
    let accepted = bench.accept("r7").await;
    bench.until(accepted, State::Delivered).await;
    let before = bench.store.claims();
    bench.script("r7", [Act::Answer(503)]);
    let retried = bench.accept("r7").await;
    bench.until(retried, State::Delivered).await;
    assert!(bench.store.claims() - before <= 2, "one lane's retry asks the store about one lane");
}

#[tokio::test]
async fn a_caller_whose_retry_is_withheld_is_woken_when_there_is_room_in_the_budget() {
    let budget = RetryBudget { share: 0.2, reserve: 1, window: Duration::from_secs(1) };
    let bench = Bench::with(vec![route("a", |route| route.retry_budget = Some(budget))]).await;
    let (lane, now) = (bench.lane("a"), bench.clock.now());
    let reserved = lane.retry(now).unwrap();

    let woken = lane.changed();
    lane.retry(now).expect_err("the reserve is used up");
    for _ in 0..5 {
        lane.try_permit(now).unwrap().begin(false, now);
    }
    woken.now_or_never().expect("five first attempts pay for a retry");
    let paid = lane.retry(now).unwrap();

    let woken = lane.changed();
    lane.retry(now).expect_err("that one is reserved, too");
    drop(reserved);
    woken.now_or_never().expect("a retry that is not made leaves room for another");
    lane.retry(now).unwrap();
    drop(paid);
}

/// The lane before the change stood in line for the slower rate, and takes its turn under the new one in vain.
#[tokio::test]
async fn another_rate_holds_at_once_for_what_waits_by_the_one_before() {
    let at = |per_second| route("a", |route| route.rate = Some(Rate { per_second, burst: 1 }));
    let bench = Bench::with(vec![at(0.001)]).await;
    let accepted = bench.accept_all("a", 2).await;
    bench.until(accepted[0], State::Delivered).await;
    bench.clock.pass(Duration::from_secs(60)).await;
    let changed = bench.clock.now();
    bench.queue.set_routes(&[at(0.01)], &BTreeMap::new());
    bench.until(accepted[1], State::Delivered).await;
    let took = bench.clock.now().since(changed);
    assert!(took < Duration::from_secs(1), "the new rate lets one go at once, and it went after {took:?}");
}
