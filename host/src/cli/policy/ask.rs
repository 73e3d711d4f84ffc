//! `backstop policy ask`: one question to a policy, and what a route would make of its answer.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::candidate::{CandidateArgs, Opened, ROUTE, refuse, text_or_file, unfit};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::config::{Isolation, default_envelope, read_duration};
use crate::message::{Envelope, Fault, Message, MessageId, Outcome, Request, Response, RouteName, Silence};
use crate::policy::laws::{Hook, Question, plain_message};
use crate::policy::{AttemptView, Judge};

mod answer;
mod envelope;

#[derive(clap::Args, Debug)]
pub(super) struct Ask {
    #[command(flatten)]
    policy: CandidateArgs,
    /// Which question.
    #[arg(long, value_enum, default_value_t)]
    hook: Hook,
    /// The answer's status.
    #[arg(long, value_parser = clap::value_parser!(u16).range(100..=599), conflicts_with = "silence")]
    status: Option<u16>,
    /// A header field of the answer; may be repeated.
    #[arg(short = 'H', long, value_name = "NAME: VALUE", value_parser = field)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// The answer's body, or @FILE to read it from there.
    #[arg(short = 'd', long, value_name = "TEXT|@FILE")]
    body: Option<String>,
    /// The answer's body in Base64, where it is no text.
    #[arg(long, value_name = "BASE64", conflicts_with = "body")]
    body_base64: Option<String>,
    /// Say that the answer's body was longer than what is given.
    #[arg(long)]
    truncated: bool,
    /// There was no answer, for this reason.
    #[arg(long, value_enum, value_name = "FAULT")]
    silence: Option<Fault>,
    /// Which attempt it was.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: u32,
    /// How many attempts the route allows. [default: as a route that says nothing, 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    of: Option<u32>,
    /// Time since the message's first attempt began, such as 90s.
    #[arg(long, default_value = "0s", value_parser = read_duration)]
    elapsed: Duration,
    /// Time that the attempt took, such as 250ms.
    #[arg(long, default_value = "0s", value_parser = read_duration)]
    latency: Duration,
    /// When the outcome was known: RFC 3339, or milliseconds since 1970. [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    now: Option<Timestamp>,
    /// Say that fresh credentials were fetched for the message already.
    #[arg(long)]
    reauthenticated: bool,
    /// Have the route hold credentials that can be renewed (`auth: { client_credentials: … }`).
    #[arg(long)]
    renewable_credentials: bool,
    /// The request's method.
    #[arg(long, default_value = "POST")]
    method: Method,
    /// The request's path below the route, and its query.
    #[arg(long, default_value = "/")]
    path: String,
    /// A header field of the request; may be repeated.
    #[arg(long, value_name = "NAME: VALUE", value_parser = field)]
    request_header: Vec<(HeaderName, HeaderValue)>,
    /// The request's body, which `admit` is shown, or @FILE to read it from there.
    #[arg(long, value_name = "TEXT|@FILE")]
    request_body: Option<String>,
    /// The request's body in Base64, where it is no text.
    #[arg(long, value_name = "BASE64", conflicts_with = "request_body")]
    request_body_base64: Option<String>,
    /// The message's id: a UUID.
    #[arg(long, value_name = "UUID")]
    message_id: Option<MessageId>,
    /// The route's name.
    #[arg(long, default_value = ROUTE, value_parser = RouteName::new)]
    route: RouteName,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Ask {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let prepared = self.question().and_then(|question| Ok((question, self.policy.open()?)));
        let (question, opened) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Ok(refuse(&error)),
        };
        let judge = match opened.candidate.judge(&opened.config, opened.limits, Isolation::Reuse) {
            Ok(judge) => judge,
            Err(error) => return Ok(refuse(&unfit(error, self.policy.config.is_some()))),
        };
        let answer = answer::ask(&judge, &question, &self.envelope());
        let notes = self.notes(&opened, &judge, &question);
        if self.json {
            out!("{}", serde_json::to_string_pretty(&answer.as_json(&opened, &notes))?);
        } else {
            answer.show(&opened, &notes);
        }
        Ok(if answer.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// The envelope of a route that says nothing but what the command line says.
    fn envelope(&self) -> Envelope {
        let default = default_envelope();
        Envelope {
            max_attempts: self.of.unwrap_or(default.max_attempts),
            renewable_credentials: self.renewable_credentials,
            ..default
        }
    }

    /// The question that the command line describes.
    fn question(&self) -> anyhow::Result<Question> {
        let of = self.envelope().max_attempts;
        if self.attempt > of {
            bail!("--attempt {} is beyond the {of} attempts that the route allows: write --of as well", self.attempt);
        }
        let attempt = AttemptView {
            number: self.attempt,
            of,
            elapsed: self.elapsed,
            latency: self.latency,
            now: self.now.unwrap_or_else(|| SystemClock.now()),
            reauthenticated: self.reauthenticated,
        };
        let outcome = self.outcome()?;
        Ok(Question { hook: self.hook, message: self.message(&attempt)?, attempt, outcome })
    }

    fn outcome(&self) -> anyhow::Result<Outcome> {
        let body = content(self.body.as_deref(), self.body_base64.as_deref())?;
        let has_answer = !self.header.is_empty() || !body.is_empty() || self.truncated;
        match (self.status, self.silence) {
            (_, Some(fault)) if has_answer => {
                bail!("--silence {fault} means that there was no answer: leave its header fields and body out")
            }
            (_, Some(fault)) => Ok(Outcome::Silence(Silence { fault, detail: String::new() })),
            (Some(status), None) => Ok(Outcome::Response(Response {
                status: StatusCode::from_u16(status)?,
                headers: self.header.iter().cloned().collect(),
                body: body.into(),
                truncated: self.truncated,
            })),
            // Nothing has been attempted yet.
            (None, None) if self.hook == Hook::Admit => {
                Ok(Outcome::Silence(Silence { fault: Fault::Timeout, detail: String::new() }))
            }
            (None, None) => bail!("say what came of the attempt: --status 503, for example, or --silence timeout"),
        }
    }

    fn message(&self, attempt: &AttemptView) -> anyhow::Result<Message> {
        if !self.path.starts_with('/') {
            bail!("--path begins with a slash: /{}", self.path);
        }
        let mut message = plain_message(self.route.clone(), attempt);
        message.id = self.message_id.unwrap_or(message.id);
        message.progress.reauthenticated = self.reauthenticated;
        message.progress.attempts = self.attempt;
        message.progress.started_at =
            Some(Timestamp::from_millis(attempt.now.as_millis().saturating_sub(millis(self.elapsed))));
        message.request = Request {
            method: self.method.clone(),
            path: self.path.clone(),
            headers: self.request_header.iter().cloned().collect::<HeaderMap>(),
            body: content(self.request_body.as_deref(), self.request_body_base64.as_deref())?.into(),
        }
        .into();
        Ok(message)
    }

    /// What was given and is not passed on, and why.
    fn notes(&self, opened: &Opened, judge: &Judge, question: &Question) -> Vec<String> {
        let described = opened.candidate.describe();
        let mut notes = Vec::new();
        if !Hook::among(described.hooks).contains(&self.hook) {
            notes.push(format!("the policy does not answer `{}`: the host's own rule does", self.hook.as_str()));
            return notes;
        }
        let interest = judge.interest();
        let mut about_body = |given: usize, wanted: usize, what: &str| {
            if given > 0 && wanted == 0 {
                notes.push(format!("the policy does not ask to see {what}: it was not passed"));
            } else if given > wanted {
                notes.push(format!("the policy sees only the first {wanted} of {given} bytes of {what}"));
            }
        };
        if self.hook == Hook::Admit {
            about_body(question.message.request.body.len(), interest.request_limit, "the request's body");
        } else if let Outcome::Response(response) = &question.outcome {
            about_body(response.body.len(), interest.body_limit, "the answer's body");
            let mut unseen: Vec<&HeaderName> =
                response.headers.keys().filter(|name| !interest.headers.contains(name)).collect();
            unseen.sort_by_key(|name| name.as_str());
            for name in unseen {
                notes.push(format!("the policy does not ask to see the field `{name}`: it was not passed"));
            }
        }
        if !self.request_header.is_empty() && !described.imports.iter().any(|import| import == "attribute") {
            notes.push("the policy does not import `attribute`: it cannot read the request's header fields".to_owned());
        }
        notes
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// A body, however it was given.
fn content(text: Option<&str>, base64: Option<&str>) -> anyhow::Result<Vec<u8>> {
    match (text, base64) {
        (Some(text), _) => text_or_file(text),
        (None, Some(base64)) => BASE64_STANDARD.decode(base64).context("that body is not Base64"),
        (None, None) => Ok(Vec::new()),
    }
}

/// Reads `NAME: VALUE`.
fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write NAME: VALUE, such as 'retry-after: 30'")?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| format!("{name:?} is no field's name"))?;
    let value = HeaderValue::from_bytes(value.trim().as_bytes());
    Ok((name, value.map_err(|_| "a field's value has no control characters".to_owned())?))
}

/// Reads a moment.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(millis) = text.parse() {
        return Ok(Timestamp::from_millis(millis));
    }
    let read = text.parse::<jiff::Timestamp>().ok().and_then(|moment| u64::try_from(moment.as_millisecond()).ok());
    read.map(Timestamp::from_millis).ok_or_else(|| "write 2027-01-15T08:00:00Z, or milliseconds since 1970".to_owned())
}
