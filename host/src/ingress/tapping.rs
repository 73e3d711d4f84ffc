//! Running the sources: each on a task of its own, for as long as the host runs or the source may go on trying.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Ingress;
use super::contact::{Contact, ContactShown};
use super::counted::{Counted, Counts};
use super::intake::RouteIntake;
use super::source::Intake;
use crate::amqp::{Dialer, in_words};
use crate::clock::Timestamp;
use crate::config::{Tap, Tapped};
use crate::ingress::{feed, nats, rabbitmq};

pub use super::counted::Totals;

/// How the sources stand, for onlookers: by name.
#[derive(Debug, Default)]
pub struct Taps(BTreeMap<String, Watched>);

/// What is known of a source, and goes on being known.
#[derive(Clone, Debug)]
struct Watched {
    kind: &'static str,
    route: String,
    contact: Arc<Contact>,
    counts: Arc<Counts>,
    progress: Option<Arc<feed::Progress>>,
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
    /// Whether it takes anything just now, since when, and what went wrong last.
    #[serde(flatten)]
    pub contact: ContactShown,
    /// What became of what it brought to this host.
    pub brought: Totals,
    /// What this host reads of a feed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feed: Option<feed::Shown>,
}

impl Taps {
    /// How they stand, by name.
    pub fn standing(&self) -> Vec<Standing> {
        let standing = self.0.iter().map(|(name, watched)| Standing {
            source: name.clone(),
            kind: watched.kind,
            route: watched.route.clone(),
            contact: watched.contact.shown(),
            brought: watched.counts.totals(),
            feed: watched.progress.as_ref().map(|progress| progress.shown()),
        });
        standing.collect()
    }
}

impl Watched {
    /// A source that begins now.
    fn new(tapped: &Tapped, now: Timestamp) -> Self {
        let progress = match &tapped.tap {
            Tap::Feed(feed) => Some(Arc::new(feed::Progress::new(feed.table.to_string(), feed.partitions))),
            Tap::Nats(_) | Tap::RabbitMq(_) => None,
        };
        Self {
            kind: tapped.tap.kind(),
            route: tapped.route.as_str().to_owned(),
            contact: Arc::new(Contact::new(now)),
            counts: Arc::default(),
            progress,
        }
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
    let mut taps = BTreeMap::new();
    for tapped in tapped {
        let Tapped { name, route, tap } = tapped.clone();
        let watched = Watched::new(tapped, ingress.clock.now());
        taps.insert(name.clone(), watched.clone());
        let Watched { contact, counts, progress, .. } = watched;
        let intake = RouteIntake { ingress: Arc::clone(ingress), source: name.clone(), route };
        let intake: Arc<dyn Intake> = Arc::new(Counted { intake, counts });
        let (ingress, stop, dialer) = (Arc::clone(ingress), stop.clone(), dialer.clone());
        tasks.spawn(async move {
            let clock = Arc::clone(&ingress.clock);
            let known = Arc::clone(&contact);
            let run = async {
                let ended: Result<(), Box<dyn std::error::Error + Send + Sync>> = match tap {
                    Tap::Nats(settings) => {
                        nats::Source::new(settings, intake, clock, contact).run(stop).await.map_err(Into::into)
                    }
                    Tap::RabbitMq(config) => {
                        let source = rabbitmq::Source { config: Arc::new(config), dialer, intake, clock, contact };
                        source.run(stop).await.map_err(Into::into)
                    }
                    Tap::Feed(settings) => {
                        let source = feed::Source {
                            settings: Arc::new(settings),
                            intake,
                            store: Arc::clone(&ingress.store),
                            owner: ingress.owner.clone(),
                            clock,
                            contact,
                            progress: progress.unwrap_or_default(),
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
                tracing::error!(source = name, error, "a source gave up");
                known.gave_up(&in_words(error), ingress.clock.now());
            }
        });
    }
    Arc::new(Taps(taps))
}
