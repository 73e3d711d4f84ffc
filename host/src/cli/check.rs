//! `backstop check`: everything that would stop `serve` from starting, said at once.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use crate::clock::SystemClock;
use crate::config::{Config, Problem, Problems};
use crate::policy::{Catalog, PolicyProblem, PolicyProblems};

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
    let bindings = config.routes.values().map(|route| (route.name.clone(), route.policy.clone()));
    match Catalog::open(&config.policies, None, bindings, Arc::new(SystemClock)).await {
        Ok(_) => Ok(config),
        Err(refused) => Err(in_the_file(&config, &refused)),
    }
}

/// Prints what is wrong with a configuration; `serve` and `check` refuse it alike.
pub(super) fn refuse(problems: &Problems) -> ExitCode {
    eprintln!("{problems}");
    eprintln!("{}", counted(problems.problems.len(), "mistake"));
    ExitCode::from(2)
}

/// What policies refuse, at the lines it concerns.
pub(super) fn in_the_file(config: &Config, refused: &PolicyProblems) -> Problems {
    config.sources.problems(refused.0.iter().flat_map(|problem| at_its_lines(config, problem)).collect())
}

/// A policy's problem, at the line of each route it concerns.
fn at_its_lines(config: &Config, problem: &PolicyProblem) -> Vec<Problem> {
    let at = |route| {
        if problem.pointer.is_empty() {
            config.sources.route_problem(route, "policy", format!("policy `{}`: {}", problem.policy, problem.message))
        } else if config.sources.holds_secret(route, &problem.pointer) {
            let message =
                format!("policy `{}` refuses this value, which came from a variable or a file", problem.policy);
            config.sources.problem(route, &problem.pointer, message)
        } else {
            config.sources.problem(route, &problem.pointer, problem.message.clone())
        }
    };
    problem.routes.iter().map(at).collect()
}
