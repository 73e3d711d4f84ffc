//! The keys that a host cannot change while it runs: what listens, what is locked, what was sized at the start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Admin, Config, StoreUrl, Tapped};

/// Their values, as a host was started with.
pub(super) struct Fixed {
    listen: SocketAddr,
    admin: Admin,
    store: StoreUrl,
    policies: PathBuf,
    state: Option<PathBuf>,
    shutdown_grace: Duration,
    lease: Duration,
    max_in_flight: usize,
    tapped: Vec<Tapped>,
}

impl Fixed {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            listen: config.listen,
            admin: config.admin.clone(),
            store: config.store.clone(),
            policies: config.policies.clone(),
            state: config.state.clone(),
            shutdown_grace: config.shutdown_grace,
            lease: config.lease,
            max_in_flight: config.max_in_flight,
            tapped: config.tapped.clone(),
        }
    }

    /// The keys that `other` has other values for. The values themselves are not told: some are secret.
    pub(super) fn differing(&self, other: &Self) -> Vec<&'static str> {
        let keys = [
            ("listen", self.listen == other.listen),
            ("admin", self.admin == other.admin),
            ("store", self.store == other.store),
            ("policies", self.policies == other.policies),
            ("state", self.state == other.state),
            ("shutdown_grace", self.shutdown_grace == other.shutdown_grace),
            ("lease", self.lease == other.lease),
            ("max_in_flight", self.max_in_flight == other.max_in_flight),
            ("sources", self.tapped == other.tapped),
        ];
        keys.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn fixed(settings: &str) -> Fixed {
        let text = format!("{settings}\nroutes: {{ orders: {{ destination: http://vendor.test }} }}");
        Fixed::of(&Config::parse(&text, Path::new("backstop.yaml"), Path::new("")).expect("it is good"))
    }

    #[test]
    fn exactly_the_keys_that_need_a_restart_are_named() {
        let as_started = fixed("");
        for (setting, named) in [
            ("listen: 127.0.0.1:9", &["listen"][..]),
            ("admin: { listen: 127.0.0.1:8081, token: new }", &["admin"]),
            ("store: sqlite:other.db", &["store"]),
            ("policies: ./others", &["policies"]),
            ("state: none", &["state"]),
            ("shutdown_grace: 1s", &["shutdown_grace"]),
            ("lease: 5s", &["lease"]),
            ("max_in_flight: 7\nlisten: 127.0.0.1:9", &["listen", "max_in_flight"]),
            ("keep_finished: 1h", &[]),
            ("listen: 127.0.0.1:8080", &[]),
        ] {
            assert_eq!(as_started.differing(&fixed(setting)), named, "{setting}");
        }
    }
}
