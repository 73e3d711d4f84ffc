//! The queue's promises, on a driven clock: hours pass in milliseconds.

mod gate;

use super::bench::{Act, Bench, plain, route};
use super::*;
use crate::clock::driven::START;
use crate::config::Route;
use crate::message::{Fallback, MessageId, State};

#[tokio::test]
async fn a_message_is_tried_again_by_its_backoff_until_it_is_delivered() {
    let bench = Bench::with(vec![plain("a")]).await;
    bench.script("a", [Act::Answer(503), Act::Answer(500), Act::Answer(429)]);
    let id = bench.accept("a").await;
    bench.until(id, State::Delivered).await;
    // Each delay is counted from the end of the millisecond in which the failure was known.
    assert_eq!(bench.seen("a"), [0.0, 1.001, 3.002, 7.003], "1 s, 2 s and 4 s apart, and never early");
    assert_eq!(bench.store.journal(id).len(), 4);
}

#[tokio::test]
async fn attempts_run_out_into_a_dead_letter_that_can_be_redriven() {
    let bench = Bench::with(vec![plain("a")]).await;
    bench.script("a", (0..5).map(|_| Act::Answer(500)));
    let id = bench.accept("a").await;
    bench.until(id, State::Dead).await;
    assert_eq!(bench.seen("a").len(), 5);
    assert_eq!(bench.queue.redrive(Selection::Ids(vec![id])).await.unwrap(), 1);
    bench.until(id, State::Delivered).await;
    let numbers: Vec<u32> = bench.store.journal(id).iter().map(|record| record.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6], "the journal goes on where it was");
}

#[tokio::test]
async fn a_retry_after_holds_every_message_to_the_destination() {
    let bench = Bench::with(vec![plain("a"), plain("b")]).await;
    bench.script("a", [Act::RetryAfter(429, 30)]);
    let first = bench.accept("a").await;
    bench.clock.until("the first attempt", || !bench.seen("a").is_empty()).await;
    bench.clock.until("the hold", || bench.holds.held_until("http://a.test", bench.clock.now()).is_some()).await;
    let (second, third) = (bench.accept("a").await, bench.accept("a").await);
    let other = bench.accept("b").await;
    for id in [first, second, third, other] {
        bench.until(id, State::Delivered).await;
    }
    let later: Vec<f64> = bench.seen("a").into_iter().skip(1).collect();
    assert!(later.iter().all(|at| *at >= 30.0), "{later:?}");
    assert!(bench.seen("b")[0] < 1.0, "another destination is not concerned");
}

#[tokio::test]
async fn a_lane_whose_destination_hangs_does_not_hold_up_another() {
    let bench = Bench::with(vec![plain("hangs"), plain("works")]).await;
    bench.script("hangs", (0..20).map(|_| Act::Silent));
    for _ in 0..20 {
        bench.accept("hangs").await;
    }
    let mut works = Vec::new();
    for _ in 0..50 {
        works.push(bench.accept("works").await);
    }
    for id in works {
        bench.until(id, State::Delivered).await;
    }
    assert_eq!(bench.seen("hangs").len(), 4, "no more attempts at once than the route's concurrency");
}

#[tokio::test]
async fn more_than_max_queued_is_refused_and_what_was_accepted_goes_on() {
    let bench = Bench::with(vec![route("a", |route| (route.max_queued, route.concurrency) = (3, 1))]).await;
    bench.script("a", [Act::RetryAfter(503, 10)]);
    let mut accepted = Vec::new();
    for _ in 0..3 {
        accepted.push(bench.accept("a").await);
    }
    assert_eq!(bench.offer("a").await.1, Offered::Saturated);
    for id in accepted {
        bench.until(id, State::Delivered).await;
    }
    assert_eq!(bench.offer("a").await.1, Offered::Accepted, "there is room again");
}

#[tokio::test]
async fn a_store_that_fails_for_a_while_loses_nothing() {
    let bench = Bench::with(vec![plain("a")]).await;
    let id = bench.accept("a").await;
    bench.store.fail_next(5);
    bench.until(id, State::Delivered).await;
    assert!(bench.store.has_failed(), "the failures did happen");
    bench.store.fail_next(1);
    assert_eq!(bench.offer("a").await.1, Offered::Saturated, "refused, not accepted and lost");
    let next = bench.accept("a").await;
    bench.until(next, State::Delivered).await;
}

#[tokio::test]
async fn exhausted_on_one_route_a_message_goes_on_to_its_second_vendor() {
    let second = Fallback::Route(RouteName::new("second").unwrap());
    let first = route("first", |route| (route.envelope.max_attempts, route.fallback) = (2, Some(second)));
    let bench = Bench::with(vec![first, plain("second")]).await;
    bench.script("first", [Act::Answer(500), Act::Answer(500)]);
    bench.script("second", [Act::Answer(503)]);
    let id = bench.accept("first").await;
    bench.until(id, State::Delivered).await;
    assert_eq!((bench.seen("first").len(), bench.seen("second").len()), (2, 2));
    assert_eq!(bench.lane("first").open(), 0);
    assert_eq!(bench.lane("second").open(), 0);
}

