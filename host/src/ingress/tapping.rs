//! Running the sources: each on a task of its own, for as long as the host runs or the source may go on trying.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Ingress;
use super::intake::RouteIntake;
use super::source::Intake;
use crate::amqp::{Dialer, in_words};
use crate::config::{Tap, Tapped};
use crate::ingress::{feed, nats, rabbitmq};

/// How the sources stand, for onlookers.
#[derive(Debug, Default)]
pub struct Taps {
    standing: Mutex<BTreeMap<String, Standing>>,
    feeds: BTreeMap<String, Arc<feed::Progress>>,
}

/// How a source stands.
#[derive(Clone, Debug, Serialize)]
pub struct Standing {
    /// The source's name.
    pub source: String,
    /// Which kind: `nats`, `rabbitmq` or `feed`.
    pub kind: &'static str,
    /// The route that its messages go to.
    pub route: String,
    /// Why it has given up, if it has: it takes nothing until the host is started again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gave_up: Option<String>,
    /// What this host reads of a feed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feed: Option<feed::Shown>,
}

impl Taps {
    /// How they stand, by name.
    pub fn standing(&self) -> Vec<Standing> {
        let mut all: Vec<Standing> =
            self.standing.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for standing in &mut all {
            standing.feed = self.feeds.get(&standing.source).map(|progress| progress.shown());
        }
        all
    }

    fn note(&self, standing: Standing) {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).insert(standing.source.clone(), standing);
    }
}

/// Starts the sources on `tasks`. They take nothing more once `stop` is raised, and end when what they have taken is
/// settled.
pub fn start(
    tapped: &[Tapped],
    ingress: &Arc<Ingress>,
    dialer: &Dialer,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Arc<Taps> {
    let feeds = tapped.iter().filter_map(|tapped| match &tapped.tap {
        Tap::Feed(feed) => {
            Some((tapped.name.clone(), Arc::new(feed::Progress::new(feed.table.to_string(), feed.partitions))))
        }
        Tap::Nats(_) | Tap::RabbitMq(_) => None,
    });
    let taps = Arc::new(Taps { standing: Mutex::default(), feeds: feeds.collect() });
    for Tapped { name, route, tap } in tapped {
        let standing = Standing {
            source: name.clone(),
            kind: tap.kind(),
            route: route.as_str().to_owned(),
            gave_up: None,
            feed: None,
        };
        taps.note(standing.clone());
        let intake: Arc<dyn Intake> =
            Arc::new(RouteIntake { ingress: Arc::clone(ingress), source: name.clone(), route: route.clone() });
        let (taps, tap, ingress, stop) = (Arc::clone(&taps), tap.clone(), Arc::clone(ingress), stop.clone());
        let dialer = dialer.clone();
        tasks.spawn(async move {
            let clock = Arc::clone(&ingress.clock);
            let run = async {
                let ended: Result<(), Box<dyn std::error::Error + Send + Sync>> = match tap {
                    Tap::Nats(settings) => {
                        nats::Source::new(settings, intake, clock).run(stop).await.map_err(Into::into)
                    }
                    Tap::RabbitMq(config) => {
                        let source = rabbitmq::Source { config: Arc::new(config), dialer, intake, clock };
                        source.run(stop).await.map_err(Into::into)
                    }
                    Tap::Feed(settings) => {
                        let progress = taps.feeds.get(&settings.name).map(Arc::clone).unwrap_or_default();
                        let source = feed::Source {
                            settings: Arc::new(settings),
                            intake,
                            store: Arc::clone(&ingress.store),
                            owner: ingress.owner.clone(),
                            clock,
                            progress,
                        };
                        source.run(stop).await.map_err(Into::into)
                    }
                };
                ended
            };
            // One that panics is not to look as if it went on.
            let ended = AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|_| Err("it panicked".into()));
            if let Err(error) = ended {
                let error: &(dyn std::error::Error + 'static) = &*error;
                tracing::error!(source = standing.source, error, "a source gave up");
                taps.note(Standing { gave_up: Some(in_words(error)), ..standing });
            }
        });
    }
    taps
}
