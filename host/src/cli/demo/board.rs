//! What is known while the demo runs: counts by route, kinds of failure, holds, alarms, and the latest events worth
//! telling.
//!
//! It is fed from the host's own feed and API, and draws nothing: the screen and the plain log read it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use crate::message::{AttemptRecord, Provenance, VerdictKind};
use crate::watch::{Event, Totals};

use super::ink::{Ink, Line};

/// Events kept for the screen.
const LATEST: usize = 60;
/// Kinds of failure told apart; further ones are counted under none.
const KINDS: usize = 200;
/// Questions to policies whose time is kept.
const SAMPLES: usize = 50_000;

/// What is known now.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// Since the first message.
    pub(super) elapsed: Duration,
    /// How long the demo may take.
    pub(super) whole: Duration,
    /// Whether messages are still being sent.
    pub(super) sending: bool,
    /// By route, in the order of the configuration.
    pub(super) rows: Vec<Row>,
    /// The alarms that fire now: the route, and what is wrong.
    pub(super) alarms: BTreeMap<String, String>,
    /// The latest events worth telling, oldest first.
    pub(super) latest: VecDeque<Line>,
    /// What went wrong, by kind.
    pub(super) failures: BTreeMap<Kind, Failure>,
    /// What the policies were asked.
    pub(super) policies: Questions,
    /// Events that were not seen, because looking on was too slow.
    pub(super) missed: u64,
    /// Events that were worth telling, but too many.
    pub(super) untold: u64,
    chooser: Chooser,
}

/// A route's row.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    /// The route.
    pub(super) route: String,
    /// Its policy; none leaves it to the standard rule.
    pub(super) policy: Option<String>,
    /// Messages sent to it by the demo.
    pub(super) sent: u64,
    /// What the host counted.
    pub(super) totals: Totals,
    /// Messages that wait or are being attempted.
    pub(super) open: u64,
    /// How much longer its destination is held.
    pub(super) held: Option<Duration>,
    /// The last verdict.
    pub(super) last: Line,
}

/// What the policies were asked, and what that cost.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Questions {
    /// Attempts that a policy was asked about.
    pub(super) asked: u64,
    /// Of those: it gave no usable answer.
    pub(super) failed: u64,
    /// How long each took, in nanoseconds; the first [`SAMPLES`] of them.
    took_ns: Vec<u64>,
}

impl Questions {
    /// How long half of them took at most.
    pub(super) fn median(&self) -> Duration {
        let mut took = self.took_ns.clone();
        took.sort_unstable();
        Duration::from_nanos(took.get(took.len() / 2).copied().unwrap_or_default())
    }

    fn note(&mut self, provenance: &Provenance) {
        if provenance.policy.is_some() {
            self.asked += 1;
            self.failed += u64::from(provenance.failure.is_some());
            if self.took_ns.len() < SAMPLES {
                self.took_ns.push(provenance.took_ns);
            }
        }
    }
}

/// A kind of failure.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Kind {
    /// On which route.
    pub(super) route: String,
    /// What happened: `503 Service Unavailable`, `timeout`.
    pub(super) outcome: String,
    /// What was then done: the transition's name, or `reauthenticate`.
    pub(super) then: String,
    /// Why, without the figures that make each reason another.
    pub(super) why: String,
}

/// How often a kind of failure came.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Failure {
    /// So often.
    pub(super) count: u64,
    /// The reason given the first time.
    pub(super) reason: String,
}

impl Board {
    /// A board for routes with their policies. Of events of one kind, one in `gap` is told, and `per_second` in all.
    pub(super) fn new(routes: impl Iterator<Item = (String, Option<String>)>, whole: Duration, pace: Pace) -> Self {
        Self {
            whole,
            sending: true,
            rows: routes.map(|(route, policy)| Row { route, policy, ..Row::default() }).collect(),
            chooser: Chooser { pace, ..Chooser::default() },
            ..Self::default()
        }
    }

    /// Takes note of an event, and answers the line to be told of it, if it is worth one now.
    pub(super) fn note(&mut self, event: &Event) -> Option<Line> {
        let (kind, line) = match event {
            Event::Attempt { record, .. } => {
                let kind = kind(record);
                self.policies.note(&record.provenance);
                if record.verdict != VerdictKind::Accept {
                    self.count_failure(&kind, &record.reason);
                }
                if let Some(row) = self.rows.iter_mut().find(|row| row.route == record.route) {
                    row.last = Line::of(consequence(record).0, shortest(record));
                }
                // What goes well at once is not news.
                if record.verdict == VerdictKind::Accept && record.number <= 1 {
                    return None;
                }
                (kind, self.begin(&record.route).append(&told(record)))
            }
            // Every end but this one is told with the attempt that led to it.
            Event::Ended { .. } => return None,
        };
        self.tell(kind, line)
    }

    /// Takes note of something that is always told.
    pub(super) fn announce(&mut self, ink: Ink, who: &str, text: &str) -> Line {
        let line = self.begin(who).then(ink, text);
        self.keep(line.clone());
        line
    }

