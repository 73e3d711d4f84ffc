//! What a source is answered, for everything that may become of what it brings.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::*;
use crate::clock::Clock as _;
use crate::config::{Breaker, RetryBudget};
use crate::message::{Answer, Fallback};
use crate::queue::bench::{Act, Bench, plain, route};
use crate::store::{Filter, Store as _, Summary};

const SECOND: Duration = Duration::from_secs(1);

/// The ingress, and the intake of a source that feeds route `a`.
struct Stage {
    bench: Bench,
    intake: RouteIntake,
}

impl Stage {
    async fn with(routes: Vec<Arc<Route>>) -> Self {
        let bench = Bench::with(routes).await;
        let ingress = Ingress {
            routes: Arc::clone(&bench.routes),
            queue: Arc::clone(&bench.queue),
            attempts: Arc::clone(&bench.attempts),
            holds: Arc::clone(&bench.holds),
            store: Arc::clone(&bench.store) as Arc<dyn crate::store::Store>,
            watch: Arc::clone(&bench.watch),
            agenda: Arc::default(),
            clock: Arc::clone(&bench.clock) as Arc<dyn crate::clock::Clock>,
            owner: crate::store::Owner("this host".to_owned()),
            places: Arc::new(Semaphore::new(8)),
            chains: TaskTracker::new(),
            stop: bench.stop.clone(),
            loopback: true,
        };
        let route = RouteName::new("a").unwrap();
        let intake = RouteIntake { ingress: Arc::new(ingress), source: "pages".to_owned(), route };
        Self { bench, intake }
    }

    /// Route `a` alone, and what its vendor answers.
    async fn answering(acts: impl IntoIterator<Item = Act>) -> Self {
        let stage = Self::with(vec![plain("a")]).await;
        stage.bench.script("a", acts);
        stage
    }

    /// What `asked` answers, however long that takes.
    async fn in_time<T>(&self, asked: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            answer = asked => answer,
            () = self.bench.clock.until("an answer", || false) => unreachable!("the clock goes on until there is one"),
        }
    }

    async fn deliver(&self, brought: Brought) -> Settlement {
        self.in_time(self.intake.deliver(brought)).await
    }

    async fn store(&self, brought: Brought) -> Stored {
        self.in_time(self.intake.store(brought)).await
    }

    /// Everything that is stored, oldest first.
    async fn kept(&self) -> Vec<Summary> {
        let mut kept = self.bench.store.list(Filter::default()).await.unwrap();
        kept.reverse();
        kept
    }

    /// The one message that is stored: its state and why.
    async fn only_one(&self) -> (State, String) {
        let kept = self.kept().await;
        assert_eq!(kept.len(), 1, "{kept:?}");
        (kept[0].state, kept[0].reason.clone())
    }

    /// Attempts that the vendor saw on route `a`.
    fn attempts(&self) -> usize {
        self.bench.seen("a").len()
    }
}

/// A message that was delivered so often before.
fn brought(delivered_before: u32) -> Brought {
    Brought {
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"page"),
        key: Some("page-1".to_owned()),
        delivered_before,
        last_delivery: false,
    }
}

/// Given back for so long, counted from the end of the millisecond in which the failure was known.
fn again_after(delay: Duration) -> Settlement {
    Settlement::Requeue(delay + Duration::from_millis(1))
}

fn last() -> Brought {
    Brought { last_delivery: true, ..brought(1) }
}

fn long() -> Brought {
    Brought { body: Bytes::from_static(&[b'x'; 65]), ..brought(0) }
}

fn short_limit() -> Arc<Route> {
    route("a", |route| route.body_limit = 64)
}

// What is settled once it is stored.

#[tokio::test]
async fn what_is_stored_is_the_hosts_and_delivered() {
    let stage = Stage::answering([]).await;
    assert_eq!(stage.store(brought(0)).await, Stored::Yes);
    let id = stage.kept().await[0].id;
    stage.bench.until(id, State::Delivered).await;
    assert_eq!(stage.attempts(), 1);
}

