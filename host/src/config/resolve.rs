//! From raw twin to [`Config`]: defaults filled in, limits checked, names looked up.
//!
//! Whatever is wrong is reported and replaced by something harmless, so that the rest is checked as well; a
//! configuration with a problem never leaves [`Config::parse`].

mod check_back;
mod destination;
mod events;
mod fallback;
mod feed;
mod limits;
mod route;
mod tapped;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::problem::{Findings, Place, cut};
use super::raw::{RawAdmin, RawConfig};
use super::reader::{Field, Shorthand};
use super::resolved::{Admin, Config, StoreUrl};
use super::tree::Node;
use super::units::{Count, Size, Written, show_duration, show_size};
use super::{Sources, Surroundings, defaults};
use crate::message::RouteName;
use crate::store::PostgresTarget;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Every delay, and every time that somebody waits.
const WAIT: RangeInclusive<Duration> = MILLISECOND..=DAY;

/// What resolving needs to know.
pub(super) struct Resolver<'r> {
    pub(super) root: &'r Arc<Node>,
    pub(super) findings: &'r Findings,
    pub(super) base_dir: &'r Path,
    pub(super) file: &'r Path,
    /// Where files are looked up that the configuration names.
    pub(super) surroundings: &'r dyn Surroundings,
}

impl Resolver<'_> {
    /// Resolves everything. `None` only when there are no routes to speak of; the caller asks the findings anyway.
    pub(super) fn config(&self, raw: RawConfig) -> Option<Config> {
        let root = Place::ROOT;
        let listen = raw.listen.given().map_or(defaults::LISTEN, |Written(address)| address);
        let admin = self.admin(&root, raw.admin);
        if listen == admin.listen && listen.port() != 0 {
            self.complain(&root.key("admin"), "listens where `listen` does already: give it another port");
        }
        let routes_place = root.key("routes");
        let routes = match raw.routes {
            Field::Given(routes) => routes.0,
            Field::Broken => return None,
            Field::Absent => {
                self.complain(&routes_place, "missing: write `routes:` and at least one route under it");
                return None;
            }
        };
        if routes.is_empty() {
            self.complain(&routes_place, "is empty: a host without a route has nothing to do");
        }
        self.fallback_routes(&routes_place, &routes);
        let mut resolved = BTreeMap::new();
        for (name, raw) in routes {
            let place = routes_place.key(&name);
            match RouteName::new(&name) {
                Ok(name) => {
                    if let Field::Given(raw) = raw {
                        resolved.extend(self.route(&place, &name, raw).map(|route| (name, Arc::new(route))));
                    }
                }
                Err(error) => self.complain(&place, error.to_string()),
            }
        }
        let tapped = self.tapped(&root.key("sources"), raw.sources, &resolved);
        Some(Config {
            listen,
            admin,
            store: self.store(&root, raw.store),
            policies: self.folder(&root.key("policies"), raw.policies, defaults::POLICIES),
            state: match raw.state {
                Field::Given(none) if none == "none" => None,
                folder => Some(self.folder(&root.key("state"), folder, defaults::STATE)),
            },
            shutdown_grace: self.duration(
                &root.key("shutdown_grace"),
                raw.shutdown_grace,
                Duration::ZERO..=HOUR,
                defaults::SHUTDOWN_GRACE,
            ),
            lease: self.duration(&root.key("lease"), raw.lease, SECOND..=10 * MINUTE, defaults::LEASE),
            keep_finished: self.duration(
                &root.key("keep_finished"),
                raw.keep_finished,
                Duration::ZERO..=DAY * 3650,
                defaults::KEEP_FINISHED,
            ),
            max_in_flight: self.count(
                &root.key("max_in_flight"),
                raw.max_in_flight,
                1..=1_000_000,
                defaults::MAX_IN_FLIGHT,
            ),
            tapped,
            routes: resolved,
            sources: Sources::new(self.file, Arc::clone(self.root)),
        })
    }

    fn admin(&self, root: &Place<'_>, raw: Field<Shorthand<Written<SocketAddr>, RawAdmin>>) -> Admin {
        let place = root.key("admin");
        let mut admin = Admin { listen: defaults::ADMIN, token: None };
        let mut token_is_broken = false;
        match raw {
            Field::Given(Shorthand::Short(Written(listen))) => admin.listen = listen,
            Field::Given(Shorthand::Full(raw)) => {
                token_is_broken = matches!(raw.token, Field::Broken);
                admin.listen = raw.listen.given().map_or(defaults::ADMIN, |Written(address)| address);
                admin.token = raw.token.given().map(|Written(token)| token);
            }
            Field::Absent | Field::Broken => {}
        }
        if admin.token.is_none() && !token_is_broken && !is_loopback(admin.listen.ip()) {
            self.complain(
                &place,
                "others can reach this address, so it needs a token: write \
                 `admin: { listen: ADDRESS, token: ${env:NAME} }`, or listen on 127.0.0.1",
            );
        }
        if let Some(token) = &admin.token
            && !token.expose().bytes().all(|byte| byte.is_ascii_graphic())
        {
            self.complain(&place.key("token"), "a token is of visible ASCII characters without spaces");
        }
        admin
    }

    fn store(&self, root: &Place<'_>, raw: Field<String>) -> StoreUrl {
        let place = root.key("store");
        let default = || StoreUrl::Sqlite(self.base_dir.join(defaults::STORE));
        let Some(text) = raw.given() else { return default() };
        let lower = text.to_ascii_lowercase();
        match text.strip_prefix("sqlite:") {
            Some("" | ":memory:") => {
                self.complain(&place, "names no file, but accepted means on disk: write sqlite:backstop.db");
            }
            Some(path) if path.starts_with("//") && !path.starts_with("///") => {
                self.complain(&place, "write sqlite:PATH, without // before a path");
            }
            Some(path) => return StoreUrl::Sqlite(self.base_dir.join(path)),
            None if lower.starts_with("postgres:") || lower.starts_with("postgresql:") => {
                match PostgresTarget::parse(&text) {
                    Ok(target) => return StoreUrl::Postgres(target),
                    Err(invalid) => self.complain(&place, invalid.to_string()),
                }
            }
            None => self.complain(
                &place,
                "no such store: write sqlite:PATH, such as sqlite:backstop.db, or postgres://USER:PASSWORD@HOST/DATABASE",
            ),
        }
        default()
    }

    fn folder(&self, place: &Place<'_>, raw: Field<String>, default: &str) -> PathBuf {
        match raw.given() {
            Some(path) if path.is_empty() => {
                self.complain(place, format!("is empty: write a folder such as ./{default}"));
                self.base_dir.join(default)
            }
            Some(path) => self.base_dir.join(path),
            None => self.base_dir.join(default),
        }
    }

    /// The duration given, if it is within `range`.
    pub(super) fn duration(
        &self,
        place: &Place<'_>,
        raw: Field<Written<Duration>>,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        let Some(Written(given)) = raw.given() else { return default };
        if range.contains(&given) {
            return given;
        }
        let (least, most) = (show_duration(*range.start()), show_duration(*range.end()));
        self.complain_of(place, format!("write a duration from {least} to {most}"));
        default
    }

    /// The size given, if it is within `range`, in bytes.
    fn size(&self, place: &Place<'_>, raw: Field<Written<Size>>, range: RangeInclusive<u64>, default: usize) -> usize {
        let Some(Written(Size(given))) = raw.given() else { return default };
        match usize::try_from(given) {
            Ok(size) if range.contains(&given) => size,
            _ => {
                let (least, most) = (show_size(*range.start()), show_size(*range.end()));
                self.complain_of(place, format!("write a size from {least} to {most}"));
                default
            }
        }
    }

    /// The number given, if it is within `range`.
    pub(super) fn count<N: TryFrom<u64>>(
        &self,
        place: &Place<'_>,
        raw: Field<Count>,
        range: RangeInclusive<u64>,
        default: N,
    ) -> N {
        let Some(Count(given)) = raw.given() else { return default };
        match N::try_from(given) {
            Ok(count) if range.contains(&given) => count,
            _ => {
                self.complain_of(place, format!("write a whole number from {} to {}", range.start(), range.end()));
                default
            }
        }
    }

    /// What a key that must be there holds. `None` when it is missing or wrong; either was reported.
    fn required<T>(&self, place: &Place<'_>, field: Field<T>, example: &str) -> Option<T> {
        if matches!(field, Field::Absent) {
            self.complain(place, format!("missing: write {example}"));
        }
        field.given()
    }

    /// Reports a problem on the line of `place`, or of what should hold it.
    pub(super) fn complain(&self, place: &Place<'_>, message: impl Into<String>) {
        if self.findings.is_full() {
            // Looking the line up costs more than it is worth: the problem is counted only.
            return self.findings.report(None, place, message);
        }
        let (node, line, _) = self.root.descend(&place.steps());
        let whole_file = std::ptr::eq(node, self.root.as_ref());
        self.findings.report((!whole_file).then_some(line), place, message);
    }

    /// Reports a problem with what is written at `place`, quoting it.
    pub(super) fn complain_of(&self, place: &Place<'_>, message: impl AsRef<str>) {
        let (node, ..) = self.root.descend(&place.steps());
        let message = message.as_ref();
        if node.written.is_empty() {
            self.complain(place, message);
        } else {
            self.complain(place, format!("`{}`: {message}", cut(&node.written)));
        }
    }
}

/// Whether only this machine can reach the address.
fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => {
            address.is_loopback() || address.to_ipv4_mapped().as_ref().is_some_and(Ipv4Addr::is_loopback)
        }
    }
}
