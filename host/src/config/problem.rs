//! Mistakes, collected: every one with its line, its key and what to write instead.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Problems reported at most; what comes after them is counted only.
const MAX_PROBLEMS: usize = 200;

/// Characters of a key or of a value quoted in a problem.
const MAX_QUOTED: usize = 80;

/// A mistake in the configuration, where it is and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The line in the file, from 1; none for a mistake of the whole file.
    pub line: Option<usize>,
    /// The key it concerns, such as `routes.orders.retry.max_delay`; empty for the whole file.
    pub key: String,
    /// What is wrong, and what to write instead. Never holds a secret.
    pub message: String,
}

/// All the mistakes found, in order of line.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Problems {
    /// The file they are in.
    pub file: PathBuf,
    /// The mistakes; never empty.
    pub problems: Vec<Problem>,
}

impl Problems {
    /// One problem, of `file` as a whole.
    pub(crate) fn of_file(file: &Path, message: impl Into<String>) -> Self {
        let problem = Problem { line: None, key: String::new(), message: message.into() };
        Self { file: file.to_path_buf(), problems: vec![problem] }
    }
}

impl fmt::Display for Problems {
    /// One line each: `backstop.yaml:12: routes.orders.retry.max_delay: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.file.display())?;
            if let Some(line) = problem.line {
                write!(f, "{line}:")?;
            }
            if !problem.key.is_empty() {
                write!(f, " {}:", problem.key)?;
            }
            write!(f, " {}", problem.message)?;
        }
        Ok(())
    }
}

/// Where in the document something stands: a chain of keys up to the root. It lives on the stack, so that walking a
/// large document costs nothing until there is something to report.
#[derive(Clone, Copy)]
pub(crate) struct Place<'p> {
    parent: Option<&'p Place<'p>>,
    step: Step<'p>,
}

/// One step down into a document.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'p> {
    /// The document itself.
    Root,
    /// The value under a key.
    Key(&'p str),
    /// An element of a list, from 0.
    Index(usize),
}

impl<'p> Place<'p> {
    /// The document itself.
    pub(crate) const ROOT: Place<'static> = Place { parent: None, step: Step::Root };

    /// The value under `key`.
    pub(crate) const fn key(&'p self, key: &'p str) -> Place<'p> {
        Place { parent: Some(self), step: Step::Key(key) }
    }

    /// The element number `index`.
    pub(crate) const fn index(&'p self, index: usize) -> Place<'p> {
        Place { parent: Some(self), step: Step::Index(index) }
    }

    /// The steps from the root.
    pub(super) fn steps(&self) -> Vec<Step<'p>> {
        let mut steps = Vec::new();
        let mut place = Some(self);
        while let Some(here) = place {
            if here.step != Step::Root {
                steps.push(here.step);
            }
            place = here.parent;
        }
        steps.reverse();
        steps
    }
}

impl fmt::Display for Place<'_> {
    /// `routes.orders.destination.allow[0]`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps().into_iter().enumerate() {
            match step {
                Step::Root => {}
                Step::Key(key) if index == 0 => f.write_str(&cut(key))?,
                Step::Key(key) => write!(f, ".{}", cut(key))?,
                Step::Index(number) => write!(f, "[{number}]")?,
            }
        }
        Ok(())
    }
}

/// The problems found so far.
#[derive(Default)]
pub(super) struct Findings {
    problems: RefCell<Vec<Problem>>,
    more: std::cell::Cell<usize>,
}

impl Findings {
    /// Adds a problem.
    pub(super) fn report(&self, line: Option<usize>, place: impl fmt::Display, message: impl Into<String>) {
        self.push(line, || place.to_string(), message.into());
    }

    /// Adds a problem of the whole file, or of a line that no key could be found on.
    pub(super) fn report_file(&self, line: Option<usize>, message: impl Into<String>) {
        self.push(line, String::new, message.into());
    }

    fn push(&self, line: Option<usize>, key: impl FnOnce() -> String, message: String) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < MAX_PROBLEMS {
            problems.push(Problem { line, key: key(), message });
        } else {
            self.more.set(self.more.get().saturating_add(1));
        }
    }

    /// Whether further problems are counted only.
    pub(super) fn is_full(&self) -> bool {
        self.problems.borrow().len() >= MAX_PROBLEMS
    }

    /// The problems of `file` in order of line, those of the whole file first; none if nothing was reported.
    pub(super) fn into_problems(self, file: &Path) -> Option<Problems> {
        let mut problems = self.problems.into_inner();
        if problems.is_empty() {
            return None;
        }
        problems.sort_by_key(|problem| problem.line);
        if self.more.get() > 0 {
            let message = format!("{} more mistakes are not shown", self.more.get());
            problems.push(Problem { line: None, key: String::new(), message });
        }
        Some(Problems { file: file.to_path_buf(), problems })
    }
}

/// `text`, cut to what fits into a problem, without control characters.
pub(super) fn cut(text: &str) -> String {
    let mut characters = text.chars();
    let mut cut: String =
        characters.by_ref().take(MAX_QUOTED).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if characters.next().is_some() {
        cut.push('…');
    }
    cut
}

/// What somebody who wrote `given` may have meant, if one of `known` is near enough.
pub(crate) fn nearest<'k>(given: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // No key is longer, and the distance costs the product of both lengths.
    if given.len() > MAX_QUOTED {
        return None;
    }
    let lower = given.to_lowercase();
    let snake = lower.replace('-', "_");
    let near = |known: &'k str| {
        let distance = strsim::damerau_levenshtein(&lower, known).min(strsim::damerau_levenshtein(&snake, known));
        (distance <= (known.chars().count() / 3).max(1)).then_some((distance, known))
    };
    known.into_iter().filter_map(near).min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}