#[tokio::test]
async fn a_repeat_is_stored_once_and_two_messages_of_one_id_are_two() {
    let stage = Stage::answering([]).await;
    assert_eq!(stage.store(brought(0)).await, Stored::Yes);
    assert_eq!(stage.store(brought(1)).await, Stored::Yes);
    assert_eq!(stage.kept().await.len(), 1, "its acknowledgement was lost");
    assert_eq!(stage.store(brought(0)).await, Stored::Yes);
    assert_eq!(stage.kept().await.len(), 2, "the broker says that it never delivered this one");
}

#[tokio::test]
async fn a_repeat_of_another_payload_is_a_message_of_its_own() {
    let stage = Stage::answering([]).await;
    assert_eq!(stage.store(brought(0)).await, Stored::Yes);
    let other = Brought { body: Bytes::from_static(b"another page"), ..brought(1) };
    assert_eq!(stage.store(other).await, Stored::Yes);
    assert_eq!(stage.kept().await.len(), 2);
}

#[tokio::test]
async fn what_is_too_long_to_be_sent_is_stored_as_a_dead_letter() {
    let stage = Stage::with(vec![short_limit()]).await;
    assert_eq!(stage.store(long()).await, Stored::Yes);
    let (state, reason) = stage.only_one().await;
    assert_eq!((state, reason.contains("body_limit of 64 bytes")), (State::Dead, true), "{reason}");
    assert_eq!(stage.attempts(), 0);
}

#[tokio::test]
async fn what_cannot_be_read_is_put_aside_once_with_its_reason() {
    let stage = Stage::answering([]).await;
    let row = Brought { body: Bytes::new(), ..brought(1) };
    for time in ["the first time", "again, after a lost checkpoint"] {
        let put_aside = stage.in_time(stage.intake.put_aside(row.clone(), "it cannot be read".to_owned())).await;
        assert_eq!(put_aside, Stored::Yes, "{time}");
    }
    assert_eq!(stage.only_one().await, (State::Dead, "it cannot be read".to_owned()));
    assert_eq!(stage.attempts(), 0);
}

#[tokio::test]
async fn what_cannot_be_read_any_more_is_not_put_aside_when_it_is_stored_already() {
    let stage = Stage::answering([]).await;
    assert_eq!(stage.store(brought(1)).await, Stored::Yes);
    let row = Brought { body: Bytes::new(), ..brought(1) };
    let put_aside = stage.in_time(stage.intake.put_aside(row, "it cannot be read".to_owned())).await;
    assert_eq!(put_aside, Stored::Yes);
    assert_ne!(stage.only_one().await.0, State::Dead);
}

#[tokio::test]
async fn what_cannot_be_stored_now_is_not_taken() {
    let full = Stage::with(vec![route("a", |route| route.max_queued = 0)]).await;
    assert_eq!(full.store(brought(0)).await, Stored::NotNow(COME_AGAIN), "its lane is full");
    let disabled = Stage::with(vec![route("a", |route| route.enabled = false)]).await;
    assert_eq!(disabled.store(brought(0)).await, Stored::NotNow(COME_AGAIN), "its route is disabled");
    let unknown = Stage::with(vec![plain("b")]).await;
    assert_eq!(unknown.store(brought(0)).await, Stored::NotNow(COME_AGAIN), "its route is gone");
    let failing = Stage::answering([]).await;
    failing.bench.store.fail_next(1);
    assert_eq!(failing.store(brought(0)).await, Stored::NotNow(COME_AGAIN), "the store is away");
    for stage in [full, disabled, unknown, failing] {
        assert!(stage.kept().await.is_empty());
    }
}

// What is settled once it is delivered.

#[tokio::test]
async fn what_is_delivered_is_acknowledged_and_nothing_of_it_is_stored() {
    let stage = Stage::answering([]).await;
    assert_eq!(stage.deliver(brought(0)).await, Settlement::Ack);
    assert_eq!((stage.attempts(), stage.kept().await.len()), (1, 0));
}

