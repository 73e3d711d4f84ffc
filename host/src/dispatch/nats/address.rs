//! Where a NATS server is, and who we are to it: `nats://user:password@host:4222`.
//!
//! Credentials are taken out of the URL at once, so that nothing printed later can hold them.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::Url;

/// The port of a URL that names none.
const DEFAULT_PORT: u16 = 4222;
/// The longest subject, in bytes. The server's limit for a whole protocol line is 4 KiB.
const MAX_SUBJECT: usize = 1024;

/// A server's address, with the credentials for it.
///
/// Neither [`fmt::Display`] nor [`fmt::Debug`] shows the credentials.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address {
    server: Url,
    credentials: Credentials,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Credentials {
    None,
    /// `nats://token@host`: a user without a password is a token, as NATS clients read it.
    Token(String),
    User {
        name: String,
        password: String,
    },
}

/// A subject on a server: where a destination's messages go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// The server.
    pub address: Address,
    /// The subject, without wildcards.
    pub subject: String,
}

impl Address {
    /// Reads a server's URL: `nats://[user:password@|token@]host[:4222]`, or `tls://…` where TLS is required.
    ///
    /// # Errors
    /// When it is not such a URL, or has a path, a query or a fragment.
    pub fn parse(text: &str) -> Result<Self, BadAddress> {
        match split(text)? {
            (address, path) if path.is_empty() => Ok(address),
            _ => Err(BadAddress::Path),
        }
    }

    /// The server's URL without credentials: what may be shown.
    pub(super) fn server(&self) -> &Url {
        &self.server
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }
}

impl Target {
    /// Reads a destination's URL: a server's, with the subject as its path: `nats://host:4222/orders.created`.
    ///
    /// # Errors
    /// When it is not such a URL, or when the subject is missing, has a wildcard (`*`, `>`), an empty token, a space,
    /// or more than 1024 bytes, or begins with `$`, which is the server's own.
    pub fn parse(text: &str) -> Result<Self, BadAddress> {
        let (address, path) = split(text)?;
        let subject = decoded(&path)?;
        if is_subject(&subject) { Ok(Self { address, subject }) } else { Err(BadAddress::Subject) }
    }
}

/// Whether messages may be published under `subject` (NATS documentation, "Subject-based messaging").
fn is_subject(subject: &str) -> bool {
    let fits = |token: &str| {
        !token.is_empty() && !token.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>'))
    };
    subject.len() <= MAX_SUBJECT && !subject.starts_with('$') && subject.split('.').all(fits)
}

/// The address in a URL, and its path without the leading slash.
fn split(text: &str) -> Result<(Address, String), BadAddress> {
    let mut url = Url::parse(text).map_err(|_| BadAddress::NoUrl)?;
    if !matches!(url.scheme(), "nats" | "tls") {
        return Err(BadAddress::Scheme);
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(BadAddress::NoHost);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(BadAddress::Query);
    }
    let user = decoded(url.username())?;
    let credentials = match url.password() {
        Some(password) => Credentials::User { name: user, password: decoded(password)? },
        None if user.is_empty() => Credentials::None,
        None => Credentials::Token(user),
    };
    let path = url.path().trim_start_matches('/').to_owned();
    url.set_path("");
    // None of these fails for a URL that has a host.
    let cleaned = url.set_username("").and(url.set_password(None));
    let port = url.port().unwrap_or(DEFAULT_PORT);
    cleaned.and(url.set_port(Some(port))).map_err(|()| BadAddress::NoHost)?;
    Ok((Address { server: url, credentials }, path))
}

fn decoded(text: &str) -> Result<String, BadAddress> {
    percent_decode_str(text).decode_utf8().map(Into::into).map_err(|_| BadAddress::Encoding)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.server.fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = if self.credentials == Credentials::None { "none" } else { "hidden" };
        f.debug_struct("Address").field("server", &self.server.as_str()).field("credentials", &credentials).finish()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.subject)
    }
}

/// Why a text is no address. Never repeats the text, which may hold a password.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadAddress {
    /// It is no URL.
    #[error("it is no URL; write nats://host:4222")]
    NoUrl,
    /// It has another scheme.
    #[error("its scheme is neither nats:// nor tls://")]
    Scheme,
    /// It has no host.
    #[error("it names no host")]
    NoHost,
    /// It has a query or a fragment.
    #[error("it has a query or a fragment, which mean nothing to NATS")]
    Query,
    /// It has a path where only a server is meant.
    #[error("it has a path; a source's URL is its server's alone")]
    Path,
    /// Its percent-encoding is no UTF-8.
    #[error("its percent-encoding does not stand for UTF-8")]
    Encoding,
    /// Its path is no subject.
    #[error(
        "its path is no subject to publish to: tokens parted by dots, without wildcards or spaces, at most 1024 bytes, \
         not beginning with '$'"
    )]
    Subject,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_destination_is_a_server_and_a_subject() {
        let target = Target::parse("nats://bob:s%40crt@broker.example:4333/orders.created").unwrap();
        assert_eq!(target.subject, "orders.created");
        assert_eq!(target.to_string(), "nats://broker.example:4333/orders.created");
        let expected = Credentials::User { name: "bob".into(), password: "s@crt".into() };
        assert!(*target.address.credentials() == expected);
    }

    #[test]
    fn the_port_is_4222_and_a_user_alone_is_a_token() {
        let address = Address::parse("nats://t0ken@broker.example").unwrap();
        assert_eq!(address.to_string(), "nats://broker.example:4222");
        assert!(*address.credentials() == Credentials::Token("t0ken".into()));
    }

    #[test]
    fn what_is_no_address_is_refused_for_what_is_wrong_with_it() {
        for (text, why) in [
            ("broker", BadAddress::NoUrl),
            ("amqp://broker/x", BadAddress::Scheme),
            ("nats:///x", BadAddress::NoHost),
            ("nats://broker/x?y=1", BadAddress::Query),
            ("nats://broker/", BadAddress::Subject),
            ("nats://broker/a..b", BadAddress::Subject),
            ("nats://broker/a.*", BadAddress::Subject),
            ("nats://broker/a.%3E", BadAddress::Subject),
            ("nats://broker/a%20b", BadAddress::Subject),
            ("nats://broker/$JS.API.STREAM.DELETE.x", BadAddress::Subject),
            ("nats://broker/%ff", BadAddress::Encoding),
        ] {
            assert_eq!(Target::parse(text), Err(why), "{text}");
        }
        assert_eq!(Address::parse("nats://broker/orders"), Err(BadAddress::Path));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_no_password_is_ever_shown(password in "[a-zA-Z0-9]{12,20}", rest in any::<String>()) {
            let text = format!("nats://someone:{password}@broker.example/{rest}");
            let shown = match Target::parse(&text) {
                Ok(target) => format!("{target:?} {target}"),
                Err(bad) => format!("{bad:?} {bad}"),
            };
            let hidden = rest.contains(&password) || !shown.contains(&password);
            prop_assert!(hidden, "{}", shown);
            let _ = Target::parse(&rest);
        }
    }
}
