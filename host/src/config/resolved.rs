//! The resolved configuration: types that the rest of the host takes at their word.
//!
//! Every default is filled in and every limit is kept, so nobody checks again. No `Debug` here shows a value that may
//! have come from `${env:…}` or `${file:…}`: URLs, credentials, header values, answers and `policy_config` are left
//! out of it. What a person wants to see of a route is [`Config::describe`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use url::Url;

use super::Sources;
use super::check_back::CheckBack;
use super::endpoint::Protocol;
use super::events::Events;
use super::limits::{Breaker, Order, Rate, RetryBudget};
use super::tapped::Tapped;
use crate::message::{Envelope, Fallback, RouteName};
use crate::store::PostgresTarget;

/// Everything the host is told.
#[derive(Clone)]
pub struct Config {
    /// Where messages come in. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// The admin API. Default `127.0.0.1:8081`.
    pub admin: Admin,
    /// Where messages are kept. Default `sqlite:backstop.db`, relative to the configuration file's folder.
    pub store: StoreUrl,
    /// The folder of policies. Default `./policies`, relative to the configuration file's folder.
    pub policies: PathBuf,
    /// The host's own folder, if it may keep anything: compiled policies and their last good files. Default
    /// `./.backstop`, relative to the configuration file's folder.
    pub state: Option<PathBuf>,
    /// How long a shutdown waits for what is in flight. Default 10 s.
    pub shutdown_grace: Duration,
    /// How long a lease on a message lasts; it is prolonged three times in that. Default 30 s.
    pub lease: Duration,
    /// How long finished messages are kept to be looked at. Default 24 h.
    pub keep_finished: Duration,
    /// Requests served at once by the ingress; one more is answered 503. Default 4096.
    pub max_in_flight: usize,
    /// Where messages are taken from, beside the listener, by name.
    pub tapped: Vec<Tapped>,
    /// The routes by name.
    pub routes: BTreeMap<RouteName, Arc<Route>>,
    /// Where in the file each value stands.
    pub sources: Sources,
}

impl Config {
    /// Which policy each route that is served is bound to. What a disabled route names is not needed, and may be
    /// missing.
    pub fn bindings(&self) -> impl Iterator<Item = (RouteName, Option<PolicyBinding>)> {
        let served = self.routes.values().filter(|route| route.enabled);
        served.map(|route| (route.name.clone(), route.policy.clone()))
    }
}

impl fmt::Debug for Config {
    /// Its description, which holds no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

/// The admin listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The bearer token asked of every caller. Required when `listen` is not a loopback address.
    pub token: Option<Secret>,
}

/// Where messages are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// An embedded SQLite database in this file.
    Sqlite(PathBuf),
    /// A schema in a Postgres database, which other hosts may share.
    Postgres(PostgresTarget),
}

impl fmt::Display for StoreUrl {
    /// As it is written in the configuration, without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(target) => target.fmt(f),
        }
    }
}

/// Where a request goes and what is done when that fails.
#[derive(Clone, PartialEq)]
pub struct Route {
    /// Its name, as in `/r/{route}/…`.
    pub name: RouteName,
    /// Whether it takes messages in and attempts them. Where it does not, those it has wait. Default true.
    pub enabled: bool,
    /// Where its messages go.
    pub destination: Destination,
    /// Whether the caller waits.
    pub mode: Mode,
    /// The policy that judges its outcomes; none leaves it to the standard rule.
    pub policy: Option<PolicyBinding>,
    /// The limits on any verdict, and the backoff.
    pub envelope: Envelope,
    /// What to answer when attempts are exhausted and the policy offers nothing.
    pub fallback: Option<Fallback>,
    /// When to raise an alarm.
    pub alarm: Option<Alarm>,
    /// How long its dead letters (and messages answered by fallback) are kept. Default 14 d.
    pub keep_dead: Duration,
    /// Attempts at once. Default 64.
    pub concurrency: usize,
    /// Attempts that may begin in a time. Default no limit.
    pub rate: Option<Rate>,
    /// When attempts are stopped because the destination fails. Default never.
    pub breaker: Option<Breaker>,
    /// How many retries are made, beside first attempts. Default no limit.
    pub retry_budget: Option<RetryBudget>,
    /// Which messages are delivered one after the other. Default none. Only in mode async.
    pub order: Option<Order>,
    /// Whom to ask about half messages. Without it the route takes none. Only in mode async.
    pub check_back: Option<CheckBack>,
    /// Messages waiting at once, half messages counted in; one more is answered 503. Default 100,000.
    pub max_queued: usize,
    /// The longest request body, in bytes; a longer one is answered 413. Default 1 MiB.
    pub body_limit: usize,
    /// What is done about `Idempotency-Key`.
    pub idempotency: Idempotency,
    /// Which events it takes. Default none. Only in mode async.
    pub events: Option<Events>,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("name", &self.name)
            .field("mode", &self.mode)
            .field("policy", &self.policy)
            .field("envelope", &self.envelope)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

/// Whether the caller waits for the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// It waits, at most `deadline`.
    Sync {
        /// The total time from request to answer. Default 30 s.
        deadline: Duration,
    },
    /// It gets 202 once the message is on disk.
    Async,
    /// As sync for `attempts` attempts within `deadline`; a retryable failure is then stored and answered 202.
    SyncThenAsync {
        /// The total time from request to answer. Default 30 s.
        deadline: Duration,
        /// Attempts made while the caller waits. Default 1.
        attempts: u32,
    },
}

impl Mode {
    /// Its name in YAML.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sync { .. } => "sync",
            Self::Async => "async",
            Self::SyncThenAsync { .. } => "sync_then_async",
        }
    }
}