#[tokio::test]
async fn a_failure_gives_it_back_for_as_long_as_the_backoff_says() {
    let stage = Stage::answering([Act::Answer(503), Act::Answer(503)]).await;
    assert_eq!(stage.deliver(brought(0)).await, again_after(SECOND));
    assert_eq!(stage.deliver(brought(2)).await, again_after(4 * SECOND), "the broker counts the attempts");
    assert!(stage.kept().await.is_empty());
}

#[tokio::test]
async fn a_failure_at_the_brokers_last_delivery_is_our_dead_letter() {
    let stage = Stage::answering([Act::Answer(503)]).await;
    assert_eq!(stage.deliver(last()).await, Settlement::DeadLetter);
    assert_eq!(stage.only_one().await, (State::Dead, "the broker's last delivery: server failure".to_owned()));
}

#[tokio::test]
async fn a_failure_for_good_is_our_dead_letter_with_its_attempt() {
    let stage = Stage::answering([Act::Answer(400)]).await;
    assert_eq!(stage.deliver(brought(0)).await, Settlement::DeadLetter);
    assert_eq!(stage.only_one().await, (State::Dead, "refused by the destination".to_owned()));
    assert_eq!(stage.bench.store.journal(stage.kept().await[0].id).len(), 1);
}

#[tokio::test]
async fn attempts_that_the_broker_counted_run_out() {
    let stage = Stage::answering([Act::Answer(503)]).await;
    assert_eq!(stage.deliver(brought(4)).await, Settlement::DeadLetter, "max_attempts is five");
    assert_eq!(stage.only_one().await.0, State::Dead);
}

#[tokio::test]
async fn what_is_too_long_to_be_sent_is_our_dead_letter_without_an_attempt() {
    let stage = Stage::with(vec![short_limit()]).await;
    assert_eq!(stage.deliver(long()).await, Settlement::DeadLetter);
    assert_eq!((stage.only_one().await.0, stage.attempts()), (State::Dead, 0));
}

#[tokio::test]
async fn a_dead_letter_is_written_before_the_broker_hears_of_it_however_often_that_takes() {
    let stage = Stage::answering([Act::Answer(400)]).await;
    stage.bench.store.fail_next(5);
    assert_eq!(stage.deliver(brought(0)).await, Settlement::DeadLetter);
    assert!(stage.bench.store.has_failed());
    assert_eq!((stage.only_one().await.0, stage.attempts()), (State::Dead, 1), "attempted once all the same");
}

#[tokio::test]
async fn a_fallback_answer_that_nobody_waits_for_is_kept_and_the_broker_may_forget() {
    let answer = Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: Bytes::from_static(b"pass") };
    let stage = Stage::with(vec![route("a", |route| {
        (route.envelope.max_attempts, route.fallback) = (1, Some(Fallback::Answer(answer)));
    })])
    .await;
    stage.bench.script("a", [Act::Answer(503)]);
    assert_eq!(stage.deliver(brought(0)).await, Settlement::Ack);
    assert_eq!(stage.only_one().await.0, State::Answered);
}

#[tokio::test]
async fn a_fallback_route_takes_it_over_and_the_broker_may_forget() {
    let second = Fallback::Route(RouteName::new("b").unwrap());
    let first = route("a", |route| (route.envelope.max_attempts, route.fallback) = (1, Some(second)));
    let stage = Stage::with(vec![first, plain("b")]).await;
    stage.bench.script("a", [Act::Answer(503)]);
    stage.bench.store.fail_next(3);
    assert_eq!(stage.deliver(brought(0)).await, Settlement::Ack);
    let kept = stage.kept().await;
    assert_eq!((kept.len(), kept[0].route.as_str()), (1, "b"), "{kept:?}");
    stage.bench.until(kept[0].id, State::Delivered).await;
    assert_eq!((stage.attempts(), stage.bench.seen("b").len()), (1, 1));
}

#[tokio::test]
async fn a_wish_for_quiet_is_written_down_though_the_message_is_not() {
    let stage = Stage::answering([Act::RetryAfter(503, 30)]).await;
    assert_eq!(stage.deliver(brought(0)).await, again_after(30 * SECOND));
    let held = stage.bench.store.holds(stage.bench.clock.now()).await.unwrap();
    assert_eq!(held.iter().map(|hold| hold.destination.as_str()).collect::<Vec<_>>(), ["http://a.test"]);
    assert!(held[0].until.since(stage.bench.clock.now()) >= 29 * SECOND);
    assert!(stage.kept().await.is_empty());

    let away = Stage::answering([Act::RetryAfter(503, 30)]).await;
    away.bench.store.fail_next(1);
    assert_eq!(away.deliver(brought(0)).await, again_after(30 * SECOND), "nobody waits for a store that is away");
}

