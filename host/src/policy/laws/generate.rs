//! Questions that are likely to find a policy out, the same ones for the same seed.
//!
//! First every status and every fault by itself, each way to write a `Retry-After` where it speaks for itself, and each
//! word where a JSON pointer beside it points, under a status that says success, the caller's failure and the server's.
//! Then by chance: the statuses that mean something more often than the others, header fields that the policy asked for, and
//! bodies made of the words it knows ([`Dictionary`]). A question whose answer had not been heard before is kept, and
//! others are made from it by changing one thing: so a code deep inside a body is reached step by step.
//!
//! Bounded: a body is at most a byte longer than what the policy wants to see, and never longer than what a route reads
//! of an answer by default; 64 questions are kept.

mod bodies;
mod fields;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::super::{AttemptView, Interest};
use super::dictionary::Dictionary;
use super::question::{Hook, Question, plain_message};
use crate::clock::Timestamp;
use crate::config::{default_envelope, default_response_limit};
use crate::message::{Fault, Outcome, Request, Response, RouteName, Silence};
use bodies::Bodies;

/// Words that are put where a pointer points, each under three statuses.
const MOST_AIMED: usize = 500;

/// Questions kept to make others from.
const MOST_KEPT: usize = 64;

/// When the plainest attempt ended: 15 January 2027.
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// Every fault there is.
const FAULTS: [Fault; 7] =
    [Fault::Resolve, Fault::Connect, Fault::Tls, Fault::Timeout, Fault::Reset, Fault::Protocol, Fault::Credentials];

/// The statuses that destinations send, and that policies know.
const TELLING: [u16; 30] = [
    200, 201, 202, 204, 206, 301, 302, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409, 410, 413, 418, 422, 425, 429,
    500, 501, 502, 503, 504, 507, 529,
];

/// Makes questions.
pub struct Generator<'a> {
    rng: Rng,
    words: &'a Dictionary,
    interest: &'a Interest,
    hooks: Vec<Hook>,
    route: RouteName,
    /// What comes before anything is left to chance.
    planned: std::vec::IntoIter<Outcome>,
    kept: Vec<Question>,
}

impl<'a> Generator<'a> {
    /// Makes questions of these kinds for a policy that wants to see `interest` and knows `words`. `None` when there is
    /// no kind to make.
    pub fn new(
        seed: u64,
        words: &'a Dictionary,
        interest: &'a Interest,
        hooks: Vec<Hook>,
        route: RouteName,
    ) -> Option<Self> {
        let rng = Rng::with_seed(seed);
        let planned = if hooks.contains(&Hook::Judge) { planned(words, interest) } else { Vec::new() }.into_iter();
        (!hooks.is_empty()).then(|| Self { rng, words, interest, hooks, route, planned, kept: Vec::new() })
    }

    /// The next question.
    pub fn question(&mut self) -> Question {
        if let Some(outcome) = self.planned.next() {
            return self.plain(Hook::Judge, outcome);
        }
        if self.rng.u8(..3) == 0
            && let Some(known) = self.rng.choice(&self.kept).cloned()
        {
            return self.varied(known);
        }
        let hook = self.rng.choice(&self.hooks).copied().unwrap_or_default();
        let outcome = if self.rng.u8(..12) == 0 { self.silence() } else { self.response() };
        let mut question = self.plain(hook, outcome);
        question.attempt = self.attempt();
        if hook == Hook::Admit || self.rng.u8(..8) == 0 {
            question.message.request = Arc::new(self.request());
        }
        question
    }

    /// Keeps a question whose answer was a new one.
    pub fn keep(&mut self, question: &Question) {
        if self.kept.len() < MOST_KEPT {
            self.kept.push(question.clone());
        } else if let Some(given_up) = self.rng.choice(&mut self.kept) {
            *given_up = question.clone();
        }
    }

    fn plain(&self, hook: Hook, outcome: Outcome) -> Question {
        let attempt = plain_attempt();
        Question { hook, message: plain_message(self.route.clone(), &attempt), attempt, outcome }
    }

    /// `known` with something changed.
    fn varied(&mut self, mut known: Question) -> Question {
        match self.rng.u8(..8) {
            0 => known.attempt = self.attempt(),
            1 => known.outcome = self.silence(),
            change => match &mut known.outcome {
                _ if known.hook == Hook::Admit => {
                    let request = &known.message.request;
                    let body = self.bodies(self.interest.request_limit).varied(&request.body);
                    let request = Request { body, ..Request::clone(request) };
                    known.message.request = Arc::new(request);
                }
                Outcome::Silence(_) => known.outcome = self.response(),
                Outcome::Response(response) if change == 2 => response.status = status(&mut self.rng),
                Outcome::Response(response) if change == 3 => {
                    response.headers = fields::wanted(&mut self.rng, self.interest, self.words, known.attempt.now);
                }
                Outcome::Response(response) => {
                    let mut bodies =
                        Bodies { rng: &mut self.rng, words: self.words, limit: limit(self.interest.body_limit) };
                    response.body = bodies.varied(&response.body);
                }
            },
        }
        known
    }

