//! Publishing what the archive holds again, at a rate, and once only: a run that was broken off is gone on with under
//! its name, and nothing of it is published twice.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::json;

use super::Which;
use super::walk::Walk;
use crate::archive::ArchiveFilter;
use crate::clock::{Clock as _, Stopwatch, SystemClock};
use crate::dispatch::HostClient;
use crate::dispatch::client::ClientError;
use crate::message::MessageId;
use crate::queue::Run;
use crate::store::Summary;

/// The pause before a message is offered again that the host had no room for, or no store.
const COME_AGAIN: Duration = Duration::from_secs(1);

#[derive(clap::Args, Debug)]
pub(super) struct Republish {
    #[command(flatten)]
    which: Which,
    /// Messages a second at most, 0.001 to 1000.
    #[arg(long, default_value = "10", value_parser = rate)]
    rate: f64,
    /// Under this name no message is published again twice, for as long as its route keeps idempotency keys. A new one
    /// unless it is given; it is printed.
    #[arg(long, value_name = "NAME")]
    run: Option<Run>,
    /// Only say how many have ended and would be published.
    #[arg(long)]
    dry_run: bool,
    /// All that have ended, of all routes.
    #[arg(long)]
    all: bool,
    /// Print a line of JSON for each (NDJSON): its id, and its original's.
    #[arg(long)]
    json: bool,
}

/// What was done so far.
#[derive(Default)]
struct Count {
    published: u64,
    before: u64,
    left_alone: u64,
}

/// What the host answers.
#[derive(Deserialize)]
struct Again {
    id: MessageId,
    repeated: bool,
}

impl Republish {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        if !self.all && self.which.filter().is_empty() {
            bail!("say which: --route NAME, --state dead, --reason TEXT, or another part of a filter; or --all");
        }
        let run = match &self.run {
            Some(run) => run.clone(),
            None => format!("run-{}", MessageId::new(SystemClock.now())).parse()?,
        };
        let mut walk = Walk::begin(&self.which, false).await?;
        let going_on = going_on(&run, walk.filter());
        if !self.dry_run {
            // Said at once: whoever breaks it off needs it.
            eprintln!("run {run}: the same command with {going_on} goes on with it");
        }
        let mut count = Count::default();
        let done = self.publish(&mut walk, &run, &mut count).await;
        self.conclude(&run, &count);
        done.with_context(|| format!("broken off: the same command with {going_on} goes on with it"))?;
        Ok(ExitCode::SUCCESS)
    }

    async fn publish(&self, walk: &mut Walk, run: &Run, count: &mut Count) -> anyhow::Result<()> {
        let pace = Duration::from_secs_f64(1.0 / self.rate);
        let mut since_last: Option<Stopwatch> = None;
        while let Some(message) = walk.next().await? {
            let Summary { id, state, .. } = Summary::deserialize(&message)?;
            if self.dry_run {
                match state.is_terminal() {
                    true => count.published += 1,
                    false => count.left_alone += 1,
                }
                continue;
            }
            if let Some(since_last) = since_last {
                SystemClock.sleep(pace.saturating_sub(since_last.elapsed())).await;
            }
            let asked = Stopwatch::start();
            match publish_one(walk.client(), id, run).await? {
                Some(Again { repeated: true, id: again }) => {
                    count.before += 1;
                    if self.json {
                        out!("{}", json!({ "id": again, "original": id, "repeated": true }));
                    }
                }
                Some(Again { repeated: false, id: again }) => {
                    count.published += 1;
                    since_last = Some(asked);
                    match self.json {
                        true => out!("{}", json!({ "id": again, "original": id })),
                        false => out!("{again}  of {id}"),
                    }
                }
                None => count.left_alone += 1,
            }
        }
        Ok(())
    }

    /// Says what was done: to a person, and beside the lines of JSON.
    fn conclude(&self, run: &Run, count: &Count) {
        let Count { published, before, left_alone } = count;
        let mut said = match self.dry_run {
            true => format!("at most {published} would be published again"),
            false => format!("{published} published again, as {run}"),
        };
        if *before > 0 {
            said.push_str(&format!("\n{before} were in this run before"));
        }
        if *left_alone > 0 {
            said.push_str(&format!("\n{left_alone} left alone"));
        }
        if self.json { eprintln!("{said}") } else { out!("{said}") }
    }
}

/// What the same command goes on with: the same run, of what was accepted in the same time, however it was written.
fn going_on(run: &Run, filter: &ArchiveFilter) -> String {
    let from = filter.from.map(|from| format!(" --from {from}")).unwrap_or_default();
    let until = filter.until.map(|until| format!(" --until {until}")).unwrap_or_default();
    format!("--run {run}{from}{until}")
}

/// Publishes a message again; none: the host leaves it alone, and why is said. Where the host has no room, or no store, it
/// is asked again.
async fn publish_one(client: &HostClient, id: MessageId, run: &Run) -> anyhow::Result<Option<Again>> {
    let path = format!("/v1/archive/{id}/republish");
    loop {
        let refused = match client.post(&path, &json!({ "run": run.to_string() })).await {
            Ok(again) => return Ok(Some(again)),
            Err(refused @ ClientError::Refused { .. }) => refused,
            Err(error) => return Err(error).context(format!("{id} was not published again")),
        };
        if refused.is_problem("saturated") || refused.is_problem("store-unavailable") {
            eprintln!("{id}: {refused}; trying again");
            SystemClock.sleep(COME_AGAIN).await;
            continue;
        }
        // The others are not kept waiting for what concerns this one, or its route.
        let concerns_this_one = ["not-republished", "unknown-message", "unknown-route", "route-disabled"];
        if !concerns_this_one.into_iter().any(|kind| refused.is_problem(kind)) {
            return Err(refused).context(format!("{id} was not published again"));
        }
        eprintln!("{id} left alone: {refused}");
        return Ok(None);
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=1000.0).contains(&rate) => Ok(rate),
        _ => Err("write a number from 0.001 to 1000, such as 20 or 0.5".to_owned()),
    }
}
