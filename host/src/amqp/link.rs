//! Making a connection: the address, TCP, TLS and the login, each with an error of its own, all within one time limit.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, ErrorKind};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::broker::Broker;
use super::failure::{LinkError, is_refusal, says};
use super::reactor::runtime;
use super::wire::{Carrier, Wire};
use crate::clock::Clock;

/// How long making a connection may take, from the name to the end of the login.
pub(crate) const CONNECTING: Duration = Duration::from_secs(10);

/// How long closing one in order may take.
const CLOSING: Duration = Duration::from_secs(2);

/// After how many silent seconds the broker, or the way to it, counts as gone; it is asked to speak up twice within.
const HEARTBEAT: u16 = 20;

/// A seam: which addresses a name has, and whether they may be connected to.
#[async_trait]
pub trait Addresses: Send + Sync + 'static {
    /// The addresses of `host`, a name or an address, that may be connected to; never an empty list.
    ///
    /// # Errors
    /// When it has none.
    async fn of(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The operating system's resolver, all of whose addresses are allowed.
#[derive(Clone, Copy, Default, Debug)]
pub struct SystemAddresses;

#[async_trait]
impl Addresses for SystemAddresses {
    async fn of(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let found: Vec<IpAddr> = tokio::net::lookup_host((host, 0)).await?.map(|found| found.ip()).collect();
        if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
    }
}

/// Makes connections.
#[derive(Clone)]
pub struct Dialer {
    addresses: Arc<dyn Addresses>,
    tls: Arc<rustls::ClientConfig>,
    clock: Arc<dyn Clock>,
}

/// How often a connection is looked at that is waited on.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A connection. Cut when dropped: what was sent and not answered may or may not have arrived.
pub struct Link {
    connection: Connection,
    place: String,
    clock: Arc<dyn Clock>,
    cut: CancellationToken,
}

impl Dialer {
    /// Connections to what `addresses` allows, with `tls` where a URL asks for it.
    pub fn new(addresses: Arc<dyn Addresses>, tls: Arc<rustls::ClientConfig>, clock: Arc<dyn Clock>) -> Self {
        Self { addresses, tls, clock }
    }

    /// Connects to `broker` and logs in, under a `name` by which the broker's own tools list the connection.
    ///
    /// # Errors
    /// [`LinkError`], after ten seconds at the latest.
    pub async fn dial(&self, broker: &Broker, name: &str) -> Result<Link, LinkError> {
        let cut = CancellationToken::new();
        // Whichever way this ends but well, the half-made connection is cut, and lapin's thread with it.
        let unless_made = cut.clone().drop_guard();
        let connection = tokio::select! {
            made = self.connect(broker, name, cut.clone()) => made?,
            () = self.clock.sleep(CONNECTING) => return Err(LinkError::Timeout { place: broker.place() }),
        };
        unless_made.disarm();
        Ok(Link { connection, place: broker.place(), clock: Arc::clone(&self.clock), cut })
    }

    async fn connect(&self, broker: &Broker, name: &str, cut: CancellationToken) -> Result<Connection, LinkError> {
        let wire = Wire::new(self.carrier(broker).await?, cut);
        let wire = Arc::new(Mutex::new(Some(wire)));
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let made = Connection::connector(
            uri(broker),
            runtime(),
            // lapin would ask again if it reconnected by itself, which is not wanted: the stream is there once.
            async move |_, _| {
                let wire = wire.lock().unwrap_or_else(PoisonError::into_inner).take();
                wire.map(AsyncTcpStream::Plain).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected).into())
            },
            properties,
        );
        made.await.map_err(|error| {
            let place = broker.place();
            match error.kind() {
                ErrorKind::ProtocolError(refused) if is_refusal(refused.kind()) => {
                    LinkError::Refused { place, says: says(&error) }
                }
                _ => LinkError::Lost { place, says: says(&error) },
            }
        })
    }

    /// TCP to the first address that answers, and TLS over it.
    async fn carrier(&self, broker: &Broker) -> Result<Box<dyn Carrier>, LinkError> {
        let place = broker.place();
        let addresses = self.addresses.of(&broker.host).await;
        let addresses = addresses.map_err(|source| LinkError::Resolve { place: place.clone(), source })?;
        let addresses: Vec<SocketAddr> = addresses.into_iter().map(|ip| SocketAddr::new(ip, broker.port)).collect();
        let connected = async {
            let stream = TcpStream::connect(addresses.as_slice()).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = connected.await.map_err(|source| LinkError::Connect { place: place.clone(), source })?;
        if !broker.tls {
            return Ok(Box::new(stream));
        }
        let encrypted = async {
            let name = ServerName::try_from(broker.host.clone()).map_err(io::Error::other)?;
            TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await
        };
        let stream = encrypted.await.map_err(|source| LinkError::Tls { place, source })?;
        Ok(Box::new(stream))
    }
}

impl Link {
    /// A new channel.
    ///
    /// # Errors
    /// [`LinkError::Lost`]
    pub(crate) async fn channel(&self) -> Result<Channel, LinkError> {
        self.connection.create_channel().await.map_err(|error| self.lost(&error))
    }

    /// Whether it is still there, as far as is known.
    pub fn is_up(&self) -> bool {
        self.connection.status().connected()
    }

    /// Returns once it is no longer there, as far as is known: looked at once a second, for whoever waits on it for
    /// something that may never come. Can be cancelled.
    pub(crate) async fn gone(&self) {
        while self.is_up() {
            self.clock.sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether the broker has asked for no more messages for now (a memory or disk alarm).
    pub fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// `error`, as the loss of this connection.
    pub(crate) fn lost(&self, error: &lapin::Error) -> LinkError {
        LinkError::Lost { place: self.place.clone(), says: says(error) }
    }

    /// Closes it in order; the broker keeps what was not settled. Takes two seconds at most.
    pub async fn close(&self) {
        tokio::select! {
            closed = self.connection.close(200, "bye".into()) => {
                if let Err(error) = closed {
                    tracing::debug!(broker = self.place, error = says(&error), "the connection was gone before it was closed");
                }
            }
            () = self.clock.sleep(CLOSING) => {}
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cut.cancel();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("place", &self.place).finish_non_exhaustive()
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

/// The broker as lapin wants it: for the login and the settings, not for the address.
fn uri(broker: &Broker) -> AMQPUri {
    AMQPUri {
        scheme: AMQPScheme::AMQP,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: broker.user.clone(), password: broker.password.clone() },
            host: broker.host.clone(),
            port: broker.port,
        },
        vhost: broker.vhost.clone(),
        query: AMQPQueryString { heartbeat: Some(HEARTBEAT), ..AMQPQueryString::default() },
    }
}
