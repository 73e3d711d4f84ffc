//! Where messages are taken from, beside the listener: a broker's queue or stream, or a table, and the route that they go
//! to.

use crate::ingress::{feed, nats, rabbitmq};
use crate::message::RouteName;

/// A source, ready to be tapped. Its `Debug` shows no credentials.
#[derive(Clone, PartialEq, Debug)]
pub struct Tapped {
    /// Its name.
    pub name: String,
    /// The route that its messages go to; configured, and in mode async.
    pub route: RouteName,
    /// What it taps.
    pub tap: Tap,
}

/// What a source taps.
#[derive(Clone, PartialEq, Debug)]
pub enum Tap {
    /// A consumer of a JetStream stream.
    Nats(nats::Settings),
    /// A RabbitMQ queue.
    RabbitMq(rabbitmq::RabbitMq),
    /// A table's change feed.
    Feed(feed::Settings),
}

impl Tap {
    /// Which kind, as it is written in a configuration.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Nats(_) => "nats",
            Self::RabbitMq(_) => "rabbitmq",
            Self::Feed(_) => "feed",
        }
    }
}
