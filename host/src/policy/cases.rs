//! Table tests of a policy: cases in a YAML file, asked in the real sandbox and held against what they expect.
//!
//! A case is a question with its circumstances and the answer that its author expects. It is asked three times, twice
//! of one instance and once of a fresh one, because a policy must be a pure function: where the answers differ the
//! case fails, whatever they are.
//!
//! The way of a case: `raw` is what its file says, `read` makes it a `Case` that cannot be wrong, `ask` puts it to
//! the policy, `compare` finds the differences, and a [`Report`] tells them to a person, or as JUnit XML.
//!
//! Refused, with every mistake in one go: unknown keys, expectations that belong to another question, and cases that
//! expect nothing. A file is at most 1 MiB, a body 4 MiB, and all bodies of a file 64 MiB.

mod raw;
mod units;
mod body;
mod read;
mod expected;
mod ask;
mod compare;
mod report;
mod junit;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde_json::Value;

use self::ask::Judges;
use self::expected::Expected;
use super::{AttemptView, Candidate};
use crate::config::{PolicyLimits, Problem, Problems};
use crate::message::{Message, Outcome};

pub use report::{CaseReport, FileReport, Finding, Report};

/// A file of cases.
#[derive(Debug)]
pub struct CaseFile {
    /// The file, as it was named.
    pub path: PathBuf,
    /// The policy that the cases are for, where the file says so, and on which line.
    policy: Option<(String, usize)>,
    /// The cases, in the file's order. Never empty.
    cases: Vec<Case>,
}

/// One case.
#[derive(Debug)]
struct Case {
    /// What it is about, in the author's words.
    name: String,
    /// Where it begins in the file, from 1.
    line: usize,
    /// None: whether the policy takes its configuration is all that is asked.
    question: Option<Question>,
    /// The policy's configuration; null for none.
    config: Value,
    limits: PolicyLimits,
    expected: Expected,
}

/// What a case asks.
#[derive(Debug)]
enum Question {
    /// Should this message be sent at all?
    Admit(Message),
    /// What does the outcome of this attempt mean?
    Judge(Message, AttemptView, Outcome),
    /// What to answer when attempts are exhausted?
    FallBack(Message, AttemptView, Outcome),
    /// What does this answer of a sender say of the operation behind its half message? No answer says nothing: the
    /// policy is not asked about it.
    Settle(Message, Outcome),
}

impl CaseFile {
    /// Reads the case file at `path`; files that it names are relative to its folder. Blocks on files.
    ///
    /// # Errors
    /// Every mistake in it, in order of line.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let text = crate::config::Sheet::text_of(path)?;
        Self::parse(&text, path)
    }

    /// Reads `text`, which came from the case file at `path`.
    ///
    /// # Errors
    /// Every mistake in it, in order of line.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Problems> {
        read::read(text, path)
    }

    /// How many cases it holds.
    pub const fn len(&self) -> usize {
        self.cases.len()
    }

    /// Whether it holds none, which no file that was read does.
    pub const fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }

    /// The JSON Schema of such files, for editors. Looser than [`CaseFile::load`], which also knows what must fit
    /// together.
    pub fn json_schema() -> Value {
        schemars::schema_for!(raw::RawFile).to_value()
    }

    /// Checks that the cases are for the policy called `name`.
    ///
    /// # Errors
    /// When the file says that they are for another.
    pub fn check_policy(&self, name: &str) -> Result<(), Problems> {
        match &self.policy {
            Some((meant, line)) if meant != name => {
                let message = format!(
                    "these cases are for the policy `{meant}`, and the one to be tested calls itself `{name}`: name \
                     the other file on the command line, or write `policy: {name}` here"
                );
                let problem = Problem { line: Some(*line), key: "policy".to_owned(), message };
                Err(Problems { file: self.path.clone(), problems: vec![problem] })
            }
            _ => Ok(()),
        }
    }
}

/// Asks the policy every case of `files`, in order. Blocks for as long as it takes: at most the time that each case's
/// limits allow, six times.
pub fn run(candidate: &Candidate, files: &[CaseFile]) -> Report {
    let described = candidate.describe();
    let mut judges = Judges::new(candidate, described.hooks);
    let of_file = |file: &CaseFile| FileReport {
        path: file.path.clone(),
        cases: file.cases.iter().map(|case| judges.try_case(case)).collect(),
    };
    let files = files.iter().map(of_file).collect();
    Report { policy: described, files }
}
