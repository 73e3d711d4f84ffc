//! A backlog of delayed messages, over one route or many: what does it cost those that are due, the memory, and the
//! start?
//!
//! The backlog comes in through the ingress like any message: each is attempted once, answered 503, and delayed by its
//! policy for twenty hours.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::clock;
use crate::contestant::{Artefacts, Contestant, HostSetup, free_address};
use crate::ledger::{Ledger, percentile};
use crate::load::{self, Load};
use crate::sink::Sink;
use crate::table::megabytes;
use crate::trial::Turn;

/// The most memory with a million delayed messages, in bytes: 256 MB.
const MEMORY: u64 = 256_000_000;
/// How long the start may take with them, in seconds.
const START: f64 = 2.0;
/// By how much deliveries may be slower than without them.
const SLOWER: f64 = 0.2;
/// How often what is due is measured, for the best of it.
const TIMES: usize = 3;

struct Row {
    backlog: usize,
    routes: usize,
    delivered: f64,
    p99: f64,
    cpu: f64,
    start: f64,
    memory: u64,
}

/// Measures up to `most` delayed messages, and prints a table.
///
/// # Errors
/// When the host does not come up, or does not take a message.
pub(crate) fn run(
    most: usize,
    messages: usize,
    connections: usize,
    place: &Path,
    artefacts: &Artefacts,
) -> anyhow::Result<()> {
    println!(
        "| backlog | routes | delivered/s | p99 accept → delivery | CPU s per 1,000 | start to listening | peak memory |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    let measure = |backlog, routes| -> anyhow::Result<Row> {
        let row = once(backlog, routes, messages, connections, place, artefacts)?;
        println!(
            "| {} | {} | {:.0} | {:.2} ms | {:.3} | {:.2} s | {} |",
            row.backlog,
            row.routes,
            row.delivered,
            row.p99,
            row.cpu,
            row.start,
            megabytes(row.memory)
        );
        Ok(row)
    };
    let empty = measure(0, 1)?;
    measure(0, 10)?;
    measure(0, 1000)?;
    measure(most / 100, 1)?;
    measure(most / 10, 1)?;
    let full = measure(most, 1)?;
    measure(most / 10, 1000)?;
    println!("\n| target | measured | |\n|---|---:|---|");
    let share = full.delivered / empty.delivered;
    let say = |name: &str, value: String, met: bool| {
        println!("| {name} | {value} | {} |", if met { "met" } else { "**missed**" })
    };
    say("delivered/s with the backlog, of without: 0.8 or more", format!("{share:.2}"), share >= 1.0 - SLOWER);
    say("memory with it: under 256 MB", megabytes(full.memory), full.memory < MEMORY);
    say("start with it: under 2 s", format!("{:.2} s", full.start), full.start < START);
    Ok(())
}

fn once(
    backlog: usize,
    routes: usize,
    messages: usize,
    connections: usize,
    place: &Path,
    artefacts: &Artefacts,
) -> anyhow::Result<Row> {
    let ledger = Arc::new(Ledger::new(messages * TIMES));
    let sink = Sink::start(Arc::clone(&ledger), 1, 0)?;
    let folder = TempDir::new_in(place)?;
    let launch = || -> anyhow::Result<Contestant> {
        let listen = free_address()?;
        let command = HostSetup::new(vec![sink.address(); routes]).command(folder.path(), listen, artefacts)?;
        Contestant::launch(command, listen, String::new(), None)
    };
    let mut host = launch()?;
    if backlog > 0 {
        let delayed = Load {
            to: host.address,
            paths: Arc::new((0..routes).map(|route| format!("/r/route-{route}/later")).collect()),
            // Beyond what the ledger counts.
            messages: messages * TIMES..messages * TIMES + backlog,
            connections,
            per_second: None,
        };
        let from = clock::nanos();
        load::run(&delayed, &ledger)?;
        eprintln!(
            "{backlog} delayed messages over {routes} routes came in within {:.0} s",
            clock::seconds(from, clock::nanos())
        );
        clock::pause(Duration::from_secs(2));
    }
    host.stop();
    // Once unmeasured: a policy is compiled at its first start.
    let from = clock::nanos();
    let host = launch()?;
    let start = clock::seconds(from, clock::nanos());

    let mut best: Option<Row> = None;
    for turn in 0..TIMES {
        let due = Load {
            to: host.address,
            paths: Arc::new((0..routes).map(|route| format!("/r/route-{route}/")).collect()),
            messages: turn * messages..(turn + 1) * messages,
            connections,
            per_second: None,
        };
        let (account, used, _) = Turn { ledger: &ledger, contestant: &host }.carry(&due)?;
        anyhow::ensure!(account.lost == 0, "{} messages were lost", account.lost);
        let row = Row {
            backlog,
            routes,
            delivered: account.arrived_per_second(),
            p99: percentile(&account.journeys, 0.99),
            cpu: used.cpu * 1000.0 / messages.max(1) as f64,
            start,
            memory: used.peak,
        };
        if best.as_ref().is_none_or(|best| row.delivered > best.delivered) {
            best = Some(row);
        }
    }
    best.ok_or_else(|| anyhow::anyhow!("nothing was measured"))
}
