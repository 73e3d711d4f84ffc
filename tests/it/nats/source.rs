//! The source.

use std::sync::Arc;
use std::time::Duration;

use backstop::clock::{Clock as _, SystemClock};
use backstop::dispatch::nats::Address;
use backstop::ingress::contact::Contact;
use backstop::ingress::nats::{Draft, Settings, Source, SourceError};
use backstop::ingress::source::{Connect, Settle, Settlement, Stored};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::broker::{Broker, STREAM};
use super::intake::Scripted;
use backstop_tests::nats::{Nats, Stop};
use backstop_tests::{Knocks, eventually};

const CONSUMER: &str = "backstop";

fn draft(url: &str, settle: Settle) -> Draft {
    Draft {
        name: "order-events".into(),
        address: Address::parse(url).unwrap(),
        stream: STREAM.into(),
        consumer: CONSUMER.into(),
        filter: None,
        prefetch: 64,
        settle,
        ack_wait: Duration::from_secs(30),
        max_deliver: None,
        connect: Connect { retries: None, wait: Duration::from_millis(100) },
    }
}

/// A source at work.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), SourceError>>,
}

impl Running {
    fn begin(draft: Draft, intake: &Arc<Scripted>) -> Self {
        let contact = Arc::new(Contact::new(SystemClock.now()));
        let source = Source::new(Settings::new(draft).unwrap(), intake.clone(), Arc::new(SystemClock), contact);
        let stop = CancellationToken::new();
        let told = stop.clone();
        let task = TaskTracker::new().spawn(async move { source.run(told).await });
        Self { stop, task }
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Why it gave up, with every cause.
    async fn gave_up(self) -> String {
        let error = self.task.await.unwrap().unwrap_err();
        let mut text = format!("{error:?} {error}");
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

async fn nothing_left(broker: &Broker) {
    eventually("everything is settled", async || (broker.left(CONSUMER).await? == (0, 0)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_what_is_stored_is_acknowledged_and_comes_with_its_headers() {
    let broker = Broker::start().await;
    broker.publish("first").await;
    let intake = Arc::new(Scripted::storing(|_, _| Stored::Yes));
    let running = Running::begin(draft(&broker.nats.url(), Settle::OnStore), &intake);
    nothing_left(&broker).await;
    running.end().await;

    let [came] = &intake.came()[..] else { panic!("one message came: {:?}", intake.came()) };
    let field = |name: &str| came.brought.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert_eq!((came.body.as_str(), came.brought.key.as_deref()), ("first", Some("first")));
    assert_eq!((came.brought.delivered_before, came.brought.last_delivery), (0, false));
    for (name, value) in [
        ("content-type", "text/plain"),
        ("broker-kind", "nats"),
        ("broker-origin", STREAM),
        ("broker-subject", "orders.created"),
        ("broker-sequence", "1"),
        ("broker-delivery-count", "0"),
        ("broker-redelivered", "false"),
    ] {
        assert_eq!(field(name), value, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_message_without_an_id_is_known_by_its_place_in_the_stream_each_time_it_comes() {
    let broker = Broker::start().await;
    broker.jetstream.publish("orders.created", "bare".into()).await.unwrap().await.unwrap();
    let again = Settlement::Requeue(Duration::from_millis(10));
    let intake = Arc::new(Scripted::delivering(move |_, before| if before < 1 { again } else { Settlement::Ack }));
    let running = Running::begin(draft(&broker.nats.url(), Settle::OnDelivery), &intake);
    eventually("it came twice", async || (intake.came().len() == 2).then_some(())).await;
    running.end().await;

    // A stream of the same name counts from one again, and its first message is another.
    broker.jetstream.delete_stream(STREAM).await.unwrap();
    broker.make_stream().await;
    broker.jetstream.publish("orders.created", "other".into()).await.unwrap().await.unwrap();
    let running = Running::begin(draft(&broker.nats.url(), Settle::OnDelivery), &intake);
    eventually("the other came", async || (intake.different() == 2).then_some(())).await;
    running.end().await;

    let keys: Vec<_> = intake.came().into_iter().map(|came| (came.body, came.brought.key.unwrap())).collect();
    let of = |body: &str| keys.iter().filter(|(of, _)| of == body).map(|(_, key)| key.as_str()).collect::<Vec<_>>();
    assert_eq!(of("bare")[0], of("bare")[1]);
    assert_ne!(of("bare")[0], of("other")[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_restart_of_the_server_under_load_loses_nothing() {
    for (how, settle) in [(Stop::Orderly, Settle::OnDelivery), (Stop::Kill, Settle::OnStore)] {
        let mut broker = Broker::start().await;
        let intake = Arc::new(Scripted::storing(|_, _| Stored::Yes).taking(Duration::from_millis(2)));
        let mut draft = draft(&broker.nats.url(), settle);
        draft.ack_wait = Duration::from_secs(1);
        let running = Running::begin(draft, &intake);
        for number in 0..300 {
            if number == 150 {
                eventually("some came", async || (intake.different() > 20).then_some(())).await;
                broker.nats.stop(how);
                broker.nats.start_again().await;
            }
            broker.publish(&format!("message {number}")).await;
        }
        eventually("all came", async || (intake.different() == 300).then_some(())).await;
        nothing_left(&broker).await;
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_requeued_message_comes_again_and_not_before_its_delay_is_over() {
    let broker = Broker::start().await;
    broker.publish("slow").await;
    let delay = Duration::from_millis(700);
    let intake = Arc::new(Scripted::delivering(
        move |_, before| {
            if before < 2 { Settlement::Requeue(delay) } else { Settlement::Ack }
        },
    ));
    let running = Running::begin(draft(&broker.nats.url(), Settle::OnDelivery), &intake);
    nothing_left(&broker).await;
    eventually("it came three times", async || (intake.came().len() == 3).then_some(())).await;
    running.end().await;

    let came = intake.came();
    for (earlier, later) in came.iter().zip(came.iter().skip(1)) {
        assert!(later.at - earlier.at >= delay, "came again after {:?}", later.at - earlier.at);
    }
    let counts: Vec<_> = came.iter().map(|came| came.brought.delivered_before).collect();
    assert_eq!(counts, [0, 1, 2]);
}

/// As a host does: the last delivery's failure is a dead letter.
fn failing(brought: &backstop::ingress::source::Brought) -> Settlement {
    if brought.last_delivery { Settlement::DeadLetter } else { Settlement::Requeue(Duration::from_millis(10)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_the_last_delivery_is_marked_and_a_dead_letter_comes_no_more() {
    let broker = Broker::start().await;
    broker.publish("poison").await;
    let mut terminated = broker.told("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>").await;
    let intake = Arc::new(Scripted::delivering(|brought, _| failing(brought)));
    let mut draft = draft(&broker.nats.url(), Settle::OnDelivery);
    draft.max_deliver = Some(3);
    let running = Running::begin(draft, &intake);
    eventually("it came three times", async || (intake.came().len() >= 3).then_some(())).await;
    nothing_left(&broker).await;
    running.end().await;
    let last: Vec<_> = intake.came().iter().map(|came| came.brought.last_delivery).collect();
    assert_eq!(last, [false, false, true]);
    // The server tells whoever listens that it was given up, which an acknowledgement would not do.
    let advisory = eventually("the server tells", async || terminated.next().now_or_never().flatten()).await;
    assert!(String::from_utf8_lossy(&advisory.payload).contains("\"deliveries\":3"), "{advisory:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_host_that_dies_in_the_last_delivery_is_followed_by_another_last_one() {
    let broker = Broker::start().await;
    broker.publish("poison").await;
    let mut draft = draft(&broker.nats.url(), Settle::OnDelivery);
    draft.max_deliver = Some(1);
    draft.ack_wait = Duration::from_secs(1);
    let dying = Arc::new(Scripted::delivering(|_, _| Settlement::Ack).taking(Duration::from_secs(3600)));
    let running = Running::begin(draft.clone(), &dying);
    eventually("the last delivery began", async || (dying.came().len() == 1).then_some(())).await;
    running.task.abort();

    let intake = Arc::new(Scripted::delivering(|brought, _| failing(brought)));
    let running = Running::begin(draft, &intake);
    eventually("it came again", async || (intake.came().len() == 1).then_some(())).await;
    nothing_left(&broker).await;
    running.end().await;
    assert!(intake.came()[0].brought.last_delivery);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_where_the_server_would_deliver_no_more_the_message_is_kept_and_tried_again_here() {
    let broker = Broker::start().await;
    broker.make_consumer(CONSUMER, 2, Duration::from_secs(30)).await;
    broker.publish("stubborn").await;
    let again = Settlement::Requeue(Duration::from_millis(10));
    let intake = Arc::new(Scripted::delivering(move |_, before| if before < 4 { again } else { Settlement::Ack }));
    let running = Running::begin(draft(&broker.nats.url(), Settle::OnDelivery), &intake);
    eventually("it came five times", async || (intake.came().len() == 5).then_some(())).await;
    nothing_left(&broker).await;
    running.end().await;
    let last: Vec<_> = intake.came().iter().map(|came| came.brought.last_delivery).collect();
    assert_eq!(last, [false, true, true, true, true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_no_more_than_prefetch_messages_are_outstanding() {
    let broker = Broker::start().await;
    for number in 0..60 {
        broker.publish(&format!("message {number}")).await;
    }
    let intake = Arc::new(Scripted::delivering(|_, _| Settlement::Ack).taking(Duration::from_millis(30)));
    let mut draft = draft(&broker.nats.url(), Settle::OnDelivery);
    draft.prefetch = 7;
    let running = Running::begin(draft, &intake);
    let mut most = 0;
    eventually("all came", async || {
        most = most.max(broker.left(CONSUMER).await?.0);
        (intake.different() == 60).then_some(())
    })
    .await;
    nothing_left(&broker).await;
    running.end().await;
    assert!((1..=7).contains(&most), "{most} were outstanding for the server");
    assert_eq!(intake.most(), 7, "all places are used");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_an_attempt_longer_than_the_ack_wait_is_not_made_twice() {
    let broker = Broker::start().await;
    broker.make_consumer(CONSUMER, -1, Duration::from_millis(400)).await;
    broker.publish("long").await;
    let intake = Arc::new(Scripted::delivering(|_, _| Settlement::Ack).taking(Duration::from_secs(2)));
    let running = Running::begin(draft(&broker.nats.url(), Settle::OnDelivery), &intake);
    eventually("it came", async || (intake.different() == 1).then_some(())).await;
    nothing_left(&broker).await;
    running.end().await;
    assert_eq!(intake.came().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_while_the_store_is_full_a_message_waits_without_using_deliveries_up() {
    let broker = Broker::start().await;
    broker.make_consumer(CONSUMER, 1, Duration::from_millis(400)).await;
    broker.publish("patient").await;
    let full = Stored::NotNow(Duration::from_millis(500));
    let intake = Arc::new(Scripted::storing(move |_, before| if before < 3 { full } else { Stored::Yes }));
    let running = Running::begin(draft(&broker.nats.url(), Settle::OnStore), &intake);
    eventually("it was stored", async || (intake.came().len() == 4).then_some(())).await;
    nothing_left(&broker).await;
    running.end().await;
    assert!(intake.came().iter().all(|came| came.brought.delivered_before == 0), "it was delivered once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_source_that_stops_gives_back_what_it_holds() {
    let broker = Broker::start().await;
    broker.publish("held").await;
    let full = Stored::NotNow(Duration::from_secs(3600));
    let intake = Arc::new(Scripted::storing(move |_, _| full));
    // What is not given back comes no earlier than after an hour.
    let mut draft = draft(&broker.nats.url(), Settle::OnStore);
    draft.ack_wait = Duration::from_secs(3600);
    let running = Running::begin(draft.clone(), &intake);
    eventually("it came", async || (intake.came().len() == 1).then_some(())).await;
    running.end().await;

    let other = Arc::new(Scripted::storing(|_, _| Stored::Yes));
    let running = Running::begin(draft, &other);
    eventually("another has it", async || (other.came().len() == 1).then_some(())).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_subscribing_is_tried_again_until_the_server_is_there() {
    let mut broker = Broker::start().await;
    broker.publish("early").await;
    broker.nats.stop(Stop::Orderly);
    let intake = Arc::new(Scripted::storing(|_, _| Stored::Yes));
    let running = Running::begin(draft(&broker.nats.url(), Settle::OnStore), &intake);
    broker.nats.start_again().await;
    eventually("it came", async || (intake.different() == 1).then_some(())).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_source_waits_between_tries_for_as_long_as_it_says() {
    let (knocks, wait) = (Knocks::listen().await, Duration::from_millis(300));
    let intake = Arc::new(Scripted::storing(|_, _| Stored::Yes));
    let mut draft = draft(&format!("nats://127.0.0.1:{}", knocks.port()), Settle::OnStore);
    draft.connect = Connect { retries: None, wait };
    let running = Running::begin(draft, &intake);
    let between = knocks.between(3).await;
    assert!(between.iter().all(|gap| *gap >= wait), "{between:?}");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_source_gives_up_after_its_retries_and_says_so_without_its_password() {
    let mut nats = Nats::start().await;
    nats.stop(Stop::Orderly);
    let intake = Arc::new(Scripted::storing(|_, _| Stored::Yes));
    let mut draft = draft(&nats.url(), Settle::OnStore);
    draft.connect.retries = Some(2);
    let why = Running::begin(draft, &intake).gave_up().await;
    assert!(why.contains("\"order-events\"") && why.contains("3 times"), "{why}");
    assert!(why.contains(&format!("127.0.0.1:{}", nats.port())), "{why}");
    assert!(!why.contains("w0rd"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_what_is_wrong_at_the_server_is_named() {
    let broker = Broker::start().await;
    let intake = Arc::new(Scripted::storing(|_, _| Stored::Yes));
    let none = Connect { retries: Some(0), wait: Duration::from_millis(100) };

    let draft = Draft { connect: none, ..draft(&broker.nats.url(), Settle::OnStore) };
    let why = Running::begin(Draft { stream: "NOWHERE".into(), ..draft.clone() }, &intake).gave_up().await;
    assert!(why.contains("\"order-events\"") && why.contains("there is no stream \"NOWHERE\""), "{why}");

    let stranger = format!("nats://backstop:wr0ng@127.0.0.1:{}", broker.nats.port());
    let address = Address::parse(&stranger).unwrap();
    let why = Running::begin(Draft { address, ..draft.clone() }, &intake).gave_up().await;
    assert!(why.contains("refuses the credentials") && !why.contains("wr0ng"), "{why}");

    broker.make_consumer("whole", -1, Duration::from_secs(1)).await;
    let filter = Some("orders.created".to_owned());
    let why = Running::begin(Draft { consumer: "whole".into(), filter, ..draft }, &intake).gave_up().await;
    assert!(why.contains("cannot be used: it filters"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_deleted_consumer_is_made_again() {
    let broker = Broker::start().await;
    broker.publish("before").await;
    let intake = Arc::new(Scripted::storing(|_, _| Stored::Yes));
    let running = Running::begin(draft(&broker.nats.url(), Settle::OnStore), &intake);
    nothing_left(&broker).await;
    // NATS 2.9 deletes it, and may say all the same that its folder is not empty.
    let _ = broker.jetstream.delete_consumer_from_stream(CONSUMER, STREAM).await;
    broker.publish("after").await;
    eventually("both came", async || (intake.different() == 2).then_some(())).await;
    running.end().await;
}
