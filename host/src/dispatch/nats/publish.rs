//! One publish to a stream, confirmed before it counts.
//!
//! It waits for the stream's acknowledgement and says what came of it. Nothing is queued for a server that is away: an
//! attempt that cannot be made now has failed now, and its route decides when the next one is.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::OnceCell;

use super::address::{Address, Target};
use super::connection::{ConnectFailure, Connection};
use super::headers;
use crate::clock::Clock;
use crate::dispatch::recent::Recent;
use crate::message::Fault;

/// How many servers are connected to at once. One more, and the connection that was used longest ago is let go.
pub const MAX_CONNECTIONS: usize = 64;
/// How often a connection that is being mended is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a publish is waited for at most, whatever its attempt allows.
const LONGEST: Duration = Duration::from_secs(600);

/// What is to be published.
#[derive(Clone, Debug)]
pub struct Publication<'a> {
    /// Where to.
    pub target: &'a Target,
    /// The message's id, the same at each attempt: `Nats-Msg-Id`, by which the stream knows a repeat within its
    /// duplicate window (two minutes unless it is set otherwise).
    pub message_id: &'a str,
    /// The request's fields, the host's own among them.
    pub headers: &'a HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The time all of it may take, connecting included; ten minutes at most.
    pub within: Duration,
}

/// What came of a publish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Published {
    /// The stream has it.
    Confirmed {
        /// Whether the stream had it before, from an attempt whose confirmation was lost.
        duplicate: bool,
        /// The stream's name.
        stream: String,
        /// Its place in the stream.
        sequence: u64,
    },
    /// No stream keeps the subject, or its stream is not served at the moment (a cluster without a leader says the
    /// same). Nobody has the message.
    NoStream,
    /// The stream, or the client in its name, will not have it: too large, a full stream that discards new messages,
    /// no resources.
    Refused {
        /// The status, in the sense of HTTP: 503 may pass, 400 and 413 will not.
        status: u16,
        /// JetStream's own error code; zero when it was refused on this side.
        code: u64,
        /// What the server says.
        text: String,
    },
    /// It is not known that the stream has it.
    Failed {
        /// The kind of fault.
        fault: Fault,
        /// What exactly, for people. Holds no credentials.
        detail: String,
    },
}

/// Publishes, over one connection for each server and user.
pub struct Publisher {
    clock: Arc<dyn Clock>,
    connections: Recent<Address, Arc<OnceCell<Connection>>>,
}

impl Publisher {
    /// A publisher without connections: each is made when it is first needed, and mends itself from then on.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, connections: Recent::new(MAX_CONNECTIONS) }
    }

    /// Publishes, and waits for the stream's word. Never fails: whatever goes wrong is said.
    ///
    /// Dropping the future gives the attempt up; the message may reach the stream all the same, and a later attempt
    /// is then a duplicate to it.
    pub async fn publish(&self, publication: Publication<'_>) -> Published {
        tokio::select! {
            biased;
            published = self.attempt(&publication) => published,
            () = self.clock.sleep(publication.within) => failed(Fault::Timeout, format!(
                "{} did not confirm within {:?}", publication.target.address, publication.within
            )),
        }
    }

    async fn attempt(&self, publication: &Publication<'_>) -> Published {
        let Target { address, subject } = publication.target;
        let connection = match self.connected(address).await {
            Ok(connection) => connection,
            Err(failure) => return not_connected(address, &failure),
        };
        // What is handed over while the connection is away would be sent whenever it comes back.
        while !connection.is_up() {
            self.clock.sleep(LOOK_AGAIN).await;
        }
        let message = PublishMessage::build()
            .headers(headers::outbound(publication.headers, publication.message_id))
            .payload(publication.body.clone());
        let acknowledged = match connection.context().send_publish(subject.clone(), message).await {
            Ok(acknowledgement) => acknowledgement.await,
            Err(error) => Err(error),
        };
        match acknowledged {
            Ok(ack) => Published::Confirmed { duplicate: ack.duplicate, stream: ack.stream, sequence: ack.sequence },
            Err(error) => read(address, &error),
        }
    }

    /// The connection to `address`, made if there is none yet; many who want it at once make one.
    async fn connected(&self, address: &Address) -> Result<Connection, ConnectFailure> {
        let place = self.connections.get(address, Arc::default);
        place.get_or_try_init(|| Connection::open(address, "backstop", LONGEST)).await.cloned()
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

fn failed(fault: Fault, detail: String) -> Published {
    Published::Failed { fault, detail }
}

fn not_connected(address: &Address, failure: &ConnectFailure) -> Published {
    let cause = failure.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    failed(failure.fault, format!("{address}: {failure}{cause}"))
}

fn read(address: &Address, error: &PublishError) -> Published {
    if let Some(said) = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>()) {
        let status = u16::try_from(said.code()).unwrap_or(500);
        return Published::Refused { status, code: said.error_code().0, text: said.to_string() };
    }
    match error.kind() {
        PublishErrorKind::StreamNotFound => Published::NoStream,
        PublishErrorKind::MaxPayloadExceeded => {
            let text = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            Published::Refused { status: 413, code: 0, text }
        }
        PublishErrorKind::TimedOut => failed(Fault::Timeout, format!("{address} did not confirm in time")),
        PublishErrorKind::BrokenPipe => failed(Fault::Reset, format!("the connection to {address} was cut")),
        // What is left is an answer that is none, from somebody else who listens on the subject.
        _ => failed(Fault::Protocol, format!("{address} did not answer as a stream does: {error}")),
    }
}
