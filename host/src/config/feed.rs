//! Where messages are taken from, beside the listener: a broker's queue or stream, and the route that they go to.

use crate::ingress::{nats, rabbitmq};
use crate::message::RouteName;

/// A source, ready to be subscribed to. Its `Debug` shows no credentials.
#[derive(Clone, PartialEq, Debug)]
pub struct Feed {
    /// Its name.
    pub name: String,
    /// The route that its messages go to; configured, and in mode async.
    pub route: RouteName,
    /// What it is subscribed to.
    pub tap: Tap,
}

/// What a source is subscribed to.
#[derive(Clone, PartialEq, Debug)]
pub enum Tap {
    /// A consumer of a JetStream stream.
    Nats(nats::Settings),
    /// A RabbitMQ queue.
    RabbitMq(rabbitmq::RabbitMq),
}

impl Tap {
    /// Which broker, as it is written in a configuration.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Nats(_) => "nats",
            Self::RabbitMq(_) => "rabbitmq",
        }
    }
}
