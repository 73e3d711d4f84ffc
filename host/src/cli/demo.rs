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
mod play;

use std::collections::BTreeSet;
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
use crate::config::{Config, Route, Secret, Surroundings};
use crate::dispatch::HostClient;
use crate::engine::Engine;

use board::Board;
use ink::{Ink, Line, Paper};
use play::System;
use screen::{Screen, Size};
use stage::Checkout;
use summary::{Account, Circumstances};
use traffic::Traffic;
use vendors::Vendors;
use watching::{Interrupt, SENDING, View, Watching};

/// The routes.
const ROUTES: &str = include_str!("../../examples/demo.yaml");
/// How a mistake in them would be shown.
const ROUTES_FILE: &str = "host/examples/demo.yaml";
/// How long callers that still wait are given at the end: as long as the longest deadline among the routes, and some.
const LAST_CALLERS: Duration = Duration::from_secs(4);

#[derive(clap::Args, Debug)]
pub(super) struct Demo {
    /// Play one system in numbered steps instead, each checked against what its vendors recorded.
    #[arg(long, value_enum, value_name = "NAME")]
    system: Option<System>,
    /// The RabbitMQ of `--system scan-platform`, by default amqp://guest:guest@127.0.0.1:5672/%2F. The play has queues of
    /// its own there, and deletes them.
    // Whatever it is, it is read later: clap would quote it, and it may hold a password.
    #[arg(long, value_name = "URL", requires = "system", value_parser = secret)]
    broker: Option<Secret>,
    /// How long it may take, from the first message to the last, 5s to 10m. Messages are sent for the first part of it.
    #[arg(long = "for", value_name = "TIME", default_value = "20s", value_parser = length, conflicts_with = "system")]
    length: Duration,
    /// Another seed gives other pauses between requests; the same one, the same.
    #[arg(long, default_value_t = 1, conflicts_with = "system")]
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

fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

impl Demo {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let paper = match !self.plain && std::io::stdout().is_terminal() {
            true => Paper { coloured: true, width: Size::of_terminal().await.width },
            false => Paper::PLAIN,
        };
        if let Some(system) = self.system {
            return play::run(system, self.broker, paper).await;
        }
        let checkout = Checkout::find(&std::env::current_dir().context("failed to find the current folder")?)?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let vendors = Vendors::start(&tasks, &stop).await?;
        let folder = tempfile::tempdir().context("failed to make a temporary folder")?;
        let surroundings = DemoSurroundings { vendors: &vendors, policies: checkout.policies() };
        let config = Config::parse_in(ROUTES, Path::new(ROUTES_FILE), folder.path(), &surroundings)?;

        let title = "Failing vendors, judged by sandboxed WebAssembly policies, all on loopback.";
        paper.say(&Line::of(Ink::Bold, title));
        build_policies(&checkout, &config, paper, &heading(1, "policies")).await?;
        step(paper, 2, "vendors", format!("{} that misbehave, each in its own way", vendors.count()));
        let engine = Engine::start(&config).await?;
        let (listen, admin) = (engine.listen, engine.admin);
        step(paper, 3, "host", format!("messages to http://{listen}, admin API at http://{admin}"));
        let [send, rest] = [SENDING, 1.0 - SENDING].map(|share| self.length.mul_f64(share).as_secs_f64());
        let what = format!("some 50 messages a second for {send:.0}s, then up to {rest:.0}s to finish");
        step(paper, 4, "traffic", what);

        let mut interrupt = Interrupt::listen()?;
        let told = self.play(&engine, &config, &vendors, paper, &mut interrupt).await;
        stop.cancel();
        let stopped = async {
            engine.stop().await;
            tasks.close();
            tasks.wait().await;
        };
        tokio::select! {
            () = stopped => told,
            () = interrupt.next() => Ok(ExitCode::from(130)),
        }
    }

