//! One contestant's turn: the same sink, the same load, and what became of every message.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::contestant::{Artefacts, Contestant, Kind};
use crate::ledger::{Account, Ledger, percentile};
use crate::load::{self, Load};
use crate::process::Usage;
use crate::sink::Sink;

/// How long the bench waits for a message to arrive while none does, before it counts what is missing as lost.
const STALLED: Duration = Duration::from_secs(15);

/// The modest load under which latency is compared: so many requests a second, over so many connections, for so long.
const MODEST: (u32, usize, usize) = (500, 8, 6);

/// What a turn came to.
pub(crate) struct Result {
    /// Whose it was.
    pub(crate) kind: Kind,
    /// The figures, or why there are none.
    pub(crate) figures: std::result::Result<Figures, String>,
}

/// Rates are per second, times in milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// Answered to the sender: accepted, or for those who wait, answered.
    pub(crate) accepted: f64,
    /// Arrived at the sink.
    pub(crate) delivered: f64,
    /// From acceptance to delivery; for those who wait, from request to answer under full load.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// For those who wait: from request to answer under a modest load.
    pub(crate) modest: Option<(f64, f64)>,
    /// Processor seconds per 1,000 messages.
    pub(crate) cpu: f64,
    /// Resident memory at its peak, in bytes.
    pub(crate) memory: u64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    pub(crate) refused: u64,
}

impl Result {
    /// Whether this turn went better than an earlier one of the same contestant. One in which a message was lost
    /// hides behind no other.
    pub(crate) fn is_better_than(&self, other: &Self) -> bool {
        match (&self.figures, &other.figures) {
            (Ok(own), Ok(known)) => {
                own.lost > known.lost || (own.lost == known.lost && own.delivered > known.delivered)
            }
            _ => false,
        }
    }
}

/// Gives `kind` its turn.
///
/// # Errors
/// When it does not come up, or stops taking messages.
pub(crate) fn run(
    kind: Kind,
    messages: usize,
    connections: usize,
    place: &Path,
    artefacts: &Artefacts,
) -> anyhow::Result<Result> {
    let warm_up = messages.div_ceil(20);
    let modest = if kind.is_async() { 0 } else { MODEST.0 as usize * MODEST.2 };
    let ledger = Arc::new(Ledger::new(warm_up + messages + modest));
    let sink = Sink::start(Arc::clone(&ledger), 1, 0)?;
    let contestant = match Contestant::start(kind, sink.address(), place, artefacts)? {
        Ok(contestant) => contestant,
        Err(why) => return Ok(Result { kind, figures: Err(why) }),
    };
    let mut load = Load {
        to: contestant.address,
        paths: Arc::new(vec![contestant.path.clone()]),
        messages: 0..warm_up,
        connections,
        per_second: None,
    };
    let mut turn = Turn { ledger: &ledger, contestant: &contestant };
    turn.carry(&load)?;
    load.messages = warm_up..warm_up + messages;
    let (account, used, met) = turn.carry(&load)?;
    let modest = if modest > 0 {
        let from = warm_up + messages;
        let load = Load { messages: from..from + modest, connections: MODEST.1, per_second: Some(MODEST.0), ..load };
        let (account, _, _) = turn.carry(&load)?;
        Some((percentile(&account.waits, 0.5), percentile(&account.waits, 0.99)))
    } else {
        None
    };
    let times = if kind.is_async() { &account.journeys } else { &account.waits };
    Ok(Result {
        kind,
        figures: Ok(Figures {
            accepted: account.answered_per_second(),
            delivered: account.arrived_per_second(),
            p50: percentile(times, 0.5),
            p99: percentile(times, 0.99),
            modest,
            cpu: used.cpu * 1000.0 / messages.max(1) as f64,
            memory: used.peak,
            lost: account.lost,
            repeated: account.repeated,
            refused: met.refused + met.broken,
        }),
    })
}

/// A contestant under load.
pub(crate) struct Turn<'t> {
    pub(crate) ledger: &'t Arc<Ledger>,
    pub(crate) contestant: &'t Contestant,
}

impl Turn<'_> {
    /// Sends what `load` says, waits until everything has arrived, and answers what became of it and what it cost.
    ///
    /// # Errors
    /// When a message is not taken.
    pub(crate) fn carry(&mut self, load: &Load) -> anyhow::Result<(Account, Usage, load::Met)> {
        let before = self.contestant.usage();
        let arrived_before = self.ledger.arrived_in_all();
        let met = load::run(load, self.ledger)?;
        self.await_arrivals(arrived_before + load.messages.len() as u64);
        // What is done after a delivery belongs to it: the bench waits until the contestant has come to rest.
        let used = self.at_rest();
        let account = self.ledger.account(load.messages.clone());
        Ok((account, Usage { cpu: used.cpu - before.cpu, ..used }, met))
    }

    fn await_arrivals(&self, all: u64) {
        let mut seen = (self.ledger.arrived_in_all(), clock::nanos());
        while seen.0 < all && clock::seconds(seen.1, clock::nanos()) < STALLED.as_secs_f64() {
            clock::pause(Duration::from_millis(2));
            let arrived = self.ledger.arrived_in_all();
            if arrived > seen.0 {
                seen = (arrived, clock::nanos());
            }
        }
    }

    fn at_rest(&self) -> Usage {
        let mut used = self.contestant.usage();
        clock::wait_until(Duration::from_secs(3), || {
            clock::pause(Duration::from_millis(150));
            let before = std::mem::replace(&mut used, self.contestant.usage());
            used.cpu - before.cpu < 0.015
        });
        used
    }
}
