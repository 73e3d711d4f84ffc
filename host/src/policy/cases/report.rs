//! What became of the cases, for a person at a terminal.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::Case;
use crate::message::LogLine;
use crate::policy::Description;

/// Characters shown of a text.
const MAX_SHOWN: usize = 400;

/// What became of all cases.
#[derive(Clone, Debug)]
pub struct Report {
    /// The policy that was asked.
    pub policy: Description,
    /// The files, in the order given.
    pub files: Vec<FileReport>,
}

/// What became of one file's cases.
#[derive(Clone, Debug)]
pub struct FileReport {
    /// The file, as it was named.
    pub path: PathBuf,
    /// Its cases, in the file's order.
    pub cases: Vec<CaseReport>,
}

/// What became of one case.
#[derive(Clone, Debug)]
pub struct CaseReport {
    /// What it is about.
    pub name: String,
    /// Where it begins in its file, from 1.
    pub line: usize,
    /// What is wrong. Empty: it passed.
    pub findings: Vec<Finding>,
    /// What the policy logged, in a fresh instance.
    pub log: Vec<LogLine>,
    /// The fuel that one question took, in a fresh instance, in wasmtime's units.
    pub fuel: u64,
    /// The time that one question took, in a fresh instance.
    pub took: Duration,
}

/// What is wrong with an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// Something is not as expected.
    Differs {
        /// The key under `expect` that says so.
        what: String,
        /// What is expected.
        expected: String,
        /// What was got.
        got: String,
    },
    /// The same question got different answers: for each run, in words, what was answered.
    Impure(Vec<(&'static str, String)>),
    /// There is nothing to compare, for this reason.
    Complaint(String),
}

impl Finding {
    pub(super) fn differs(what: impl Into<String>, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self::Differs { what: what.into(), expected: cut(expected.into()), got: cut(got.into()) }
    }

    /// In one line.
    pub(super) fn summary(&self) -> String {
        match self {
            Self::Differs { what, expected, got } => format!("{what}: expected {expected}, got {got}"),
            Self::Impure(_) => "the policy is impure: the same question got different answers".to_owned(),
            Self::Complaint(text) => text.clone(),
        }
    }
}

/// What to do about an impure policy.
const IMPURE: &str = "the policy is impure: the same question got different answers. It must remember nothing between \
                      calls that changes an answer: look for a `static`, a `Cell` or a `Mutex` that it writes to";

impl CaseReport {
    pub(super) fn new(case: &Case) -> Self {
        Self {
            name: case.name.clone(),
            line: case.line,
            findings: Vec::new(),
            log: Vec::new(),
            fuel: 0,
            took: Duration::ZERO,
        }
    }

    /// Whether all was as expected.
    pub const fn passed(&self) -> bool {
        self.findings.is_empty()
    }

    /// What is wrong, in lines, and what the policy logged.
    pub(super) fn details(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let width = self.findings.iter().map(|finding| match finding {
            Finding::Differs { what, .. } => what.chars().count(),
            Finding::Impure(runs) => runs.iter().map(|(run, _)| run.chars().count()).max().unwrap_or(0),
            Finding::Complaint(_) => 0,
        });
        let width = width.chain([3]).max().unwrap_or(0);
        for finding in &self.findings {
            match finding {
                Finding::Differs { what, expected, got } => {
                    lines.push(format!("{what:width$}  expected  {expected}"));
                    lines.push(format!("{:width$}  got       {got}", ""));
                }
                Finding::Impure(runs) => {
                    lines.push(IMPURE.to_owned());
                    lines.extend(runs.iter().map(|(run, said)| format!("{run:width$}  {said}")));
                }
                Finding::Complaint(text) => lines.push(printable(text)),
            }
        }
        for line in &self.log {
            lines.push(format!("{:width$}  {:8}  {}", "log", line.level.as_str(), printable(&line.text)));
        }
        lines
    }
}

impl Report {
    /// Whether every case passed.
    pub fn passed(&self) -> bool {
        self.failed() == 0
    }

    /// How many cases there are.
    pub fn cases(&self) -> usize {
        self.files.iter().map(|file| file.cases.len()).sum()
    }

    /// How many cases failed.
    pub fn failed(&self) -> usize {
        self.files.iter().map(FileReport::failed).sum()
    }
}

impl FileReport {
    /// How many of its cases failed.
    pub fn failed(&self) -> usize {
        self.cases.iter().filter(|case| !case.passed()).count()
    }
}

impl fmt::Display for Report {
    /// A line for each case, and what is wrong with those that failed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, files } = self;
        writeln!(f, "{} {}  sha256 {:.12}", policy.name, policy.version, policy.digest)?;
        for FileReport { path, cases } in files {
            writeln!(f, "{}", path.display())?;
            for case in cases {
                let name = printable(&case.name);
                if case.passed() {
                    writeln!(f, "  ok    {name}")?;
                    continue;
                }
                writeln!(f, "  FAIL  {name}")?;
                writeln!(f, "        {}:{}", path.display(), case.line)?;
                for line in case.details() {
                    writeln!(f, "          {line}")?;
                }
            }
        }
        let (all, failed) = (self.cases(), self.failed());
        let plural = if all == 1 { "" } else { "s" };
        if failed == 0 {
            return write!(f, "{all} case{plural} passed, each asked three times");
        }
        writeln!(f, "{failed} of {all} case{plural} failed, {} passed", all - failed)?;
        write!(
            f,
            "Where the case is right, mend the policy and run `backstop policy build`; where the policy is right, mend \
             the case, at the line given."
        )
    }
}

/// Text in quotes, without characters that a terminal would obey.
pub(super) fn shown(text: &str) -> String {
    cut(format!("{text:?}"))
}

/// As much of a text as helps.
fn cut(text: String) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

/// Text without characters that a terminal would obey.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}
