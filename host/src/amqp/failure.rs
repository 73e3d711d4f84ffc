//! Why there is no connection, in words that name the broker's place and never the password.

use std::error::Error;
use std::io;

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

use super::link::CONNECTING;
use crate::message::Fault;

/// The longest piece of the broker's text that is shown, in characters.
const LONGEST_TEXT: usize = 300;

/// Why there is no connection, or none any more. Names the broker's place, never the password.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The name has no address that may be connected to.
    #[error("{place} cannot be resolved")]
    Resolve {
        /// `host:port`
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing takes connections there.
    #[error("could not connect to {place}")]
    Connect {
        /// `host:port`
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("the TLS handshake with {place} failed")]
    Tls {
        /// `host:port`
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not in time.
    #[error("no connection to {place} within {CONNECTING:?}")]
    Timeout {
        /// `host:port`
        place: String,
    },
    /// The broker refused the login, or the virtual host.
    #[error("{place} refused: {says}")]
    Refused {
        /// `host:port`
        place: String,
        /// The broker's own words.
        says: String,
    },
    /// The connection was lost, or broke off while it was made.
    #[error("the connection to {place} was lost: {says}")]
    Lost {
        /// `host:port`
        place: String,
        /// What happened.
        says: String,
    },
}

impl LinkError {
    /// The kind of fault it is, for an outcome.
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Resolve { .. } => Fault::Resolve,
            Self::Connect { .. } => Fault::Connect,
            Self::Tls { .. } => Fault::Tls,
            Self::Timeout { .. } => Fault::Timeout,
            Self::Refused { .. } => Fault::Credentials,
            Self::Lost { .. } => Fault::Reset,
        }
    }

    /// The same once more, for another who is told of it.
    pub(crate) fn again(&self) -> Self {
        let once_more = |source: &io::Error| io::Error::new(source.kind(), source.to_string());
        let place = self.place().to_owned();
        match self {
            Self::Resolve { source, .. } => Self::Resolve { place, source: once_more(source) },
            Self::Connect { source, .. } => Self::Connect { place, source: once_more(source) },
            Self::Tls { source, .. } => Self::Tls { place, source: once_more(source) },
            Self::Timeout { .. } => Self::Timeout { place },
            Self::Refused { says, .. } => Self::Refused { place, says: says.clone() },
            Self::Lost { says, .. } => Self::Lost { place, says: says.clone() },
        }
    }

    fn place(&self) -> &str {
        match self {
            Self::Resolve { place, .. }
            | Self::Connect { place, .. }
            | Self::Tls { place, .. }
            | Self::Timeout { place }
            | Self::Refused { place, .. }
            | Self::Lost { place, .. } => place,
        }
    }
}

/// Whether the broker let us in and then showed us the door: a wrong password, or a virtual host that is not there or
/// not ours.
pub(super) const fn is_refusal(kind: &AMQPErrorKind) -> bool {
    matches!(kind, AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED))
}

/// What went wrong, in the broker's words if it said something. It never says a password.
pub(crate) fn says(error: &lapin::Error) -> String {
    let text = match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        ErrorKind::IOError(error) => error.to_string(),
        _ => error.to_string(),
    };
    text.chars().filter(|character| !character.is_control()).take(LONGEST_TEXT).collect()
}

/// An error and what is behind it, in one line.
pub(crate) fn in_words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        words = format!("{words}: {error}");
        behind = error.source();
    }
    words
}
