//! A RabbitMQ queue as a source: each delivery becomes a message of a route.
//!
//! The queue, its limits and its dead-letter exchange are the operator's: this declares nothing. It takes no more than
//! `prefetch` unsettled deliveries, and settles each exactly once: acknowledged when [`Intake`] answers for it, given
//! back with `basic.reject` (from RabbitMQ 4.3 on `basic.nack` no longer counts towards `x-delivery-limit`), or left
//! unsettled, for the broker to deliver again, when the connection is lost or the host stops. Nothing is acknowledged
//! before, so a restart of either side loses nothing and may repeat. Deliveries are worked on side by side, in no order;
//! a source that must keep the queue's has a prefetch of 1.
//!
//! Settling on delivery takes a quorum queue, since only those count deliveries. A consumer cannot ask which type a queue
//! has; a source that is told of a second delivery without its count gives up and says so.

mod consume;
mod death;
mod fields;
mod settle;
mod subscribe;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::consume::Ended;
use super::contact::Contact;
use super::source::{Connect, Intake, Settle};
use crate::amqp::{Broker, Dialer, in_words};
use crate::clock::Clock;

pub use self::fields::{Arrived, LARGEST_FIELD, MOST_DEATHS, MOST_FIELDS, brought};
pub use self::settle::LONGEST_DELAY;
pub use self::subscribe::SubscribeError;

/// The prefetch unless configured.
pub const PREFETCH: u16 = 64;

/// The most that may be configured as prefetch.
pub const MOST_PREFETCH: u16 = 1000;

/// The shortest pause before subscribing is tried again, whatever is configured: a broker that accepts and drops at
/// once is not hammered.
pub const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// What a source is configured to do.
#[derive(Clone, PartialEq, Debug)]
pub struct RabbitMq {
    /// The source's name, which logs and errors call it by.
    pub name: String,
    /// Where the broker is.
    pub broker: Broker,
    /// The queue, which must exist; at most 255 bytes.
    pub queue: String,
    /// Unsettled deliveries at once, 1 to [`MOST_PREFETCH`]; held within.
    pub prefetch: u16,
    /// When a delivery is settled.
    pub settle: Settle,
    /// How often subscribing is tried again, at the start and after each loss.
    pub connect: Connect,
    /// The queue's `x-delivery-limit`, if the operator wants policies and dead letters to know of it: a consumer cannot
    /// ask the broker for it. Without it no delivery counts as the last.
    pub delivery_limit: Option<u32>,
}

/// Why a source has ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It could not subscribe, as often as it was to try.
    #[error("source {name} gave up: no subscription to queue {queue} at {place} after {attempts} attempts")]
    GaveUp {
        /// The source's name.
        name: String,
        /// The queue.
        queue: String,
        /// `host:port`
        place: String,
        /// How often it tried in a row.
        attempts: u32,
        /// Why the last one failed.
        #[source]
        source: SubscribeError,
    },
    /// It is to settle on delivery, and its queue does not count deliveries: a message that always fails would be tried
    /// without end, unseen by `max_attempts`. Subscribing again would not change that.
    #[error(
        "source {name} gave up: queue {queue} does not count deliveries, and settle: on_delivery needs a quorum queue, \
         which does: declare it as one, or write settle: on_store"
    )]
    Uncounted {
        /// The source's name.
        name: String,
        /// The queue.
        queue: String,
    },
}

/// A source with all it works with.
pub struct Source {
    /// What it is to do.
    pub config: Arc<RabbitMq>,
    /// Makes its connections.
    pub dialer: Dialer,
    /// Takes what it brings.
    pub intake: Arc<dyn Intake>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How it stands, for onlookers.
    pub contact: Arc<Contact>,
}

impl Source {
    /// Brings messages in until `stop`, reconnecting as configured. Attempts count anew after each subscription.
    ///
    /// After `stop` it takes nothing more, waits for what [`Intake`] has in hand, settles that, and leaves the rest to
    /// the broker. Dropping the future instead leaves everything unsettled.
    ///
    /// # Errors
    /// [`SourceError`]
    pub async fn run(self, stop: CancellationToken) -> Result<(), SourceError> {
        let RabbitMq { name, queue, connect, .. } = &*self.config;
        let mut failed = 0_u32;
        loop {
            let subscribed = tokio::select! {
                subscribed = self.subscribe() => subscribed,
                () = stop.cancelled() => return Ok(()),
            };
            match subscribed {
                Ok(subscription) => {
                    failed = 0;
                    self.contact.connected(self.clock.now());
                    tracing::info!(source = name, queue, "subscribed");
                    match self.consume(subscription, &stop).await {
                        Ended::Stopped => return Ok(()),
                        Ended::Uncounted => {
                            return Err(SourceError::Uncounted { name: name.clone(), queue: queue.clone() });
                        }
                        Ended::Lost(why) => tracing::warn!(source = name, queue, why, "the subscription was lost"),
                    }
                }
                Err(source) => {
                    failed = failed.saturating_add(1);
                    if connect.retries.is_some_and(|retries| failed > retries) {
                        return Err(SourceError::GaveUp {
                            name: name.clone(),
                            queue: queue.clone(),
                            place: self.config.broker.place(),
                            attempts: failed,
                            source,
                        });
                    }
                    let why = in_words(&source);
                    self.contact.away(&why, self.clock.now());
                    tracing::warn!(source = name, queue, attempt = failed, why, "cannot subscribe");
                }
            }
            tokio::select! {
                () = self.clock.sleep(connect.wait.max(SHORTEST_WAIT)) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }
}
