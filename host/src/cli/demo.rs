//! `backstop demo`: failing vendors, classified by policies, retried, answered by a fallback or dead-lettered, live.
//!
//! Nothing here is staged but the vendors' failures: the policies are built from their sources, the host is the one
//! that `serve` runs, requests go through its sockets, and at the end every message is accounted for by the host's own
//! API and by the vendors' own records.

mod stage;
mod vendors;
mod traffic;
mod ink;
mod board;
mod asking;
mod screen;
mod watching;
mod summary;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::clock::Stopwatch;
use crate::config::{Config, Surroundings};
use crate::dispatch::HostClient;
use crate::engine::Engine;

use board::Board;
use ink::{Ink, Line};
use screen::{Screen, Size};
use stage::Checkout;
use summary::{Account, Circumstances};
use traffic::Traffic;
use vendors::Vendors;
use watching::{Interrupt, SENDING, View, Watching, say};

/// The routes.
const ROUTES: &str = include_str!("../../examples/demo.yaml");
/// How a mistake in them would be shown.
const ROUTES_FILE: &str = "host/examples/demo.yaml";
/// How long callers that still wait are given at the end: as long as the longest deadline among the routes, and some.
const LAST_CALLERS: Duration = Duration::from_secs(4);

#[derive(clap::Args, Debug)]
pub(super) struct Demo {
    /// How long it may take, from the first message to the last, 5s to 10m. Messages are sent for the first part of it.
    #[arg(long = "for", value_name = "TIME", default_value = "20s", value_parser = length)]
    length: Duration,
    /// Another seed gives other pauses between requests; the same one, the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Tell what happens line by line, without colours, as is done where there is no terminal.
    #[arg(long)]
    plain: bool,
}

fn length(text: &str) -> Result<Duration, String> {
    let length = text.parse::<jiff::SignedDuration>().ok().and_then(|length| Duration::try_from(length).ok());
    match length {
        Some(length) if (Duration::from_secs(5)..=Duration::from_secs(600)).contains(&length) => Ok(length),
        _ => Err("write a time from 5s to 10m, such as 20s or 1m30s".to_owned()),
    }
}

impl Demo {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let coloured = !self.plain && std::io::stdout().is_terminal();
        let checkout = Checkout::find(&std::env::current_dir().context("failed to find the current folder")?)?;
        say(&Line::of(Ink::Bold, "Failing vendors, judged by sandboxed WebAssembly policies. All of it runs here, on loopback."), coloured);

        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let vendors = Vendors::start(&tasks, &stop).await?;
        let folder = tempfile::tempdir().context("failed to make a temporary folder")?;
        let surroundings = DemoSurroundings { vendors: &vendors, policies: checkout.policies() };
        let config = Config::parse_in(ROUTES, Path::new(ROUTES_FILE), folder.path(), &surroundings)?;
        step(coloured, 1, "policies", "");
        build_policies(&checkout, &config, coloured).await?;
        step(coloured, 2, "vendors", &format!("{} that misbehave, each in its own way", vendors.count()));
        let engine = Engine::start(&config).await?;
        let store = folder.path().join("demo.db");
        step(coloured, 3, "host", &format!("messages at http://{}, admin API at http://{}, store {}", engine.listen, engine.admin, store.display()));
        let (send, rest) = (self.length.mul_f64(SENDING), self.length.mul_f64(1.0 - SENDING));
        let (send, rest) = (send.as_secs_f64(), rest.as_secs_f64());
        step(coloured, 4, "traffic", &format!("about 50 messages a second for {send:.0}s, then up to {rest:.0}s for those that wait"));

