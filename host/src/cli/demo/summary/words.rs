//! The summary in words.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::super::board::{Failure, Kind, Questions};
use super::super::ink::{Ink, Line};
use super::{Account, Tally};

/// Kinds of failure shown.
const KINDS: usize = 24;
/// Messages listed that are not accounted for.
const LISTED: usize = 20;

/// What else the summary tells.
pub(in super::super) struct Circumstances<'a> {
    /// How long it took, from the first message on.
    pub(in super::super) elapsed: Duration,
    /// Whether somebody ended it early.
    pub(in super::super) interrupted: bool,
    /// What went wrong, by kind.
    pub(in super::super) failures: &'a BTreeMap<Kind, Failure>,
    /// What the policies were asked.
    pub(in super::super) policies: &'a Questions,
    /// Failures that were not seen.
    pub(in super::super) missed: u64,
    /// What the pager was told.
    pub(in super::super) notices: &'a [Value],
}

/// The summary, line by line.
pub(in super::super) fn lines(account: &Account, circumstances: &Circumstances<'_>) -> Vec<Line> {
    let total = account.total();
    let ended = if circumstances.interrupted { ", ended early" } else { "" };
    let mut lines = vec![
        Line::new(),
        Line::of(
            Ink::Bold,
            format!("What became of {} messages in {:.1}s{ended}", total.sent, circumstances.elapsed.as_secs_f64()),
        ),
    ];
    lines.extend(table(account, &total));
    lines.push(Line::new());
    lines.extend(failures(circumstances));
    lines.extend(alarms(circumstances.notices));
    lines.extend(check(account, &total));
    lines.push(Line::new());
    lines.extend(next_steps());
    lines
}

