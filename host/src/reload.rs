//! Reload: a changed configuration takes effect while the host serves.
//!
//! Everything that could refuse it is tried first, the policies included; only then do judges, alarms, counts, lanes and
//! the route table take their new form, one after the other and without a pause. A configuration with a mistake
//! changes nothing. What cannot change while the host runs (its listeners, its store, its folders) is named, and
//! waits for a restart; the rest is applied.
//!
//! No connection, request or message is dropped by it: an attempt under way ends under the terms it began with, and the
//! next one has the new ones; messages of a route that is not served any more stay in the store, parked, until it is.

mod fixed;
mod following;
mod reading;
mod settling;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::Notify;

use crate::alarm::Alarms;
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Problem, Problems};
use crate::message::RouteName;
use crate::policy::Catalog;
use crate::queue::Queue;
use crate::routes::{self, Changes, Routes};
use crate::store::{Retention, Store};
use crate::watch::Watch;

use fixed::Fixed;
pub use reading::{Files, Reading};

/// What a reload changes.
pub struct Parts {
    /// The route table.
    pub routes: Arc<Routes>,
    /// Who judges.
    pub catalog: Arc<Catalog>,
    /// The lanes.
    pub queue: Arc<Queue>,
    /// The alarms.
    pub alarms: Arc<Alarms>,
    /// The counts.
    pub watch: Arc<Watch>,
    /// Where messages are kept: it says what waits on a route that comes back.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Puts configurations into effect, one after the other.
pub struct Reload {
    parts: Parts,
    /// How long what has ended is kept.
    retention: ArcSwap<Retention>,
    /// What the host was started with, and cannot change.
    fixed: Fixed,
    status: Mutex<Status>,
    /// Somebody asked for the file to be read again.
    asked: Notify,
}

/// The configuration in effect, for the admin API.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The file it was read from.
    pub file: PathBuf,
    /// When it took effect.
    pub loaded_at: Timestamp,
    /// The keys whose values in the file wait for a restart.
    pub waits_for_restart: Vec<&'static str>,
    /// Why the file as it is now is not in effect, when it is not.
    pub refusal: Option<Refusal>,
}

/// Why a changed configuration was not put into effect.
#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    /// When.
    pub at: Timestamp,
    /// Every mistake, in order of line: at most as many as a start would report.
    pub problems: Vec<Problem>,
}

impl Reload {
    /// For a host that was started with `config`.
    pub fn new(config: &Config, parts: Parts) -> Self {
        let status = Status {
            file: config.sources.file().to_path_buf(),
            loaded_at: parts.clock.now(),
            waits_for_restart: Vec::new(),
            refusal: None,
        };
        Self {
            parts,
            retention: ArcSwap::from_pointee(retention(config)),
            fixed: Fixed::of(config),
            status: Mutex::new(status),
            asked: Notify::new(),
        }
    }

    /// Has the file read again at once, changed or not.
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// The configuration in effect.
    pub fn status(&self) -> Status {
        self.lock().clone()
    }

    /// How long what has ended is kept, as things stand.
    pub fn retention(&self) -> Retention {
        Retention::clone(&self.retention.load())
    }

    /// Puts `config` into effect, and tells of it.
    ///
    /// # Errors
    /// Everything that the policies refuse of it, by line; nothing is then changed.
    pub async fn apply(&self, config: &Config) -> Result<Changes, Problems> {
        let Parts { catalog, store, .. } = &self.parts;
        // Counted first: from the new judges to the new lanes nothing is waited for.
        let open = match store.backlog().await {
            Ok(open) => open,
            Err(error) => {
                // It is only a bound on intake; a lane that is new looks into the store in any case.
                tracing::warn!(error = &error as &dyn std::error::Error, "could not count what waits");
                BTreeMap::new()
            }
        };
        loop {
            let rebound = catalog.rebind(config.bindings()).await;
            let rebound = rebound.map_err(|refused| refused.in_file(&config.sources))?;
            // A policy's file that changes meanwhile is no reason to fail: what is there now is tried.
            if catalog.adopt(rebound).await.is_ok() {
                break;
            }
        }
        let changes = self.swap(config, &open);
        self.tell(config, &changes, &open);
        Ok(changes)
    }

    /// From the old table to the new one, without a pause. A route that is new has its lane before the ingress knows it.
    fn swap(&self, config: &Config, open: &BTreeMap<String, u64>) -> Changes {
        let Parts { routes, queue, alarms, watch, .. } = &self.parts;
        let (table, changes) = routes::follow(&routes.table(), &config.routes);
        watch.set_routes(table.keys());
        alarms.set_routes(routes::served(&table));
        queue.set_routes(routes::served(&table), open);
        routes.swap(Arc::new(table));
        self.retention.store(Arc::new(retention(config)));
        changes
    }

    /// One line for the reload, and one for what waits for a restart.
    fn tell(&self, config: &Config, changes: &Changes, open: &BTreeMap<String, u64>) {
        let waits_for_restart = self.fixed.differing(&Fixed::of(config));
        let parked: u64 = open
            .iter()
            .filter(|(name, _)| self.parts.routes.standing(name).parks().is_some())
            .map(|(_, count)| count)
            .sum();
        tracing::info!(
            added = %listed(&changes.added),
            changed = %listed(&changes.changed),
            removed = %listed(&changes.removed),
            parked_messages = parked,
            "configuration reloaded"
        );
        if !waits_for_restart.is_empty() {
            tracing::warn!(keys = %waits_for_restart.join(", "), "these keys of the configuration wait for a restart");
        }
        let mut status = self.lock();
        (status.loaded_at, status.refusal) = (self.parts.clock.now(), None);
        status.waits_for_restart = waits_for_restart;
    }

    /// Notes, and says in the log, that what the file holds now is not put into effect.
    fn refuse(&self, problems: Problems) {
        let why: Vec<String> = problems.to_string().lines().map(str::to_owned).collect();
        tracing::error!(why = %why.join("; "), "changed configuration refused; the one before stays in effect");
        let at = self.parts.clock.now();
        self.lock().refusal = Some(Refusal { at, problems: problems.problems });
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn retention(config: &Config) -> Retention {
    let dead = config.routes.values().map(|route| (route.name.clone(), route.keep_dead)).collect();
    Retention { finished: config.keep_finished, dead }
}

/// Names in a log line: so many of them, and how many more there are.
fn listed(names: &[RouteName]) -> String {
    const SHOWN: usize = 20;
    let mut text = names.iter().take(SHOWN).map(RouteName::as_str).collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(SHOWN) {
        Some(more @ 1..) => text.push_str(&format!(" and {more} more")),
        _ if names.is_empty() => text.push_str("none"),
        _ => {}
    }
    text
}
