//! What a play tells, step by step, and the account of what was checked on the way.

use std::process::ExitCode;

use crate::message::AttemptRecord;

use super::super::board;
use super::super::ink::{Ink, Line, Paper};

/// The longest text of somebody else's that is shown in a line, in characters.
const SHOWN: usize = 160;

/// A story while it is told.
#[derive(Debug)]
pub(super) struct Story {
    paper: Paper,
    steps: u32,
    checks: u32,
    /// What did not hold, with the step it belongs to.
    failed: Vec<String>,
}

impl Story {
    /// A story that begins.
    pub(super) const fn on(paper: Paper) -> Self {
        Self { paper, steps: 0, checks: 0, failed: Vec::new() }
    }

    /// Says something that is no step yet: what the stage looks like.
    pub(super) fn say(&self, line: &Line) {
        self.paper.say(line);
    }

    /// The next step begins: what now happens in the world around the host.
    pub(super) fn step(&mut self, what: &str) {
        self.steps += 1;
        self.paper.say(&Line::new());
        self.paper.say(&Line::of(Ink::Host, format!("{:>2}  ", self.steps)).then(Ink::Bold, what));
    }

    /// What the host did, by its own journal.
    pub(super) fn journal(&self, attempts: &[AttemptRecord]) {
        for attempt in attempts {
            self.paper.say(&begun("host").append(&board::told(attempt)));
        }
    }

    /// What `who` saw or said.
    pub(super) fn seen(&self, who: &str, what: &str) {
        self.paper.say(&begun(who).then(Ink::Plain, cut(what)));
    }

    /// Something that must hold, by the host's word and by that of the others.
    pub(super) fn check(&mut self, what: &str, holds: bool) {
        self.paper.say(&mark(holds, what));
        self.note(what, holds);
    }

    /// Tells what the checks came to, and what that means for whoever runs this.
    pub(super) fn close(&self) -> ExitCode {
        self.account().iter().for_each(|line| self.paper.say(line));
        if self.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn note(&mut self, what: &str, holds: bool) {
        self.checks += 1;
        if !holds {
            self.failed.push(format!("step {}: {what}", self.steps));
        }
    }

    /// Whether everything held. Where nothing was checked, nothing is known.
    fn is_good(&self) -> bool {
        self.failed.is_empty() && self.checks > 0
    }

    /// What the checks came to.
    fn account(&self) -> Vec<Line> {
        let heading = "Checked with the host's own API, and against what its vendors and callers recorded";
        let mut lines = vec![Line::new(), Line::of(Ink::Bold, heading)];
        let (checks, failed) = (self.checks, &self.failed);
        if failed.is_empty() {
            lines.push(mark(self.is_good(), &format!("all {checks} checks hold")));
        } else {
            lines.push(mark(false, &format!("{} of {checks} checks do not hold", failed.len())));
            lines.extend(failed.iter().map(|failed| Line::of(Ink::Bad, format!("      {failed}"))));
        }
        lines
    }
}

fn begun(who: &str) -> Line {
    Line::of(Ink::Faint, format!("    {who:<9} "))
}

/// The beginning of a text from outside.
fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn mark(good: bool, text: &str) -> Line {
    let (ink, mark, words) = if good { (Ink::Good, "✓", Ink::Plain) } else { (Ink::Bad, "✗", Ink::Bad) };
    Line::of(ink, format!("    {mark} ")).then(words, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn painted(story: &Story) -> String {
        story.account().iter().map(|line| line.paint(usize::MAX, false) + "\n").collect()
    }

    #[test]
    fn a_check_that_fails_fails_the_play_and_is_named() {
        let mut story = Story { steps: 3, ..Story::on(Paper::PLAIN) };
        story.note("it is bright", true);
        assert!(story.is_good() && painted(&story).contains("✓ all 1 checks hold"), "{}", painted(&story));
        story.note("it is warm", false);
        story.note("it is summer", true);
        let told = painted(&story);
        assert!(!story.is_good() && told.contains("✗ 1 of 3 checks do not hold\n      step 3: it is warm"), "{told}");
    }

    #[test]
    fn a_play_that_checks_nothing_proves_nothing() {
        assert!(!Story::on(Paper::PLAIN).is_good());
    }

    #[test]
    fn a_long_answer_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"ü".repeat(SHOWN + 1)), format!("{}…", "ü".repeat(SHOWN)));
    }
}
