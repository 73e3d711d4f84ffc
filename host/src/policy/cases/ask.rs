//! Puts a case to the policy, three times: twice to one instance, and once to a fresh one.

use std::time::Duration;

use serde_json::Value;

use super::compare::{self, Answer};
use super::report::{CaseReport, Finding};
use super::{Case, Question};
use crate::config::{Isolation, PolicyLimits};
use crate::message::LogLine;
use crate::policy::{Asked, Candidate, Failure, Hooks, Judge, Unfit};

/// The policy under the configurations of its cases.
pub(super) struct Judges<'c> {
    candidate: &'c Candidate,
    hooks: Hooks,
    /// The latest: cases of one configuration mostly stand together, and an instance that answered others before shows
    /// more of what a policy remembers.
    latest: Option<Pair>,
}

/// The policy under one configuration.
struct Pair {
    config: Value,
    limits: PolicyLimits,
    /// One instance answers all questions.
    reused: Judge,
    /// Each question has an instance of its own.
    fresh: Judge,
}

/// What the policy said.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) answer: Answer,
    /// Why it gave no usable answer; `answer` is then the host's.
    pub(super) failure: Option<String>,
    pub(super) fuel: u64,
    pub(super) took: Duration,
    pub(super) log: Vec<LogLine>,
}

impl<'c> Judges<'c> {
    pub(super) const fn new(candidate: &'c Candidate, hooks: Hooks) -> Self {
        Self { candidate, hooks, latest: None }
    }

    /// Asks, and compares.
    pub(super) fn try_case(&mut self, case: &Case) -> CaseReport {
        let mut report = CaseReport::new(case);
        if let Some(complaint) = case.question.as_ref().and_then(|question| self.unanswered(question)) {
            report.findings.push(Finding::Complaint(complaint));
            return report;
        }
        let pair = match self.pair(case) {
            Ok(pair) => pair,
            Err(unfit) => {
                report.findings.extend(unserved(case, unfit));
                return report;
            }
        };
        let Some(question) = &case.question else {
            report.findings.extend(compare::acceptance(&case.expected));
            return report;
        };
        let runs = [
            ("in an instance in use", ask(&pair.reused, question)),
            ("once more, in the same", ask(&pair.reused, question)),
            ("in a fresh instance", ask(&pair.fresh, question)),
        ];
        report.findings.extend(compare::purity(&runs));
        let [.., (_, fresh)] = runs;
        report.findings.extend(compare::answer(&case.expected, &fresh));
        report.fuel = fresh.fuel;
        report.took = fresh.took;
        report.log = fresh.log;
        report
    }

    /// Why the policy would not be asked this at all.
    fn unanswered(&self, question: &Question) -> Option<String> {
        let (hook, instead, answers) = match question {
            Question::Admit(..) => ("admit", "every message is sent", self.hooks.admit),
            Question::Judge(..) => ("judge", "the standard rule judges", self.hooks.judge),
            Question::FallBack(..) => ("fall_back", "the route's fallback serves", self.hooks.fall_back),
            Question::Settle(..) => ("settle", "the host reads the sender's answer", self.hooks.settle),
        };
        let mend = match hook {
            "admit" => "implement `Admit` for it",
            "judge" => "implement `Policy` for it",
            "settle" => "implement `Settle` for it",
            _ => "implement `FallBack` for it",
        };
        (!answers).then(|| format!("the policy does not answer `{hook}`, so {instead}: {mend}, or remove the case"))
    }

    fn pair(&mut self, case: &Case) -> Result<&Pair, Unfit> {
        let fits = |pair: &Pair| pair.config == case.config && pair.limits == case.limits;
        let latest = match self.latest.take().filter(fits) {
            Some(pair) => pair,
            None => {
                let judge = |isolation| self.candidate.judge(&case.config, case.limits, isolation);
                Pair {
                    config: case.config.clone(),
                    limits: case.limits,
                    reused: judge(Isolation::Reuse)?,
                    fresh: judge(Isolation::Fresh)?,
                }
            }
        };
        Ok(self.latest.insert(latest))
    }
}

fn ask(judge: &Judge, question: &Question) -> Heard {
    match question {
        Question::Admit(message) => heard(judge.admit(message), Answer::Admission),
        Question::Judge(message, attempt, outcome) => heard(judge.judge(message, *attempt, outcome), Answer::Decision),
        Question::FallBack(message, attempt, last) => heard(judge.fall_back(message, *attempt, last), Answer::FallBack),
        Question::Settle(message, answer) => heard(judge.settle(message, answer), Answer::Settlement),
    }
}

fn heard<T>(asked: Asked<T>, answer: impl FnOnce(T) -> Answer) -> Heard {
    let Asked { answer: said, provenance } = asked;
    Heard {
        answer: answer(said),
        failure: provenance.failure,
        fuel: provenance.fuel,
        took: Duration::from_nanos(provenance.took_ns),
        log: provenance.log,
    }
}

/// What is wrong where no question could be asked.
fn unserved(case: &Case, unfit: Unfit) -> Option<Finding> {
    match unfit {
        Unfit::Schema(violations) => {
            let words: Vec<String> = violations.iter().map(|wrong| format!("config{wrong}")).collect();
            compare::refusal(&case.expected, &words.join("; "))
        }
        Unfit::Failed(Failure::Refused(words)) => compare::refusal(&case.expected, &words),
        Unfit::Failed(failure) => compare::failure(&case.expected, &failure.to_string()),
    }
}
