//! Wiring and shutdown: builds every part from the configuration, starts them in order, stops them in reverse. It
//! decides nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Admin};
use crate::alarm::Alarms;
use crate::amqp::{Dialer, SystemAddresses};
use crate::attempt::Attempts;
use crate::check_back::CheckBacks;
use crate::clock::{Clock, SteadyClock, SystemClock};
use crate::config::{Config, StoreUrl};
use crate::dispatch::{Clients, ClientsError, HttpTransport, Notifier, Transport, Transports};
use crate::ingress::{self, Ingress};
use crate::listener::{self, Descriptors};
use crate::message::MessageId;
use crate::policy::{Catalog, PolicyProblems, StateDir, StateDirError};
use crate::queue::{self, Agenda, Holds, Queue};
use crate::reload::{Files, Parts, Reload};
use crate::routes::{self, Routes};
use crate::store::{Owner, PostgresStore, SqliteStore, Store, StoreError};
use crate::watch::Watch;

/// How often what has ended long enough ago is removed, and how much of it at once.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
const SWEEP_AT_MOST_EVERY: Duration = Duration::from_secs(1);
const SWEEP_AT_ONCE: u32 = 500;

/// A running host.
pub struct Engine {
    /// Where messages come in.
    pub listen: SocketAddr,
    /// Where the admin API is.
    pub admin: SocketAddr,
    /// What happens, live.
    pub watch: Arc<Watch>,
    reload: Arc<Reload>,
    store: Arc<dyn Store>,
    grace: Duration,
    clock: Arc<dyn Clock>,
    /// Raised first: intake and claiming stop.
    stop: CancellationToken,
    /// Raised last: what serves those that drain stops too.
    stop_rest: CancellationToken,
    intake: TaskTracker,
    chains: TaskTracker,
    rest: TaskTracker,
    queue: tokio::task::JoinHandle<usize>,
}

