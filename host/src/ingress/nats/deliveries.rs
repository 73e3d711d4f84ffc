//! One delivery: what it brings, and how it is settled.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, AckKind};
use async_nats::{Request, Subject};
use http::{HeaderName, HeaderValue};
use tokio_util::sync::CancellationToken;

use super::consumer::Terms;
use super::settings::Settings;
use crate::clock::{Clock, Stopwatch};
use crate::dispatch::nats::{Connection, headers};
use crate::ingress::source::{Brought, Intake, Settle, Settlement, Stored, fields};

/// How long a settlement is awaited before it is said again.
const CONFIRM_WITHIN: Duration = Duration::from_secs(5);
/// The pause before it is said again.
const SAY_AGAIN: Duration = Duration::from_millis(200);
/// How long it is said again for. The message comes again after that, as it was not settled for the server.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);
/// The shortest time after which a message is tried again, whatever the intake says: no loop runs hot.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);

/// A delivery: a message, and where its settlement goes.
pub(super) struct Delivery {
    pub(super) brought: Brought,
    reply: Subject,
    /// Whether the server delivers it no more, whatever it is told.
    final_for_server: bool,
}

/// What carries deliveries to the intake, and the intake's word to the server.
#[derive(Clone)]
pub(super) struct Carrier {
    pub(super) settings: Arc<Settings>,
    pub(super) intake: Arc<dyn Intake>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) connection: Connection,
    pub(super) terms: Terms,
}

impl Carrier {
    /// Reads a message. None when it is not from a stream: nobody waits for its settlement then.
    pub(super) fn read(&self, message: async_nats::Message) -> Option<Delivery> {
        let message = jetstream::Message { message, context: self.connection.context().clone() };
        let info = message.info().ok()?;
        let (sequence, delivered) = (info.stream_sequence, u64::try_from(info.delivered).unwrap_or(1).max(1));
        let own_key = format!("{}/{}/{sequence}", info.stream, self.terms.incarnation);
        let stream = info.stream.to_owned();
        let jetstream::Message { message, .. } = message;

        let read = message.headers.as_ref().map(headers::inbound).unwrap_or_default();
        if read.left_out > 0 {
            let (name, left_out) = (&self.settings.name, read.left_out);
            tracing::warn!(source = name, sequence, left_out, "header values of a message are no fields, or too many");
        }
        let mut carried = read.headers;
        let (before, redelivered) = (delivered - 1, if delivered > 1 { "true" } else { "false" });
        for (name, value) in [
            (fields::BROKER, "nats".to_owned()),
            (fields::ORIGIN, stream),
            (fields::SUBJECT, message.subject.to_string()),
            (fields::SEQUENCE, sequence.to_string()),
            (fields::DELIVERY_COUNT, before.to_string()),
            (fields::REDELIVERED, redelivered.to_owned()),
        ] {
            if let Ok(value) = HeaderValue::try_from(value) {
                carried.insert(HeaderName::from_static(name), value);
            }
        }
        Some(Delivery {
            reply: message.reply?,
            brought: Brought {
                headers: carried,
                body: message.payload,
                // What the sender gave no id is known by its place in the stream, so that it is stored once however
                // often it comes.
                key: Some(read.message_id.unwrap_or(own_key)).filter(|key| headers::is_key(key)),
                delivered_before: u32::try_from(before).unwrap_or(u32::MAX),
                last_delivery: self.terms.last.is_some_and(|last| delivered >= last),
            },
            final_for_server: self.terms.server_last.is_some_and(|last| delivered >= last),
        })
    }

    /// Brings a delivery to the intake, and settles it. Once `release` is raised, what only waits is given back.
    pub(super) async fn carry(self, delivery: Delivery, release: CancellationToken) {
        let settlement = match self.settings.settle {
            Settle::OnStore => self.store(&delivery, &release).await,
            Settle::OnDelivery => self.deliver(&delivery, &release).await,
        };
        if let Some(settlement) = settlement {
            self.settle(&delivery.reply, settlement).await;
        }
    }

    /// Gives back a delivery that has not been begun.
    pub(super) async fn give_back(&self, delivery: Delivery) {
        if !delivery.final_for_server {
            self.say(&delivery.reply, AckKind::Nak(None)).await;
        }
    }

