//! One delivery: given to the intake, and settled by its answer.

use std::sync::Arc;
use std::time::Duration;

use lapin::Acker;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use tokio_util::sync::CancellationToken;

use super::RabbitMq;
use super::fields::{Arrived, brought};
use crate::amqp::says;
use crate::clock::Clock;
use crate::ingress::source::{Brought, Intake, Settle, Settlement, Stored};

/// The longest pause in which a delivery is held back. It takes a place of the prefetch all the while, and the broker
/// closes the channel of a consumer that holds one for half an hour (`consumer_timeout`).
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The shortest pause before the intake is asked again.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// What settles a delivery.
pub(super) struct Settling {
    pub(super) config: Arc<RabbitMq>,
    pub(super) intake: Arc<dyn Intake>,
    pub(super) clock: Arc<dyn Clock>,
    /// Cancelled when the subscription ends: nobody waits for another try then.
    pub(super) over: CancellationToken,
}

/// What the broker is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Word {
    Ack,
    Requeue,
    DeadLetter,
}

impl Settling {
    pub(super) async fn run(self, delivery: Delivery) {
        let Delivery { delivery_tag: _, exchange, routing_key, redelivered, properties, data, acker } = delivery;
        let arrived = Arrived {
            queue: &self.config.queue,
            exchange: exchange.as_str(),
            routing_key: routing_key.as_str(),
            redelivered,
            properties: &properties,
        };
        let brought = brought(&arrived, data.into(), self.config.delivery_limit);
        let word = match self.config.settle {
            Settle::OnStore => self.store(brought).await,
            Settle::OnDelivery => self.deliver(brought).await,
        };
        if let Some(word) = word {
            self.say(word, &acker).await;
        }
    }

    /// Asks until the intake has it, or the subscription is over: then the broker still does.
    async fn store(&self, brought: Brought) -> Option<Word> {
        loop {
            match self.intake.store(brought.clone()).await {
                Stored::Yes => return Some(Word::Ack),
                Stored::NotNow(pause) => {
                    tokio::select! {
                        () = self.clock.sleep(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)) => {}
                        () = self.over.cancelled() => return None,
                    }
                }
            }
        }
    }

    /// Asks until an attempt was made, or the subscription is over: then the broker still has it, uncounted.
    async fn deliver(&self, brought: Brought) -> Option<Word> {
        loop {
            match self.intake.deliver(brought.clone()).await {
                Settlement::Ack => return Some(Word::Ack),
                Settlement::DeadLetter => return Some(Word::DeadLetter),
                Settlement::Requeue(pause) => {
                    // The attempt was made, so it is given back in any case: this is what counts it.
                    tokio::select! {
                        () = self.clock.sleep(pause.min(LONGEST_PAUSE)) => {}
                        () = self.over.cancelled() => {}
                    }
                    return Some(Word::Requeue);
                }
                Settlement::NotBegun(pause) => {
                    tokio::select! {
                        () = self.clock.sleep(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)) => {}
                        () = self.over.cancelled() => return None,
                    }
                }
            }
        }
    }

    async fn say(&self, word: Word, acker: &Acker) {
        let said = match word {
            Word::Ack => acker.ack(BasicAckOptions { multiple: false }).await,
            Word::Requeue => acker.reject(BasicRejectOptions { requeue: true }).await,
            Word::DeadLetter => acker.reject(BasicRejectOptions { requeue: false }).await,
        };
        if let Err(error) = said {
            // The connection is gone, and the broker delivers it again.
            tracing::debug!(source = self.config.name, ?word, why = says(&error), "not settled");
        }
    }
}
