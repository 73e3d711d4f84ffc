//! `backstop demo --system NAME`: one system of several parts, played as a story in numbered steps.
//!
//! The routes are those of the system's page under `host/examples`; the policies are the stock ones, built from their
//! sources; the host is the one that `serve` runs. Vendors, consumers and senders are stand-ins on loopback, which fail as
//! the story says. Every step says what then happened by the host's own word, and checks that word against what the
//! others recorded: a play is a test that can be watched.

mod broker;
mod host;
mod script;
mod stand_in;
mod story;

mod async_retry;
mod event_pipeline;
mod reliable_message;
mod risk_control;
mod scan_platform;

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Secret;
use crate::engine::Engine;

use super::ink::{Ink, Line, Paper};
use super::stage::Checkout;
use super::watching::Interrupt;

use broker::Queues;
use host::Host;
use script::Script;
use stand_in::StandIn;
use story::Story;

/// A system that can be played.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum System {
    /// A caller waits for a risk check, and is never failed because the vendor is.
    RiskControl,
    /// Calls between services, tried while the caller waits, then without it, then held as dead letters.
    AsyncRetry,
    /// Half messages: delivered if, and only if, their sender's own commit happened.
    ReliableMessage,
    /// An event bus: events matched to routes, checked against schemas, tried again, found and published again.
    EventPipeline,
    /// Services over RabbitMQ queues: what the broker gives up is told to its owner. Needs a broker.
    ScanPlatform,
}

impl System {
    /// What it is about, and the system's name as it is written.
    const fn title(self) -> (&'static str, &'static str) {
        match self {
            Self::RiskControl => {
                ("risk-control", "a caller waits for a risk check, and is never failed because the vendor is")
            }
            Self::AsyncRetry => {
                ("async-retry", "tried while the caller waits, then without it, then held as a dead letter")
            }
            Self::ReliableMessage => {
                ("reliable-message", "delivered if, and only if, its sender's own commit happened")
            }
            Self::EventPipeline => {
                ("event-pipeline", "an event bus that loses nothing, whatever its subscribers answer")
            }
            Self::ScanPlatform => ("scan-platform", "services over RabbitMQ queues, and a loop that closes"),
        }
    }

    async fn play(self, stage: &mut Stage) -> anyhow::Result<()> {
        match self {
            Self::RiskControl => risk_control::play(stage).await,
            Self::AsyncRetry => async_retry::play(stage).await,
            Self::ReliableMessage => reliable_message::play(stage).await,
            Self::EventPipeline => event_pipeline::play(stage).await,
            Self::ScanPlatform => scan_platform::play(stage).await,
        }
    }
}

/// Plays `system`. A broker is only for the one that needs it.
///
/// # Errors
/// When the stage cannot be set, or the host cannot be asked any more. A check that fails is none: it is told, and the
/// exit code is 1.
pub(super) async fn run(system: System, broker: Option<Secret>, paper: Paper) -> anyhow::Result<ExitCode> {
    if broker.is_some() && system != System::ScanPlatform {
        bail!("--broker is for --system scan-platform: the others need none");
    }
    // A story is no screen: what is longer than the terminal is wide is wrapped by it.
    let paper = Paper { width: usize::MAX, ..paper };
    let (name, about) = system.title();
    let mut interrupt = Interrupt::listen()?;
    let mut stage = Stage::set(broker, paper)?;
    paper.say(&Line::of(Ink::Bold, format!("{name}: {about}.")));
    paper.say(&heading("page").then(Ink::Plain, format!("host/examples/{name}.md")));
    let told = tokio::select! {
        played = system.play(&mut stage) => played.map(|()| None),
        () = interrupt.next() => {
            paper.say(&Line::of(Ink::Faint, "ended early; the stage is cleared (Ctrl-C again exits at once)"));
            Ok(Some(ExitCode::from(130)))
        }
    };
    let cleared = tokio::select! {
        cleared = stage.clear() => cleared,
        () = interrupt.next() => return Ok(ExitCode::from(130)),
    };
    // What broke the play off is told rather than what followed from that.
    let early = told?;
    let story = cleared?;
    Ok(early.unwrap_or_else(|| story.close()))
}

/// What a play is played on. To be cleared at its end, however that comes.
struct Stage {
    checkout: Checkout,
    folder: tempfile::TempDir,
    paper: Paper,
    tasks: TaskTracker,
    stop: CancellationToken,
    broker: Option<Secret>,
    queues: Option<Queues>,
    engine: Option<Engine>,
    story: Story,
}

impl Stage {
    fn set(broker: Option<Secret>, paper: Paper) -> anyhow::Result<Self> {
        let here = std::env::current_dir().context("failed to find the current folder")?;
        Ok(Self {
            checkout: Checkout::find(&here)?,
            folder: tempfile::tempdir().context("failed to make a temporary folder")?,
            paper,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            broker,
            queues: None,
            engine: None,
            story: Story::on(paper),
        })
    }

    /// A stand-in for whatever the host calls by this name.
    async fn stand_in(&self, name: &str) -> anyhow::Result<StandIn> {
        StandIn::start(name, &self.tasks, &self.stop).await
    }

    /// Builds the policies, and starts the host.
    async fn raise(&mut self, script: &Script) -> anyhow::Result<Host> {
        let config = script.config(self.folder.path(), self.checkout.policies())?;
        self.story.say(&heading("routes").then(Ink::Plain, script.file()));
        for difference in script.differences() {
            self.story.say(&heading("").then(Ink::Plain, difference.clone()));
        }
        super::build_policies(&self.checkout, &config, self.paper, &heading("policies")).await?;
        let engine = self.engine.insert(Engine::start(&config).await?);
        let (listen, admin) = (engine.listen, engine.admin);
        let text = format!("messages to http://{listen}, admin API at http://{admin}");
        self.story.say(&heading("host").then(Ink::Plain, text));
        Host::of(engine)
    }

    /// Stops the host and then what it calls, and leaves no queue behind.
    async fn clear(self) -> anyhow::Result<Story> {
        // Whoever answers nobody any more lets go of the attempts that wait for it.
        self.stop.cancel();
        if let Some(engine) = self.engine {
            engine.stop().await;
        }
        if let Some(queues) = self.queues {
            queues.delete().await?;
        }
        self.tasks.close();
        self.tasks.wait().await;
        Ok(self.story)
    }
}

/// How a line about the stage begins.
fn heading(name: &str) -> Line {
    Line::of(Ink::Faint, format!("  {name:<9} "))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn every_play_has_its_example_as_it_is_now() {
        let at = "http://127.0.0.1:7";
        let queues = ["pages-of-this-play", "dead-pages-of-this-play"];
        let scripts = [
            risk_control::script(at, at),
            async_retry::script(at, at),
            reliable_message::script(at, at),
            event_pipeline::script(at),
            scan_platform::script(at, at, &Secret::new("amqp://127.0.0.1:7"), queues),
        ];
        for script in scripts {
            let config = script.config(Path::new("/tmp"), PathBuf::from("policies"));
            let config = config.unwrap_or_else(|error| panic!("{}: {error}", script.file()));
            let described = config.describe();
            assert!(!described.contains("127.0.0.1:9"), "an address that nobody stands in for: {described}");
        }
    }
}
