//! `backstop policy test`: a policy asked in the real sandbox, case by case.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use crate::config::Problems;
use crate::policy::cases::{self, CaseFile};
use crate::policy::{LoadError, Workbench};

/// What `--help` shows.
pub(super) const EXAMPLES: &str = "\
Examples:
  backstop policy test policies/maintenance.wasm maintenance/cases.yaml
  backstop policy test policies/maintenance.wasm cases/*.yaml --junit target/cases.xml
  backstop policy test --schema > cases.schema.json

A case file:
  policy: maintenance                   # optional: another policy is refused
  config: { pause: 5m }                 # the policy_config, unless a case has its own
  cases:
    - name: maintenance is waited out
      outcome: { status: 400, body: down for maintenance }     # or { silence: timeout }
      expect: { verdict: retry, after: 5m, reason: vendor in maintenance }
    - name: what malformed messages become
      ask: admit                        # default: judge; or fall_back, settle
      message: { json: { id: null } }
      expect: { admission: drop }
    - name: a paid order did happen
      ask: settle                       # the outcome is what a sender answers to a check-back
      outcome: { status: 200, json: { status: paid } }
      expect: { settlement: committed } # or rolled_back, unknown
    - name: a pause without its unit is refused
      config: { pause: 5 }
      expect: { config_refused: pause }

Each case is asked twice in one instance and once in a fresh one: a policy whose answers differ is impure, and fails.
Exit code 0: all passed; 1: a case failed; 2: a file is wrong.";

#[derive(clap::Args, Debug)]
pub(super) struct Test {
    /// The policy's file, as `backstop policy build` makes it.
    #[arg(required_unless_present = "schema", value_name = "POLICY.wasm")]
    policy: Option<PathBuf>,
    /// The case files.
    #[arg(required_unless_present = "schema", value_name = "CASES.yaml")]
    cases: Vec<PathBuf>,
    /// Write what became of the cases as JUnit XML, too; folders that are missing are made.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print the JSON Schema of case files instead.
    #[arg(long)]
    schema: bool,
}

impl Test {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Some(policy) = self.policy.as_deref().filter(|_| !self.schema) else {
            out!("{}", serde_json::to_string_pretty(&CaseFile::json_schema())?);
            return Ok(ExitCode::SUCCESS);
        };
        if let Some(old) = &self.junit {
            // A report of an earlier run would speak for this one, if this one comes to none.
            let _ = std::fs::remove_file(old);
        }
        let files = match read(&self.cases) {
            Ok(files) => files,
            Err(refused) => return Ok(refuse(&refused)),
        };
        let candidate = match Workbench::new()?.open(policy) {
            Ok(candidate) => candidate,
            Err(error) => {
                let is_absent = matches!(error, LoadError::Read(..));
                eprintln!("error: {}: {:#}", policy.display(), anyhow::Error::new(error));
                if is_absent {
                    eprintln!("`backstop policy build` makes a policy's file from its crate, and says where it is");
                }
                return Ok(ExitCode::from(2));
            }
        };
        let name = candidate.describe().name;
        let refused: Vec<Problems> = files.iter().filter_map(|file| file.check_policy(&name).err()).collect();
        if !refused.is_empty() {
            return Ok(refuse(&refused));
        }
        let report = cases::run(&candidate, &files);
        out!("{report}");
        if let Some(Err(error)) = self.junit.as_deref().map(|file| write(file, &report.junit())) {
            eprintln!("error: {error:#}");
            return Ok(ExitCode::from(2));
        }
        Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Reads every file, so that all mistakes are told in one go.
fn read(paths: &[PathBuf]) -> Result<Vec<CaseFile>, Vec<Problems>> {
    let (mut files, mut refused) = (Vec::new(), Vec::new());
    for path in paths {
        match CaseFile::load(path) {
            Ok(file) => files.push(file),
            Err(problems) => refused.push(problems),
        }
    }
    if refused.is_empty() { Ok(files) } else { Err(refused) }
}

fn refuse(refused: &[Problems]) -> ExitCode {
    for problems in refused {
        eprintln!("{problems}");
    }
    let mistakes: usize = refused.iter().map(|problems| problems.problems.len()).sum();
    eprintln!("{mistakes} mistake{}; nothing was tested", if mistakes == 1 { "" } else { "s" });
    ExitCode::from(2)
}

fn write(file: &Path, report: &str) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let written = folder.map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(file, report));
    written.with_context(|| format!("failed to write the report to {}", file.display()))
}
