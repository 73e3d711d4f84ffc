//! What the scenarios share: one broker for those that do not stop it, sources, and an intake that does as it is told.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use backstop::amqp::{Broker, Dialer, SystemAddresses};
use backstop::clock::{Clock as _, SystemClock};
use backstop::dispatch::rabbitmq::{Exchange, Publication, Published, Publisher};
use backstop::ingress::contact::Contact;
use backstop::ingress::rabbitmq::{RabbitMq, Source, SourceError};
use backstop::ingress::source::{Brought, Connect, Intake, Settle, Settlement, Stored};
use backstop::message::MessageId;
use bytes::Bytes;
use http::HeaderMap;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use backstop_tests::{eventually, rabbitmq};

/// The broker of the scenarios that leave it running.
pub(crate) static BROKER: LazyLock<rabbitmq::RabbitMq> = LazyLock::new(rabbitmq::RabbitMq::start);

/// Waits until `done` answers true.
pub(super) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    eventually(what, async || done().await.then_some(())).await;
}

/// A name that no other scenario uses.
pub(super) fn fresh(what: &str) -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}", MADE.fetch_add(1, Ordering::Relaxed))
}

/// Makes connections, as the host does.
pub(crate) fn dialer() -> Dialer {
    dialer_trusting(rustls::RootCertStore::empty())
}

/// The same, trusting `roots` where TLS is spoken.
pub(super) fn dialer_trusting(roots: rustls::RootCertStore) -> Dialer {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Dialer::new(Arc::new(SystemAddresses), Arc::new(tls), Arc::new(SystemClock))
}

/// Publishes the message of this number, which is its body, too, once.
pub(crate) async fn publish(publisher: &Publisher, to: &Exchange, number: u32) -> Published {
    let headers = HeaderMap::new();
    let publication = Publication {
        message: MessageId::from_bytes(u128::from(number).to_be_bytes()),
        attempt: 1,
        idempotency_key: "key",
        headers: &headers,
        body: Bytes::from(number.to_string()),
    };
    publisher.publish(to, &publication, Duration::from_secs(5)).await
}

/// How a source is configured unless a scenario says otherwise.
pub(super) fn source(url: &str, queue: &str, settle: Settle) -> RabbitMq {
    RabbitMq {
        name: "pages".to_owned(),
        broker: Broker::parse(&url.parse().expect("a URL")).expect("a broker"),
        queue: queue.to_owned(),
        prefetch: 10,
        settle,
        connect: Connect { retries: None, wait: Duration::from_millis(100) },
        delivery_limit: None,
    }
}

/// A source that runs until it is stopped.
pub(super) struct Running {
    stop: CancellationToken,
    ended: JoinHandle<Result<(), SourceError>>,
}

impl Running {
    /// Starts it.
    pub(super) fn start(config: RabbitMq, intake: &Arc<Told>) -> Self {
        let stop = CancellationToken::new();
        let source = Source {
            config: Arc::new(config),
            dialer: dialer(),
            intake: Arc::clone(intake) as Arc<dyn Intake>,
            clock: Arc::new(SystemClock),
            contact: Arc::new(Contact::new(SystemClock.now())),
        };
        let ended = TaskTracker::new().spawn(source.run(stop.clone()));
        Self { stop, ended }
    }

    /// Asks it to stop.
    pub(super) fn ask(&self) {
        self.stop.cancel();
    }

    /// Asks it to stop, and waits until it has.
    pub(super) async fn stop(self) {
        self.ask();
        self.end().await.expect("it ends well");
    }

    /// How it ends.
    pub(super) async fn end(self) -> Result<(), SourceError> {
        self.ended.await.expect("it does not panic")
    }
}

/// What a scenario has an intake answer.
type Answer<T> = Box<dyn Fn(&Brought) -> T + Send + Sync>;

/// An intake that does as it is told, and remembers what it was given.
pub(super) struct Told {
    store: Answer<Stored>,
    deliver: Answer<Settlement>,
    /// Whether it answers; while it does not, it holds on to what it is given.
    open: tokio::sync::watch::Sender<bool>,
    brought: Mutex<Vec<Brought>>,
    in_hand: AtomicUsize,
    most_in_hand: AtomicUsize,
}

impl Told {
    /// Stores as told.
    pub(super) fn storing(answer: impl Fn(&Brought) -> Stored + Send + Sync + 'static) -> Arc<Self> {
        Self::new(Box::new(answer), Box::new(|_| panic!("this source settles on storing")))
    }

    /// Delivers as told.
    pub(super) fn delivering(answer: impl Fn(&Brought) -> Settlement + Send + Sync + 'static) -> Arc<Self> {
        Self::new(Box::new(|_| panic!("this source settles on delivery")), Box::new(answer))
    }

    fn new(store: Answer<Stored>, deliver: Answer<Settlement>) -> Arc<Self> {
        Arc::new(Self {
            store,
            deliver,
            open: tokio::sync::watch::Sender::new(true),
            brought: Mutex::default(),
            in_hand: AtomicUsize::new(0),
            most_in_hand: AtomicUsize::new(0),
        })
    }

    /// Has it hold on to what it is given.
    pub(super) fn hold(&self) {
        self.open.send_replace(false);
    }

    /// Has it answer again.
    pub(super) fn release(&self) {
        self.open.send_replace(true);
    }

    /// What it was given, in order.
    pub(super) fn brought(&self) -> Vec<Brought> {
        self.brought.lock().expect("nobody panicked").clone()
    }

    /// The bodies of what it was given, in order.
    pub(super) fn bodies(&self) -> Vec<String> {
        self.brought().iter().map(|brought| String::from_utf8_lossy(&brought.body).into_owned()).collect()
    }

    /// How many it has in hand.
    pub(super) fn in_hand(&self) -> usize {
        self.in_hand.load(Ordering::SeqCst)
    }

    /// How many it has had in hand at once.
    pub(super) fn most_in_hand(&self) -> usize {
        self.most_in_hand.load(Ordering::SeqCst)
    }

    async fn answer<T>(&self, brought: Brought, answer: &Answer<T>) -> T {
        let in_hand = self.in_hand.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_hand.fetch_max(in_hand, Ordering::SeqCst);
        self.brought.lock().expect("nobody panicked").push(brought.clone());
        self.open.subscribe().wait_for(|open| *open).await.expect("the intake is there");
        self.in_hand.fetch_sub(1, Ordering::SeqCst);
        answer(&brought)
    }
}

#[async_trait]
impl Intake for Told {
    async fn store(&self, brought: Brought) -> Stored {
        self.answer(brought, &self.store).await
    }

    async fn put_aside(&self, _: Brought, _: String) -> Stored {
        unreachable!("a broker's message can be read")
    }

    async fn deliver(&self, brought: Brought) -> Settlement {
        self.answer(brought, &self.deliver).await
    }
}

/// A field of what was brought, as text.
pub(super) fn field(brought: &Brought, name: &str) -> String {
    brought.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}
