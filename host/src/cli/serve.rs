//! `backstop serve`: the host, until it is told to stop. SIGHUP has it read its configuration again.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::check::refuse;
use crate::engine::{Engine, StartError};
use crate::reload::Reading;

#[derive(clap::Args, Debug)]
pub(super) struct Serve {
    /// The configuration.
    #[arg(short, long, default_value = "backstop.yaml", value_name = "FILE")]
    config: PathBuf,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let Reading { config, files } = Reading::of(&self.config);
        let config = match config {
            Ok(config) => config,
            Err(problems) => return Ok(refuse(&problems)),
        };
        let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
        // A terminal that closes is no reason to stop, either.
        let mut hangup = signal(SignalKind::hangup()).context("failed to listen for SIGHUP")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
        let engine = match Engine::start(&config).await {
            Ok(engine) => engine,
            Err(StartError::Policies(refused)) => return Ok(refuse(&refused.in_file(&config.sources))),
            Err(error) => return Err(error.into()),
        };
        engine.follow(self.config.clone(), files);
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => engine.reload(),
            }
        }
        tracing::info!(grace = ?config.shutdown_grace, "stopping: a second signal exits at once");
        let stopped = tokio::select! {
            stopped = engine.stop() => stopped,
            _ = terminate.recv() => at_once(),
            _ = interrupt.recv() => at_once(),
        };
        tracing::info!(
            unfinished = stopped.unfinished,
            queued = stopped.queued,
            "stopped; what is queued goes on at the next start"
        );
        Ok(ExitCode::SUCCESS)
    }
}

/// Waits for nothing, not even for the log to be read: what was in flight is repeated at the next start.
fn at_once() -> ! {
    std::process::exit(130)
}