    fn bodies(&mut self, wanted: usize) -> Bodies<'_> {
        Bodies { rng: &mut self.rng, words: self.words, limit: limit(wanted) }
    }

    fn silence(&mut self) -> Outcome {
        silence(self.rng.choice(FAULTS).unwrap_or(Fault::Timeout))
    }

    fn response(&mut self) -> Outcome {
        let status = status(&mut self.rng);
        let part = self.words.part(&mut self.rng);
        let words = part.as_ref().unwrap_or(self.words);
        let headers = fields::wanted(&mut self.rng, self.interest, words, NOW);
        let body = Bodies { rng: &mut self.rng, words, limit: limit(self.interest.body_limit) }.body();
        let truncated = self.interest.body_limit > 0 && self.rng.u8(..20) == 0;
        Outcome::Response(Response { status, headers, body, truncated })
    }

    fn attempt(&mut self) -> AttemptView {
        let mut any = |from: &[u64]| self.rng.choice(from).copied().unwrap_or_default();
        let (number, of) =
            (any(&[1, 1, 1, 2, 3, 5, 17, 64, 1000, u32::MAX.into()]), any(&[5, 5, 5, 1, 100, u32::MAX.into()]));
        let elapsed = any(&[0, 0, 1, 999, 60_000, 86_400_000, 315_360_000_000]);
        let latency = any(&[0, 0, 1, 250, 10_000, 600_000]);
        let now = any(&[NOW.as_millis(), NOW.as_millis(), NOW.as_millis() + 777, 0, 4_102_444_800_000]);
        let within = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        AttemptView {
            // No route makes more attempts than it allows.
            number: within(number.min(of)),
            of: within(of),
            elapsed: Duration::from_millis(elapsed),
            latency: Duration::from_millis(latency.min(elapsed)),
            now: Timestamp::from_millis(now),
            reauthenticated: self.rng.u8(..4) == 0,
        }
    }

    fn request(&mut self) -> Request {
        const METHODS: [Method; 5] = [Method::POST, Method::GET, Method::PUT, Method::DELETE, Method::PATCH];
        let method = self.rng.choice(METHODS).unwrap_or(Method::POST);
        let path = match self.rng.u8(..4) {
            0 => "/".to_owned(),
            1 => "/v1/orders/7?dry=true".to_owned(),
            2 => format!("/{}", "a/".repeat(500)),
            _ => format!("/{}", self.words.word(&mut self.rng).replace(|c: char| !c.is_ascii_alphanumeric(), "-")),
        };
        let headers = fields::of_request(&mut self.rng, self.words);
        let body = self.bodies(self.interest.request_limit).body();
        Request { method, path, headers, body }
    }
}

/// What comes before anything is left to chance.
fn planned(words: &Dictionary, interest: &Interest) -> Vec<Outcome> {
    let statuses = (100..600).filter_map(|number| StatusCode::from_u16(number).ok());
    let mut planned: Vec<Outcome> = statuses.map(response).chain(FAULTS.into_iter().map(silence)).collect();
    let with = |status, headers, body| Outcome::Response(Response { status, headers, body, truncated: false });
    if interest.headers.contains(&header::RETRY_AFTER) {
        let values =
            fields::retry_afters(NOW).into_iter().filter_map(|text| HeaderValue::try_from(text.into_bytes()).ok());
        for value in values {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value)]);
            let speaking = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GONE];
            planned.extend(speaking.map(|status| with(status, headers.clone(), Bytes::new())));
        }
    }
    for (pointer, word) in words.aimed(MOST_AIMED) {
        let body = Bytes::from(bodies::at(pointer, word.into()).to_string());
        if body.len() <= interest.body_limit {
            let telling = [StatusCode::OK, StatusCode::BAD_REQUEST, StatusCode::INTERNAL_SERVER_ERROR];
            planned.extend(telling.map(|status| with(status, HeaderMap::new(), body.clone())));
        }
    }
    planned
}

/// As much of a body as is worth making: a little more than is looked at.
fn limit(wanted: usize) -> usize {
    wanted.min(default_response_limit())
}

/// The attempt that nothing is special about.
pub(super) fn plain_attempt() -> AttemptView {
    AttemptView {
        number: 1,
        of: default_envelope().max_attempts,
        elapsed: Duration::ZERO,
        latency: Duration::ZERO,
        now: NOW,
        reauthenticated: false,
    }
}

fn status(rng: &mut Rng) -> StatusCode {
    let number = if rng.u8(..4) == 0 { rng.u16(100..600) } else { rng.choice(TELLING).unwrap_or(500) };
    StatusCode::from_u16(number).unwrap_or_default()
}

const fn silence(fault: Fault) -> Outcome {
    Outcome::Silence(Silence { fault, detail: String::new() })
}

fn response(status: StatusCode) -> Outcome {
    Outcome::Response(Response { status, headers: HeaderMap::new(), body: Bytes::new(), truncated: false })
}

#[cfg(test)]
mod tests;
