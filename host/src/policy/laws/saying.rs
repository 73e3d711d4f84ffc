//! Questions and answers as people write them: an answer in a few words, a question as the command line that asks it and
//! as a case for `backstop policy test`.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::question::{Answer, Hook, Question, Said, Trouble};
use crate::config::{default_envelope, show_duration};
use crate::message::{Admission, Decision, Fallback, Outcome, Scope, Verdict, VerdictKind};

/// The longest body that is written out in a command line or a case.
pub const MAX_SHOWN: usize = 4 << 10;

/// An answer in a few words.
pub fn said(answer: &Answer) -> String {
    match &answer.said {
        Ok(Said::Decision(decision)) => decision_in_words(decision),
        Ok(Said::Admission(Admission::Accept)) => "accept".to_owned(),
        Ok(Said::Admission(Admission::Drop(reason))) => because("drop", reason),
        Ok(Said::Admission(Admission::DeadLetter(reason))) => because("dead letter", reason),
        Ok(Said::Fallback(None)) => "no fallback of its own".to_owned(),
        Ok(Said::Fallback(Some(fallback))) => fallback_in_words(fallback),
        Err(Trouble::OutOfFuel(words) | Trouble::Broken(words)) => words.clone(),
    }
}

/// A decision: the verdict, and why.
pub fn decision_in_words(decision: &Decision) -> String {
    because(&verdict_in_words(&decision.verdict), &decision.reason)
}

fn because(what: &str, reason: &str) -> String {
    if reason.is_empty() { what.to_owned() } else { format!("{what}: {reason}") }
}

/// A verdict with its arguments.
pub fn verdict_in_words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Retry { after, scope } => {
            let when = after
                .map_or_else(|| "by the route's backoff".to_owned(), |after| format!("after {}", show_duration(after)));
            let whom = match scope {
                Scope::Standard => "",
                Scope::Message => ", for this message alone",
                Scope::Destination => ", for the whole destination",
            };
            format!("retry {when}{whom}")
        }
        Verdict::Reauthenticate => "fetch fresh credentials".to_owned(),
        Verdict::DeadLetter => "dead letter".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::FallBack(None) => "fall back".to_owned(),
        Verdict::FallBack(Some(fallback)) => format!("fall back to {}", fallback_in_words(fallback)),
    }
}

/// A fallback: what is answered, or where the message goes.
pub fn fallback_in_words(fallback: &Fallback) -> String {
    match fallback {
        Fallback::Answer(answer) => format!("an answer of {} with {} bytes", answer.status, answer.body.len()),
        Fallback::Route(route) => format!("the route `{route}`"),
    }
}

/// The command line that asks `question` of the policy in `file`, under the configuration written as `config`. A body
/// of more than [`MAX_SHOWN`] bytes is taken from the file `body`, if there is one.
pub fn command_line(question: &Question, file: &str, config: Option<&str>, body: Option<&str>) -> String {
    let Question { hook, message, attempt, outcome } = question;
    let mut line = format!("backstop policy ask {}", quoted(file));
    // Writing to a String cannot fail.
    let mut add = |flag: &str, value: &str| {
        let _ = write!(line, " --{flag} {}", quoted(value));
    };
    if let Some(config) = config {
        add("config", config);
    }
    if *hook != Hook::Judge {
        add("hook", hook.as_str());
    }
    if *hook != Hook::Admit {
        match outcome {
            Outcome::Silence(silence) => add("silence", &silence.fault.to_string()),
            Outcome::Response(response) => {
                add("status", response.status.as_str());
                for field in fields(&response.headers) {
                    add("header", &field);
                }
                add_body(&mut add, "body", &response.body, body);
            }
        }
        if attempt.number != 1 {
            add("attempt", &attempt.number.to_string());
        }
        if attempt.of != default_envelope().max_attempts {
            add("of", &attempt.of.to_string());
        }
        for (flag, length) in [("elapsed", attempt.elapsed), ("latency", attempt.latency)] {
            if !length.is_zero() {
                add(flag, &show_duration(length));
            }
        }
        add("now", &attempt.now.as_millis().to_string());
    }
    let request = &message.request;
    if request.method != http::Method::POST {
        add("method", request.method.as_str());
    }
    if request.path != "/" {
        add("path", &request.path);
    }
    for field in fields(&request.headers) {
        add("request-header", &field);
    }
    add_body(&mut add, "request-body", &request.body, body);
    if *hook != Hook::Admit && attempt.reauthenticated {
        line.push_str(" --reauthenticated");
    }
    if let Outcome::Response(response) = outcome
        && response.truncated
        && *hook != Hook::Admit
    {
        line.push_str(" --truncated");
    }
    line
}

fn add_body(add: &mut impl FnMut(&str, &str), flag: &str, body: &Bytes, file: Option<&str>) {
    match (std::str::from_utf8(body), file) {
        _ if body.is_empty() => {}
        _ if body.len() > MAX_SHOWN => add(flag, &format!("@{}", file.unwrap_or("BODY"))),
        // What begins with @ would be taken for a file.
        (Ok(text), _) if !text.contains('\0') && !text.starts_with('@') => add(flag, text),
        _ => add(&format!("{flag}-base64"), &BASE64_STANDARD.encode(body)),
    }
}

/// Header fields as they are written in a command line.
fn fields(headers: &HeaderMap) -> impl Iterator<Item = String> {
    headers.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// `question` as a case for `backstop policy test`, expecting the verdict of `expected`. `None` where this does not write
/// one: for another question than *judge*, and for a body that is long.
pub fn case(question: &Question, name: &str, expected: VerdictKind) -> Option<String> {
    let Question { hook, attempt, outcome, .. } = question;
    if *hook != Hook::Judge {
        return None;
    }
    let outcome = match outcome {
        Outcome::Silence(silence) => json!({ "silence": silence.fault }),
        Outcome::Response(response) => {
            if response.body.len() > MAX_SHOWN {
                return None;
            }
            let mut written = Map::new();
            written.insert("status".to_owned(), json!(response.status.as_u16()));
            if !response.headers.is_empty() {
                written.insert("headers".to_owned(), headers(&response.headers).into());
            }
            match std::str::from_utf8(&response.body) {
                Ok("") => {}
                Ok(text) => drop(written.insert("body".to_owned(), text.into())),
                Err(_) => drop(written.insert("body_base64".to_owned(), BASE64_STANDARD.encode(&response.body).into())),
            }
            if response.truncated {
                written.insert("truncated".to_owned(), true.into());
            }
            Value::Object(written)
        }
    };
    let attempt = json!({
        "number": attempt.number,
        "of": attempt.of,
        "elapsed": show_duration(attempt.elapsed),
        "latency": show_duration(attempt.latency),
        "now": attempt.now.to_string(),
        "reauthenticated": attempt.reauthenticated,
    });
    let case = json!([{
        "name": name,
        "attempt": attempt,
        "outcome": outcome,
        "expect": { "verdict": expected },
    }]);
    serde_yaml::to_string(&case).ok()
}

/// Header fields by name, those that were sent several times as a list.
fn headers(fields: &HeaderMap) -> Map<String, Value> {
    let one = |name: &http::HeaderName| {
        let mut values: Vec<Value> =
            fields.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into()).collect();
        let value = if values.len() == 1 { values.remove(0) } else { values.into() };
        (name.as_str().to_owned(), value)
    };
    fields.keys().map(one).collect()
}
