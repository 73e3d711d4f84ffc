//! One delivery: given to the intake, and settled by its answer.

use std::sync::Arc;
use std::time::Duration;

use lapin::Acker;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use tokio_util::sync::CancellationToken;

use super::RabbitMq;
use super::fields::{Arrived, brought, is_counted};
use crate::amqp::says;
use crate::clock::Clock;
use crate::ingress::source::{Brought, Intake, Settle, Settlement, Stored};

/// The longest delay of a policy's that is kept: `max_delay` of a route that is fed by such a source goes no further. A
/// delivery that failed is held back for so long before it is given back. It takes a place of the prefetch all the
/// while, and the broker closes the channel of a consumer that holds one for half an hour (`consumer_timeout`, 30
/// minutes unless the broker's owner set it otherwise).
pub const LONGEST_DELAY: Duration = Duration::from_secs(20 * 60);

/// The longest time for which a delivery is held: a moment longer, since delays are rounded up.
const LONGEST_PAUSE: Duration = LONGEST_DELAY.saturating_add(Duration::from_secs(1));

/// How long a word to the broker may take once the subscription is over. One that is handed over in the moment in which
/// the connection is lost is never answered by lapin, and a source that waited for it would never subscribe again.
pub(super) const SAYING: Duration = Duration::from_secs(2);

/// The shortest and the longest pause before the intake is asked again about what it could not begin with.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(60));

/// What settles a delivery.
pub(super) struct Settling {
    pub(super) config: Arc<RabbitMq>,
    pub(super) intake: Arc<dyn Intake>,
    pub(super) clock: Arc<dyn Clock>,
    /// Cancelled when the subscription ends: nobody waits for another try then.
    pub(super) over: CancellationToken,
}

/// What a delivery came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It was settled, or left to the broker because the subscription is over.
    Handled,
    /// It was left to the broker because nobody counts its deliveries: it would be tried without end.
    Uncounted,
}

/// What the broker is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Word {
    Ack,
    Requeue,
    DeadLetter,
}

impl Settling {
    pub(super) async fn run(self, delivery: Delivery) -> Fate {
        let Delivery { delivery_tag: _, exchange, routing_key, redelivered, properties, data, acker } = delivery;
        let arrived = Arrived {
            queue: &self.config.queue,
            exchange: exchange.as_str(),
            routing_key: routing_key.as_str(),
            redelivered,
            properties: &properties,
        };
        if self.config.settle == Settle::OnDelivery && !is_counted(&arrived) {
            return Fate::Uncounted;
        }
        let brought = brought(&arrived, data.into(), self.config.delivery_limit);
        let word = match self.config.settle {
            Settle::OnStore => self.store(brought).await,
            Settle::OnDelivery => self.deliver(brought).await,
        };
        if let Some(word) = word {
            self.say(word, &acker).await;
        }
        Fate::Handled
    }

    /// Asks until the intake has it, or the subscription is over: then the broker still does.
    async fn store(&self, brought: Brought) -> Option<Word> {
        loop {
            match self.intake.store(brought.clone()).await {
                Stored::Yes => return Some(Word::Ack),
                Stored::NotNow(pause) => {
                    tokio::select! {
                        () = self.clock.sleep(pause.clamp(ASK_AGAIN.0, ASK_AGAIN.1)) => {}
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
                        () = self.clock.sleep(pause.clamp(ASK_AGAIN.0, ASK_AGAIN.1)) => {}
                        () = self.over.cancelled() => return None,
                    }
                }
            }
        }
    }

    async fn say(&self, word: Word, acker: &Acker) {
        let saying = async {
            match word {
                Word::Ack => acker.ack(BasicAckOptions { multiple: false }).await,
                Word::Requeue => acker.reject(BasicRejectOptions { requeue: true }).await,
                Word::DeadLetter => acker.reject(BasicRejectOptions { requeue: false }).await,
            }
        };
        let too_late = async {
            self.over.cancelled().await;
            self.clock.sleep(SAYING).await;
        };
        // Where it is not said, the connection is gone, and the broker delivers it again.
        tokio::select! {
            said = saying => {
                if let Err(error) = said {
                    tracing::debug!(source = self.config.name, ?word, why = says(&error), "not settled");
                }
            }
            () = too_late => tracing::debug!(source = self.config.name, ?word, "not settled: nobody took the word"),
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::amqp::Broker;
    use crate::clock::driven::{DrivenClock, START};
    use crate::ingress::source::Connect;

    const HOUR: Duration = Duration::from_secs(3600);

    /// An intake whose every attempt fails, and may be repeated after so long.
    struct Failing(Duration);

    #[async_trait]
    impl Intake for Failing {
        async fn store(&self, _: Brought) -> Stored {
            Stored::Yes
        }

        async fn put_aside(&self, _: Brought, _: String) -> Stored {
            Stored::Yes
        }

        async fn deliver(&self, _: Brought) -> Settlement {
            Settlement::Requeue(self.0)
        }
    }

    /// How long a delivery is held that may be repeated after `pause`.
    async fn held(pause: Duration) -> Duration {
        let clock = Arc::new(DrivenClock::new());
        let settling = Settling {
            config: Arc::new(RabbitMq {
                name: "pages".to_owned(),
                broker: Broker::parse(&"amqp://broker.example/".parse().unwrap()).unwrap(),
                queue: "pages".to_owned(),
                prefetch: 1,
                settle: Settle::OnDelivery,
                connect: Connect { retries: None, wait: Duration::ZERO },
                delivery_limit: None,
            }),
            intake: Arc::new(Failing(pause)),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            over: CancellationToken::new(),
        };
        let brought = Brought {
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::new(),
            key: None,
            delivered_before: 0,
            last_delivery: false,
        };
        tokio::select! {
            biased;
            word = settling.deliver(brought) => assert_eq!(word, Some(Word::Requeue)),
            () = clock.until("it is given back", || false) => {}
        }
        clock.now().since(START)
    }

    #[tokio::test]
    async fn a_delay_is_kept_up_to_twenty_minutes_and_no_delivery_is_held_for_longer() {
        let rounded_up = LONGEST_DELAY + Duration::from_millis(1);
        for delay in [Duration::ZERO, HOUR / 60, HOUR / 12, LONGEST_DELAY, rounded_up] {
            assert_eq!(held(delay).await, delay);
        }
        assert_eq!(held(HOUR).await, LONGEST_PAUSE);
        assert!(LONGEST_PAUSE < HOUR / 2, "the broker closes the channel after half an hour");
    }
}
