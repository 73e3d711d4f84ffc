//! One subscription's life: deliveries in, each in a task of its own, until the connection is lost or the host stops.

use std::sync::Arc;

use futures_util::StreamExt as _;
use lapin::options::BasicCancelOptions;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::settle::{Fate, SAYING, Settling};
use super::subscribe::Subscription;
use super::{MOST_PREFETCH, Source};
use crate::amqp::says;

/// How a subscription ended.
pub(super) enum Ended {
    /// The host stops.
    Stopped,
    /// It was lost, and why.
    Lost(String),
    /// The queue does not count deliveries, and the source lives by their count.
    Uncounted,
}

impl Source {
    pub(super) async fn consume(&self, subscription: Subscription, stop: &CancellationToken) -> Ended {
        let Subscription { link, channel, mut consumer } = subscription;
        let over = CancellationToken::new();
        let mut in_hand = JoinSet::new();
        let ended = loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break Ended::Stopped,
                Some(ended) = in_hand.join_next() => {
                    if self.fate(ended) == Some(Fate::Uncounted) {
                        break Ended::Uncounted;
                    }
                }
                next = consumer.next() => match next {
                    Some(Ok(delivery)) => {
                        // What was settled a moment ago may still be counted here, so that the broker is ahead of us
                        // by as many again at most. One that does not keep to the prefetch is not listened to.
                        if in_hand.len() >= 2 * usize::from(self.config.prefetch.clamp(1, MOST_PREFETCH)) {
                            break Ended::Lost("the broker sent more than the prefetch allows".to_owned());
                        }
                        in_hand.spawn(self.settling(&over).run(delivery));
                    }
                    Some(Err(error)) => break Ended::Lost(says(&error)),
                    None => break Ended::Lost("the broker cancelled it: the queue was deleted or moved".to_owned()),
                },
                // A loss that comes while something is being settled is not always told to the consumer.
                () = link.gone() => break Ended::Lost("the connection is gone".to_owned()),
            }
        };
        if let Ended::Lost(why) = &ended {
            // Not only when what is in hand has come to its end.
            self.contact.away(why, self.clock.now());
        }
        // Nobody waits for another try any more; what the intake has in hand is waited for.
        over.cancel();
        if matches!(ended, Ended::Stopped) {
            tokio::select! {
                cancelled = channel.basic_cancel(consumer.tag(), BasicCancelOptions { nowait: true }) => {
                    if let Err(error) = cancelled {
                        tracing::debug!(source = self.config.name, why = says(&error), "the consumer was gone already");
                    }
                }
                () = self.clock.sleep(SAYING) => {}
            }
        }
        while let Some(ended) = in_hand.join_next().await {
            self.fate(ended);
        }
        drop(consumer);
        link.close().await;
        ended
    }

    fn settling(&self, over: &CancellationToken) -> Settling {
        Settling {
            config: Arc::clone(&self.config),
            intake: Arc::clone(&self.intake),
            clock: Arc::clone(&self.clock),
            over: over.clone(),
        }
    }

    /// What a delivery came to. A task that panicked leaves its delivery unsettled: it is in the broker's hand, which
    /// delivers it again after the next reconnection. It takes a place of the prefetch until then.
    fn fate(&self, ended: Result<Fate, JoinError>) -> Option<Fate> {
        ended
            .inspect_err(|error| tracing::error!(source = self.config.name, %error, "a delivery could not be handled"))
            .ok()
    }
}
