//! `backstop dead`: dead letters, looked at, queued again, or given up.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::Value;

use super::AdminArgs;
use super::messages::{List, Show};
use crate::message::{MessageId, State};
use crate::store::{Filter, Selection};

#[derive(clap::Args, Debug)]
pub(super) struct Dead {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// List dead letters, newest first (with --state answered: requests that a fallback answered).
    List(List),
    /// Show a dead letter, its request and every attempt.
    Show(Show),
    /// Queue dead letters again, due at once, with their attempts counted afresh.
    Redrive(Which),
    /// Give dead letters up; they are kept, as discarded, for as long as finished messages are.
    Discard(Which),
}

/// Which dead letters: ids, or a filter, or all of them.
#[derive(clap::Args, Debug)]
struct Which {
    /// These messages.
    ids: Vec<MessageId>,
    /// All of this route's.
    #[arg(long, conflicts_with = "ids")]
    route: Option<String>,
    /// All whose reason contains this text.
    #[arg(long, conflicts_with = "ids")]
    reason: Option<String>,
    /// Those in this state: dead (the default); to redrive them, also answered or dropped.
    #[arg(long, value_enum, conflicts_with = "ids")]
    state: Vec<State>,
    /// All dead letters of all routes.
    #[arg(long, conflicts_with_all = ["ids", "route", "reason"])]
    all: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Dead {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::List(mut list) => {
                if list.state.is_empty() {
                    list.state.push(State::Dead.as_str().to_owned());
                }
                list.run().await
            }
            Command::Show(show) => show.run().await,
            Command::Redrive(which) => which.post("/v1/dead/redrive", "redriven").await,
            Command::Discard(which) => which.post("/v1/dead/discard", "discarded").await,
        }
    }
}

impl Which {
    async fn post(self, path: &str, done: &str) -> anyhow::Result<ExitCode> {
        let named = u64::try_from(self.ids.len())?;
        let selection = self.selection()?;
        let answer: Value = self.admin.client().await?.post(path, &selection).await?;
        let count = answer.get(done).and_then(Value::as_u64).unwrap_or(0);
        out!("{count} {done}");
        if count < named {
            out!("{} left alone: unknown, or not in a state from which it can be {done}", named - count);
        }
        Ok(if count > 0 || named == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn selection(&self) -> anyhow::Result<Selection> {
        if !self.ids.is_empty() {
            return Ok(Selection::Ids(self.ids.clone()));
        }
        if !self.all && self.route.is_none() && self.reason.is_none() {
            bail!("say which: ids, --route NAME, --reason TEXT, or --all");
        }
        let states = if self.state.is_empty() { vec![State::Dead] } else { self.state.clone() };
        Ok(Selection::Matching(Filter {
            route: self.route.clone(),
            states,
            reason: self.reason.clone(),
            ..Filter::default()
        }))
    }
}
