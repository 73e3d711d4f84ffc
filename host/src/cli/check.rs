//! `backstop check`: everything that would stop `serve` from starting, said at once.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Config;

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
            println!("{}", serde_json::to_string_pretty(&Config::json_schema())?);
            return Ok(ExitCode::SUCCESS);
        }
        todo_check(self).await
    }
}
