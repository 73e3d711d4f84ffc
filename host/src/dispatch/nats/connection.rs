//! A connection to a NATS server, which mends itself.
//!
//! It is the only place where the client library is set up. A first connection that fails says why; one that is lost
//! later is made again in the background, without end, for as long as anybody holds it.

use std::time::Duration;

use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr, connection::State};
use tokio::sync::watch;

use super::address::{Address, Credentials};
use crate::message::Fault;

/// How long making a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How often an idle connection is tried; it is lost when two tries stay without an answer.
const PING_EVERY: Duration = Duration::from_secs(10);
/// The first and the longest pause before a lost connection is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// A connection. Cheap to clone; it is closed when the last clone goes.
#[derive(Clone, Debug)]
pub struct Connection {
    client: Client,
    context: Context,
    /// How often it was lost.
    losses: watch::Receiver<u64>,
}

impl Connection {
    /// Connects to `address` as the client `name`, once, within five seconds for each of the host's addresses. What
    /// JetStream is asked on it, it may answer within `answer_within`.
    ///
    /// Servers that the server tells of are not followed: who is connected to is what the configuration says.
    ///
    /// # Errors
    /// When no connection is made, or the server refuses it.
    pub async fn open(address: &Address, name: &str, answer_within: Duration) -> Result<Self, ConnectFailure> {
        let server = ServerAddr::from_url(address.server().clone()).map_err(|error| ConnectFailure {
            fault: Fault::Protocol,
            why: "its URL is refused",
            source: error.into(),
        })?;
        let (lost, losses) = watch::channel(0);
        let mut options = ConnectOptions::new()
            .name(name)
            .ignore_discovered_servers()
            .connection_timeout(CONNECT_WITHIN)
            .request_timeout(Some(answer_within))
            .ping_interval(PING_EVERY)
            .max_reconnects(None)
            .reconnect_delay_callback(pause_before)
            .event_callback(move |event| {
                if event == Event::Disconnected {
                    lost.send_modify(|losses| *losses += 1);
                }
                std::future::ready(())
            });
        options = match address.credentials() {
            Credentials::None => options,
            Credentials::Token(token) => options.token(token.clone()),
            Credentials::User { name, password } => options.user_and_password(name.clone(), password.clone()),
        };
        let client = options.connect(server).await.map_err(|error| {
            let (fault, why) = read(error.kind());
            ConnectFailure { fault, why, source: error.into() }
        })?;
        let context = jetstream::context::ContextBuilder::new().timeout(answer_within).build(client.clone());
        Ok(Self { client, context, losses })
    }

    /// Whether it stands now, as far as this side knows.
    pub fn is_up(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// The client, to publish and subscribe with.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// JetStream on it.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Tells of losses from now on.
    pub(crate) fn losses(&self) -> Losses {
        let mut losses = self.losses.clone();
        losses.mark_unchanged();
        Losses(losses)
    }
}

/// Tells when a connection is lost.
#[derive(Debug)]
pub(crate) struct Losses(watch::Receiver<u64>);

impl Losses {
    /// Returns once the connection has been lost since this was made (or since it last returned). Can be cancelled.
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The client has ended: nothing is lost any more.
            std::future::pending().await
        }
    }
}

/// The pause before the `attempt`-th (from 1) attempt to connect again: none, then twice as long each time, to a limit.
fn pause_before(attempt: usize) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(2)).unwrap_or(u32::MAX);
    if attempt <= 1 { Duration::ZERO } else { PAUSE.0.saturating_mul(2_u32.saturating_pow(doublings)).min(PAUSE.1) }
}

fn read(kind: ConnectErrorKind) -> (Fault, &'static str) {
    match kind {
        ConnectErrorKind::Dns => (Fault::Resolve, "its name was not resolved"),
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            (Fault::Credentials, "it refuses the credentials")
        }
        ConnectErrorKind::TimedOut => (Fault::Timeout, "it did not answer in time"),
        ConnectErrorKind::Tls => (Fault::Tls, "no TLS connection was made"),
        ConnectErrorKind::ServerParse => (Fault::Protocol, "its URL is refused"),
        ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => (Fault::Connect, "no connection was made"),
    }
}

/// Why a server was not connected to. Holds no credentials.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct ConnectFailure {
    /// The kind of fault.
    pub fault: Fault,
    why: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_is_tried_at_once_and_then_ever_less_often() {
        let pauses = [1, 2, 3, 4, 100, usize::MAX].map(|attempt| pause_before(attempt).as_millis());
        assert_eq!(pauses, [0, 50, 100, 200, 2000, 2000]);
    }
}
