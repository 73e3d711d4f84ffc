//! The broker of a play, and the queues that it has there: declared under names of its own, deleted at its end.
//!
//! Declaring queues is their owner's business, and the host does none of it: this is the owner. Should it be killed
//! before it can delete them, the broker does so once nobody has used them for a while.

use std::sync::Arc;

use anyhow::{Context as _, anyhow, ensure};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use url::Url;

use crate::amqp::{Broker, Dialer, Link, SystemAddresses, in_words, says};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Secret;
use crate::dispatch::Clients;
use crate::message::MessageId;

/// RabbitMQ's own default, for whoever installed it and changed nothing.
pub(super) const DEFAULT: &str = "amqp://guest:guest@127.0.0.1:5672/%2F";
/// How long a queue outlives its last use, in milliseconds.
const UNUSED_FOR: i32 = 600_000;
/// What to do where no broker is.
const GET_ONE: &str = "this play needs a RabbitMQ: start one (on Debian `apt-get install rabbitmq-server`, or in a \
     container `docker run --rm -p 5672:5672 rabbitmq:3`), or name another with --broker amqp://USER:PASSWORD@HOST:PORT/VHOST";

/// The queues of a play.
pub(super) struct Queues {
    link: Link,
    channel: Channel,
    /// What tells their names from those of any other play.
    suffix: String,
    declared: Vec<String>,
}

impl Queues {
    /// Connects to the broker at `url`.
    ///
    /// # Errors
    /// When that names no broker, or none is there; with what to do about it, and without the password.
    pub(super) async fn at(url: &Secret) -> anyhow::Result<Self> {
        let url =
            Url::parse(url.expose()).ok().context("--broker is no URL: write amqp://USER:PASSWORD@HOST:PORT/VHOST")?;
        let broker = Broker::parse(&url).context("--broker names no broker")?;
        // Certificates are read from files.
        let clients = tokio::task::spawn_blocking(Clients::new).await.context("the start broke off")??;
        let dialer = Dialer::new(Arc::new(SystemAddresses), clients.tls(), Arc::new(SystemClock));
        let link = dialer.dial(&broker, "backstop demo").await;
        let link = link.map_err(|error| anyhow!("{}\n{GET_ONE}", in_words(&error)))?;
        let channel = link.channel().await?;
        let confirmed = channel.confirm_select(ConfirmSelectOptions::default()).await;
        confirmed.map_err(|error| link.lost(&error))?;
        let id = MessageId::new(SystemClock.now()).to_string();
        let suffix = id.rsplit('-').next().unwrap_or_default().to_owned();
        Ok(Self { link, channel, suffix, declared: Vec::new() })
    }

    /// What the queue called `name` is called in this play.
    pub(super) fn named(&self, name: &str) -> String {
        format!("backstop-demo-{name}-{}", self.suffix)
    }

    /// Declares a quorum queue with further arguments.
    ///
    /// # Errors
    /// When the broker refuses.
    pub(super) async fn declare(&mut self, queue: &str, arguments: &[(&str, AMQPValue)]) -> anyhow::Result<()> {
        // Noted first: deleting one that was not declared does no harm.
        self.declared.push(queue.to_owned());
        let mut table = FieldTable::default();
        table.insert("x-queue-type".into(), text("quorum"));
        table.insert("x-expires".into(), AMQPValue::LongInt(UNUSED_FOR));
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declared = self.channel.queue_declare(queue.into(), options, table).await;
        declared.map(drop).map_err(|error| refused("declare", queue, &error))
    }

    /// Publishes a persistent message to a queue, and waits until the broker has it.
    ///
    /// # Errors
    /// When it does not.
    pub(super) async fn publish(&self, queue: &str, body: &str) -> anyhow::Result<()> {
        let properties = BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = self.channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), properties);
        let confirmed = async { sent.await?.await }.await.map_err(|error| refused("publish to", queue, &error))?;
        ensure!(confirmed.is_ack(), "the broker did not take a message for queue {queue}");
        Ok(())
    }

    /// How many messages wait in a queue. What a consumer has in hand is not counted.
    ///
    /// # Errors
    /// When the broker does not say.
    pub(super) async fn waiting(&self, queue: &str) -> anyhow::Result<u32> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = self.channel.queue_declare(queue.into(), options, FieldTable::default()).await;
        Ok(found.map_err(|error| refused("look at", queue, &error))?.message_count())
    }

    /// Deletes what was declared. The host must not be subscribed any more.
    ///
    /// # Errors
    /// With the names of what is left.
    pub(super) async fn delete(self) -> anyhow::Result<()> {
        for queue in &self.declared {
            let deleted = self.channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await;
            deleted.map_err(|error| refused("delete", queue, &error)).with_context(|| {
                format!("left at the broker, which deletes them in ten minutes: {}", self.declared.join(", "))
            })?;
        }
        self.link.close().await;
        Ok(())
    }
}

/// A text as AMQP's tables hold it.
pub(super) fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn refused(what: &str, queue: &str, error: &lapin::Error) -> anyhow::Error {
    anyhow!("failed to {what} queue {queue}: {}", says(error))
}
