//! The pooled HTTP clients: one for each distinct `destination.allow`, so nearly always one in all.
//!
//! The clients share their TLS set-up. They do not share connections, because a connection that one destination may
//! use leads to an address that another, with a shorter `allow`, may not reach under the same name.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use rustls_platform_verifier::BuilderVerifierExt;

use super::guard::{Guard, Names};
use super::lookup::SystemNames;

/// The time a connection may take to be made, TLS included. An attempt's own timeout may be shorter.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections kept open per destination (scheme, host and port) while nothing uses them.
pub const IDLE_CONNECTIONS: usize = 64;

/// How long a connection is kept open while nothing uses it.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Clients held at once. A configuration has as many as it has distinct `allow` lists; if there are ever more, all are
/// let go and made anew, which costs open connections and nothing else.
const MAX_CLIENTS: usize = 256;

/// The clients could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ClientsError {
    /// TLS could not be set up.
    #[error("failed to set up TLS")]
    Tls(#[source] rustls::Error),
    /// A client could not be built.
    #[error("failed to build an HTTP client")]
    Client(#[source] reqwest::Error),
}

/// The pooled HTTP clients, to be shared by everything that sends.
///
/// They speak HTTP/1.1, follow no redirect, repeat nothing that may have been read, keep no cookies, decompress nothing
/// and use no proxy. A request without `Accept` or `User-Agent` gets `*/*` and `backstop/VERSION`. An answer's head is held to hyper's limits: 100 fields and about 400 KiB; a larger one is a
/// protocol fault.
pub struct Clients {
    tls: rustls::ClientConfig,
    names: Arc<dyn Names>,
    by_allow: Mutex<HashMap<Vec<IpNet>, reqwest::Client>>,
}

impl Clients {
    /// Sets up TLS with the system's certificate authorities, and the first client. Reads files: call it at start.
    ///
    /// A system without certificate authorities is no error: `http` destinations still work, `https` ones do not, and
    /// a warning says so.
    ///
    /// # Errors
    /// When TLS or the client cannot be set up at all.
    pub fn new() -> Result<Self, ClientsError> {
        Self::with_names(Arc::new(SystemNames::new()))
    }

    pub(super) fn with_names(names: Arc<dyn Names>) -> Result<Self, ClientsError> {
        let clients = Self { tls: tls()?, names, by_allow: Mutex::default() };
        clients.allowing(&[])?;
        Ok(clients)
    }

    /// The TLS set-up, for whoever speaks something else than HTTP over it.
    pub fn tls(&self) -> Arc<rustls::ClientConfig> {
        let mut tls = self.tls.clone();
        tls.alpn_protocols.clear();
        Arc::new(tls)
    }

    /// The client whose names may lead to `allow`, beside global addresses.
    pub(super) fn allowing(&self, allow: &[IpNet]) -> Result<reqwest::Client, ClientsError> {
        let mut by_allow = self.by_allow.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = by_allow.get(allow) {
            return Ok(client.clone());
        }
        if by_allow.len() >= MAX_CLIENTS {
            by_allow.clear();
        }
        let client = plain(self.tls.clone())
            .dns_resolver(Arc::new(Guard::new(Arc::clone(&self.names), allow)))
            .build()
            .map_err(ClientsError::Client)?;
        by_allow.insert(allow.to_vec(), client.clone());
        Ok(client)
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

/// A client as [`Clients`] says, that resolves names as the system does.
pub(super) fn plain(tls: rustls::ClientConfig) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("backstop/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .pool_idle_timeout(IDLE_TIMEOUT)
}

/// TLS 1.2 and 1.3 by ring, trusting what the system trusts.
pub(super) fn tls() -> Result<rustls::ClientConfig, ClientsError> {
    let builder = || {
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(ClientsError::Tls)
    };
    let mut config = match builder()?.with_platform_verifier() {
        Ok(trusting) => trusting.with_no_client_auth(),
        Err(error) => {
            tracing::warn!(%error, "no certificate authorities found: https destinations will fail");
            builder()?.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
