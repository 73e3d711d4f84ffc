//! `backstop messages`: what a running host knows of its messages.

use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use serde::Deserialize;
use serde_json::{Value, json};

use super::AdminArgs;
use crate::clock::Timestamp;
use crate::config::show_duration;
use crate::message::{AttemptRecord, MessageId, State, Withheld};
use crate::store::{Blocker, Summary, Turn};

#[derive(clap::Args, Debug)]
pub(super) struct Messages {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// List messages, newest first.
    List(List),
    /// Show a message, its request and every attempt.
    Show(Show),
    /// Give up parked messages: those queued on a route that is disabled, or not configured any more. They are kept, as
    /// discarded, for as long as finished messages are.
    Discard(Discard),
}

/// Which parked messages.
#[derive(clap::Args, Debug)]
struct Discard {
    /// This route's. It is refused while the host serves it.
    #[arg(long)]
    route: String,
    /// Those whose reason contains this text.
    #[arg(long, required_unless_present = "all")]
    reason: Option<String>,
    /// All that are queued there.
    #[arg(long, conflicts_with = "reason")]
    all: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(clap::Args, Debug)]
pub(super) struct List {
    /// Only this route's.
    #[arg(long)]
    pub(super) route: Option<String>,
    /// Only those in this state; may be repeated. `parked`, by itself: queued on a route that is disabled, or not
    /// configured any more.
    #[arg(long, value_parser = states())]
    pub(super) state: Vec<String>,
    /// Only those whose reason contains this text.
    #[arg(long)]
    pub(super) reason: Option<String>,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Older than this message: the last id of the page before.
    #[arg(long, value_name = "ID")]
    before: Option<MessageId>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(clap::Args, Debug)]
pub(super) struct Show {
    /// The message's id.
    id: MessageId,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Messages {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::List(list) => list.run().await,
            Command::Show(show) => show.run().await,
            Command::Discard(discard) => discard.run().await,
        }
    }
}

