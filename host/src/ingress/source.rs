//! What a broker's source and the host say to each other: a source brings messages in and settles them with its broker
//! as the host answers. It knows no route, no policy and no message of the host's; the host knows no broker. A table's
//! change feed is such a source, whose broker is the table; it keeps its place in the store.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;

/// A message that a source brings in.
#[derive(Clone, Debug)]
pub struct Brought {
    /// The fields of the request that it becomes: the broker's properties and headers, mapped.
    pub headers: HeaderMap,
    /// Its body, as it is.
    pub body: Bytes,
    /// What its sender, or its place in a stream, tells it by. A delivery that is a repeat is recognised by it, and so
    /// stored once though its acknowledgement was lost. None where the broker has nothing to tell it by.
    pub key: Option<String>,
    /// How often the broker has delivered it before this time, as far as the broker says. A message of which it says
    /// zero is never taken for a repeat.
    pub delivered_before: u32,
    /// Whether the broker will not deliver it again if it is given back now.
    pub last_delivery: bool,
}

/// Field names that sources use for what the broker knows of a message.
pub mod fields {
    /// Which broker: `rabbitmq`, `nats`, or `feed` for a table's change feed.
    pub const BROKER: &str = "broker-kind";
    /// Earlier deliveries of this message, a number.
    pub const DELIVERY_COUNT: &str = "broker-delivery-count";
    /// The queue, stream or table it was taken from.
    pub const ORIGIN: &str = "broker-origin";
    /// Its routing key or subject; of a row, its key.
    pub const SUBJECT: &str = "broker-subject";
    /// The exchange it was published to (RabbitMQ only).
    pub const EXCHANGE: &str = "broker-exchange";
    /// Why and how often it was dead-lettered, as JSON, newest first (RabbitMQ only).
    pub const DEATHS: &str = "x-death";
    /// Its place in the stream (NATS); the cursor of a row.
    pub const SEQUENCE: &str = "broker-sequence";
    /// The partition of a feed that a row belongs to, a number from 0.
    pub const PARTITION: &str = "broker-partition";
    /// Whether the broker says that it was delivered before: `true` or `false`.
    pub const REDELIVERED: &str = "broker-redelivered";
    /// What request the message belongs to or answers, as its sender says.
    pub const CORRELATION_ID: &str = "correlation-id";
}

/// When a message is settled with its broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Settle {
    /// Once the store has it: from then on the host answers for it.
    #[default]
    OnStore,
    /// Once it is delivered: until then the broker answers for it.
    OnDelivery,
}

/// What became of a message that was to be stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    /// On disk (or it was there before under the same key): the broker may forget it.
    Yes,
    /// Not now: the lane or the store is full, the store is away, or the route is disabled. Come again after so long.
    NotNow(Duration),
}

/// What is to be done with a message that was attempted while the broker keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settlement {
    /// Done: delivered, dropped, or what is to be kept of it is on disk.
    Ack,
    /// It failed and may succeed later: the broker delivers it again, after so long where it can wait.
    Requeue(Duration),
    /// No attempt was made, nor may be just now: the source asks again after so long, and the broker, which would count
    /// it, learns nothing of that.
    NotBegun(Duration),
    /// It failed for good, and our own dead letter is on disk: a broker that dead-letters does so, too.
    DeadLetter,
}

/// The host's side: takes what a source brings to its route.
#[async_trait]
pub trait Intake: Send + Sync + 'static {
    /// Takes responsibility for a message ([`Settle::OnStore`]).
    async fn store(&self, brought: Brought) -> Stored;
    /// Takes responsibility for what cannot be delivered, as a dead letter that was never attempted, with the reason why.
    async fn put_aside(&self, brought: Brought, reason: String) -> Stored;
    /// Whether what is brought must be stored one after the other, as it came: its route keeps orders by key just now.
    fn keeps_order(&self) -> bool {
        true
    }
    /// Makes one attempt while the broker keeps the message ([`Settle::OnDelivery`]).
    async fn deliver(&self, brought: Brought) -> Settlement;
}

/// How often subscribing is tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connect {
    /// Additional attempts after the first; none: without end.
    pub retries: Option<u32>,
    /// The pause between two.
    pub wait: Duration,
}
