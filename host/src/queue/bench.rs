//! What the tests of the queue, and of what stands on it, work at: a queue on a store in memory, a vendor that follows a
//! script, and a clock that is driven.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};

use super::*;
use crate::alarm::Alarms;
use crate::backoff::{Backoff, Growth, Jitter};
use crate::clock::driven::{DrivenClock, START};
use crate::config::{Destination, Idempotency, Route};
use crate::dispatch::vendor::route_to;
use crate::dispatch::{Clients, CredentialId, Delivery, Notifier, Sent, Transport};
use crate::message::{Envelope, MessageId, Origin, Outcome, Progress, Request, Response, State};
use crate::policy::Catalog;
use crate::routes::Routes;
use crate::store::memory::MemoryStore;

/// What a vendor does with one attempt.
pub(crate) enum Act {
    Answer(u16),
    RetryAfter(u16, u64),
    Slow(Duration),
    Silent,
    Panic,
}

/// A vendor that follows a script, and answers 200 once it has none.
pub(crate) struct Vendor {
    clock: Arc<DrivenClock>,
    script: Mutex<HashMap<String, VecDeque<Act>>>,
    pub(super) seen: Mutex<Vec<(String, MessageId, Duration)>>,
}

#[async_trait::async_trait]
impl Transport for Vendor {
    async fn send(&self, delivery: Delivery) -> Sent {
        let route = delivery.route.name.to_string();
        self.seen.lock().unwrap().push((route.clone(), delivery.message, self.clock.now().since(START)));
        let act = self.script.lock().unwrap().get_mut(&route).and_then(VecDeque::pop_front);
        let (status, retry_after) = match act {
            None => (200, None),
            Some(Act::Answer(status)) => (status, None),
            Some(Act::RetryAfter(status, seconds)) => (status, Some(seconds)),
            Some(Act::Slow(length)) => {
                self.clock.sleep(length).await;
                (200, None)
            }
            Some(Act::Silent) => std::future::pending().await,
            Some(Act::Panic) => panic!("a vendor that brings the host down"),
        };
        let headers = retry_after.map(|seconds| (http::header::RETRY_AFTER, HeaderValue::from(seconds)));
        let outcome = Outcome::Response(Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.into_iter().collect(),
            body: Bytes::new(),
            truncated: false,
        });
        Sent { outcome, credentials: CredentialId::default(), latency: Duration::from_millis(1) }
    }

    fn expire_credentials(&self, _: &Destination, _: CredentialId) {}
}

pub(crate) struct Bench {
    pub(crate) clock: Arc<DrivenClock>,
    pub(crate) store: Arc<MemoryStore>,
    pub(super) vendor: Arc<Vendor>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) holds: Arc<Holds>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
    _dir: tempfile::TempDir,
}

pub(crate) fn route(name: &str, change: impl FnOnce(&mut Route)) -> Arc<Route> {
    const DAY: Duration = Duration::from_secs(86_400);
    let plain = route_to(&format!("http://{name}.test/"));
    let mut route = Route {
        name: RouteName::new(name).unwrap(),
        envelope: Envelope {
            max_elapsed: DAY,
            backoff: Backoff { growth: Growth::Exponential { factor: 2.0 }, jitter: Jitter::None },
            ..plain.envelope
        },
        keep_dead: DAY,
        concurrency: 4,
        max_queued: 100,
        idempotency: Idempotency { required: false, keep: DAY },
        ..plain
    };
    change(&mut route);
    Arc::new(route)
}

pub(crate) fn plain(name: &str) -> Arc<Route> {
    route(name, |_| {})
}

impl Bench {
    pub(crate) async fn with(routes: Vec<Arc<Route>>) -> Self {
        Self::on(Arc::new(MemoryStore::default()), routes).await
    }

