//! A server with one stream, and what a test does with it.

use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{Context, stream};

use backstop_tests::Nats;

/// The stream, whose subjects are `orders.>`.
pub(crate) const STREAM: &str = "ORDERS";

pub(crate) struct Broker {
    pub(crate) nats: Nats,
    pub(crate) jetstream: Context,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        let nats = Nats::start().await;
        let jetstream = nats.jetstream().await;
        let broker = Self { nats, jetstream };
        broker.make_stream().await;
        broker
    }

    pub(crate) async fn make_stream(&self) {
        let config = stream::Config { name: STREAM.into(), subjects: vec!["orders.>".into()], ..Default::default() };
        self.jetstream.create_stream(config).await.unwrap();
    }

    /// Makes a consumer of the stream, as its owner would.
    pub(crate) async fn make_consumer(&self, name: &str, max_deliver: i64, ack_wait: Duration) {
        let durable_name = Some(name.to_owned());
        let config = pull::Config { durable_name, max_deliver, ack_wait, ..Default::default() };
        self.jetstream.create_consumer_on_stream(config, STREAM).await.unwrap();
    }

    /// Publishes `body`, and sees it kept. Repeated while the server is away, under the same id.
    pub(crate) async fn publish(&self, body: &str) {
        while !publish(&self.jetstream, body).await {}
    }

    /// Listens to what the server tells under `subject`, from now on.
    pub(crate) async fn told(&self, subject: &'static str) -> async_nats::Subscriber {
        let client = self.jetstream.client();
        let told = client.subscribe(subject).await.unwrap();
        client.flush().await.unwrap();
        told
    }

    /// How many messages a consumer has taken and not settled, and how many it has not taken yet.
    pub(crate) async fn left(&self, consumer: &str) -> Option<(usize, u64)> {
        let stream = self.jetstream.get_stream(STREAM).await.ok()?;
        let info = stream.consumer_info(consumer).await.ok()?;
        Some((info.num_ack_pending, info.num_pending))
    }
}

/// Publishes `body` once, under itself as its id; answers whether the server confirms it within a second or two.
pub(crate) async fn publish(jetstream: &Context, body: &str) -> bool {
    let message = PublishMessage::build().payload(body.to_owned().into());
    let message = message.message_id(body).header("Content-Type", "text/plain");
    let confirmed = async { jetstream.send_publish("orders.created", message).await.ok()?.await.ok() };
    // What was on its way when the server died is never answered.
    tokio::time::timeout(Duration::from_secs(2), confirmed).await.is_ok_and(|confirmed| confirmed.is_some())
}