/// Why the host could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store refused.
    #[error("failed to open the store {path}")]
    Store {
        /// Its file, or its URL without the password.
        path: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The host's own folder is none.
    #[error("failed to open the host's own folder (`state`)")]
    State(#[from] StateDirError),
    /// Policies that routes name are missing, broken, or refuse their configuration.
    #[error("failed to load the policies:\n{0}")]
    Policies(#[from] PolicyProblems),
    /// The client for destinations could not be built.
    #[error("failed to set up the HTTP client")]
    Clients(#[from] ClientsError),
    /// The runtime went away meanwhile.
    #[error("the start broke off")]
    BrokeOff,
    /// An address could not be listened on.
    #[error("failed to listen on {address} (`{key}`)")]
    Listen {
        /// The configuration's key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What a shutdown left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Attempts that did not finish within the grace period; their messages are repeated at the next start.
    pub unfinished: usize,
    /// Messages that wait in the store for the next start.
    pub queued: u64,
}

impl Engine {
    /// Starts a host. When this returns it listens, and goes on with whatever an earlier run left in the store.
    ///
    /// # Errors
    /// [`StartError`]; nothing is then left running.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let descriptors = Descriptors::raise();
        let clock: Arc<dyn Clock> = match &config.store {
            StoreUrl::Sqlite(_) => Arc::new(SteadyClock::start()),
            // Hosts that share a store compare their clocks: one that was wrong for a moment is to be right again.
            StoreUrl::Postgres(_) => Arc::new(SystemClock),
        };
        let now = clock.now();
        // A name of its own for every start: what an earlier one held is free again.
        let owner = Owner(MessageId::new(now).to_string());

        // The database is locked first: a second host started by mistake changes nothing.
        let store_error = |source| StartError::Store { path: config.store.to_string(), source };
        let store = open_store(&config.store, &clock).await?.map_err(store_error)?;
        let state = match config.state.clone() {
            Some(folder) => Some(aside(move || StateDir::open(&folder)).await??),
            None => None,
        };
        let catalog = Arc::new(Catalog::open(&config.policies, state, config.bindings(), Arc::clone(&clock)).await?);
        let recovered = store.recover(owner.clone(), now).await.map_err(store_error)?;
        let open = store.backlog().await.map_err(store_error)?;
        let holds = Arc::new(Holds::new(store.holds(now).await.map_err(store_error)?));

        let ingress_listener = listen("listen", config.listen).await?;
        let admin_listener = listen("admin", config.admin.listen).await?;
        let address_of = |listener: &TcpListener, asked| listener.local_addr().unwrap_or(asked);
        let (listen, admin_address) =
            (address_of(&ingress_listener, config.listen), address_of(&admin_listener, config.admin.listen));

        let stop = CancellationToken::new();
        let stop_rest = CancellationToken::new();
        let (intake, chains, rest) = (TaskTracker::new(), TaskTracker::new(), TaskTracker::new());

        let clients = Arc::new(aside(Clients::new).await??);
        let http = HttpTransport::new(Arc::clone(&clients), Arc::clone(&clock), rest.clone());
        let dialer = Dialer::new(Arc::new(SystemAddresses), clients.tls(), Arc::clone(&clock));
        let transport: Arc<dyn Transport> = Arc::new(Transports::new(http, dialer.clone(), &clock));
        let notifier = Notifier::start(clients, Arc::clone(&clock), &rest, stop_rest.clone());
        let routes = Arc::new(Routes::new(config.routes.clone()));
        let alarms = Arc::new(Alarms::new(routes::served(&config.routes), notifier));
        let watch = Arc::new(Watch::new(config.routes.keys()));
        let attempts = Arc::new(Attempts {
            routes: Arc::clone(&routes),
            catalog: Arc::clone(&catalog),
            transport: Arc::clone(&transport),
            holds: Arc::clone(&holds),
            alarms: Arc::clone(&alarms),
            watch: Arc::clone(&watch),
            clock: Arc::clone(&clock),
        });
        let queue = Queue::new(
            queue::lanes(routes::served(&config.routes), &open, config.max_in_flight),
            Arc::clone(&store),
            Arc::clone(&attempts),
            Arc::clone(&holds),
            Arc::clone(&watch),
            Arc::clone(&clock),
            owner.clone(),
            stop.clone(),
        );
        let queue = Arc::new(queue.with_lease(config.lease));
        say_what_was_left(&routes, &open, recovered);
        let reload = Arc::new(Reload::new(
            config,
            Parts {
                routes: Arc::clone(&routes),
                catalog: Arc::clone(&catalog),
                queue: Arc::clone(&queue),
                alarms: Arc::clone(&alarms),
                watch: Arc::clone(&watch),
                store: Arc::clone(&store),
                clock: Arc::clone(&clock),
            },
        ));

        let agenda = Arc::new(Agenda::default());
        let check_backs = Arc::new(CheckBacks {
            routes: Arc::clone(&routes),
            catalog: Arc::clone(&catalog),
            transport,
            store: Arc::clone(&store),
            queue: Arc::clone(&queue),
            holds: Arc::clone(&holds),
            agenda: Arc::clone(&agenda),
            clock: Arc::clone(&clock),
            owner: owner.clone(),
            lease: config.lease,
        });
        let ingress = Arc::new(Ingress {
            routes: Arc::clone(&routes),
            queue: Arc::clone(&queue),
            attempts,
            holds: Arc::clone(&holds),
            store: Arc::clone(&store),
            watch: Arc::clone(&watch),
            agenda: Arc::clone(&agenda),
            clock: Arc::clone(&clock),
            owner,
            places: Arc::new(Semaphore::new(config.max_in_flight)),
            chains: chains.clone(),
            stop: stop.clone(),
            loopback: listen.ip().is_loopback(),
        });
        let taps = ingress::tapping::start(&config.tapped, &ingress, &dialer, &chains, &stop);
        let ingress = ingress::router(ingress);
        let admin = admin::router(Arc::new(Admin {
            store: Arc::clone(&store),
            queue: Arc::clone(&queue),
            holds,
            alarms: Arc::clone(&alarms),
            routes,
            reload: Arc::clone(&reload),
            catalog: Arc::clone(&catalog),
            watch: Arc::clone(&watch),
            agenda,
            clock: Arc::clone(&clock),
            taps,
            token: config.admin.token.clone(),
        }));
        intake.spawn(listener::serve(
            ingress_listener,
            descriptors.for_callers(),
            ingress,
            Arc::clone(&clock),
            stop.clone(),
        ));
        rest.spawn(listener::serve(
            admin_listener,
            descriptors.for_admin(),
            admin,
            Arc::clone(&clock),
            stop_rest.clone(),
        ));
        rest.spawn({
            let stop = stop_rest.clone();
            async move { catalog.run(stop).await }
        });
        rest.spawn({
            let (clock, stop) = (Arc::clone(&clock), stop_rest.clone());
            async move { alarms.run(&*clock, stop).await }
        });
        rest.spawn(check_backs.run(stop.clone()));
        rest.spawn(sweep(Arc::clone(&store), Arc::clone(&reload), Arc::clone(&clock), stop_rest.clone()));
        let queue = rest.spawn(queue.run(config.shutdown_grace));
        tracing::info!(%listen, admin = %admin_address, routes = config.routes.len(), "backstop is listening");
        Ok(Self {
            listen,
            admin: admin_address,
            watch,
            reload,
            store,
            grace: config.shutdown_grace,
            clock,
            stop,
            stop_rest,
            intake,
            chains,
            rest,
            queue,
        })
    }

    /// Follows the configuration at `path` from now on, which was read from `files`: what changes there takes effect.
    /// To be called once.
    pub fn follow(&self, path: PathBuf, files: Files) {
        let (reload, stop) = (Arc::clone(&self.reload), self.stop.clone());
        self.rest.spawn(async move { reload.follow(&path, files, stop).await });
    }

    /// Has the configuration that is followed read again at once, changed or not.
    pub fn reload(&self) {
        self.reload.ask();
    }

    /// Stops intake, lets what is in flight finish within the grace period, and says what is left.
    pub async fn stop(self) -> Stopped {
        self.stop.cancel();
        self.intake.close();
        self.chains.close();
        let drained = async {
            self.intake.wait().await;
            self.chains.wait().await;
        };
        tokio::select! {
            () = drained => {}
            () = self.clock.sleep(self.grace) => {}
        }
        let unfinished = self.queue.await.unwrap_or(0) + self.chains.len();
        self.stop_rest.cancel();
        self.rest.close();
        tokio::select! {
            () = self.rest.wait() => {}
            () = self.clock.sleep(Duration::from_secs(1)) => {}
        }
        let queued = self.store.backlog().await.map_or(0, |open| open.values().sum());
        if let Err(error) = self.store.close().await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the store did not close cleanly; nothing is lost"
            );
        }
        Stopped { unfinished, queued }
    }
}

/// Runs what reads files at the start, off the async threads.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StartError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StartError::BrokeOff)
}

