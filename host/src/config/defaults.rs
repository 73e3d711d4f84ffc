//! What holds where the file says nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::backoff::Backoff;
use crate::message::Envelope;

pub(super) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
pub(super) const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);
pub(super) const STORE: &str = "backstop.db";
pub(super) const POLICIES: &str = "policies";
pub(super) const STATE: &str = ".backstop";
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
pub(super) const LEASE: Duration = Duration::from_secs(30);
pub(super) const KEEP_FINISHED: Duration = Duration::from_secs(86_400);
pub(super) const MAX_IN_FLIGHT: usize = 4096;

pub(super) const DEADLINE: Duration = Duration::from_secs(30);
pub(super) const SYNC_ATTEMPTS: u32 = 1;
pub(super) const KEEP_DEAD: Duration = Duration::from_secs(14 * 86_400);
pub(super) const CONCURRENCY: usize = 64;
pub(super) const MAX_QUEUED: usize = 100_000;
pub(super) const BODY_LIMIT: usize = 1 << 20;
pub(super) const KEEP_IDEMPOTENCY: Duration = Duration::from_secs(86_400);

pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const RESPONSE_LIMIT: usize = 1 << 20;

// The retry of a managed event bus's pipeline, which its users know.
pub(super) const MAX_ATTEMPTS: u32 = 5;
pub(super) const MAX_ELAPSED: Duration = Duration::from_secs(86_400);
pub(super) const MIN_DELAY: Duration = Duration::from_secs(1);
pub(super) const MAX_DELAY: Duration = Duration::from_secs(60);
pub(super) const FACTOR: f64 = 2.0;
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

pub(super) const BREAKER_FAILURES: f64 = 0.5;
pub(super) const BREAKER_WINDOW: Duration = Duration::from_secs(10);
pub(super) const BREAKER_MIN_ATTEMPTS: u32 = 10;
pub(super) const BREAKER_OPEN_FOR: Duration = Duration::from_secs(30);
pub(super) const BREAKER_PROBES: u32 = 1;

// The retry budget of the service meshes that have one.
pub(super) const BUDGET_SHARE: f64 = 0.2;
pub(super) const BUDGET_RESERVE: u32 = 10;
pub(super) const BUDGET_WINDOW: Duration = Duration::from_secs(10);

pub(super) const CHECK_BACK_AFTER: Duration = Duration::from_secs(60);
pub(super) const CHECK_BACK_EVERY: Duration = Duration::from_secs(60);
// How often the message queue asks that made half messages known.
pub(super) const CHECK_BACK_MAX_CHECKS: u32 = 15;

pub(super) const ALARM_WINDOW: Duration = Duration::from_secs(60);
pub(super) const ALARM_MIN_REQUESTS: u32 = 20;
pub(super) const FALLBACK_STATUS: u16 = 200;

/// The envelope of a route that says nothing of its own under `retry`, and whose credentials cannot be renewed.
pub(crate) fn default_envelope() -> Envelope {
    Envelope {
        max_attempts: MAX_ATTEMPTS,
        max_elapsed: MAX_ELAPSED,
        min_delay: MIN_DELAY,
        max_delay: MAX_DELAY,
        backoff: Backoff::default(),
        retry_after_max: RETRY_AFTER_MAX,
        renewable_credentials: false,
    }
}

/// How much of an answer's body a route reads that says nothing of its own, in bytes.
pub(crate) const fn default_response_limit() -> usize {
    RESPONSE_LIMIT
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn what_is_called_the_default_is_what_a_route_gets_that_says_nothing() {
        let text = "routes: { orders: { destination: http://127.0.0.1:9 } }";
        let config = Config::parse(text, Path::new("backstop.yaml"), Path::new("")).unwrap();
        let route = config.routes.values().next().unwrap();
        assert_eq!(route.envelope, default_envelope());
        assert_eq!(route.destination.response_limit, default_response_limit());
    }
}
