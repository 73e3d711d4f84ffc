//! What a test does at the broker by hand: it declares, publishes, counts and takes.

use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};

/// A connection of the test's own.
pub struct Desk {
    channel: Channel,
    connection: Connection,
}

impl Desk {
    /// Connects to `url`.
    pub async fn at(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        Self { channel, connection }
    }

    /// Declares a quorum queue with further arguments.
    pub async fn quorum_queue(&self, name: &str, arguments: &[(&str, AMQPValue)]) {
        let mut table = FieldTable::default();
        table.insert("x-queue-type".into(), text("quorum"));
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(name.into(), options, table).await.expect("a queue");
    }

    /// Declares a classic queue.
    pub async fn classic_queue(&self, name: &str) {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(name.into(), options, FieldTable::default()).await.expect("a queue");
    }

    /// Declares a direct exchange, and binds `queue` to it with `key`.
    pub async fn exchange(&self, name: &str, queue: &str, key: &str) {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declared = self.channel.exchange_declare(name.into(), ExchangeKind::Direct, options, FieldTable::default());
        declared.await.expect("an exchange");
        let bound = self.channel.queue_bind(
            queue.into(),
            name.into(),
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        bound.await.expect("a binding");
    }

    /// Declares a fanout exchange, and binds `queue` to it.
    pub async fn fanout(&self, name: &str, queue: &str) {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declared = self.channel.exchange_declare(name.into(), ExchangeKind::Fanout, options, FieldTable::default());
        declared.await.expect("an exchange");
        let bound = self.channel.queue_bind(
            queue.into(),
            name.into(),
            "".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        bound.await.expect("a binding");
    }

    /// Deletes a queue.
    pub async fn delete(&self, queue: &str) {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("the queue goes");
    }

    /// Publishes to `exchange` (empty: the default one) and waits for the broker's confirmation.
    pub async fn publish(&self, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) {
        let published =
            self.channel.basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), body, properties);
        assert!(published.await.expect("sent").await.expect("confirmed").is_ack());
    }

    /// How many messages are ready in `queue`.
    pub async fn ready(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = self.channel.queue_declare(queue.into(), options, FieldTable::default()).await.expect("the queue");
        found.message_count()
    }

    /// Whether there is a queue by this name.
    pub async fn has(&self, queue: &str) -> bool {
        // The broker closes a channel that looks at a queue which is not there.
        let channel = self.connection.create_channel().await.expect("a channel");
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), options, FieldTable::default()).await.is_ok()
    }

    /// How many consumers `queue` has.
    pub async fn consumers(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = self.channel.queue_declare(queue.into(), options, FieldTable::default()).await.expect("the queue");
        found.consumer_count()
    }

    /// Takes a message, if there is one.
    pub async fn take(&self, queue: &str) -> Option<BasicGetMessage> {
        let taken = self.channel.basic_get(queue.into(), BasicGetOptions::default()).await.expect("the queue")?;
        taken.acker.ack(BasicAckOptions::default()).await.expect("acknowledged");
        Some(taken)
    }
}

/// The arguments of a quorum queue that gives a message up after `deliveries` more than the first, and loses no dead
/// letter on its way to the queue `dead`: RabbitMQ dead-letters at most once unless both of the last two are there.
pub fn giving_up(deliveries: i32, dead: &str) -> [(&'static str, AMQPValue); 5] {
    [
        ("x-delivery-limit", AMQPValue::LongInt(deliveries)),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text(dead)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
    ]
}

/// A text as AMQP's tables hold it.
pub fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}