#[tokio::test]
async fn a_host_that_stops_gives_back_what_did_not_finish_and_the_next_one_delivers_it() {
    let bench = Bench::with(vec![plain("a")]).await;
    bench.script("a", [Act::Silent]);
    let id = bench.accept("a").await;
    bench.clock.until("the attempt", || !bench.seen("a").is_empty()).await;
    bench.stop.cancel();
    bench.clock.until("the grace period is over", || bench.store.state(id) == Some(State::Queued)).await;
    let store = Arc::clone(&bench.store);
    bench.tasks.close();
    let next = Bench::on(store, vec![plain("a")]).await;
    next.until(id, State::Delivered).await;
}

#[tokio::test]
async fn a_lease_is_prolonged_while_its_attempt_lasts() {
    let bench = Bench::with(vec![plain("a")]).await;
    bench.script("a", [Act::Silent]);
    let id = bench.accept("a").await;
    bench.clock.pass(LEASE * 5).await;
    assert_eq!(bench.store.state(id), Some(State::InFlight));
    assert_eq!(bench.seen("a").len(), 1, "nobody took it over");
}

#[tokio::test]
async fn a_retry_waits_for_its_time_and_not_for_the_attempt_before_it_to_hear_that_it_is_over() {
    let bench = Bench::with(vec![plain("a")]).await;
    bench.store.answer_late();
    bench.script("a", [Act::Answer(503)]);
    let id = bench.accept("a").await;
    bench.until(id, State::Delivered).await;
    let taken = bench.clock.now().since(START);
    assert!(taken < LEASE, "it is claimed when lanes are looked at, and attempted at once: {taken:?}");
    let numbers: Vec<u32> = bench.store.journal(id).iter().map(|record| record.number).collect();
    assert_eq!(numbers, [1, 2], "and nothing is taken for interrupted");
}

#[tokio::test]
async fn while_nobody_knows_whether_an_attempt_s_end_is_on_disk_no_other_one_begins() {
    let bench = Bench::with(vec![plain("a")]).await;
    // Its end is written down again and again, for longer than until lanes are looked at.
    bench.store.lose_answers(12);
    bench.script("a", [Act::Answer(503), Act::Slow(Duration::from_secs(20))]);
    let id = bench.accept("a").await;
    bench.until(id, State::Delivered).await;
    assert_eq!(bench.seen("a").len(), 2, "one after the other, and none beside another: {:?}", bench.seen("a"));
}

#[tokio::test]
async fn a_retry_is_made_when_it_is_due_on_a_lane_that_was_at_its_concurrency() {
    let bench = Bench::with(vec![route("a", |route| route.concurrency = 1)]).await;
    let second = Duration::from_secs(1);
    bench.script("a", [Act::Answer(503), Act::Slow(second / 2), Act::Slow(second / 4)]);
    let retried = bench.accept("a").await;
    let (slow, last) = (bench.accept("a").await, bench.accept("a").await);
    for id in [retried, slow, last] {
        bench.until(id, State::Delivered).await;
    }
    let again = bench.seen("a")[3];
    assert!((1.0..1.01).contains(&again), "due after a second, made after {again} s");
}

#[tokio::test]
async fn the_queue_has_its_turn_among_callers_that_wait_for_a_permit() {
    let bench = Bench::with(vec![route("a", |route| route.concurrency = 1)]).await;
    bench.script("a", [Act::Answer(503)]);
    let id = bench.accept("a").await;
    bench.clock.until("the first attempt", || bench.store.state(id) == Some(State::Queued)).await;
    // Callers without end: there is always one in line, and a permit is never free.
    for _ in 0..3 {
        let (lane, clock) = (bench.lane("a"), Arc::clone(&bench.clock));
        bench.tasks.spawn(async move {
            while let Some(permit) = lane.permit(&*clock).await {
                clock.sleep(Duration::from_millis(100)).await;
                drop(permit);
            }
        });
    }
    bench.until(id, State::Delivered).await;
    let again = bench.seen("a")[1];
    assert!(again < 2.0, "due after a second, made after {again} s");
}

#[tokio::test]
async fn the_last_attempt_of_a_message_holds_its_destination_too() {
    let bench = Bench::with(vec![route("a", |route| route.envelope.max_attempts = 1)]).await;
    bench.script("a", [Act::RetryAfter(429, 30)]);
    let id = bench.accept("a").await;
    bench.until(id, State::Dead).await;
    let held = bench.holds.held_until("http://a.test", bench.clock.now());
    assert!(held.is_some_and(|until| until.since(START) >= Duration::from_secs(30)), "{held:?}");
}

