//! `backstop check`: everything that would stop `serve` from starting, said at once.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use crate::clock::SystemClock;
use crate::config::{Config, Problems};
use crate::policy::Catalog;

#[derive(clap::Args, Debug)]
pub(super) struct Check {
    /// The configuration.
    #[arg(short, long, default_value = "backstop.yaml", value_name = "FILE")]
    config: PathBuf,
    /// Print the JSON Schema of the configuration instead.
    #[arg(long)]
    schema: bool,
}

impl Check {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        if self.schema {
            out!("{}", serde_json::to_string_pretty(&Config::json_schema())?);
            return Ok(ExitCode::SUCCESS);
        }
        match check(&self.config).await {
            Ok(config) => {
                out!("{}", config.describe());
                out!("# {}: no mistakes; {} in all", self.config.display(), counted(config.routes.len(), "route"));
                Ok(ExitCode::SUCCESS)
            }
            Err(problems) => Ok(refuse(&problems)),
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Loads a configuration and every policy its routes use, and holds each route's `policy_config` against them.
///
/// # Errors
/// Every mistake, with its line.
pub(super) async fn check(file: &std::path::Path) -> Result<Config, Problems> {
    let config = Config::load(file)?;
    let bindings = config.bindings();
    match Catalog::open(&config.policies, None, bindings, Arc::new(SystemClock)).await {
        Ok(_) => Ok(config),
        Err(refused) => Err(refused.in_file(&config.sources)),
    }
}

/// Prints what is wrong with a configuration; `serve` and `check` refuse it alike.
pub(super) fn refuse(problems: &Problems) -> ExitCode {
    eprintln!("{problems}");
    eprintln!("{}", counted(problems.problems.len(), "mistake"));
    ExitCode::from(2)
}
