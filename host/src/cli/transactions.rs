//! `backstop transactions`: half messages, looked at and, where their senders keep silent, decided by a person.

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::{Value, json};

use super::AdminArgs;
use super::messages::{print_request, printable};
use crate::message::MessageId;
use crate::transaction::{Transaction, TransactionState};

#[derive(clap::Args, Debug)]
pub(super) struct Transactions {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// List half messages, newest first.
    List(List),
    /// Show one, and what it would deliver.
    Show(One),
    /// Have the sender of a parked one asked again, at once, its checks counted afresh.
    Resume(One),
    /// Deliver one: say in its sender's stead that its operation happened.
    Confirm(One),
    /// Forget one: say in its sender's stead that its operation did not happen.
    Cancel(One),
}

#[derive(clap::Args, Debug)]
struct List {
    /// Only this route's.
    #[arg(long)]
    route: Option<String>,
    /// Only those in this state; may be repeated.
    #[arg(long, value_enum)]
    state: Vec<TransactionState>,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Older than this one: the last id of the page before.
    #[arg(long, value_name = "ID")]
    before: Option<MessageId>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(clap::Args, Debug)]
struct One {
    /// The transaction's id.
    id: MessageId,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Transactions {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::List(list) => list.run().await,
            Command::Show(one) => one.show().await,
            Command::Resume(one) => one.post("resume").await,
            Command::Confirm(one) => one.post("confirm").await,
            Command::Cancel(one) => one.post("cancel").await,
        }
    }
}

#[derive(Deserialize)]
struct Page {
    transactions: Vec<Transaction>,
}

impl List {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let states: Vec<&str> = self.state.iter().map(|state| state.as_str()).collect();
        let (states, limit) = (states.join(","), self.limit.to_string());
        let before = self.before.map(|id| id.to_string()).unwrap_or_default();
        let asked = [
            ("route", self.route.as_deref().unwrap_or_default()),
            ("state", &states),
            ("before", &before),
            ("limit", &limit),
        ];
        let query: Vec<(&str, &str)> = asked.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let listed: Value = self.admin.client().await?.get("/v1/transactions", &query).await?;
        if self.json {
            out!("{}", serde_json::to_string_pretty(&listed)?);
            return Ok(ExitCode::SUCCESS);
        }
        let page = Page::deserialize(listed)?;
        if page.transactions.is_empty() {
            out!("no half messages fit");
            return Ok(ExitCode::SUCCESS);
        }
        out!("{:36}  {:16} {:9} {:>6}  {:24}  REASON", "ID", "ROUTE", "STATE", "CHECKS", "PREPARED");
        for one in &page.transactions {
            out!(
                "{:36}  {:16} {:9} {:>6}  {:24}  {}",
                one.id.to_string(),
                one.route,
                one.state,
                one.checks,
                one.prepared_at.to_string(),
                printable(&one.reason)
            );
        }
        if page.transactions.len() >= self.limit as usize
            && let Some(last) = page.transactions.last()
        {
            out!("older ones: --before {}", last.id);
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl One {
    async fn show(self) -> anyhow::Result<ExitCode> {
        let shown: Value = self.admin.client().await?.get(&format!("/v1/transactions/{}", self.id), &[]).await?;
        self.print(&shown)
    }

    async fn post(self, what: &str) -> anyhow::Result<ExitCode> {
        let path = format!("/v1/transactions/{}/{what}", self.id);
        let shown: Value = self.admin.client().await?.post(&path, &json!({})).await?;
        self.print(&shown)
    }

    fn print(&self, shown: &Value) -> anyhow::Result<ExitCode> {
        if self.json {
            out!("{}", serde_json::to_string_pretty(shown)?);
            return Ok(ExitCode::SUCCESS);
        }
        let one = Transaction::deserialize(shown)?;
        out!("half message {}", one.id);
        out!("route        {}", one.route);
        let reason = if one.reason.is_empty() { String::new() } else { format!(": {}", printable(&one.reason)) };
        out!("state        {}{reason}", one.state);
        out!("prepared     {}", one.prepared_at);
        out!("checks       {}", one.checks);
        if one.unreached > 0 {
            out!("unreached    {} in a row", one.unreached);
        }
        if let Some(next) = one.next_check_at {
            out!("next check   {next}");
        }
        if let Some(ended) = one.ended_at {
            out!("ended        {ended}");
        }
        if let Some(request) = shown.get("request") {
            print_request(request);
        }
        Ok(ExitCode::SUCCESS)
    }
}