    pub(super) async fn on(store: Arc<MemoryStore>, routes: Vec<Arc<Route>>) -> Self {
        let clock = Arc::new(DrivenClock::new());
        let seam: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
        let dir = tempfile::tempdir().unwrap();
        let by_name: BTreeMap<RouteName, Arc<Route>> =
            routes.iter().map(|route| (route.name.clone(), Arc::clone(route))).collect();
        let catalog =
            Catalog::open(dir.path(), None, by_name.keys().map(|name| (name.clone(), None)), Arc::clone(&seam));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let notifier = Notifier::start(Arc::new(Clients::new().unwrap()), Arc::clone(&seam), &tasks, stop.clone());
        let vendor = Arc::new(Vendor { clock: Arc::clone(&clock), script: Mutex::default(), seen: Mutex::default() });
        let holds = Arc::new(Holds::default());
        let watch = Arc::new(Watch::new(by_name.keys()));
        let named = Arc::new(Routes::new(by_name.clone()));
        let attempts = Arc::new(Attempts {
            routes: Arc::clone(&named),
            catalog: Arc::new(catalog.await.unwrap()),
            transport: Arc::clone(&vendor) as Arc<dyn Transport>,
            holds: Arc::clone(&holds),
            alarms: Arc::new(Alarms::new(&routes, notifier)),
            watch: Arc::clone(&watch),
            clock: Arc::clone(&seam),
        });
        let open = store.backlog().await.unwrap();
        let queue = Arc::new(Queue::new(
            lanes(&routes, &open, 100),
            Arc::clone(&store) as Arc<dyn Store>,
            Arc::clone(&attempts),
            Arc::clone(&holds),
            Arc::clone(&watch),
            seam,
            Owner("this host".to_owned()),
            stop.clone(),
        ));
        tasks.spawn(Arc::clone(&queue).run(Duration::from_secs(5)));
        Self { clock, store, vendor, routes: named, attempts, watch, holds, queue, stop, tasks, _dir: dir }
    }

    pub(crate) fn script(&self, route: &str, acts: impl IntoIterator<Item = Act>) {
        self.vendor.script.lock().unwrap().insert(route.to_owned(), acts.into_iter().collect());
    }

    pub(super) async fn offer(&self, route: &str) -> (MessageId, Offered) {
        self.offer_in(route, None).await
    }

    /// Offers a message of the order called `key`.
    pub(super) async fn offer_in(&self, route: &str, key: Option<&'static str>) -> (MessageId, Offered) {
        let key = key.map(|key| (http::HeaderName::from_static("x-key"), HeaderValue::from_static(key)));
        let now = self.clock.now();
        let message = Message {
            id: MessageId::new(now),
            route: RouteName::new(route).unwrap(),
            request: Arc::new(Request {
                method: Method::POST,
                path: String::new(),
                headers: key.into_iter().collect(),
                body: Bytes::new(),
            }),
            idempotency_key: None,
            accepted_at: now,
            progress: Progress::default(),
            origin: Origin::default(),
        };
        let id = message.id;
        let offering = self.queue.offer(message, None);
        tokio::pin!(offering);
        // It may be kept waiting a moment for a permit.
        let offered = loop {
            tokio::select! {
                biased;
                offered = &mut offering => break offered,
                () = self.clock.pass(Duration::from_millis(1)) => {}
            }
        };
        (id, offered.unwrap_or(Offered::Saturated))
    }

    pub(super) async fn accept(&self, route: &str) -> MessageId {
        let (id, offered) = self.offer(route).await;
        assert_eq!(offered, Offered::Accepted);
        id
    }

    pub(super) async fn accept_in(&self, route: &str, key: Option<&'static str>) -> MessageId {
        let (id, offered) = self.offer_in(route, key).await;
        assert_eq!(offered, Offered::Accepted);
        id
    }

    pub(crate) fn lane(&self, name: &str) -> Arc<Lane> {
        self.queue.lane(&RouteName::new(name).unwrap()).unwrap()
    }

    pub(crate) async fn until(&self, id: MessageId, state: State) {
        self.clock.until(&format!("{id} is {state}"), || self.store.state(id) == Some(state)).await;
    }

    /// When the vendor saw attempts on `route`, in seconds since the start.
    pub(crate) fn seen(&self, route: &str) -> Vec<f64> {
        let seen = self.vendor.seen.lock().unwrap();
        seen.iter().filter(|(on, ..)| on == route).map(|(.., at)| at.as_secs_f64()).collect()
    }
}