        let mut interrupt = Interrupt::listen()?;
        let told = self.play(&engine, &config, &vendors, coloured, &mut interrupt);
        let told = told.await;
        stop.cancel();
        let stopped = async {
            engine.stop().await;
            tasks.close();
            tasks.wait().await;
        };
        tokio::select! {
            () = stopped => {}
            () = interrupt.next() => return Ok(ExitCode::from(130)),
        }
        told
    }

    /// Sends, watches, and accounts for everything.
    async fn play(
        &self,
        engine: &Engine,
        config: &Config,
        vendors: &Vendors,
        coloured: bool,
        interrupt: &mut Interrupt,
    ) -> anyhow::Result<ExitCode> {
        let client = |address| anyhow::Ok(HostClient::new(Url::parse(&format!("http://{address}"))?, None)?);
        let admin = client(engine.admin)?;
        let feed = engine.watch.subscribe();
        let mut view =
            if coloured { View::Screen(Screen::take(Size::of_terminal().await)) } else { View::Plain };
        let routes = config.routes.values().map(|route| {
            (route.name.to_string(), route.policy.as_ref().map(|binding| binding.name.clone()))
        });
        let mut board = Board::new(routes, self.length, view.pace());
        let traffic = Traffic::start(&Arc::new(client(engine.listen)?), self.seed);
        let since = Stopwatch::start();
        let watching = Watching { engine, admin: &admin, traffic: &traffic, feed, since };
        let watched = watching.run(&mut board, &mut view, interrupt).await;
        // The first screen is given back before anything else is said, an error included.
        drop(view);
        let interrupted = watched?;
        let elapsed = since.elapsed();

        if interrupted {
            say(&Line::of(Ink::Faint, "ended early; waiting for callers that still wait (Ctrl-C again exits at once)"), coloured);
        }
        let account = async {
            let sent = traffic.finish(LAST_CALLERS).await;
            let known = asking::fates(&admin, &sent).await?;
            anyhow::Ok(Account::of(&sent, &known, &vendors.records()))
        };
        let account = tokio::select! {
            account = account => account?,
            () = interrupt.next() => return Ok(ExitCode::from(130)),
        };
        let circumstances = Circumstances {
            elapsed,
            interrupted,
            failures: &board.failures,
            missed: board.missed,
            notices: &vendors.notices(),
        };
        for line in summary::lines(&account, &circumstances) {
            say(&line, coloured);
        }
        Ok(if account.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Tells which step begins.
fn step(coloured: bool, number: u8, name: &str, what: &str) {
    say(&Line::of(Ink::Host, format!("{number}/4 ")).then(Ink::Bold, format!("{name:<9} ")).then(Ink::Plain, what), coloured);
}

/// Builds the policies that the routes name, where they are missing or older than their sources.
async fn build_policies(checkout: &Checkout, config: &Config, coloured: bool) -> anyhow::Result<()> {
    let mut names: Vec<String> =
        config.routes.values().filter_map(|route| route.policy.as_ref().map(|policy| policy.name.clone())).collect();
    names.sort();
    names.dedup();
    let tell = |text: String| say(&Line::of(Ink::Plain, format!("              {text}")), coloured);
    let stale = checkout.stale(&names)?;
    if stale.is_empty() {
        tell(format!("{} are up to date", names.join(", ")));
        return Ok(());
    }
    tell(format!("building {}", stale.join(", ")));
    let (checkout, since) = (checkout.clone(), Stopwatch::start());
    let built = tokio::task::spawn_blocking(move || {
        checkout.build(&stale, &mut |line| {
            let _ = writeln!(std::io::stderr(), "              {line}");
        })
    });
    built.await.context("the build broke off")??;
    tell(format!("built in {:.1}s", since.elapsed().as_secs_f64()));
    Ok(())
}

/// What `${env:…}` stands for in the demo's routes: never the machine's own environment.
struct DemoSurroundings<'a> {
    vendors: &'a Vendors,
    policies: PathBuf,
}

impl Surroundings for DemoSurroundings<'_> {
    fn variable(&self, name: &str) -> Result<Option<String>, String> {
        Ok(match name {
            "POLICIES" => Some(self.policies.to_string_lossy().into_owned()),
            "CRM_SECRET" => Some(vendors::CLIENT_SECRET.to_owned()),
            _ => self.vendors.variable(name),
        })
    }

    fn file(&self, _path: &Path, _limit: usize) -> std::io::Result<Vec<u8>> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}