    /// Sends, watches, and accounts for everything.
    async fn play(
        &self,
        engine: &Engine,
        config: &Config,
        vendors: &Vendors,
        paper: Paper,
        interrupt: &mut Interrupt,
    ) -> anyhow::Result<ExitCode> {
        let client = |address| anyhow::Ok(HostClient::new(Url::parse(&format!("http://{address}"))?, None)?);
        let admin = client(engine.admin)?;
        let mut view = if paper.coloured { View::Screen(Screen::take(Size::of_terminal().await)) } else { View::Plain };
        let policy = |route: &Route| route.policy.as_ref().map(|binding| binding.name.clone());
        let routes = config.routes.values().map(|route| (route.name.to_string(), policy(route)));
        let mut board = Board::new(routes, self.length, view.pace());
        let feed = engine.watch.subscribe();
        let traffic = Traffic::start(&Arc::new(client(engine.listen)?), self.seed);
        let since = Stopwatch::start();
        let watching = Watching { engine, admin: &admin, traffic: &traffic, feed, since };
        let watched = watching.run(&mut board, &mut view, interrupt).await;
        // The first screen is given back before anything else is said, an error included.
        drop(view);
        let interrupted = watched?;
        let elapsed = since.elapsed();

        if interrupted {
            let text = "ended early; callers that still wait get their answers (Ctrl-C again exits at once)";
            paper.say(&Line::of(Ink::Faint, text));
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
            policies: &board.policies,
            missed: board.missed,
            notices: &vendors.notices(),
        };
        summary::lines(&account, &circumstances).iter().for_each(|line| paper.say(line));
        Ok(if account.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Tells which step begins.
fn step(paper: Paper, number: u8, name: &str, what: String) {
    paper.say(&heading(number, name).then(Ink::Plain, what));
}

/// How a step begins.
fn heading(number: u8, name: &str) -> Line {
    Line::of(Ink::Host, format!("{number}/4 ")).then(Ink::Bold, format!("{name:<9} "))
}

/// Builds the policies that the routes name, where they are missing or older than their sources, and tells so under
/// `heading`.
async fn build_policies(checkout: &Checkout, config: &Config, paper: Paper, heading: &Line) -> anyhow::Result<()> {
    let tell = |what: String| paper.say(&heading.clone().then(Ink::Plain, what));
    let policies = config.routes.values().filter_map(|route| route.policy.as_ref());
    let names: BTreeSet<String> = policies.map(|policy| policy.name.clone()).collect();
    let names = Vec::from_iter(names);
    if names.is_empty() {
        tell("none: the standard rule, built into the host, judges".to_owned());
        return Ok(());
    }
    let stale = checkout.stale(&names)?;
    if stale.is_empty() {
        tell(format!("{} (built before)", names.join(", ")));
        return Ok(());
    }
    tell(format!("building {}; cargo says:", stale.join(", ")));
    let (checkout, since) = (checkout.clone(), Stopwatch::start());
    let built = tokio::task::spawn_blocking(move || {
        checkout.build(&stale, &mut |line| {
            let _ = writeln!(std::io::stderr(), "              {line}");
        })
    });
    built.await.context("the build broke off")??;
    paper.say(&Line::of(Ink::Plain, format!("              built in {:.0}s", since.elapsed().as_secs_f64())));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_routes_can_be_read_and_every_one_that_is_sent_to_is_there() {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let vendors = Vendors::start(&tasks, &stop).await.unwrap();
        let surroundings = DemoSurroundings { vendors: &vendors, policies: PathBuf::from("policies") };
        let config = Config::parse_in(ROUTES, Path::new(ROUTES_FILE), Path::new("."), &surroundings).unwrap();
        for route in traffic::routes() {
            assert!(config.routes.contains_key(route), "{route}");
        }
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    }

    #[test]
    fn a_length_is_written_as_people_do() {
        assert_eq!(length("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(length("1m30s"), Ok(Duration::from_secs(90)));
        for bad in ["", "20", "4s", "11m", "-20s", "soon"] {
            assert!(length(bad).is_err(), "{bad}");
        }
    }
}
