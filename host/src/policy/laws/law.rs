//! The laws: each with its name, what it means, where that comes from, and how an answer is held against it.
//!
//! A law is here only if it is sound for every policy: whoever breaks it is either wrong, or has a reason that can be
//! said on the command line (`--without LAW=REASON`). What a policy is free to decide, such as whether a 404 is worth
//! another attempt, is nobody's law.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

use super::super::Interest;
use super::question::{Answer, Hook, Question, Said, Trouble};
use super::saying::{decision_in_words, said};
use crate::backoff::RetryAfter;
use crate::config::{default_envelope, show_duration};
use crate::message::{Admission, Decision, LogLevel, Outcome, Verdict};

/// How the SDK ends its warning that something was read which the policy did not ask to see.
const UNDECLARED: &str = "but the policy's interest does not name it";

/// A law that every policy is held to, unless it is switched off by name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Law {
    /// What is gone is not asked for again.
    NeverRetries410,
    /// A failure of the server's is no success.
    NeverAccepts5xx,
    /// No answer is no success.
    NeverAcceptsSilence,
    /// A destination that asks for time is given it.
    NeverShortensRetryAfter,
    /// Whatever is not accepted has a reason.
    GivesAReason,
    /// What is read was asked for.
    DeclaresWhatItReads,
    /// No question costs more than it may.
    AnswersWithinFuel,
    /// Every question is answered.
    Total,
    /// The same question has the same answer.
    Pure,
}

/// A question and the answers to it, put twice to an instance that has answered others and once to a new one.
#[derive(Clone, Debug)]
pub struct Hearing {
    /// The first answer.
    pub answer: Answer,
    /// The answer of the same instance when it was asked again.
    pub again: Answer,
    /// The answer of a new instance.
    pub afresh: Answer,
}

/// A name that is no law's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is no law called `{0}`; there are {known}", known = names())]
pub struct UnknownLaw(String);

fn names() -> String {
    Law::ALL.map(Law::name).join(", ")
}

