//! `backstop archive`: messages found by what is known of them, taken out, or published again.

mod republish;
mod unknown_route;
mod walk;

use std::process::ExitCode;

use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use serde::Deserialize;
use serde_json::Value;

use super::AdminArgs;
use super::messages::{print_head, print_line, printable};
use crate::archive::{ArchiveFilter, BodyTest, PolicyDigest};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::config::read_duration;
use crate::message::{MessageId, State};
use crate::store::Summary;

use republish::Republish;
use walk::Walk;

#[derive(clap::Args, Debug)]
pub(super) struct Archive {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List the messages that fit, oldest first.
    Query(Query),
    /// Print the messages that fit, oldest first, each with its request and its journal, as a line of JSON (NDJSON).
    Export(Export),
    /// Publish the messages that fit again, oldest first: each as a new message that is linked to it. Those that have not
    /// ended, or that hold their order up, are left alone.
    Republish(Republish),
}

/// Which messages: all that is said of one must be so.
#[derive(clap::Args, Debug)]
struct Which {
    /// On this route.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    route: Option<String>,
    /// In this state; may be repeated.
    #[arg(long, value_enum)]
    state: Vec<State>,
    /// Accepted then or later: a moment such as 2026-11-22T07:30:00Z, a day (from midnight UTC), or how long ago, such as
    /// 2h or 14d.
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    from: Option<Timestamp>,
    /// Accepted before then: a moment, a day, or how long ago. What comes in after the command began is never found.
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    until: Option<Timestamp>,
    /// Of this publish of an event: its message_uid.
    #[arg(long, value_name = "ID")]
    uid: Option<MessageId>,
    /// With a verdict whose reason contains this text, letters as they are.
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    reason: Option<String>,
    /// Judged by the policy whose digest begins so.
    #[arg(long, value_name = "DIGEST")]
    policy: Option<PolicyDigest>,
    /// With a JSON body that has this value at this JSON pointer, such as /order/country=NO, or has any string, number
    /// or truth there, such as /order/country; may be repeated.
    #[arg(long, value_name = "/POINTER[=VALUE]")]
    body: Vec<BodyTest>,
    /// Newer than this message: to go on where an earlier command stopped. (A half message that was confirmed since may be
    /// older: to fetch what is new from time to time, use --from and --until.)
    #[arg(long, value_name = "ID")]
    after: Option<MessageId>,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(clap::Args, Debug)]
struct Query {
    #[command(flatten)]
    which: Which,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Print a line of JSON for each (NDJSON).
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
struct Export {
    #[command(flatten)]
    which: Which,
    /// At most so many; all, unless it is given.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

impl Archive {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Query(query) => query.run().await,
            Command::Export(export) => export.run().await,
            Command::Republish(republish) => republish.run().await,
        }
    }
}

impl Which {
    fn filter(&self) -> ArchiveFilter {
        ArchiveFilter {
            route: self.route.clone(),
            states: self.state.clone(),
            from: self.from,
            until: self.until,
            uid: self.uid,
            reason: self.reason.clone(),
            policy: self.policy.clone(),
            body: self.body.clone(),
        }
    }
}

impl Query {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let mut walk = Walk::begin(&self.which, false).await?;
        let mut shown = 0;
        while shown < self.limit
            && let Some(message) = walk.next().await?
        {
            match (self.json, shown) {
                (true, _) => out!("{message}"),
                (false, 0) => {
                    print_head();
                    print_found(&message)?;
                }
                (false, _) => print_found(&message)?,
            }
            shown += 1;
        }
        if self.json {
            return Ok(ExitCode::SUCCESS);
        }
        if shown == 0 {
            out!("no messages fit");
        } else if let Some(last) = walk.last()
            && shown == self.limit
            && walk.next().await?.is_some()
        {
            out!("newer ones: --after {last}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Export {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let mut walk = Walk::begin(&self.which, true).await?;
        let mut printed = 0;
        while self.limit.is_none_or(|limit| printed < limit)
            && let Some(message) = walk.next().await?
        {
            out!("{message}");
            printed += 1;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints a message's line, and which one it repeats.
fn print_found(message: &Value) -> anyhow::Result<()> {
    let again = message.get("original").and_then(Value::as_str).map(|id| format!("again, of {id}: "));
    let message = Summary::deserialize(message)?;
    let reason = format!("{}{}", again.unwrap_or_default(), printable(&message.reason));
    print_line(&message, message.state.as_str(), &reason);
    Ok(())
}

/// Reads a moment, the midnight of a day, or how long ago it was. A bare number may mean anything.
fn moment(text: &str) -> Result<Timestamp, String> {
    const FORMS: &str =
        "write a moment such as 2026-11-22T07:30:00Z, a day such as 2026-11-22, or how long ago, such as 2h";
    if let Ok(ago) = read_duration(text) {
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        return Ok(Timestamp::from_millis(SystemClock.now().as_millis().saturating_sub(ago)));
    }
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let midnight = (text.len() == "2026-11-22".len()).then(|| format!("{text}T00:00:00Z"));
    let moment = midnight.as_deref().unwrap_or(text).parse().ok().filter(|_| !is_number);
    moment.ok_or_else(|| FORMS.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_one_of_three_ways() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(moment("2026-11-22T08:30:00+01:00").unwrap(), at("2026-11-22T07:30:00Z"));
        assert_eq!(moment("2026-11-22").unwrap(), at("2026-11-22T00:00:00Z"));
        for (text, ago) in [("2h", 2 * 3600), ("14d", 14 * 86_400)] {
            let since = SystemClock.now().since(moment(text).unwrap()).as_secs();
            assert!((ago..ago + 60).contains(&since), "{text}: {since} s ago");
        }
        for wrong in ["", "2026", "20261122", "1795334615280", "yesterday", "2026-13-01"] {
            assert!(moment(wrong).unwrap_err().contains("how long ago"), "{wrong}");
        }
    }
}
