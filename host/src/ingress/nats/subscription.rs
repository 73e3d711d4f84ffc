//! A subscription: messages are pulled while there is room for them, until it is lost or the source is to stop.
//!
//! It keeps its own pull requests: the client library's stream of messages fills its buffer beside what is being worked
//! on, and would have up to twice as many outstanding.

use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::{Message, StatusCode, Subject, Subscriber};
use futures_util::StreamExt as _;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::deliveries::Carrier;
use super::settings::Settings;
use super::window::Window;
use crate::dispatch::nats::connection::Losses;

/// How long a pull request stands.
const PULL_FOR: Duration = Duration::from_secs(30);
/// How often the server says that it has nothing yet.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// How long it may say nothing at all while something is asked for: three heartbeats.
const SILENCE: Duration = Duration::from_secs(9);

/// A subscription that stands.
pub(super) struct Subscription {
    consumer: Consumer<pull::Config>,
    carrier: Carrier,
    inbox: Subject,
    messages: Subscriber,
    losses: Losses,
    window: Window,
}

/// How a subscription ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The source is to stop.
    Stopped,
    /// It was lost.
    Lost {
        /// Why, for people.
        why: String,
        /// Whether the server had said anything on it.
        worked: bool,
    },
}

impl Subscription {
    /// Begins one.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(super) async fn begin(consumer: Consumer<pull::Config>, carrier: Carrier) -> Result<Self, String> {
        let losses = carrier.connection.losses();
        let client = carrier.connection.client();
        let inbox = Subject::from(client.new_inbox());
        let messages = client.subscribe(inbox.clone()).await.map_err(|error| error.to_string())?;
        let window = Window::new(carrier.settings.prefetch);
        tracing::info!(source = carrier.settings.name(), "subscribed");
        Ok(Self { consumer, carrier, inbox, messages, losses, window })
    }

    /// Takes messages in and gives each to a worker of its own, until the subscription ends. What has come and was not
    /// begun by then is given back. Workers are told by `release` when they are to give back what only waits.
    pub(super) async fn take_in(
        mut self,
        workers: &mut JoinSet<()>,
        stop: &CancellationToken,
        release: &CancellationToken,
    ) -> Ended {
        let mut worked = false;
        let ended = loop {
            if let Some(batch) = self.window.wanted(workers.len()) {
                if let Err(error) = self.ask_for(batch).await {
                    break Ended::Lost { why: error.to_string(), worked };
                }
                self.window.asked(batch);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break Ended::Stopped,
                () = self.losses.next() => break Ended::Lost { why: "the connection was lost".to_owned(), worked },
                Some(worker) = workers.join_next(), if !workers.is_empty() => note(&self.carrier.settings, worker),
                message = self.messages.next() => {
                    let said = message.ok_or_else(|| "the client has ended".to_owned()).and_then(|message| {
                        self.hear(message, workers, release)
                    });
                    match said {
                        Ok(()) => worked = true,
                        Err(why) => break Ended::Lost { why, worked },
                    }
                }
                () = self.carrier.clock.sleep(SILENCE), if self.window.expects() => {
                    break Ended::Lost { why: format!("the server said nothing for {SILENCE:?}"), worked };
                }
            }
        };
        self.give_back().await;
        ended
    }

    async fn ask_for(&self, batch: usize) -> Result<(), pull::BatchRequestError> {
        let request =
            pull::BatchConfig { batch, expires: Some(PULL_FOR), idle_heartbeat: HEARTBEAT, ..Default::default() };
        self.consumer.request_batch(request, self.inbox.clone()).await
    }

    /// Makes something of what the server said; an error ends the subscription.
    fn hear(&mut self, message: Message, workers: &mut JoinSet<()>, release: &CancellationToken) -> Result<(), String> {
        match message.status {
            None | Some(StatusCode::OK) => {
                self.window.came();
                if let Some(delivery) = self.carrier.read(message) {
                    workers.spawn(self.carrier.clone().carry(delivery, release.clone()));
                }
                Ok(())
            }
            Some(StatusCode::IDLE_HEARTBEAT) => Ok(()),
            // A request has come to its end: in time, or because the server changed its leader. What it still lacks
            // is said in a header (ADR-13); without one it will never be known, and subscribing anew sets it right.
            Some(StatusCode::TIMEOUT | StatusCode::REQUEST_TERMINATED) if undelivered(&message).is_some() => {
                self.window.ended(undelivered(&message).unwrap_or_default());
                Ok(())
            }
            Some(StatusCode::NO_RESPONDERS) => Err("the consumer is gone, or JetStream is away".to_owned()),
            Some(status) => Err(format!("the server said {status}: {}", message.description.unwrap_or_default())),
        }
    }

    /// Gives back what has come since and was not begun.
    async fn give_back(&mut self) {
        if !self.carrier.connection.is_up() || self.messages.unsubscribe().await.is_err() {
            return;
        }
        while let Some(message) = self.messages.next().await {
            if let Some(delivery) = self.carrier.read(message) {
                self.carrier.give_back(delivery).await;
            }
        }
    }
}

/// How many of its messages a request that has ended did not bring.
fn undelivered(message: &Message) -> Option<usize> {
    message.headers.as_ref()?.get("Nats-Pending-Messages")?.as_str().parse().ok()
}

/// Notes the end of a worker. One that panicked settled nothing: its message comes again.
pub(super) fn note(settings: &Settings, worker: Result<(), JoinError>) {
    if let Err(error) = worker {
        tracing::error!(source = settings.name(), error = &error as &dyn std::error::Error, "a delivery failed here");
    }
}
