//! Subscribing: a connection, a channel, the prefetch, the consumer.

use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer, ErrorKind};

use super::{MOST_PREFETCH, Source};
use crate::amqp::{Link, LinkError, says};

/// Why there is no subscription.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// There is no connection.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The queue's name is too long for AMQP.
    #[error("the queue's name is longer than 255 bytes")]
    Name,
    /// There is no such queue.
    #[error("there is no queue {queue}: {says}")]
    NoQueue {
        /// Its name.
        queue: String,
        /// The broker's own words.
        says: String,
    },
    /// The broker does not let us consume from it.
    #[error("the broker refuses to let queue {queue} be consumed from: {says}")]
    Refused {
        /// Its name.
        queue: String,
        /// The broker's own words.
        says: String,
    },
}

/// A consumer, and what it lives on.
pub(super) struct Subscription {
    pub(super) link: Link,
    pub(super) channel: Channel,
    pub(super) consumer: Consumer,
}

impl Source {
    pub(super) async fn subscribe(&self) -> Result<Subscription, SubscribeError> {
        let config = &self.config;
        let queue = ShortString::try_new(config.queue.as_str()).map_err(|_| SubscribeError::Name)?;
        let link = self.dialer.dial(&config.broker, &format!("backstop source {}", config.name)).await?;
        let subscribed = async {
            let channel = link.channel().await?;
            let prefetch = config.prefetch.clamp(1, MOST_PREFETCH);
            let limited = channel.basic_qos(prefetch, BasicQosOptions { global: false }).await;
            limited.map_err(|error| link.lost(&error))?;
            // An empty tag: the broker makes one.
            let tag = ShortString::default();
            let consuming = channel.basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default());
            let consumer = consuming.await.map_err(|error| self.refused(&link, &error))?;
            Ok((channel, consumer))
        };
        let subscribed = tokio::select! {
            subscribed = subscribed => subscribed,
            () = self.clock.sleep(crate::amqp::CONNECTING) => {
                Err(LinkError::Timeout { place: config.broker.place() }.into())
            }
        };
        match subscribed {
            Ok((channel, consumer)) => Ok(Subscription { link, channel, consumer }),
            Err(error) => {
                link.close().await;
                Err(error)
            }
        }
    }

    fn refused(&self, link: &Link, error: &lapin::Error) -> SubscribeError {
        let (queue, says) = (self.config.queue.clone(), says(error));
        match error.kind() {
            ErrorKind::ProtocolError(refused) => match refused.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => SubscribeError::NoQueue { queue, says },
                _ => SubscribeError::Refused { queue, says },
            },
            _ => link.lost(error).into(),
        }
    }
}
