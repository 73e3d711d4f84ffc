//! What every command that looks into one policy's file is told: the file, a configuration, and what a question may cost.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::config::{PolicyLimits, read_size};
use crate::policy::{Candidate, LoadError, TRIAL_TIME, Unfit, Workbench, read_policy};

/// The longest configuration or body that is read from a file.
const MAX_INPUT: u64 = 32 << 20;

/// The route that questions are asked on behalf of, unless one is named.
pub(super) const ROUTE: &str = "try-out";

#[derive(clap::Args, Debug)]
pub(super) struct CandidateArgs {
    /// The policy's file.
    #[arg(value_name = "POLICY.wasm")]
    pub(super) file: PathBuf,
    /// Its `policy_config`, as JSON text, or the name of a JSON or YAML file.
    #[arg(long, value_name = "FILE|JSON")]
    pub(super) config: Option<String>,
    /// The fuel that one question may cost, as `policy_limits.fuel` of a route says. [default: 10000000]
    #[arg(long, value_name = "UNITS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) fuel: Option<u64>,
    /// The memory that it may have, as `policy_limits.memory` of a route says. [default: 16MiB]
    #[arg(long, value_name = "SIZE", value_parser = read_size)]
    pub(super) memory: Option<usize>,
}

/// A policy's file, loaded.
pub(super) struct Opened {
    pub(super) bytes: Vec<u8>,
    pub(super) candidate: Candidate,
    pub(super) config: Value,
    pub(super) limits: PolicyLimits,
}

impl CandidateArgs {
    /// Loads the file and reads the configuration.
    ///
    /// # Errors
    /// What is wrong with either, and what to do about it.
    pub(super) fn open(&self) -> anyhow::Result<Opened> {
        let config = self.config.as_deref().map_or(Ok(Value::Null), configuration)?;
        let bytes = read_policy(&self.file).map_err(|error| self.advised(error))?;
        let candidate = Workbench::new()?.load(&bytes).map_err(|error| self.advised(error))?;
        Ok(Opened { bytes, candidate, config, limits: self.limits() })
    }

    /// What one question may cost here.
    fn limits(&self) -> PolicyLimits {
        let default = PolicyLimits::default();
        PolicyLimits {
            fuel: self.fuel.unwrap_or(default.fuel),
            memory: self.memory.unwrap_or(default.memory),
            time: TRIAL_TIME,
            ..default
        }
    }

    /// A file that is no policy, with what its author does next.
    fn advised(&self, error: LoadError) -> anyhow::Error {
        let file = self.file.display();
        let next = match &error {
            LoadError::Read(_, source) if source.kind() == std::io::ErrorKind::NotFound => {
                Some("`backstop policy build` makes policies/NAME.wasm from the crate policies/NAME".to_owned())
            }
            LoadError::NoFile(_) | LoadError::Read(..) if self.file.is_dir() => {
                Some(format!("that is a folder: `backstop policy build {file}` makes a policy from the crate in it"))
            }
            LoadError::Describe(_) => {
                Some("a policy is asked to describe itself before anything else: let it do no work there".to_owned())
            }
            _ => None,
        };
        let refused = match error {
            unread @ (LoadError::Read(..) | LoadError::NoFile(_)) => anyhow::Error::new(unread),
            other => anyhow::Error::new(other).context(format!("{file} is no policy")),
        };
        match next {
            // The chain is printed from the outside in: what to do comes last for whoever reads it.
            Some(next) => anyhow::anyhow!("{refused:#}\n{next}"),
            None => refused,
        }
    }
}

/// Why a policy does not judge under a configuration, with what its author does next.
pub(super) fn unfit(error: Unfit, given: bool) -> anyhow::Error {
    let next = match (&error, given) {
        (Unfit::Schema(_), false) => {
            "give it a configuration with `--config`; `backstop policy inspect` shows its schema"
        }
        (Unfit::Schema(_), true) => "`backstop policy inspect` shows its schema",
        (Unfit::Failed(_), _) => {
            "it is configured, and then asked about a plain 503 and a timeout, before it serves: all of that must work"
        }
    };
    anyhow::anyhow!("{:#}\n{next}", anyhow::Error::new(error))
}

/// Prints why there is nothing to work on; the exit code for that is 2.
pub(super) fn refuse(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(2)
}

/// Reads a configuration: text that begins as JSON does, or else a file's name, with or without an @ before it.
fn configuration(given: &str) -> anyhow::Result<Value> {
    let trimmed = given.trim_start();
    let is_text = trimmed.starts_with(['{', '[', '"']) || trimmed == "null" || trimmed.contains('\n');
    if is_text {
        return serde_yaml::from_str(given).context("--config is neither JSON nor YAML");
    }
    let path = Path::new(given.strip_prefix('@').unwrap_or(given));
    let read = read(path);
    let text = read.with_context(|| {
        format!(
            "--config takes JSON such as '{{\"key\": 1}}', or the name of a file: failed to read {}",
            path.display()
        )
    })?;
    serde_yaml::from_slice(&text).with_context(|| format!("{} is neither JSON nor YAML", path.display()))
}

/// A text given on the command line: itself, or with an @ before it the content of that file.
pub(super) fn text_or_file(given: &str) -> anyhow::Result<Vec<u8>> {
    match given.strip_prefix('@') {
        None => Ok(given.as_bytes().to_vec()),
        Some(path) => read(Path::new(path)).with_context(|| format!("failed to read {path}")),
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_INPUT + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_INPUT {
        bail!("it is longer than 32 MiB");
    }
    Ok(content)
}
