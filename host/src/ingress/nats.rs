//! Ingress from NATS JetStream: a durable pull consumer's messages become a route's.
//!
//! It judges nothing: what becomes of a message, the [`Intake`] says, and the source tells the server. It never
//! acknowledges what is neither stored nor delivered, and takes no more than `prefetch` messages at once.
//!
//! How a delivery is settled (JetStream's words in brackets):
//!
//! | `settle`      | the intake says        | the server is told                                                      |
//! |---------------|------------------------|-------------------------------------------------------------------------|
//! | `on_store`    | stored                 | done (`+ACK`), and its confirmation is awaited                           |
//! | `on_store`    | not now                | still at it (`+WPI`) until it is stored: no delivery is used up          |
//! | `on_delivery` | acknowledge            | done (`+ACK`)                                                            |
//! | `on_delivery` | requeue after a delay  | again, not before the delay is over (`-NAK`, with the delay)             |
//! | `on_delivery` | dead letter            | never again (`+TERM`); the intake has written a dead letter by then      |
//! | either        | nothing yet            | still at it (`+WPI`), at every half of the time it allows                |
//!
//! **The last delivery.** A message past a consumer's `max_deliver` stays in the stream, and the server tells nobody. So
//! `max_deliver` is counted here, from the number that each delivery carries, and a consumer that the source creates has
//! no limit of its own: even a host that dies during the last attempt is followed by one more delivery, marked as the
//! last. Where a consumer that was there before has a limit, the lower one counts; during *its* last delivery a message
//! is not given back but kept and tried again here, and is lost to sight only if the host dies in the middle of it.

mod consumer;
mod deliveries;
mod settings;
mod subscription;
mod window;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::consumer::BindFailure;
use self::deliveries::Carrier;
use self::subscription::{Ended, Subscription};
use crate::amqp::in_words;
use crate::clock::Clock;
use crate::dispatch::nats::{ConnectFailure, Connection};
use crate::ingress::contact::Contact;
use crate::ingress::source::Intake;

pub use self::settings::{BadSetting, DEFAULT_PREFETCH, Draft, Settings};

/// How long the server may take to answer a request.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A source: brings a consumer's messages to an intake until it is told to stop.
pub struct Source {
    settings: Arc<Settings>,
    intake: Arc<dyn Intake>,
    clock: Arc<dyn Clock>,
    contact: Arc<Contact>,
}

impl Source {
    /// A source that does nothing until it is run; `contact` shows how it stands.
    pub fn new(settings: Settings, intake: Arc<dyn Intake>, clock: Arc<dyn Clock>, contact: Arc<Contact>) -> Self {
        Self { settings: Arc::new(settings), intake, clock, contact }
    }

    /// Subscribes and brings messages in until `stop` is raised; then takes nothing more, gives back what has not been
    /// begun, and returns once what has been begun is settled.
    ///
    /// A lost connection, a deleted consumer and a silent server lead to subscribing anew, as often as `connect` says.
    /// Dropping the future ends everything at once; the server delivers again what was not settled.
    ///
    /// # Errors
    /// When subscribing failed as often as `connect` allows, at the start or after a loss. What had been begun is
    /// settled by then, as far as that could be.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), SourceError> {
        let mut workers = JoinSet::new();
        let release = CancellationToken::new();
        let ended = self.bring(&mut workers, &stop, &release).await;
        // Not before the subscription has ended: what is given back would come again at once, to a source that stops.
        release.cancel();
        while let Some(worker) = workers.join_next().await {
            subscription::note(&self.settings, worker);
        }
        ended
    }

    async fn bring(
        &self,
        workers: &mut JoinSet<()>,
        stop: &CancellationToken,
        release: &CancellationToken,
    ) -> Result<(), SourceError> {
        let Settings { name, connect, .. } = &*self.settings;
        let mut connection = None;
        let mut failures: u32 = 0;
        loop {
            let subscribed = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                subscribed = self.subscribe(&mut connection) => subscribed,
            };
            let failure = match subscribed {
                Ok(subscription) => {
                    self.contact.connected(self.clock.now());
                    match subscription.take_in(workers, stop, release).await {
                        Ended::Stopped => return Ok(()),
                        // A subscription that brought something ends a row of failures.
                        Ended::Lost { why, worked: true } => {
                            self.contact.away(&why, self.clock.now());
                            tracing::warn!(source = name, why, "a subscription was lost; subscribing anew");
                            failures = 0;
                            continue;
                        }
                        Ended::Lost { why, worked: false } => SubscribeFailure::Lost(why),
                    }
                }
                Err(failure) => failure,
            };
            self.contact.away(&in_words(&failure), self.clock.now());
            failures = failures.saturating_add(1);
            if connect.retries.is_some_and(|retries| failures > retries) {
                let address = self.settings.address.to_string();
                return Err(SourceError { name: name.clone(), address, attempts: failures, failure: failure.into() });
            }
            tracing::warn!(
                source = name,
                error = &failure as &dyn std::error::Error,
                failures,
                "failed to subscribe; trying again"
            );
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.clock.sleep(connect.wait) => {}
            }
        }
    }

    /// Tries once to subscribe, on the connection there is or on a new one.
    async fn subscribe(&self, connection: &mut Option<Connection>) -> Result<Subscription, SubscribeFailure> {
        let connection = match connection {
            Some(connection) => connection,
            none => {
                let client = format!("backstop source {}", self.settings.name);
                none.insert(Connection::open(&self.settings.address, &client, ANSWER_WITHIN).await?)
            }
        };
        if !connection.is_up() {
            return Err(SubscribeFailure::Away);
        }
        let bound = consumer::bind(connection, &self.settings).await?;
        let carrier = Carrier {
            settings: Arc::clone(&self.settings),
            intake: Arc::clone(&self.intake),
            clock: Arc::clone(&self.clock),
            connection: connection.clone(),
            terms: bound.terms,
        };
        Subscription::begin(bound.consumer, carrier).await.map_err(SubscribeFailure::Lost)
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A source has given up: subscribing failed as often as it may.
#[derive(Debug, thiserror::Error)]
#[error("source {name:?} failed to subscribe at {address}, {attempts} times in a row, and has given up")]
pub struct SourceError {
    /// The source's name.
    pub name: String,
    /// The server, without credentials.
    pub address: String,
    /// How often it was tried.
    pub attempts: u32,
    /// The last failure.
    #[source]
    failure: Box<SubscribeFailure>,
}

/// Why one attempt to subscribe failed.
#[derive(Debug, thiserror::Error)]
enum SubscribeFailure {
    #[error("failed to connect")]
    Connect(#[from] ConnectFailure),
    #[error("the connection is lost, and not mended yet")]
    Away,
    #[error("failed to bind to the consumer")]
    Bind(#[from] BindFailure),
    #[error("the subscription ended as soon as it began: {0}")]
    Lost(String),
}