// What is not begun: the broker learns nothing of it.

/// How long a source is told to wait, of a delivery that was not begun.
fn not_begun(settlement: Settlement) -> Duration {
    match settlement {
        Settlement::NotBegun(pause) => pause,
        other => panic!("it was begun: {other:?}"),
    }
}

#[tokio::test]
async fn nothing_is_begun_at_a_destination_that_is_held() {
    let stage = Stage::answering([]).await;
    stage.bench.holds.hold("http://a.test", stage.bench.clock.now().after(30 * SECOND));
    assert_eq!(not_begun(stage.deliver(brought(0)).await), 30 * SECOND);
    assert_eq!(stage.attempts(), 0);
}

#[tokio::test]
async fn no_retry_is_begun_without_a_budget_and_first_attempts_are() {
    let budget = RetryBudget { share: 0.1, reserve: 1, window: SECOND };
    let stage = Stage::with(vec![route("a", |route| route.retry_budget = Some(budget))]).await;
    stage.bench.script("a", (0..3).map(|_| Act::Answer(503)));
    assert!(matches!(stage.deliver(brought(1)).await, Settlement::Requeue(_)), "the reserve");
    let pause = not_begun(stage.deliver(brought(1)).await);
    assert!(!pause.is_zero() && pause <= 2 * SECOND, "{pause:?}");
    assert!(matches!(stage.deliver(brought(0)).await, Settlement::Requeue(_)), "no retry");
    assert_eq!(stage.attempts(), 2);
}

#[tokio::test]
async fn nothing_is_begun_while_the_breaker_is_open() {
    let breaker = Breaker { failures: 0.5, window: 10 * SECOND, min_attempts: 2, open_for: 60 * SECOND, probes: 1 };
    let stage = Stage::with(vec![route("a", |route| route.breaker = Some(breaker))]).await;
    stage.bench.script("a", (0..2).map(|_| Act::Answer(503)));
    for _ in 0..2 {
        assert!(matches!(stage.deliver(brought(0)).await, Settlement::Requeue(_)));
    }
    assert_eq!(not_begun(stage.deliver(brought(0)).await), COME_AGAIN);
    assert_eq!(stage.attempts(), 2);
}

#[tokio::test]
async fn nothing_is_begun_while_every_permit_is_taken() {
    let stage = Stage::with(vec![route("a", |route| route.concurrency = 1)]).await;
    let lane = stage.bench.lane("a");
    let taken = lane.try_permit(stage.bench.clock.now()).expect("the one there is");
    assert_eq!(not_begun(stage.deliver(brought(0)).await), COME_AGAIN);
    drop(taken);
    assert_eq!(stage.deliver(brought(0)).await, Settlement::Ack);
}

#[tokio::test]
async fn nothing_is_begun_on_a_route_that_is_disabled_or_gone_or_while_the_host_stops() {
    let disabled = Stage::with(vec![route("a", |route| route.enabled = false)]).await;
    assert_eq!(not_begun(disabled.deliver(brought(0)).await), COME_AGAIN);
    let gone = Stage::with(vec![plain("b")]).await;
    assert_eq!(not_begun(gone.deliver(brought(0)).await), COME_AGAIN);
    let stopping = Stage::with(vec![route("a", |route| route.concurrency = 1)]).await;
    let _taken = stopping.bench.lane("a").try_permit(stopping.bench.clock.now()).expect("the one there is");
    let before = stopping.bench.clock.now();
    stopping.bench.stop.cancel();
    assert_eq!(not_begun(stopping.deliver(brought(0)).await), COME_AGAIN);
    assert_eq!(stopping.bench.clock.now(), before, "at once, and not when a permit was waited for in vain");
}
