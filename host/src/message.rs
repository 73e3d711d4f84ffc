//! The domain: what a message is, what happened to an attempt, what a policy said, and what is then done.
//!
//! The heart is [`advance`], with [`conclude`] for a message whose attempts are used up. Both are pure: no I/O, no
//! clock, no randomness. Everything else in the host brings them their arguments or carries out their answer.

mod advance;
mod record;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;

pub(crate) use advance::speaks_for_destination;
pub use advance::{Clamp, Envelope, Exhaustion, MAX_HOPS, Step, Transition, advance, conclude};
pub use record::{AttemptRecord, LogLevel, LogLine, OutcomeSummary, PolicyRef, Provenance, VerdictKind, Withheld};

/// A message's identity: a UUIDv7, constant through every attempt, restart and redrive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(Uuid);

impl MessageId {
    /// A new identity, whose leading bits are `now`, so that ids sort by age.
    pub fn new(now: Timestamp) -> Self {
        let seconds = now.as_millis() / 1000;
        let nanos = u32::try_from(now.as_millis() % 1000).unwrap_or(0) * 1_000_000;
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos)))
    }

    /// The smallest identity that can be of `moment`: whatever came before it has a smaller one. An identity has 48 bits
    /// for the time, which are enough until the year 10889.
    pub fn first_of(moment: Timestamp) -> Self {
        let mut bytes = [0; 16];
        let [.., a, b, c, d, e, f] = moment.as_millis().min((1 << 48) - 1).to_be_bytes();
        bytes[..6].copy_from_slice(&[a, b, c, d, e, f]);
        Self::from_bytes(bytes)
    }

    /// The identity with these sixteen bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Its sixteen bytes, as the store keeps them.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for MessageId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A route's name: 1 to 64 of `a-z`, `0-9`, `-`, `_`, starting with a letter or digit. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RouteName(Arc<str>);

impl Serialize for RouteName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl RouteName {
    /// Parses a name.
    ///
    /// # Errors
    /// When the name is empty, too long, or has another character.
    pub fn new(name: &str) -> Result<Self, InvalidRouteName> {
        let first_fits = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let all_fit = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        if first_fits && all_fit && name.len() <= 64 { Ok(Self(name.into())) } else { Err(InvalidRouteName) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for RouteName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A name that cannot be a route's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a route's name is 1 to 64 of a-z, 0-9, '-' and '_', and starts with a letter or digit")]
pub struct InvalidRouteName;

/// What the caller sent, to be carried faithfully to the destination.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// What follows the route in the caller's path, percent-encoding untouched, with a leading slash (or empty when
    /// the caller's path ended at the route), and `?query` if there was one. Has no dot segments.
    pub path: String,
    /// End-to-end header fields: no hop-by-hop field, no `Host`, no `Content-Length`.
    pub headers: HeaderMap,
    /// The body, within the route's `body_limit`.
    pub body: Bytes,
}

/// A message on its way. Cheap to clone: the request is shared.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its identity.
    pub id: MessageId,
    /// The route it is on now; a fallback may have moved it from another.
    pub route: RouteName,
    /// What is to be delivered.
    pub request: Arc<Request>,
    /// The caller's `Idempotency-Key`, unquoted. Without one, deliveries carry the message's id instead.
    pub idempotency_key: Option<String>,
    /// When the host took responsibility for it.
    pub accepted_at: Timestamp,
    /// How far it has come.
    pub progress: Progress,
    /// What it came of, if not of a request of its own.
    pub origin: Origin,
}

impl Message {
    /// What tells one publish from another: all messages that an event became on several routes have the same. A
    /// message of a request of its own has its id.
    pub fn uid(&self) -> MessageId {
        self.origin.publish.unwrap_or(self.id)
    }
}

/// Bytes, a digest's mostly, as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a message came of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    /// The publish of an event that it belongs to.
    pub publish: Option<MessageId>,
    /// The message that it repeats, because a person had that published again.
    pub original: Option<MessageId>,
}

