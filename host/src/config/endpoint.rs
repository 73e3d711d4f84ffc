//! Where a destination is, and what is spoken there.

use schemars::{Schema, json_schema};
use url::Url;

use super::units::Unit;
use crate::dispatch::nats::Target;
use crate::dispatch::rabbitmq::Exchange;

/// What is spoken with a destination, as its URL's scheme says.
#[derive(Clone, PartialEq, Debug)]
pub enum Protocol {
    /// HTTP/1.1, over TLS or not.
    Http,
    /// NATS JetStream: each attempt publishes to this subject.
    Nats(Target),
    /// AMQP 0-9-1: each attempt publishes to this exchange.
    RabbitMq(Exchange),
}

/// A destination's URL, and what it stands for.
pub(super) struct Endpoint {
    pub(super) url: Url,
    pub(super) protocol: Protocol,
}

impl From<Url> for Endpoint {
    /// Of a URL that was read as one of HTTP.
    fn from(url: Url) -> Self {
        Self { url, protocol: Protocol::Http }
    }
}

impl Unit for Endpoint {
    const NAME: &'static str = "Endpoint";
    const FORM: &'static str = Url::FORM;
    const QUOTED: bool = false;

    fn from_text(text: &str) -> Result<Self, String> {
        let Ok(url) = Url::parse(text) else { return Url::from_text(text).map(Self::from) };
        let protocol = match url.scheme() {
            "http" | "https" => return Url::from_text(text).map(Self::from),
            // It may hold credentials: they go no further than the one connection.
            "nats" | "tls" => Target::parse(text).map(Protocol::Nats).map_err(|bad| bad.to_string())?,
            "amqp" | "amqps" => Exchange::parse(&url).map(Protocol::RabbitMq).map_err(|bad| bad.to_string())?,
            _ => {
                return Err("only http, https, nats and amqp are spoken: write https://…, http://…, \
                            nats://HOST:4222/SUBJECT or amqp://HOST:5672/VHOST?routing_key=QUEUE"
                    .to_owned());
            }
        };
        Ok(Self { url, protocol })
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "description": "A URL of http or https, without user name, password and fragment; or \
                            nats://HOST:4222/SUBJECT, or amqp://HOST/VHOST?routing_key=QUEUE.",
        })
    }
}
