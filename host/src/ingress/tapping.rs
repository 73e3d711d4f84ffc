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
use crate::config::{Feed, Tap};
use crate::ingress::{nats, rabbitmq};

/// How the sources stand, for onlookers.
#[derive(Debug, Default)]
pub struct Taps(Mutex<BTreeMap<String, Standing>>);

/// How a source stands.
#[derive(Clone, Debug, Serialize)]
pub struct Standing {
    /// The source's name.
    pub source: String,
    /// Which broker.
    pub kind: &'static str,
    /// The route that its messages go to.
    pub route: String,
    /// Why it has given up, if it has: it takes nothing until the host is started again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gave_up: Option<String>,
}

impl Taps {
    /// How they stand, by name.
    pub fn standing(&self) -> Vec<Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn note(&self, standing: Standing) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(standing.source.clone(), standing);
    }
}

/// Starts the sources on `tasks`. They take nothing more once `stop` is raised, and end when what they have taken is
/// settled.
pub fn start(
    feeds: &[Feed],
    ingress: &Arc<Ingress>,
    dialer: &Dialer,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Arc<Taps> {
    let taps = Arc::new(Taps::default());
    for feed in feeds {
        let standing = Standing {
            source: feed.name.clone(),
            kind: feed.tap.kind(),
            route: feed.route.as_str().to_owned(),
            gave_up: None,
        };
        taps.note(standing.clone());
        let intake: Arc<dyn Intake> = Arc::new(RouteIntake {
            ingress: Arc::clone(ingress),
            source: feed.name.clone(),
            route: feed.route.clone(),
        });
        let (taps, tap, clock, stop) = (Arc::clone(&taps), feed.tap.clone(), Arc::clone(&ingress.clock), stop.clone());
        let dialer = dialer.clone();
        tasks.spawn(async move {
            let run = async {
                let ended: Result<(), Box<dyn std::error::Error + Send + Sync>> = match tap {
                    Tap::Nats(settings) => {
                        nats::Source::new(settings, intake, clock).run(stop).await.map_err(Into::into)
                    }
                    Tap::RabbitMq(config) => {
                        let source = rabbitmq::Source { config: Arc::new(config), dialer, intake, clock };
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