#[tokio::test]
async fn no_attempt_begins_after_max_elapsed_however_long_a_message_had_to_wait() {
    let bench = Bench::with(vec![route("a", |route| route.envelope.max_elapsed = Duration::from_secs(10))]).await;
    bench.script("a", [Act::Answer(503)]);
    let id = bench.accept("a").await;
    bench.clock.until("the first attempt", || bench.store.state(id) == Some(State::Queued)).await;
    bench.holds.hold("http://a.test", START.after(Duration::from_secs(60)));
    bench.until(id, State::Dead).await;
    assert_eq!(bench.seen("a").len(), 1);
    let never_attempted = bench.accept("a").await;
    bench.until(never_attempted, State::Delivered).await;
}

#[tokio::test]
async fn a_route_that_changes_goes_on_with_what_it_had_taken_on() {
    let bench = Bench::with(vec![route("a", |route| route.concurrency = 2), plain("b")]).await;
    bench.script("a", (0..2).map(|_| Act::Slow(Duration::from_secs(5))));
    let mut accepted = Vec::new();
    for _ in 0..6 {
        accepted.push(bench.accept("a").await);
    }
    bench.clock.until("the first attempts", || bench.seen("a").len() == 2).await;
    let unchanged = bench.lane("b");
    bench.queue.set_routes(&[route("a", |route| route.concurrency = 1), plain("b")], &BTreeMap::new());
    assert!(Arc::ptr_eq(&unchanged, &bench.lane("b")), "what has not changed is left alone");
    assert_eq!(bench.lane("a").open(), 6, "its messages are still counted");
    bench.script("a", (0..4).map(|_| Act::Slow(Duration::from_secs(1))));
    for id in accepted {
        bench.until(id, State::Delivered).await;
    }
    let later: Vec<f64> = bench.seen("a").into_iter().skip(2).collect();
    assert!(later.windows(2).all(|pair| pair[1] - pair[0] >= 1.0), "one at a time from then on: {later:?}");
    assert!(later[0] >= 5.0, "and none more while the two before the change last: {later:?}");
    assert_eq!(bench.lane("a").open(), 0);
}

#[tokio::test]
async fn a_route_that_is_gone_finishes_its_attempts_and_its_messages_wait_until_it_is_back() {
    let bench = Bench::with(vec![route("a", |route| route.concurrency = 1)]).await;
    bench.script("a", [Act::Slow(Duration::from_secs(5))]);
    let (under_way, waiting) = (bench.accept("a").await, bench.accept("a").await);
    bench.clock.until("the attempt", || !bench.seen("a").is_empty()).await;
    bench.queue.set_routes(&[plain("b")], &BTreeMap::new());
    bench.until(under_way, State::Delivered).await;
    bench.clock.pass(Duration::from_secs(60)).await;
    assert_eq!(bench.offer("a").await.1, Offered::Closed);
    assert_eq!(bench.store.state(waiting), Some(State::Queued), "nobody attempts it, and it is not lost");
    let open = BTreeMap::from([("a".to_owned(), 1)]);
    bench.queue.set_routes(&[plain("a"), plain("b")], &open);
    let back = bench.clock.now();
    bench.until(waiting, State::Delivered).await;
    assert!(bench.clock.now().since(back) < Duration::from_secs(1), "it is looked at at once");
    assert_eq!(bench.lane("a").open(), 0);
}

#[tokio::test]
async fn a_route_that_is_disabled_takes_nothing_in_and_attempts_nothing() {
    let bench = Bench::with(vec![route("a", |route| route.concurrency = 1)]).await;
    bench.script("a", [Act::Answer(503)]);
    let id = bench.accept("a").await;
    bench.clock.until("the first attempt", || bench.store.state(id) == Some(State::Queued)).await;
    bench.queue.set_routes(&[route("a", |route| route.enabled = false)], &BTreeMap::new());
    bench.clock.pass(Duration::from_secs(60)).await;
    assert_eq!(bench.offer("a").await.1, Offered::Closed);
    assert_eq!(bench.seen("a").len(), 1);
    bench.queue.set_routes(&[plain("a")], &BTreeMap::new());
    bench.until(id, State::Delivered).await;
}

#[tokio::test]
async fn what_other_hosts_end_is_counted_off() {
    let bench = Bench::with(vec![plain("a")]).await;
    let name = RouteName::new("a").unwrap();
    let lane = bench.queue.lane(&name).unwrap();
    // Another host accepted these, and this one counted them when it started; the other one has ended them since.
    (0..7).for_each(|_| lane.enter_anyway());
    bench.clock.until("the count to be taken anew", || lane.open() == 0).await;
}