impl FromStr for Law {
    type Err = UnknownLaw;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|law| law.name() == name).ok_or_else(|| UnknownLaw(name.to_owned()))
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Law {
    /// Every law, in the order in which they are shown.
    pub const ALL: [Self; 9] = [
        Self::NeverRetries410,
        Self::NeverAccepts5xx,
        Self::NeverAcceptsSilence,
        Self::NeverShortensRetryAfter,
        Self::GivesAReason,
        Self::DeclaresWhatItReads,
        Self::AnswersWithinFuel,
        Self::Total,
        Self::Pure,
    ];

    /// What it is called on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NeverRetries410 => "never-retries-410",
            Self::NeverAccepts5xx => "never-accepts-5xx",
            Self::NeverAcceptsSilence => "never-accepts-silence",
            Self::NeverShortensRetryAfter => "never-shortens-retry-after",
            Self::GivesAReason => "gives-a-reason",
            Self::DeclaresWhatItReads => "declares-what-it-reads",
            Self::AnswersWithinFuel => "answers-within-fuel",
            Self::Total => "total",
            Self::Pure => "pure",
        }
    }

    /// What it demands, in a sentence, and where that is written.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::NeverRetries410 => {
                "410 Gone is for good: no other attempt, with whatever credentials (RFC 9110 §15.5.11)"
            }
            Self::NeverAccepts5xx => {
                "a 5xx says that the server failed at the request: it is not accepted (RFC 9110 §15.6)"
            }
            Self::NeverAcceptsSilence => {
                "without an answer nobody has said that it was done: it is not accepted (the contract: verdict `accept`)"
            }
            Self::NeverShortensRetryAfter => {
                "a 429 or 503 with a Retry-After is not tried again sooner than it asks (RFC 9110 §10.2.3, RFC 6585 §4)"
            }
            Self::GivesAReason => {
                "whatever is not accepted has a reason to be found by (the contract: record `decision`)"
            }
            Self::DeclaresWhatItReads => {
                "what it reads of an answer is in its interest: the rest is never there (the contract: record `interest`)"
            }
            Self::AnswersWithinFuel => "no answer of a destination's makes a question cost more fuel than it may",
            Self::Total => "every question has an answer: it never traps, and never answers nonsense",
            Self::Pure => {
                "the same question has the same answer, in an instance that answered others and in a new one (the \
                 contract: package `backstop:policy`)"
            }
        }
    }

    /// Whether `question` can break it at all.
    pub fn concerns(self, question: &Question, interest: &Interest) -> bool {
        let judges = question.hook == Hook::Judge;
        let status = question.status();
        match self {
            Self::NeverRetries410 => judges && status == Some(410),
            Self::NeverAccepts5xx => judges && matches!(status, Some(500..=599)),
            Self::NeverAcceptsSilence => judges && status.is_none(),
            Self::NeverShortensRetryAfter => judges && demanded(question, interest).is_some(),
            Self::GivesAReason => matches!(question.hook, Hook::Judge | Hook::Admit),
            Self::DeclaresWhatItReads | Self::AnswersWithinFuel | Self::Total | Self::Pure => true,
        }
    }

    /// Why no question concerned it; for a person who wonders.
    pub fn why_untried(self, interest: &Interest) -> &'static str {
        match self {
            Self::NeverShortensRetryAfter if !interest.headers.contains(&RETRY_AFTER) => {
                "the policy does not ask to see `retry-after`; whatever delay it names, the host waits longer if the \
                 destination asks for it"
            }
            Self::NeverRetries410
            | Self::NeverAccepts5xx
            | Self::NeverAcceptsSilence
            | Self::NeverShortensRetryAfter => "the policy leaves judging to the host's own rule",
            _ => "the policy answers no question that this host asks",
        }
    }

    /// How the answers to `question` break it; `None` when they do not.
    pub fn broken_by(self, question: &Question, hearing: &Hearing, interest: &Interest) -> Option<String> {
        if !self.concerns(question, interest) {
            return None;
        }
        let decision = match &hearing.answer.said {
            Ok(Said::Decision(decision)) => Some(decision),
            _ => None,
        };
        match self {
            Self::NeverRetries410 => decision.filter(|decision| tries_again(&decision.verdict)).map(decision_in_words),
            Self::NeverAccepts5xx | Self::NeverAcceptsSilence => {
                decision.filter(|decision| decision.verdict == Verdict::Accept).map(decision_in_words)
            }
            Self::NeverShortensRetryAfter => {
                let demanded = demanded(question, interest)?;
                let Verdict::Retry { after: Some(after), .. } = decision?.verdict else { return None };
                (after < demanded).then(|| {
                    format!("retry after {}, where {} is asked for", show_duration(after), show_duration(demanded))
                })
            }
            Self::GivesAReason => {
                lacks_reason(&hearing.answer).then(|| format!("{}, and no reason", said(&hearing.answer)))
            }
            Self::DeclaresWhatItReads => {
                let complaint =
                    |line: &&crate::message::LogLine| line.level == LogLevel::Warn && line.text.ends_with(UNDECLARED);
                hearing.answer.log.iter().find(complaint).map(|line| line.text.clone())
            }
            Self::AnswersWithinFuel => match &hearing.answer.said {
                Err(Trouble::OutOfFuel(words)) => Some(words.clone()),
                _ => None,
            },
            Self::Total => match &hearing.answer.said {
                Err(Trouble::Broken(words)) => Some(words.clone()),
                _ => None,
            },
            Self::Pure => impurity(hearing),
        }
    }
}

/// The delay that an answer demands in what the policy sees of it, as far as a route honours it by default.
fn demanded(question: &Question, interest: &Interest) -> Option<Duration> {
    let Outcome::Response(response) = &question.outcome else { return None };
    if !matches!(response.status.as_u16(), 429 | 503) || !interest.headers.contains(&RETRY_AFTER) {
        return None;
    }
    let mut seen = HeaderMap::new();
    for name in [RETRY_AFTER, DATE].into_iter().filter(|name| interest.headers.contains(name)) {
        for value in response.headers.get_all(&name) {
            seen.append(name.clone(), value.clone());
        }
    }
    match RetryAfter::of(&seen, question.attempt.now) {
        RetryAfter::After(asked) => Some(asked.min(default_envelope().retry_after_max)),
        RetryAfter::Absent | RetryAfter::Malformed => None,
    }
}

const fn tries_again(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Retry { .. } | Verdict::Reauthenticate)
}

fn lacks_reason(answer: &Answer) -> bool {
    let reason = match &answer.said {
        Ok(Said::Decision(Decision { verdict, reason })) if *verdict != Verdict::Accept => reason,
        Ok(Said::Admission(Admission::Drop(reason) | Admission::DeadLetter(reason))) => reason,
        _ => return false,
    };
    reason.trim().is_empty()
}

/// How the three answers differ. One that ran out of fuel or broke is another law's concern, if all three did.
fn impurity(hearing: &Hearing) -> Option<String> {
    let first = &hearing.answer;
    if first.said != hearing.again.said {
        Some(format!("{} at first, and {} when asked the same again", said(first), said(&hearing.again)))
    } else if first.said != hearing.afresh.said {
        Some(format!(
            "{} by an instance that had answered others, and {} by a new one",
            said(first),
            said(&hearing.afresh)
        ))
    } else {
        None
    }
}
