//! Where a broker is: `amqp://USER:PASSWORD@HOST:PORT/VHOST`, or `amqps://` for TLS.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// The longest text of AMQP's own: a short string (AMQP 0-9-1 §4.2.5.3), in bytes.
pub(crate) const SHORT: usize = 255;

/// A broker, a virtual host of it, and how to log in there. Shown without the password, in every form.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Broker {
    /// Whether TLS is spoken.
    pub(super) tls: bool,
    /// A name or an address; of an IPv6 address without the brackets.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) vhost: String,
}

/// Why a URL names no broker. Never quotes the URL, which may hold a password.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadBroker {
    /// Another scheme.
    #[error("write amqp:// or amqps://")]
    Scheme,
    /// No host.
    #[error("the URL names no host")]
    Host,
    /// More than one segment.
    #[error("the path is the virtual host, one segment: write a slash in its name as %2F")]
    Path,
    /// A part that is not UTF-8 once its percent-encoding is undone, or longer than 255 bytes.
    #[error("the user, the password and the virtual host are UTF-8 of at most 255 bytes")]
    Encoding,
    /// A fragment.
    #[error("the URL has a fragment (#…): write that character as %23")]
    Fragment,
    /// A key in the query that is not known here.
    #[error("the URL's query has a key that is not known here")]
    Query,
}

impl Broker {
    /// Reads a URL without a query. The port is 5672, or 5671 with TLS, unless given; user and password are `guest`,
    /// as RabbitMQ's own clients have it. A URL without a path, or with `/` alone, means the virtual host `/`: the one
    /// with the empty name, which RabbitMQ's rules for URIs read into the latter, cannot be named.
    ///
    /// # Errors
    /// [`BadBroker`]
    pub fn parse(url: &Url) -> Result<Self, BadBroker> {
        if url.query().is_some() { Err(BadBroker::Query) } else { Self::parse_before_query(url) }
    }

    /// As [`Broker::parse`], of a URL whose query means something to the caller.
    pub(crate) fn parse_before_query(url: &Url) -> Result<Self, BadBroker> {
        let (tls, port) = match url.scheme() {
            "amqp" => (false, 5672),
            "amqps" => (true, 5671),
            _ => return Err(BadBroker::Scheme),
        };
        if url.fragment().is_some() {
            return Err(BadBroker::Fragment);
        }
        let host = match url.host().ok_or(BadBroker::Host)? {
            Host::Domain("") => return Err(BadBroker::Host),
            Host::Domain(name) => name.to_ascii_lowercase(),
            Host::Ipv4(address) => Ipv4Addr::to_string(&address),
            Host::Ipv6(address) => Ipv6Addr::to_string(&address),
        };
        let vhost = match url.path().strip_prefix('/').unwrap_or_default() {
            "" => "/".to_owned(),
            path if path.contains('/') => return Err(BadBroker::Path),
            path => decoded(path)?,
        };
        let user = if url.username().is_empty() { "guest".to_owned() } else { decoded(url.username())? };
        let password = url.password().map_or(Ok("guest".to_owned()), decoded)?;
        Ok(Self { tls, host, port: url.port().unwrap_or(port), user, password, vhost })
    }

    /// `host:port`: what errors and logs name.
    pub fn place(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether TLS is spoken with it.
    pub const fn is_encrypted(&self) -> bool {
        self.tls
    }

    /// The host's name or address, of an IPv6 address without the brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The virtual host.
    pub fn vhost(&self) -> &str {
        &self.vhost
    }
}

/// `text` without its percent-encoding, if AMQP can carry it.
fn decoded(text: &str) -> Result<String, BadBroker> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| BadBroker::Encoding)?;
    if text.len() > SHORT { Err(BadBroker::Encoding) } else { Ok(text.into_owned()) }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        let encoded =
            |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        write!(f, "{scheme}://{}:***@{}/{}", encoded(&self.user), self.place(), encoded(&self.vhost))
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Broker({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(url: &str) -> Result<Broker, BadBroker> {
        Broker::parse(&url.parse().unwrap())
    }

    #[test]
    fn a_url_is_read_by_rabbitmqs_rules() {
        for (url, shown) in [
            ("amqp://mq", "amqp://guest:***@mq:5672/%2F"),
            ("amqp://mq/", "amqp://guest:***@mq:5672/%2F"),
            ("amqps://bob:s3cret@MQ.internal/orders", "amqps://bob:***@mq.internal:5671/orders"),
            ("amqp://bob:s%2Fcret@[::1]:7/%2Fa", "amqp://bob:***@[::1]:7/%2Fa"),
            ("amqp://b%40b:s3cret@10.0.0.1/x", "amqp://b%40b:***@10.0.0.1:5672/x"),
        ] {
            let broker = broker(url).unwrap();
            assert_eq!(broker.to_string(), shown);
            assert!(!format!("{broker:?} {broker:#?}").contains("cret"));
        }
        assert_eq!(broker("amqp://bob:s%2Fcret@mq").unwrap().password, "s/cret");
    }

    #[test]
    fn what_names_no_broker_is_refused_and_not_quoted() {
        for (url, why) in [
            ("http://bob:s3cret@mq/", BadBroker::Scheme),
            ("amqp:///orders", BadBroker::Host),
            ("amqp://bob:s3cret@mq/a/b", BadBroker::Path),
            ("amqp://bob:%ff@mq/a", BadBroker::Encoding),
            ("amqp://bob:s3cret@mq/a#b", BadBroker::Fragment),
            ("amqp://bob:s3cret@mq/a?colour=red", BadBroker::Query),
        ] {
            assert_eq!(broker(url), Err(why), "{url}");
            assert!(!why.to_string().contains("s3cret"));
        }
        assert_eq!(broker(&format!("amqp://mq/{}", "v".repeat(256))), Err(BadBroker::Encoding));
    }
}
