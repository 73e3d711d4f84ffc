//! A policy in the sandbox, to be asked in the two ways that a route may ask it: by an instance that is used again and
//! again, and by a new one each time.

use serde_json::Value;

use super::super::{Asked, Candidate, Interest, Judge, Unfit};
use super::question::{Answer, Hook, Question, Respondent, Said, Trouble};
use crate::config::{Isolation, PolicyLimits};
use crate::message::Provenance;

/// A candidate under one configuration.
#[derive(Debug)]
pub struct Subject {
    reused: Judge,
    fresh: Judge,
    fuel: u64,
}

impl Subject {
    /// Has `candidate` configured as a route would.
    ///
    /// # Errors
    /// Why no route could use it so.
    pub fn new(candidate: &Candidate, config: &Value, limits: PolicyLimits) -> Result<Self, Unfit> {
        let bind = |isolation| candidate.judge(config, limits, isolation);
        Ok(Self { reused: bind(Isolation::Reuse)?, fresh: bind(Isolation::Fresh)?, fuel: limits.fuel })
    }

    /// What the policy wants to see under the configuration.
    pub const fn interest(&self) -> &Interest {
        self.reused.interest()
    }

    fn put(&self, judge: &Judge, question: &Question) -> Answer {
        let Question { hook, message, attempt, outcome } = question;
        match hook {
            Hook::Judge => self.answer(judge.judge(message, *attempt, outcome), Said::Decision),
            Hook::Admit => self.answer(judge.admit(message), Said::Admission),
            Hook::FallBack => self.answer(judge.fall_back(message, *attempt, outcome), Said::Fallback),
        }
    }

    /// What the policy itself said: the host's own answer in its stead is none.
    fn answer<T>(&self, asked: Asked<T>, said: impl FnOnce(T) -> Said) -> Answer {
        let Provenance { fuel, log, failure, .. } = asked.provenance;
        let said = match failure {
            None => Ok(said(asked.answer)),
            Some(words) if fuel >= self.fuel => Err(Trouble::OutOfFuel(words)),
            Some(words) => Err(Trouble::Broken(words)),
        };
        Answer { said, fuel, log }
    }
}

impl Respondent for Subject {
    fn ask(&self, question: &Question) -> Answer {
        self.put(&self.reused, question)
    }

    fn ask_afresh(&self, question: &Question) -> Answer {
        self.put(&self.fresh, question)
    }
}
