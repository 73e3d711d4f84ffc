//! Dispatch: one attempt, carried over the wire, made into an outcome.
//!
//! It decides nothing: it never retries, never follows a redirect, and reads no more than it was told to. Only this
//! module knows reqwest.

pub mod target;
pub mod fields;
pub mod guard;
mod lookup;
pub mod clients;
pub mod credentials;
pub mod http;
mod answer;
mod fault;
pub mod notify;
pub mod client;
mod recent;
pub mod nats;
pub mod rabbitmq;
pub mod broker;
#[cfg(test)]
pub(crate) mod vendor;

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue};
use async_trait::async_trait;

use crate::config::{Destination, Route};
use crate::message::{MessageId, Outcome, Request};

pub use self::broker::Transports;
pub use self::client::HostClient;
pub use self::clients::{Clients, ClientsError};
pub use self::http::HttpTransport;
pub use self::notify::Notifier;
pub use self::target::{BadPath, joined};

/// A seam: how an attempt reaches its destination.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Makes one attempt. Never fails: whatever goes wrong is an outcome.
    async fn send(&self, delivery: Delivery) -> Sent;

    /// Forgets the credentials that `sent` used, unless others have replaced them since. The next attempt fetches
    /// fresh ones, once, however many messages ask.
    fn expire_credentials(&self, destination: &Destination, used: CredentialId);
}

/// One attempt to be made.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The route, whose destination it goes to.
    pub route: Arc<Route>,
    /// What is sent.
    pub request: Arc<Request>,
    /// Carried as `Backstop-Message-Id`.
    pub message: MessageId,
    /// Which attempt of the message's life, from 1: carried as `Backstop-Attempt`.
    pub attempt: u32,
    /// Carried as `Idempotency-Key`, quoted.
    pub idempotency_key: String,
    /// The time it may take: the destination's `timeout`, or what is left of a caller's deadline if that is less.
    pub timeout: Duration,
    /// How much of the answer is read.
    pub read: Read,
}

impl Delivery {
    /// The caller's end-to-end fields, and over them the destination's.
    fn fields(&self) -> HeaderMap {
        let mut headers = fields::without_own(fields::end_to_end(self.request.headers.clone()));
        let own = &self.route.destination.headers;
        for (name, _) in own {
            headers.remove(name);
        }
        for (name, value) in own {
            headers.append(name, value.clone());
        }
        headers
    }

    /// Adds what the host itself says of the attempt.
    fn say(&self, headers: &mut HeaderMap) {
        if let Ok(id) = HeaderValue::try_from(self.message.to_string()) {
            headers.insert(fields::MESSAGE_ID, id);
        }
        headers.insert(fields::ATTEMPT, self.attempt.into());
        if let Some(key) = fields::key_value(&self.idempotency_key) {
            headers.insert(fields::IDEMPOTENCY_KEY, key);
        }
    }
}

/// How much of an answer's body is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// The first bytes, no more than the destination's `response_limit`; the rest is not waited for.
    Prefix(usize),
    /// All of it, for a caller that waits; more than the destination's `response_limit` is a protocol fault.
    Whole,
}

/// What became of an attempt.
#[derive(Clone, Debug)]
pub struct Sent {
    /// What happened.
    pub outcome: Outcome,
    /// Which credentials it carried.
    pub credentials: CredentialId,
    /// How long it took.
    pub latency: Duration,
}

/// Which generation of a destination's credentials.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CredentialId(pub u64);
