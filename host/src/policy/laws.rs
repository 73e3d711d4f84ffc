//! Laws that every policy is held to, tried over thousands of generated questions in the very sandbox that serves.
//!
//! The way of a question: the [`Generator`] makes it, a [`Respondent`] (a [`Subject`] in the sandbox) is asked it twice
//! in one instance and once in a new one, and every [`Law`] that it concerns is held against the answers. The first
//! question that breaks a law is shrunk until nothing can be left out, and kept as its [`CounterExample`]; the law is
//! then tried no further.
//!
//! Nothing here proves that a policy keeps a law: it was tried so often, with these questions, and kept. The same
//! seed asks the same questions. The work is bounded by the number of questions: each costs three calls, and each broken
//! law at most 1,500 questions more.

pub mod law;
pub mod question;
pub mod saying;
mod dictionary;
mod generate;
mod shrink;
mod subject;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

pub use dictionary::Dictionary;
pub use generate::Generator;
pub use law::{Hearing, Law, UnknownLaw};
pub use question::{Answer, Hook, Question, Respondent, Said, Trouble, plain_message};
pub use subject::Subject;

use super::standard::standard_rule;
use super::{Hooks, Interest};
use crate::message::{Outcome, RouteName, VerdictKind};

/// Different answers that are remembered, to know a new one.
const MOST_HEARD: usize = 10_000;

/// Kinds of answers that are counted for the report.
const MOST_COUNTED: usize = 1000;

/// How the laws are tried.
#[derive(Clone, Debug)]
pub struct Trial {
    /// How many questions are asked.
    pub cases: u32,
    /// What chance starts from.
    pub seed: u64,
    /// Laws that are switched off.
    pub without: Vec<Law>,
}

/// What became of every law that was not switched off, in the order of [`Law::ALL`].
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Each law with its finding.
    pub findings: Vec<(Law, Finding)>,
    /// How many questions were asked, those for shrinking not counted.
    pub asked: u32,
    /// The most fuel that one question took.
    pub most_fuel: u64,
    /// What the policy answered, in words, and how often; the most frequent first. What is not among it was not tried.
    pub answers: Vec<(String, u32)>,
}

/// What became of a law.
#[derive(Clone, Debug)]
pub enum Finding {
    /// It held for so many questions that concerned it.
    Held(u32),
    /// No question concerned it, for this reason.
    Untried(&'static str),
    /// It was broken.
    Broken(Box<CounterExample>),
}

/// A question that breaks a law, and how.
#[derive(Clone, Debug)]
pub struct CounterExample {
    /// As small as it could be made.
    pub question: Question,
    /// What the policy did, in words.
    pub how: String,
    /// Which of the questions it was found with, from 1.
    pub found_at: u32,
}

impl CounterExample {
    /// The longest body in it: of the answer, or of the request.
    pub fn longest_body(&self) -> &Bytes {
        let request = &self.question.message.request.body;
        match &self.question.outcome {
            Outcome::Response(response) if response.body.len() >= request.len() => &response.body,
            Outcome::Response(_) | Outcome::Silence(_) => request,
        }
    }

    /// The kind of verdict that does not break `law`: the standard rule's.
    pub fn expected(&self, law: Law) -> VerdictKind {
        match law {
            Law::NeverShortensRetryAfter => VerdictKind::Retry,
            _ => standard_rule(&self.question.outcome).verdict.kind(),
        }
    }
}

impl Report {
    /// Whether no law was broken.
    pub fn holds(&self) -> bool {
        !self.findings.iter().any(|(_, finding)| matches!(finding, Finding::Broken(_)))
    }
}

/// What is known of a policy before it is asked anything.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The questions that it answers itself.
    pub hooks: Hooks,
    /// What it wants to see.
    pub interest: &'a Interest,
    /// The words that it looks for.
    pub words: &'a Dictionary,
}

impl<'a> Known<'a> {
    /// The questions that are asked of it, on behalf of `route`; `None` when it answers none.
    fn questions(&self, seed: u64, route: RouteName) -> Option<Generator<'a>> {
        Generator::new(seed, self.words, self.interest, Hook::among(self.hooks), route)
    }
}

/// Asks `respondent` as many questions as the trial says, on behalf of `route`, and holds the answers against every law
/// that is not switched off.
pub fn try_laws(respondent: &impl Respondent, known: Known<'_>, route: RouteName, trial: &Trial) -> Report {
    let mut report = Report::default();
    let laws = || Law::ALL.into_iter().filter(|law| !trial.without.contains(law));
    let mut standing: Vec<Standing> = laws().map(|law| Standing { law, held: 0, broken: None }).collect();
    let mut heard = HashSet::new();
    let mut answers: HashMap<String, u32> = HashMap::new();
    let mut questions = known.questions(trial.seed, route);
    for index in 1..=trial.cases {
        let Some(generator) = &mut questions else { break };
        let question = generator.question();
        let hearing = hear(respondent, &question);
        report.asked = index;
        report.most_fuel = report.most_fuel.max(hearing.answer.fuel);
        for standing in standing.iter_mut().filter(|standing| standing.broken.is_none()) {
            standing.hold(respondent, &question, &hearing, known.interest, index);
        }
        let said = saying::said(&hearing.answer);
        if answers.len() < MOST_COUNTED || answers.contains_key(&said) {
            *answers.entry(said.clone()).or_default() += 1;
        }
        let words = format!("{said}{:?}", hearing.answer.log);
        if heard.len() < MOST_HEARD && heard.insert(words) {
            generator.keep(&question);
        }
    }
    report.answers = answers.into_iter().collect();
    report.answers.sort_by(|(one, often), (other, oftener)| oftener.cmp(often).then_with(|| one.cmp(other)));
    report.findings = standing.into_iter().map(|standing| (standing.law, standing.finding(known.interest))).collect();
    report
}

/// Puts a question in the three ways.
fn hear(respondent: &impl Respondent, question: &Question) -> Hearing {
    Hearing {
        answer: respondent.ask(question),
        again: respondent.ask(question),
        afresh: respondent.ask_afresh(question),
    }
}

/// How a law stands so far.
struct Standing {
    law: Law,
    held: u32,
    broken: Option<Box<CounterExample>>,
}

impl Standing {
    fn hold(
        &mut self,
        respondent: &impl Respondent,
        question: &Question,
        hearing: &Hearing,
        interest: &Interest,
        index: u32,
    ) {
        let law = self.law;
        let Some(how) = law.broken_by(question, hearing, interest) else {
            self.held += u32::from(law.concerns(question, interest));
            return;
        };
        // What is heard while shrinking is kept: an instance that remembers may never say the same again.
        let mut last = how;
        let question = shrink::shrink(question.clone(), |candidate| {
            let how = law.broken_by(candidate, &hear(respondent, candidate), interest);
            how.map(|how| last = how).is_some()
        });
        self.broken = Some(Box::new(CounterExample { question, how: last, found_at: index }));
    }

    fn finding(self, interest: &Interest) -> Finding {
        match self.broken {
            Some(broken) => Finding::Broken(broken),
            None if self.held == 0 => Finding::Untried(self.law.why_untried(interest)),
            None => Finding::Held(self.held),
        }
    }
}
