//! Contestants (a) and (b): the least that relays a message from a caller to a destination.
//!
//! Both take a request with axum, hand it over a bounded channel, and send it on with reqwest. The bare one answers 202
//! as soon as the message is in the channel. The durable one writes it down first, and writes down that it went, each
//! in a commit shared with whatever else waits. Neither retries, limits, judges or logs anything.

mod journal;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use bytes::Bytes;
use http::StatusCode;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use journal::Journal;

/// Messages in the channel.
const WAITING: usize = 1024;
/// Deliveries at once: as many as Backstop makes to one destination.
const AT_ONCE: usize = 64;

/// Runs a relay until it is killed.
#[derive(clap::Args, Debug)]
pub(crate) struct Relay {
    /// Where it listens.
    #[arg(long)]
    listen: SocketAddr,
    /// Where it delivers to.
    #[arg(long)]
    to: String,
    /// The SQLite file of the durable one.
    #[arg(long)]
    journal: Option<PathBuf>,
}

struct Parcel {
    /// What the journal knows it by.
    number: Option<i64>,
    body: Bytes,
}

#[derive(Clone)]
struct Intake {
    channel: mpsc::Sender<Parcel>,
    journal: Option<Journal>,
}

impl Relay {
    /// # Errors
    /// When it cannot listen or open its file.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        tokio::runtime::Runtime::new()?.block_on(self.serve())
    }

    async fn serve(self) -> anyhow::Result<()> {
        let journal = self.journal.as_deref().map(Journal::open).transpose()?;
        let (channel, parcels) = mpsc::channel(WAITING);
        let tasks = TaskTracker::new();
        tasks.spawn(deliver(parcels, self.to, journal.clone(), tasks.clone())?);
        let router = Router::new().fallback(take).with_state(Intake { channel, journal });
        let listener = tokio::net::TcpListener::bind(self.listen).await.context("failed to listen")?;
        axum::serve(axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true))), router)
            .await
            .context("failed to serve")
    }
}

async fn take(State(intake): State<Intake>, body: Bytes) -> StatusCode {
    let number = match &intake.journal {
        Some(journal) => match journal.accept(body.clone()).await {
            Some(number) => Some(number),
            None => return StatusCode::SERVICE_UNAVAILABLE,
        },
        None => None,
    };
    match intake.channel.send(Parcel { number, body }).await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn deliver(
    mut parcels: mpsc::Receiver<Parcel>,
    to: String,
    journal: Option<Journal>,
    tasks: TaskTracker,
) -> anyhow::Result<impl Future<Output = ()>> {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let client =
        reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().pool_max_idle_per_host(AT_ONCE).build()?;
    let places = Arc::new(Semaphore::new(AT_ONCE));
    Ok(async move {
        while let Some(parcel) = parcels.recv().await {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (client, to, journal) = (client.clone(), to.clone(), journal.clone());
            tasks.spawn(async move {
                let request =
                    client.post(to).header(http::header::CONTENT_TYPE, "application/json").body(parcel.body.clone());
                let delivered = match request.send().await {
                    Ok(response) if response.status().is_success() => response.bytes().await.is_ok(),
                    _ => false,
                };
                if let (Some(journal), Some(number), true) = (journal, parcel.number, delivered) {
                    journal.delivered(number).await;
                }
                drop(place);
            });
        }
    })
}