/// Where a route's messages go.
#[derive(Clone, PartialEq)]
pub struct Destination {
    /// The URL that the caller's path is appended to: `http` or `https`, no user info, no fragment. Or a broker's, with
    /// what is published to, and perhaps credentials.
    pub url: Url,
    /// What is spoken there.
    pub protocol: Protocol,
    /// The time one attempt may take, from connecting to the last byte read. Default 10 s.
    pub timeout: Duration,
    /// The hard cap on an answer's body, in bytes. Default 1 MiB.
    pub response_limit: usize,
    /// How attempts identify themselves.
    pub auth: Option<Auth>,
    /// Header fields set on every attempt, in place of the caller's of the same name.
    pub headers: Vec<(HeaderName, SecretHeader)>,
    /// Networks its name may resolve to, beside global addresses and the address the URL itself names.
    pub allow: Vec<IpNet>,
}

impl fmt::Debug for Destination {
    /// Without the URL, which may carry a token in its path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination")
            .field("timeout", &self.timeout)
            .field("response_limit", &self.response_limit)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

impl Destination {
    /// What a hold or a `Retry-After` speaks for: the URL's scheme, host and port.
    pub fn origin(&self) -> String {
        match &self.protocol {
            Protocol::Http => self.url.origin().ascii_serialization(),
            Protocol::Nats(target) => target.address.to_string(),
            Protocol::RabbitMq(exchange) => format!("{}://{}", self.url.scheme(), exchange.broker().place()),
        }
    }
}

/// How attempts identify themselves to the destination.
#[derive(Clone, PartialEq)]
pub enum Auth {
    /// A fixed header field.
    Header {
        /// The field's name.
        name: HeaderName,
        /// Its value.
        value: SecretHeader,
    },
    /// RFC 7617.
    Basic {
        /// The user's name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// RFC 6749 §4.4, with `client_secret_basic`; the token is renewed when it expires or a policy says
    /// *reauthenticate*.
    ClientCredentials {
        /// The token endpoint. Held to the same address rule as the destination.
        token_url: Url,
        /// The client's id.
        client_id: String,
        /// The client's secret.
        client_secret: Secret,
        /// The scope asked for.
        scope: Option<String>,
        /// Further form parameters, such as `audience`.
        params: Vec<(String, String)>,
    },
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header { .. } => "Header(***)",
            Self::Basic { .. } => "Basic(***)",
            Self::ClientCredentials { .. } => "ClientCredentials(***)",
        })
    }
}

/// Which policy judges, and how it is set up.
#[derive(Clone, PartialEq)]
pub struct PolicyBinding {
    /// Its name: `policies/NAME.wasm`.
    pub name: String,
    /// The route's `policy_config`; `null` when there is none.
    pub config: serde_json::Value,
    /// Whether the `policy_config` holds a value that came from a variable or a file. What the policy says of such a
    /// configuration is not shown, since it may quote it.
    pub holds_secret: bool,
    /// What decides when the policy gives no usable answer.
    pub on_failure: OnPolicyFailure,
    /// What one question may cost.
    pub limits: PolicyLimits,
    /// Whether every question gets a new instance.
    pub isolation: Isolation,
}

impl fmt::Debug for PolicyBinding {
    /// Without the `policy_config`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyBinding")
            .field("name", &self.name)
            .field("holds_secret", &self.holds_secret)
            .field("on_failure", &self.on_failure)
            .field("limits", &self.limits)
            .field("isolation", &self.isolation)
            .finish_non_exhaustive()
    }
}

/// What decides when a policy traps, runs out of fuel or answers nonsense.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnPolicyFailure {
    /// The built-in standard rule.
    #[default]
    Standard,
    /// Try again by the route's backoff, whatever the outcome was.
    Retry,
    /// Put the message aside for a person.
    DeadLetter,
}

/// Whether instances are reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Isolation {
    /// An instance answers many questions, until one of them fails.
    #[default]
    Reuse,
    /// Every question gets a new instance.
    Fresh,
}

/// What one question to a policy may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PolicyLimits {
    /// Fuel, in wasmtime's units (about one per instruction). Default 10,000,000.
    pub fuel: u64,
    /// Linear memory, in bytes. Default 16 MiB.
    pub memory: usize,
    /// Wall-clock backstop. Default 100 ms.
    pub time: Duration,
    /// Bytes of strings and lists in one answer. Default 1 MiB.
    pub output: usize,
    /// Failures in a row after which the policy is quarantined on this route. Default 10.
    pub failures: u32,
}

impl Default for PolicyLimits {
    fn default() -> Self {
        Self { fuel: 10_000_000, memory: 16 << 20, time: Duration::from_millis(100), output: 1 << 20, failures: 10 }
    }
}

/// When to raise an alarm: the share of failed attempts on a route over a window.
#[derive(Clone, PartialEq)]
pub struct Alarm {
    /// The share, 0 to 1, at or above which it fires. It clears below half of that.
    pub error_rate: f64,
    /// The window. Default 1 min.
    pub window: Duration,
    /// Attempts in the window below which nothing is said. Default 20.
    pub min_requests: u32,
    /// Where a notice is POSTed, if anywhere.
    pub notify: Option<Url>,
}

impl fmt::Debug for Alarm {
    /// Without the URL, which may carry a token in its path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm")
            .field("error_rate", &self.error_rate)
            .field("window", &self.window)
            .field("min_requests", &self.min_requests)
            .finish_non_exhaustive()
    }
}

/// What a route does about `Idempotency-Key`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Idempotency {
    /// Whether a request without one is refused with 400.
    pub required: bool,
    /// How long keys are kept. Default 24 h.
    pub keep: Duration,
}

/// Text that is never shown: its `Debug` and `Display` say `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A header value that may hold a secret. Its `Debug` says `Sensitive`.
pub type SecretHeader = HeaderValue;