/// How far a message has come on its present route. It is stored with the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Attempts made on this route since the message came onto it (or was redriven).
    pub attempts: u32,
    /// Attempts made in the message's whole life: the number of the last one in its journal.
    pub journal: u32,
    /// When the first of `attempts` began.
    pub started_at: Option<Timestamp>,
    /// The last backoff delay, which decorrelated jitter builds on.
    pub previous_delay: Option<Duration>,
    /// Whether fresh credentials were fetched for this message on this route: they are, once.
    pub reauthenticated: bool,
    /// How many routes a fallback has led it through.
    pub hops: u8,
}

/// What happened to one attempt.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The destination answered.
    Response(Response),
    /// It did not.
    Silence(Silence),
}

/// The destination's answer, as much of it as was read.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// End-to-end header fields.
    pub headers: HeaderMap,
    /// The body, or its beginning.
    pub body: Bytes,
    /// Whether the body was longer than `body`.
    pub truncated: bool,
}

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The kind of fault.
    pub fault: Fault,
    /// What exactly, for people. Never holds a secret.
    pub detail: String,
}

/// The kinds of fault, as in the contract's `enum fault`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The name could not be resolved to an allowed address.
    Resolve,
    /// No connection could be made.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// No complete answer within the time allowed.
    Timeout,
    /// The connection was cut before the answer was complete.
    Reset,
    /// What came back was not HTTP, or more than the route's limit.
    Protocol,
    /// The credentials for the attempt could not be obtained.
    Credentials,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::Credentials => "credentials",
        })
    }
}

/// What a policy says of an outcome.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The destination did what was asked.
    Accept,
    /// It did not, and may later.
    Retry {
        /// When, counted from now; `None` leaves it to the route's backoff.
        after: Option<Duration>,
        /// Whom the delay concerns.
        scope: Scope,
    },
    /// It refused our credentials.
    Reauthenticate,
    /// It never will.
    DeadLetter,
    /// The message is worthless.
    Drop,
    /// Stop trying; `None` goes on as if the attempts were exhausted.
    FallBack(Option<Fallback>),
}

/// Whom a retry's delay concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// A 429 or 503 with `Retry-After` speaks for the destination (RFC 9110 §10.2.3), anything else for the message.
    #[default]
    Standard,
    /// This message alone.
    Message,
    /// Every message to the destination.
    Destination,
}

impl Scope {
    /// Its name in JSON and in YAML.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Message => "message",
            Self::Destination => "destination",
        }
    }
}

/// A verdict, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What is proposed.
    pub verdict: Verdict,
    /// Why, for people and for search.
    pub reason: String,
}

/// What a policy says of a message before its first attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Send it.
    Accept,
    /// Forget it, for this reason.
    Drop(String),
    /// Put it aside for a person, for this reason.
    DeadLetter(String),
}

/// What to answer in the destination's stead.
#[derive(Clone, Debug, PartialEq)]
pub enum Fallback {
    /// A default answer.
    Answer(Answer),
    /// Another route: a second vendor.
    Route(RouteName),
}

/// An HTTP answer that the host gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Where a message is in its life. The last five are terminal: a message reaches exactly one of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum State {
    /// Waiting for its next attempt.
    Queued,
    /// Being attempted, under a lease.
    InFlight,
    /// The destination took it.
    Delivered,
    /// A fallback answer was given in the destination's stead; the request is kept for analysis.
    Answered,
    /// Put aside for a person: a dead letter.
    Dead,
    /// Found worthless by a policy and forgotten.
    Dropped,
    /// Given up by a person: a dead letter, or a message that waited on a route that nobody serves.
    Discarded,
}

impl State {
    /// Every state, in order of life.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::InFlight, Self::Delivered, Self::Answered, Self::Dead, Self::Dropped, Self::Discarded];

    /// The states that a message may be redriven from.
    pub const REDRIVEN: &[Self] = &[Self::Answered, Self::Dead, Self::Dropped];

    /// The states that a message may be discarded from, as long as its route is served.
    pub const DISCARDED: &[Self] = &[Self::Dead];

    /// Whether nothing more will happen to the message by itself.
    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::InFlight)
    }

    /// Its name in JSON, on the command line and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InFlight => "in_flight",
            Self::Delivered => "delivered",
            Self::Answered => "answered",
            Self::Dead => "dead",
            Self::Dropped => "dropped",
            Self::Discarded => "discarded",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