/// Opens the store.
async fn open_store(url: &StoreUrl, clock: &Arc<dyn Clock>) -> Result<Result<Arc<dyn Store>, StoreError>, StartError> {
    Ok(match url.clone() {
        StoreUrl::Sqlite(path) => {
            aside(move || SqliteStore::open(&path)).await?.map(|store| Arc::new(store) as Arc<dyn Store>)
        }
        StoreUrl::Postgres(target) => {
            PostgresStore::open(&target, Arc::clone(clock)).await.map(|store| Arc::new(store) as Arc<dyn Store>)
        }
    })
}

async fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { key, address, source })
}

/// Tells what an earlier run left, and what no route will take up.
fn say_what_was_left(routes: &Routes, open: &BTreeMap<String, u64>, recovered: u64) {
    if recovered > 0 {
        tracing::info!(messages = recovered, "an earlier run left attempts unfinished; their messages are repeated");
    }
    for (route, count) in open {
        if let Some(why) = routes.standing(route).parks() {
            tracing::warn!(%route, messages = count, why, "messages are parked until their route is served");
        }
    }
}

/// Removes what has ended long enough ago, in small batches.
async fn sweep(store: Arc<dyn Store>, reload: Arc<Reload>, clock: Arc<dyn Clock>, stop: CancellationToken) {
    loop {
        tokio::select! {
            // What is kept for less than that need not wait for so long.
            () = clock.sleep(reload.retention().shortest().clamp(SWEEP_AT_MOST_EVERY, SWEEP_EVERY)) => {}
            () = stop.cancelled() => return,
        }
        loop {
            match store.sweep(reload.retention(), clock.now(), SWEEP_AT_ONCE).await {
                Ok(removed) if removed >= u64::from(SWEEP_AT_ONCE) && !stop.is_cancelled() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "could not remove what has ended");
                    break;
                }
            }
        }
    }
}
