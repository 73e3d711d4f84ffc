//! RabbitMQ as a destination: one attempt publishes one message, and succeeds only when the broker confirms it.
//!
//! Nothing is declared, and nothing retried: exchanges and queues are the operator's, and attempts are counted by the
//! host. Each message is published as `mandatory`, so that one that no queue takes is told from one that was taken; the
//! broker's confirmation (for a quorum queue: a majority has it on disk) is the only success.

mod channels;
mod exchange;
mod properties;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use lapin::options::BasicPublishOptions;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, ErrorKind};

use self::channels::Channels;
use self::properties::properties;
use crate::amqp::{Broker, Dialer, in_words, says};
use crate::clock::Clock;
use crate::dispatch::recent::Recent;
use crate::message::{Fault, MessageId};

pub use self::channels::CHANNELS;
pub use self::exchange::{BadExchange, Exchange};
pub use self::properties::{LARGEST_HEADERS, MOST_HEADERS};

/// One attempt's message.
#[derive(Clone, Debug)]
pub struct Publication<'a> {
    /// Its identity: the `message_id`, the same in each attempt.
    pub message: MessageId,
    /// Which attempt of its life, from 1: the header `backstop-attempt`.
    pub attempt: u32,
    /// The header `idempotency-key`.
    pub idempotency_key: &'a str,
    /// End-to-end fields of the request.
    pub headers: &'a HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Published {
    /// Every queue that it was routed to has it.
    Confirmed,
    /// The broker could not take it: a queue is at its limit (`overflow: reject-publish`), or failed.
    Nacked,
    /// There is nowhere to put it.
    Unroutable {
        /// 312: no queue is bound to the exchange with this routing key. 404: there is no such exchange.
        code: u16,
        /// The broker's own words.
        text: String,
    },
    /// It may or may not have arrived.
    Failed {
        /// The kind of fault.
        fault: Fault,
        /// What exactly, for people. Never holds a secret.
        detail: String,
    },
}

/// How many brokers are connected to at once, a broker counting anew with each login. One more, and the connection that
/// was used longest ago is closed, once its last message is answered for.
pub const MAX_BROKERS: usize = 64;

/// Publishes: one connection for each broker and login, shared by all destinations there.
pub struct Publisher {
    dialer: Dialer,
    clock: Arc<dyn Clock>,
    brokers: Recent<Broker, Arc<Channels>>,
}

impl Publisher {
    /// Connects to nothing yet.
    pub fn new(dialer: Dialer, clock: Arc<dyn Clock>) -> Self {
        Self { dialer, clock, brokers: Recent::new(MAX_BROKERS) }
    }

    /// Makes one attempt, which takes no longer than `timeout`: waiting for one of the broker's [`CHANNELS`] channels,
    /// connecting and the confirmation included. Never fails: whatever goes wrong is an outcome.
    pub async fn publish(&self, to: &Exchange, publication: &Publication<'_>, timeout: Duration) -> Published {
        let broker = to.broker();
        let channels = self.brokers.get(broker, || Arc::new(Channels::new(broker.clone(), self.dialer.clone())));
        tokio::select! {
            // The answer first: it may have come in the very moment that the time was up.
            biased;
            published = attempt(&channels, to, publication) => published,
            () = self.clock.sleep(timeout) => {
                let place = to.broker().place();
                let why = if channels.is_blocked() { ": it takes no messages, being short of memory or disk" } else { "" };
                failed(Fault::Timeout, format!("{place} did not confirm the message within {timeout:?}{why}"))
            }
        }
    }
}

async fn attempt(channels: &Channels, to: &Exchange, publication: &Publication<'_>) -> Published {
    let lent = match channels.lend().await {
        Ok(lent) => lent,
        Err(error) => return failed(error.fault(), in_words(&error)),
    };
    match confirmation(lent.channel(), to, publication).await {
        Ok(confirmation) => {
            // Only a channel whose every message is answered for is used again.
            lent.give_back();
            match confirmation {
                Confirmation::Ack(None) => Published::Confirmed,
                Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
                    Published::Unroutable { code: returned.reply_code, text: returned.reply_text.to_string() }
                }
                Confirmation::Nack(None) => Published::Nacked,
                // The channel is in confirm mode before anybody gets it.
                Confirmation::NotRequested => failed(Fault::Protocol, "the broker was not asked to confirm"),
            }
        }
        Err(error) => refused(to, &error),
    }
}

/// Publishes, and waits for the broker's word. A channel is used for one message at a time: lapin would give a message
/// that was returned to whichever confirmation comes next.
async fn confirmation(
    channel: &Channel,
    to: &Exchange,
    publication: &Publication<'_>,
) -> Result<Confirmation, lapin::Error> {
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let (exchange, routing_key): (ShortString, ShortString) = to.names();
    let properties = properties(publication);
    channel.basic_publish(exchange, routing_key, options, &publication.body, properties).await?.await
}

/// What the broker's refusal, or the loss of the connection, means.
fn refused(to: &Exchange, error: &lapin::Error) -> Published {
    let (place, says) = (to.broker().place(), says(error));
    let ErrorKind::ProtocolError(refused) = error.kind() else {
        return failed(
            Fault::Reset,
            format!("the connection to {place} was lost before the message was confirmed: {says}"),
        );
    };
    match refused.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Published::Unroutable { code: 404, text: says },
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => {
            failed(Fault::Credentials, format!("{place} refused: {says}"))
        }
        AMQPErrorKind::Soft(_) => failed(Fault::Protocol, format!("{place} refused the message: {says}")),
        AMQPErrorKind::Hard(_) => failed(Fault::Reset, format!("{place} closed the connection: {says}")),
    }
}

fn failed(fault: Fault, detail: impl Into<String>) -> Published {
    Published::Failed { fault, detail: detail.into() }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}