/// One column of the table: its heading, its figure, its ink, and whether it is shown when all figures are 0.
type Column = (&'static str, fn(&Tally) -> u64, Ink, bool);

const COLUMNS: [Column; 8] = [
    ("sent", |tally| tally.sent, Ink::Bold, true),
    ("delivered", |tally| tally.delivered, Ink::Good, true),
    ("answered", |tally| tally.answered, Ink::Instead, true),
    ("dead", |tally| tally.dead, Ink::Bad, true),
    ("dropped", |tally| tally.dropped, Ink::Bad, true),
    ("queued", |tally| tally.queued, Ink::Again, false),
    ("refused", |tally| tally.refused, Ink::Again, false),
    ("lost", |tally| tally.lost, Ink::Bad, true),
];

/// How wide a column is, its sign not counted.
fn width_of(name: &str) -> usize {
    name.len().max(5)
}

fn table(account: &Account, total: &Tally) -> Vec<Line> {
    let columns: Vec<&Column> = COLUMNS.iter().filter(|(_, of, _, always)| *always || of(total) > 0).collect();
    let sign = |index: usize| match index {
        0 => "",
        1 => "=",
        _ => "+",
    };
    let row = |name: &str, tally: &Tally, signs: bool| {
        let mut line = Line::of(if signs { Ink::Bold } else { Ink::Plain }, format!("  {name:<10}"));
        for (index, (name, of, ink, _)) in columns.iter().enumerate() {
            let figure = of(tally);
            let shown = if figure == 0 && !signs { Ink::Faint } else { *ink };
            line = line.then(Ink::Faint, format!("{:>2}", if signs { sign(index) } else { "" }));
            line = line.then(shown, format!("{figure:>wide$}", wide = width_of(name)));
        }
        line
    };
    let mut heading = Line::of(Ink::Faint, format!("  {:<10}", "route"));
    for (name, ..) in &columns {
        heading = heading.then(Ink::Faint, format!("{name:>wide$}", wide = width_of(name) + 2));
    }
    let mut lines = vec![heading];
    for (route, tally) in &account.routes {
        lines.push(row(route, tally, false));
    }
    lines.push(row("total", total, true));
    for ((from, to), count) in &account.rerouted {
        let text = format!("  {from}: {count} of these were delivered by its fallback route, {to}.");
        lines.push(Line::of(Ink::Faint, text));
    }
    let mut note = |figure: u64, text: &str| {
        if figure > 0 {
            lines.push(Line::of(Ink::Faint, format!("  {text}")));
        }
    };
    note(total.queued, "queued: these wait on disk; a host that goes on would go on with them.");
    note(total.refused, "refused: their callers were told at once that nothing was accepted.");
    lines
}

fn failures(circumstances: &Circumstances<'_>) -> Vec<Line> {
    let mut lines = vec![Line::of(Ink::Bold, "What went wrong, and what was done about it")];
    let width =
        |of: fn(&Kind) -> &str| circumstances.failures.keys().map(|kind| of(kind).chars().count()).max().unwrap_or(0);
    let (routes, outcomes, thens) = (width(|kind| &kind.route), width(outcome), width(then));
    for (kind, failure) in circumstances.failures.iter().take(KINDS) {
        lines.push(
            Line::of(Ink::Plain, format!("  {:<routes$} {:>5} × ", kind.route, failure.count))
                .then(Ink::Plain, format!("{:<outcomes$} → ", outcome(kind)))
                .then(ink(kind), format!("{:<thens$}  ", then(kind)))
                .then(Ink::Faint, failure.reason.clone()),
        );
    }
    if circumstances.failures.len() > KINDS {
        lines.push(Line::of(Ink::Faint, format!("  and {} further kinds", circumstances.failures.len() - KINDS)));
    }
    let Questions { asked, failed, .. } = circumstances.policies;
    if *asked > 0 {
        let median = circumstances.policies.median().as_micros();
        let text =
            format!("  {asked} verdicts by WebAssembly policies, {median} µs each (the median); {failed} failures.");
        lines.push(Line::of(Ink::Faint, text));
    }
    if circumstances.missed > 0 {
        lines.push(Line::of(
            Ink::Faint,
            format!("  ({} events came too fast to be counted here)", circumstances.missed),
        ));
    }
    lines
}

fn outcome(kind: &Kind) -> &str {
    if kind.outcome == "-" { "not attempted" } else { &kind.outcome }
}

fn then(kind: &Kind) -> &str {
    match kind.then.as_str() {
        "reauthenticate" => "fresh token",
        "answered" => "fallback answer",
        "rerouted" => "fallback route",
        "dead_letter" => "dead letter",
        other => other,
    }
}

fn ink(kind: &Kind) -> Ink {
    match kind.then.as_str() {
        "retry" => Ink::Again,
        "reauthenticate" => Ink::Host,
        "answered" | "rerouted" => Ink::Instead,
        _ => Ink::Bad,
    }
}

fn alarms(notices: &[Value]) -> Vec<Line> {
    if notices.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![Line::new(), Line::of(Ink::Bold, "What the pager was told")];
    for notice in notices {
        let text = |key: &str| notice.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let percent = |key: &str| notice.get(key).and_then(Value::as_f64).unwrap_or_default() * 100.0;
        let requests = notice.get("requests").and_then(Value::as_u64).unwrap_or_default();
        let line = match text("event").as_str() {
            "alarm.fired" => Line::of(
                Ink::Bad,
                format!(
                    "  {}: alarm: {:.0}% of {requests} attempts failed (threshold {:.0}%)",
                    text("route"),
                    percent("error_rate"),
                    percent("threshold")
                ),
            ),
            "alarm.cleared" => Line::of(Ink::Good, format!("  {}: alarm cleared", text("route"))),
            other => Line::of(Ink::Plain, format!("  {}: {other}", text("route"))),
        };
        lines.push(line);
    }
    lines
}

fn check(account: &Account, total: &Tally) -> Vec<Line> {
    let mark = |good: bool, text: String| {
        let (ink, mark) = if good { (Ink::Good, "✓") } else { (Ink::Bad, "✗") };
        Line::of(ink, format!("  {mark} ")).then(if good { Ink::Plain } else { Ink::Bad }, text)
    };
    let found = total.sent - total.lost;
    let mut lines = vec![
        Line::new(),
        Line::of(Ink::Bold, "Checked with the host's own API, and against the vendors' own records"),
        mark(found == total.sent, format!("{found} of {} messages have a known fate", total.sent)),
        mark(
            account.confirmed == total.delivered,
            format!("{} of {} messages called delivered were recorded by a vendor", account.confirmed, total.delivered),
        ),
        mark(
            account.strange.is_empty(),
            match account.strange.len() {
                0 => format!("{} repeats, every one under its message's own id and idempotency key", account.repeats),
                strange => format!("{strange} of {} repeats could not be recognised", account.repeats),
            },
        ),
        mark(total.lost == 0, format!("lost: {}", total.lost)),
    ];
    lines.extend(account.strange.iter().take(LISTED).map(|strange| Line::of(Ink::Bad, format!("      {strange}"))));
    for lost in account.lost.iter().take(LISTED) {
        let id = lost.id.map_or_else(|| "no id".to_owned(), |id| id.to_string());
        lines.push(Line::of(Ink::Bad, format!("      {id}  {}", lost.route)));
        lines.push(Line::of(Ink::Bad, format!("        {}", lost.why)));
    }
    if account.lost.len() > LISTED {
        lines.push(Line::of(Ink::Bad, format!("      and {} more", account.lost.len() - LISTED)));
    }
    lines
}

fn next_steps() -> Vec<Line> {
    let step =
        |command: &str, what: &str| Line::of(Ink::Host, format!("  cargo run -- {command:<24}")).then(Ink::Faint, what);
    vec![
        Line::of(Ink::Bold, "What to try next"),
        step("policy build", "a running host takes up each new file"),
        step("serve -c backstop.yaml", "a host of your own; see host/examples/"),
        step("dead list", "what it gave up; `dead redrive` retries"),
        Line::of(Ink::Faint, "  The routes of this demo, explained: host/examples/demo.yaml"),
    ]
}