    /// The row of `route`.
    pub(super) fn row_mut(&mut self, route: &str) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.route == route)
    }

    /// Messages sent, and messages that wait.
    pub(super) fn sent_and_open(&self) -> (u64, u64) {
        self.rows.iter().fold((0, 0), |(sent, open), row| (sent + row.sent, open + row.open))
    }

    fn begin(&self, who: &str) -> Line {
        Line::of(Ink::Faint, format!("{:5.1}s  ", self.elapsed.as_secs_f64())).then(Ink::Bold, format!("{who:<14} "))
    }

    fn count_failure(&mut self, kind: &Kind, reason: &str) {
        if let Some(failure) = self.failures.get_mut(kind) {
            failure.count += 1;
        } else if self.failures.len() < KINDS {
            self.failures.insert(kind.clone(), Failure { count: 1, reason: reason.to_owned() });
        }
    }

    fn tell(&mut self, kind: Kind, line: Line) -> Option<Line> {
        if !self.chooser.choose(kind, self.elapsed) {
            self.untold += 1;
            return None;
        }
        self.keep(line.clone());
        Some(line)
    }

    fn keep(&mut self, line: Line) {
        if self.latest.len() >= LATEST {
            self.latest.pop_front();
        }
        self.latest.push_back(line);
    }
}

/// An attempt in a line: which it was, what happened, what was done about it, and why.
pub(super) fn told(record: &AttemptRecord) -> Line {
    let (ink, then) = consequence(record);
    Line::of(Ink::Plain, format!("#{:<2} ", record.number))
        .then(ink, format!("{} → {then}", short(record)))
        .then(Ink::Faint, why(record))
}

fn kind(record: &AttemptRecord) -> Kind {
    let then = match record.verdict {
        VerdictKind::Reauthenticate if record.transition == "retry" => "reauthenticate".to_owned(),
        _ => record.transition.clone(),
    };
    let why = record.reason.replace(|c: char| c.is_ascii_digit(), "");
    Kind { route: record.route.clone(), outcome: record.outcome.to_string(), then, why }
}

/// Why, and what the envelope made of a retry; nothing for what went well.
fn why(record: &AttemptRecord) -> String {
    match (record.verdict, record.transition.as_str()) {
        (VerdictKind::Accept, _) => String::new(),
        (_, "retry") if !record.clamped.is_empty() => format!("  {}; {}", record.reason, record.clamped.join(", ")),
        _ => format!("  {}", record.reason),
    }
}

/// What happened, in a few words.
fn short(record: &AttemptRecord) -> String {
    if record.outcome.status.is_none() && record.outcome.fault.is_none() {
        return "not attempted".to_owned();
    }
    record.outcome.to_string()
}

/// What happened and what was done about it, in two words: `503 → retry`.
fn shortest(record: &AttemptRecord) -> String {
    let then = match (record.transition.as_str(), record.verdict) {
        ("delivered", _) => "delivered",
        ("retry", VerdictKind::Reauthenticate) => "fresh token",
        ("retry", _) => "retry",
        ("answered", _) => "fallback",
        ("rerouted", _) => "other route",
        ("dead_letter", _) => "dead letter",
        (other, _) => other,
    };
    match (record.outcome.status, record.outcome.fault) {
        (Some(status), _) => format!("{status} → {then}"),
        (None, Some(fault)) => format!("{fault} → {then}"),
        (None, None) => then.to_owned(),
    }
}

/// What was done about it, in a few words, and its colour.
fn consequence(record: &AttemptRecord) -> (Ink, String) {
    match (record.transition.as_str(), record.verdict, record.delay_ms) {
        ("delivered", ..) if record.number > 1 => (Ink::Good, format!("delivered at attempt {}", record.number)),
        ("delivered", ..) => (Ink::Good, "delivered".to_owned()),
        ("retry", VerdictKind::Reauthenticate, _) => (Ink::Host, "fresh token, retry at once".to_owned()),
        ("retry", _, Some(delay)) => (Ink::Again, format!("retry in {}", wait(Duration::from_millis(delay)))),
        ("answered", ..) => (Ink::Instead, "answered by fallback".to_owned()),
        ("rerouted", ..) => (Ink::Instead, "on to the fallback route".to_owned()),
        ("dead_letter", ..) => (Ink::Bad, "dead letter".to_owned()),
        ("dropped", ..) => (Ink::Bad, "dropped".to_owned()),
        (other, ..) => (Ink::Plain, other.to_owned()),
    }
}

/// A wait as people say it: `250ms`, `1.4s`.
pub(super) fn wait(length: Duration) -> String {
    if length < Duration::from_secs(1) {
        format!("{}ms", length.as_millis())
    } else {
        format!("{:.1}s", length.as_secs_f64())
    }
}

/// How much is told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Events a second, in all.
    pub(super) per_second: f64,
    /// The least time between two events of one kind.
    pub(super) gap: Duration,
}

/// Chooses what is told: the first of a kind always, then no more than can be read.
#[derive(Debug, Default)]
struct Chooser {
    pace: Pace,
    last: HashMap<Kind, Duration>,
    allowance: f64,
    at: Duration,
}

impl Chooser {
    fn choose(&mut self, kind: Kind, now: Duration) -> bool {
        let earned = now.saturating_sub(self.at).as_secs_f64() * self.pace.per_second;
        self.allowance = (self.allowance + earned).min(self.pace.per_second);
        self.at = now;
        let known = self.last.get(&kind).copied();
        let due = known.is_none_or(|last| now.saturating_sub(last) >= self.pace.gap && self.allowance >= 1.0);
        if due && (known.is_some() || self.last.len() < KINDS) {
            self.last.insert(kind, now);
            self.allowance -= 1.0;
            return true;
        }
        false
    }
}

#[cfg(test)]
pub(super) mod tests;
