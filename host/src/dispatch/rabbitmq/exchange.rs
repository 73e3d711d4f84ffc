//! Where messages are published: `amqp://USER:PASSWORD@HOST:PORT/VHOST?exchange=NAME&routing_key=KEY`.

use std::fmt;

use lapin::types::ShortString;
use url::Url;

use crate::amqp::{BadBroker, Broker, SHORT};

/// An exchange of a broker, and the routing key that messages get. Shown without the password, in every form.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Exchange {
    broker: Broker,
    exchange: String,
    routing_key: String,
}

/// Why a URL names no exchange. Never quotes the URL, which may hold a password.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadExchange {
    /// What is before the query names no broker.
    #[error(transparent)]
    Broker(#[from] BadBroker),
    /// Neither an exchange nor a routing key.
    #[error("add ?routing_key=QUEUE to publish to a queue, or ?exchange=NAME&routing_key=KEY to an exchange")]
    Nowhere,
    /// A key that is not known.
    #[error("the URL's query may have `exchange` and `routing_key`, and nothing else")]
    UnknownKey,
    /// A key that is there twice.
    #[error("`exchange` and `routing_key` may each be there once")]
    Twice,
    /// A name that is too long.
    #[error("`exchange` and `routing_key` are at most 255 bytes long")]
    TooLong,
}

impl Exchange {
    /// Reads a URL. Without `exchange`, or with an empty one, it is the default exchange, where the routing key is a
    /// queue's name and must be there. To a named exchange the routing key may be left out: a fanout or headers exchange
    /// does not look at it.
    ///
    /// # Errors
    /// [`BadExchange`]
    pub fn parse(url: &Url) -> Result<Self, BadExchange> {
        let broker = Broker::parse_before_query(url)?;
        let (mut exchange, mut routing_key) = (None, None);
        for (key, value) in url.query_pairs() {
            let name = match &*key {
                "exchange" => &mut exchange,
                "routing_key" => &mut routing_key,
                _ => return Err(BadExchange::UnknownKey),
            };
            if value.len() > SHORT {
                return Err(BadExchange::TooLong);
            }
            if name.replace(value.into_owned()).is_some() {
                return Err(BadExchange::Twice);
            }
        }
        let (exchange, routing_key) = (exchange.unwrap_or_default(), routing_key.unwrap_or_default());
        if exchange.is_empty() && routing_key.is_empty() {
            return Err(BadExchange::Nowhere);
        }
        Ok(Self { broker, exchange, routing_key })
    }

    /// The broker.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The exchange's name and the routing key, which [`Exchange::parse`] found short enough.
    pub(super) fn names(&self) -> (ShortString, ShortString) {
        let short = |text: &str| ShortString::try_new(text).unwrap_or_default();
        (short(&self.exchange), short(&self.routing_key))
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("exchange", &self.exchange)
            .append_pair("routing_key", &self.routing_key)
            .finish();
        write!(f, "{}?{query}", self.broker)
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exchange({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(url: &str) -> Result<Exchange, BadExchange> {
        Exchange::parse(&url.parse().unwrap())
    }

    #[test]
    fn a_url_names_an_exchange_and_a_routing_key() {
        for (url, shown) in [
            ("amqp://mq/?routing_key=orders", "amqp://guest:***@mq:5672/%2F?exchange=&routing_key=orders"),
            (
                "amqps://bob:s3cret@mq/shop?exchange=a%26b&routing_key=x.y",
                "amqps://bob:***@mq:5671/shop?exchange=a%26b&routing_key=x.y",
            ),
            ("amqp://mq/shop?exchange=all", "amqp://guest:***@mq:5672/shop?exchange=all&routing_key="),
        ] {
            let exchange = exchange(url).unwrap();
            assert_eq!(exchange.to_string(), shown);
            assert!(!format!("{exchange:?}").contains("s3cret"));
        }
    }

    #[test]
    fn a_url_that_leads_nowhere_is_refused_and_not_quoted() {
        let long = format!("amqp://mq/?routing_key={}", "k".repeat(256));
        for (url, why) in [
            ("amqp://bob:s3cret@mq/shop", BadExchange::Nowhere),
            ("amqp://bob:s3cret@mq/shop?exchange=", BadExchange::Nowhere),
            ("amqp://bob:s3cret@mq/shop?exchange=a&queue=b", BadExchange::UnknownKey),
            ("amqp://bob:s3cret@mq/shop?exchange=a&exchange=b", BadExchange::Twice),
            ("http://bob:s3cret@mq/shop?exchange=a", BadExchange::Broker(BadBroker::Scheme)),
            (&long, BadExchange::TooLong),
        ] {
            assert_eq!(exchange(url), Err(why), "{url}");
            assert!(!why.to_string().contains("s3cret"));
        }
    }
}