    /// Has a message stored, and waits for as long as that takes. While it waits it holds one of the `prefetch` places:
    /// what cannot be stored is not taken from the stream either.
    async fn store(&self, delivery: &Delivery, release: &CancellationToken) -> Option<AckKind> {
        loop {
            match self.while_saying_so(delivery, self.intake.store(delivery.brought.clone())).await {
                Stored::Yes => return Some(AckKind::Ack),
                Stored::NotNow(again) => {
                    if let Some(given_back) = self.pause(delivery, again, release).await {
                        return given_back;
                    }
                }
            }
        }
    }

    /// Has one attempt made; more than one only where the server would not deliver again.
    async fn deliver(&self, delivery: &Delivery, release: &CancellationToken) -> Option<AckKind> {
        loop {
            let after = match self.while_saying_so(delivery, self.intake.deliver(delivery.brought.clone())).await {
                Settlement::Ack => return Some(AckKind::Ack),
                Settlement::DeadLetter => return Some(AckKind::Term),
                Settlement::Requeue(after) if !delivery.final_for_server => {
                    return Some(AckKind::Nak(Some(after.max(SHORTEST_WAIT))));
                }
                // Given back now it would stay in the stream with nobody told; or it would be counted for nothing.
                Settlement::Requeue(after) | Settlement::NotBegun(after) => after,
            };
            if let Some(given_back) = self.pause(delivery, after, release).await {
                return given_back;
            }
        }
    }

    /// Waits for so long, or until the source stops: then what the server is told, if anything.
    async fn pause(
        &self,
        delivery: &Delivery,
        length: Duration,
        release: &CancellationToken,
    ) -> Option<Option<AckKind>> {
        let pause = self.while_saying_so(delivery, self.clock.sleep(length.max(SHORTEST_WAIT)));
        tokio::select! {
            biased;
            () = release.cancelled() => {}
            () = pause => return None,
        }
        if delivery.final_for_server {
            // Whatever it is told, the server delivers it no more; the stream has it still.
            let (source, key) = (&self.settings.name, delivery.brought.key.as_deref());
            tracing::error!(source, key, "the source stops in the last delivery of a message: it stays in its stream");
            return Some(None);
        }
        Some(Some(AckKind::Nak(None)))
    }

    /// Does `work`, and tells the server meanwhile that the message is still worked on.
    async fn while_saying_so<T>(&self, delivery: &Delivery, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.clock.sleep(self.terms.progress_every) => {
                    // Not queued for a server that is away: it would tell of the past.
                    if self.connection.is_up() {
                        tokio::select! {
                            done = &mut work => return done,
                            () = self.say(&delivery.reply, AckKind::Progress) => {}
                        }
                    }
                }
            }
        }
    }

    /// Says something to the server and does not wait for its word.
    async fn say(&self, reply: &Subject, kind: AckKind) {
        if let Err(error) = self.connection.client().publish(reply.clone(), kind.into()).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(source = self.settings.name, error, "the server could not be told");
        }
    }

    /// Settles a delivery, and says so again until the server confirms it: over a lost connection, too.
    async fn settle(&self, reply: &Subject, kind: AckKind) {
        let watch = Stopwatch::start();
        let mut losses = self.connection.losses();
        loop {
            let request = Request::new().payload(kind.into()).timeout(Some(CONFIRM_WITHIN));
            let confirmed = tokio::select! {
                biased;
                confirmed = self.connection.client().send_request(reply.clone(), request) => confirmed,
                // What was said on a connection that is lost is answered by nobody.
                () = losses.next() => continue,
            };
            let Err(error) = confirmed else { return };
            if watch.elapsed() >= SETTLE_WITHIN {
                self.tell_unsettled(kind, &error);
                return;
            }
            self.clock.sleep(SAY_AGAIN).await;
        }
    }

    fn tell_unsettled(&self, kind: AckKind, error: &(dyn std::error::Error + 'static)) {
        tracing::warn!(source = self.settings.name, ?kind, error, "a delivery was not settled: it comes again");
    }
}
