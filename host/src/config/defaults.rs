//! What holds where the file says nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

pub(super) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
pub(super) const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);
pub(super) const STORE: &str = "backstop.db";
pub(super) const POLICIES: &str = "policies";
pub(super) const STATE: &str = ".backstop";
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
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

pub(super) const ALARM_WINDOW: Duration = Duration::from_secs(60);
pub(super) const ALARM_MIN_REQUESTS: u32 = 20;
pub(super) const FALLBACK_STATUS: u16 = 200;
