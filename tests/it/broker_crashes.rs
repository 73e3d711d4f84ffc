//! Brokers and hosts die while publishers, host and vendor are at work. Whatever was confirmed to a publisher before,
//! meanwhile or after, is delivered, and the broker has nothing left.
//!
//! Publishers never stop for it: some of what they say is on its way when the plug is pulled.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::Context;
use backstop::clock::SystemClock;
use backstop::dispatch::rabbitmq::{Exchange, Published, Publisher};
use backstop_tests::rabbitmq::desk::Desk;
use backstop_tests::{Host, RabbitMq, Received, Setup, Vendor, eventually, nats, ok, rabbitmq, status};
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::nats::broker as stream;
use crate::rabbitmq::stage;

/// Publishers at once.
const PUBLISHERS: usize = 4;
/// Messages on either side of the crash, at least.
const ENOUGH: usize = 60;
/// How long the vendor takes.
const MOMENT: Duration = Duration::from_millis(20);
const QUEUE: &str = "pages";
const CONSUMER: &str = "backstop";

/// Which broker.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    RabbitMq,
    Nats,
}

/// Who dies.
#[derive(Clone, Copy, PartialEq)]
enum Dies {
    Broker,
    Host,
}

/// A broker, and a way to publish to it, which goes on by itself after a crash.
enum Broker {
    RabbitMq { broker: Arc<RabbitMq>, publisher: Publisher, to: Exchange },
    Nats { broker: Box<tokio::sync::Mutex<stream::Broker>>, publishing: Context },
}

impl Broker {
    async fn start(kind: Kind) -> Self {
        if kind == Kind::Nats {
            let broker = stream::Broker::start().await;
            let publishing = broker.jetstream.clone();
            return Self::Nats { broker: Box::new(broker.into()), publishing };
        }
        let broker = RabbitMq::start();
        Desk::at(&broker.url()).await.quorum_queue(QUEUE, &[]).await;
        // One that was made a moment before a crash has no leader afterwards, for ever (RabbitMQ 3.10).
        broker.stop(rabbitmq::Stop::InOrder);
        broker.start_again();
        let to = format!("{}?routing_key={QUEUE}", broker.url()).parse().expect("a URL");
        let to = Exchange::parse(&to).expect("an exchange");
        let publisher = Publisher::new(stage::dialer(), Arc::new(SystemClock));
        Self::RabbitMq { broker: Arc::new(broker), publisher, to }
    }

    /// What a source says of it.
    async fn written(&self) -> String {
        match self {
            Self::RabbitMq { broker, .. } => format!("rabbitmq: {{ url: '{}', queue: {QUEUE} }}", broker.url()),
            Self::Nats { broker, .. } => format!(
                "nats: {{ url: '{}', stream: {}, consumer: {CONSUMER}, ack_wait: 1s }}",
                broker.lock().await.nats.url(),
                stream::STREAM
            ),
        }
    }

    /// Publishes once; whether that is confirmed.
    async fn publish(&self, number: u32) -> bool {
        match self {
            Self::RabbitMq { publisher, to, .. } => stage::publish(publisher, to, number).await == Published::Confirmed,
            Self::Nats { publishing, .. } => stream::publish(publishing, &number.to_string()).await,
        }
    }

    /// Pulls the plug, and puts it back in.
    async fn crash(&self) {
        match self {
            Self::RabbitMq { broker, .. } => {
                let broker = Arc::clone(broker);
                let again = tokio::task::spawn_blocking(move || {
                    broker.stop(rabbitmq::Stop::AtOnce);
                    broker.start_again();
                });
                again.await.expect("the broker is there again");
            }
            Self::Nats { broker, .. } => {
                let nats = &mut broker.lock().await.nats;
                nats.stop(nats::Stop::Kill);
                nats.start_again().await;
            }
        }
    }

    /// How many messages wait there to be delivered; with NATS, those that are delivered and unsettled are counted in.
    async fn waiting(&self) -> Option<u64> {
        match self {
            Self::RabbitMq { broker, .. } => Some(Desk::at(&broker.url()).await.ready(QUEUE).await.into()),
            Self::Nats { broker, .. } => {
                let (unsettled, waiting) = broker.lock().await.left(CONSUMER).await?;
                Some(waiting + unsettled as u64)
            }
        }
    }

    /// Whether it has noticed that nobody listens any more.
    async fn is_alone(&self) -> bool {
        match self {
            Self::RabbitMq { broker, .. } => Desk::at(&broker.url()).await.consumers(QUEUE).await == 0,
            Self::Nats { .. } => true,
        }
    }
}

/// What the publishers have said.
#[derive(Default)]
struct Said {
    next: AtomicU32,
    confirmed: Mutex<BTreeSet<u32>>,
    over: CancellationToken,
}

