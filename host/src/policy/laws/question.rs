//! A question put to a policy, and what it answered: all that laws are about.

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::super::{AttemptView, Hooks};
use crate::message::{
    Admission, Decision, Fallback, LogLine, Message, MessageId, Origin, Outcome, OutcomeSummary, Progress, Request,
    RouteName,
};

/// Which of the contract's questions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Hook {
    /// What does this outcome mean?
    #[default]
    Judge,
    /// Should this message be sent at all?
    Admit,
    /// What to answer, now that no further attempt is allowed?
    FallBack,
}

impl Hook {
    /// Its name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Judge => "judge",
            Self::Admit => "admit",
            Self::FallBack => "fall-back",
        }
    }

    /// Those of the questions that a policy answers itself. (*Settle* is tried by cases only: no law is about it.)
    pub fn among(hooks: Hooks) -> Vec<Self> {
        let each = [(hooks.judge, Self::Judge), (hooks.admit, Self::Admit), (hooks.fall_back, Self::FallBack)];
        each.into_iter().filter_map(|(answered, hook)| answered.then_some(hook)).collect()
    }
}

/// A question, with all that any of them needs: *admit* looks at the message alone, and the others may read it.
#[derive(Clone, Debug)]
pub struct Question {
    /// Which question.
    pub hook: Hook,
    /// The message it is about.
    pub message: Message,
    /// The attempt that was made of it.
    pub attempt: AttemptView,
    /// What came of that.
    pub outcome: Outcome,
}

impl Question {
    /// The answer's status, if the question is about an answer.
    pub fn status(&self) -> Option<u16> {
        match &self.outcome {
            Outcome::Response(response) => Some(response.status.as_u16()),
            Outcome::Silence(_) => None,
        }
    }

    /// What it is about, in a few words: `503 Service Unavailable`, `timeout`, or the request that is to be admitted.
    pub fn in_words(&self) -> String {
        match (self.hook, &self.outcome) {
            (Hook::Admit, _) => format!("{} {}", self.message.request.method, self.message.request.path),
            (_, outcome) => OutcomeSummary::of(outcome, true).to_string(),
        }
    }
}

/// The id of a message that nobody sent.
const ID: MessageId = MessageId::from_bytes([0; 16]);

/// A message for questions that are about its outcome: a POST of nothing to `/`, accepted when the attempt ended.
pub fn plain_message(route: RouteName, attempt: &AttemptView) -> Message {
    let request = Request { method: Method::POST, path: "/".to_owned(), headers: HeaderMap::new(), body: Bytes::new() };
    Message {
        id: ID,
        route,
        request: request.into(),
        idempotency_key: None,
        accepted_at: attempt.now,
        progress: Progress::default(),
        origin: Origin::default(),
    }
}

/// What a policy said, or why it said nothing.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What it said.
    pub said: Result<Said, Trouble>,
    /// Fuel used, in wasmtime's units.
    pub fuel: u64,
    /// What it logged.
    pub log: Vec<LogLine>,
}

/// What a policy said to one of the questions.
#[derive(Clone, PartialEq, Debug)]
pub enum Said {
    /// To *judge*.
    Decision(Decision),
    /// To *admit*.
    Admission(Admission),
    /// To *fall back*.
    Fallback(Option<Fallback>),
}

/// Why a policy gave no usable answer, in the host's words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The question cost more than it may.
    OutOfFuel(String),
    /// It trapped, wanted too much memory or stack, or answered nonsense.
    Broken(String),
}

/// Whoever answers: a policy in the sandbox, or in a unit test a function.
pub trait Respondent {
    /// Asks an instance that may have answered other questions before.
    fn ask(&self, question: &Question) -> Answer;

    /// Asks an instance that has answered none.
    fn ask_afresh(&self, question: &Question) -> Answer;
}