impl Discard {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let which = json!({ "route": self.route, "reason": self.reason });
        let answer: Value = self.admin.client().await?.post("/v1/parked/discard", &which).await?;
        out!("{} discarded", answer.get("discarded").and_then(Value::as_u64).unwrap_or(0));
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let states = self.state.join(",");
        let before = self.before.map(|id| id.to_string()).unwrap_or_default();
        let limit = self.limit.to_string();
        let asked = [
            ("route", self.route.as_deref().unwrap_or_default()),
            ("state", &states),
            ("reason", self.reason.as_deref().unwrap_or_default()),
            ("before", &before),
            ("limit", &limit),
        ];
        let query: Vec<(&str, &str)> = asked.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let listed: Value = self.admin.client().await?.get("/v1/messages", &query).await?;
        if self.json {
            out!("{}", serde_json::to_string_pretty(&listed)?);
            return Ok(ExitCode::SUCCESS);
        }
        let page = Page::deserialize(listed)?;
        if page.messages.is_empty() {
            out!("no messages fit");
            return Ok(ExitCode::SUCCESS);
        }
        print_head();
        for Listed { summary: message, parked } in &page.messages {
            let blocks = match &message.order_key {
                Some(key) if message.state == State::Dead && message.turn == Some(Turn::Now) => {
                    format!("blocks its order, {}: ", printable(key))
                }
                _ => String::new(),
            };
            let state = if parked.is_some() { "parked" } else { message.state.as_str() };
            print_line(message, state, &format!("{blocks}{}", parked.as_ref().unwrap_or(&message.reason)));
        }
        if page.messages.len() >= self.limit as usize
            && let Some(last) = page.messages.last()
        {
            out!("older ones: --before {}", last.summary.id);
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let shown: Value = self.admin.client().await?.get(&format!("/v1/messages/{}", self.id), &[]).await?;
        if self.json {
            out!("{}", serde_json::to_string_pretty(&shown)?);
            return Ok(ExitCode::SUCCESS);
        }
        let Listed { summary, parked } = Listed::deserialize(&shown)?;
        let journal = Vec::<AttemptRecord>::deserialize(shown.get("journal").unwrap_or(&Value::Null))?;
        out!("message    {}", summary.id);
        out!("route      {}", summary.route);
        out!(
            "state      {}{}",
            summary.state,
            if summary.reason.is_empty() { String::new() } else { format!(": {}", summary.reason) }
        );
        if let Some(why) = parked {
            out!("parked     {why}");
        }
        if let Some(original) = shown.get("original").and_then(Value::as_str) {
            out!("again, of  {original}");
        }
        out!("accepted   {}", summary.accepted_at);
        if let Some(due) = summary.due_at {
            out!("next due   {due}");
        }
        if let Some(ended) = summary.ended_at {
            out!("ended      {ended}");
        }
        if let Some(key) = &summary.order_key {
            let turn = match (summary.turn, Option::<Blocker>::deserialize(&shown["blocked_by"])?) {
                (Some(Turn::Behind), Some(Blocker { id, state: State::Dead })) => {
                    format!(": behind {id}, a dead letter that blocks it until it is redriven or discarded")
                }
                (Some(Turn::Behind), Some(Blocker { id, state })) => format!(": behind {id}, which is {state}"),
                (Some(Turn::Behind), None) => ": behind another one".to_owned(),
                (Some(Turn::Now), _) if summary.state == State::Dead => {
                    ": blocks those behind it until it is redriven or discarded".to_owned()
                }
                (Some(Turn::Now), _) => ": its turn".to_owned(),
                (None, _) => String::new(),
            };
            out!("order      {}{turn}", printable(key));
        }
        print_request(shown.get("request").unwrap_or(&Value::Null));
        for record in &journal {
            print_attempt(record);
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Deserialize)]
struct Page {
    messages: Vec<Listed>,
}

/// A message in a list; and why it is parked, if it is.
#[derive(Deserialize)]
struct Listed {
    #[serde(flatten)]
    summary: Summary,
    parked: Option<String>,
}

/// What messages can be listed by.
fn states() -> PossibleValuesParser {
    PossibleValuesParser::new(State::ALL.map(State::as_str).into_iter().chain(["parked"]))
}

/// Prints the head of a table of messages.
pub(super) fn print_head() {
    out!("{:36}  {:16} {:9} {:>8}  {:24}  REASON", "ID", "ROUTE", "STATE", "ATTEMPTS", "ACCEPTED");
}

/// Prints a message's line in such a table.
pub(super) fn print_line(message: &Summary, state: &str, reason: &str) {
    out!(
        "{:36}  {:16} {state:9} {:>8}  {:24}  {reason}",
        message.id.to_string(),
        message.route,
        message.attempts,
        message.accepted_at.to_string()
    );
}

/// Prints what is, or would be, delivered.
pub(super) fn print_request(request: &Value) {
    let text = |key: &str| request.get(key).and_then(Value::as_str).unwrap_or_default();
    out!("request    {} {}", text("method"), if text("path").is_empty() { "/" } else { text("path") });
    for field in request.get("headers").and_then(Value::as_array).into_iter().flatten() {
        if let (Some(name), Some(value)) = (field[0].as_str(), field[1].as_str()) {
            out!("           {name}: {value}");
        }
    }
    match text("body") {
        "" if request.get("body_base64").is_some() => out!("           (a body that is not text: see --json)"),
        "" => {}
        body => out!("           {}", printable(body)),
    }
}

fn print_attempt(record: &AttemptRecord) {
    out!();
    let (number, at, route) = (record.number, Timestamp::to_string(&record.started_at), &record.route);
    match number {
        0 => out!("not attempted  {at}  on {route}"),
        _ => out!("attempt {number}  {at}  on {route}: {} after {} ms", record.outcome, record.latency_ms),
    }
    if !record.outcome.detail.is_empty() {
        out!("  fault    {}", printable(&record.outcome.detail));
    }
    out!("  verdict  {}: {}", record.verdict, printable(&record.reason));
    match record.delay_ms {
        Some(delay) => out!("  then     {} in {}", record.transition, show_duration(Duration::from_millis(delay))),
        None => out!("  then     {}", record.transition),
    }
    for clamp in &record.clamped {
        out!("  clamped  {clamp}");
    }
    match record.withheld {
        Some(Withheld::RetryBudget) => out!("  withheld by the route's retry budget, after it was due"),
        None => {}
    }
    match &record.provenance.policy {
        Some(policy) => out!(
            "  policy   {} {} ({:.12}), fuel {}, {:?}",
            policy.name,
            policy.version,
            policy.digest,
            record.provenance.fuel,
            Duration::from_nanos(record.provenance.took_ns)
        ),
        // Before an attempt the host itself judges, unless a policy did.
        None if number == 0 => {}
        None => out!("  policy   none: the standard rule"),
    }
    if let Some(failure) = &record.provenance.failure {
        out!("  failure  {}", printable(failure));
    }
    for line in &record.provenance.log {
        out!("  log      {:?} {}", line.level, printable(&line.text));
    }
    if !record.outcome.excerpt.is_empty() {
        out!("  answer   {}", printable(&record.outcome.excerpt));
    }
}

/// Text from outside, safe for a terminal: control characters are shown, not obeyed.
pub(super) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}