impl Said {
    /// Publishes one message after the other until it is over, each until it is confirmed.
    async fn publish(&self, broker: &Broker) {
        while !self.over.is_cancelled() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            eventually("a message to be confirmed", async || broker.publish(number).await.then_some(())).await;
            self.confirmed().insert(number);
        }
    }

    fn confirmed(&self) -> std::sync::MutexGuard<'_, BTreeSet<u32>> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A vendor that takes a moment for each, refuses every fifth for now, and remembers which it took.
struct Taking {
    vendor: Vendor,
    taken: Arc<Mutex<BTreeSet<u32>>>,
}

impl Taking {
    async fn start() -> Self {
        let (vendor, taken) = (Vendor::answering([]).await, Arc::<Mutex<BTreeSet<u32>>>::default());
        let (asked, taking) = (AtomicUsize::new(0), Arc::clone(&taken));
        vendor.answers_by(move |request: &Received| {
            if asked.fetch_add(1, Ordering::Relaxed) % 5 == 4 {
                return status(503).after(MOMENT);
            }
            let number = request.text().parse().expect("a number");
            taking.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
            ok().after(MOMENT)
        });
        Self { vendor, taken }
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, BTreeSet<u32>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn host(broker: &Broker, vendor: &Vendor, settle: &str) -> Host {
    let source = broker.written().await;
    Setup::routes(&format!(
        "load: {{ destination: '{vendor}', retry: {{ max_attempts: 1000, min_delay: 1ms, max_delay: 20ms }} }}"
    ))
    .setting(
        "sources",
        &format!("{{ load: {{ route: load, settle: {settle}, connect: {{ wait: 100ms }}, {source} }} }}"),
    )
    .start()
    .await
}

async fn nothing_confirmed_is_lost(kind: Kind, settle: &str, dies: Dies) {
    let (broker, vendor, said) = (Broker::start(kind).await, Taking::start().await, Said::default());
    let mut host = host(&broker, &vendor.vendor, settle).await;
    let upheaval = async {
        eventually("messages to flow", async || (vendor.taken().len() >= ENOUGH).then_some(())).await;
        match dies {
            Dies::Broker => broker.crash().await,
            Dies::Host => {
                host.kill().await;
                host.restart().await;
            }
        }
        let (confirmed, taken) = (said.confirmed().len(), vendor.taken().len());
        eventually("publishers to be confirmed again", async || {
            (said.confirmed().len() >= confirmed + ENOUGH).then_some(())
        })
        .await;
        eventually("messages to be delivered again", async || (vendor.taken().len() >= taken + ENOUGH).then_some(()))
            .await;
        said.over.cancel();
    };
    tokio::join!(join_all((0..PUBLISHERS).map(|_| said.publish(&broker))), upheaval);

    eventually("every confirmed message to be delivered", async || {
        said.confirmed().is_subset(&vendor.taken()).then_some(())
    })
    .await;
    eventually("the broker to have nothing left", async || (broker.waiting().await? == 0).then_some(())).await;
    eventually("the host to have nothing left", async || {
        host.messages("queued,in_flight").await.is_empty().then_some(())
    })
    .await;
    assert!(host.messages("dead").await.is_empty(), "nothing was given up");
    host.signal("TERM").await;
    assert!(host.exited().await.success());
    eventually("the broker to be alone", async || broker.is_alone().await.then_some(())).await;
    assert_eq!(broker.waiting().await, Some(0), "nothing was left unsettled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_a_broker_that_crashes_under_load_loses_nothing_that_is_stored_here() {
    nothing_confirmed_is_lost(Kind::RabbitMq, "on_store", Dies::Broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_a_broker_that_crashes_under_load_loses_nothing_that_it_keeps_itself() {
    nothing_confirmed_is_lost(Kind::RabbitMq, "on_delivery", Dies::Broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_server_that_crashes_under_load_loses_nothing_that_is_stored_here() {
    nothing_confirmed_is_lost(Kind::Nats, "on_store", Dies::Broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_server_that_crashes_under_load_loses_nothing_that_it_keeps_itself() {
    nothing_confirmed_is_lost(Kind::Nats, "on_delivery", Dies::Broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_a_host_that_crashes_under_load_loses_nothing_that_it_stored() {
    nothing_confirmed_is_lost(Kind::RabbitMq, "on_store", Dies::Host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_a_host_that_crashes_under_load_loses_nothing_that_the_broker_keeps() {
    nothing_confirmed_is_lost(Kind::RabbitMq, "on_delivery", Dies::Host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_host_that_crashes_under_load_loses_nothing_that_it_stored() {
    nothing_confirmed_is_lost(Kind::Nats, "on_store", Dies::Host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_a_host_that_crashes_under_load_loses_nothing_that_the_server_keeps() {
    nothing_confirmed_is_lost(Kind::Nats, "on_delivery", Dies::Host).await;
}
