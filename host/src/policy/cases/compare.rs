//! What a policy said against what its author expects, field by field; and its three answers against one another.

use std::time::Duration;

use serde_json::Value;

use super::ask::Heard;
use super::expected::{AdmissionKind, Expected, ExpectedAnswer, ExpectedBody, ExpectedFallback, ExpectedText};
use super::report::{Finding, shown};
use crate::config::show_duration;
use crate::message::{self, Admission, Decision, Fallback, Verdict, VerdictKind};
use crate::transaction::Settlement;

/// Differences told of one JSON body; more of them help nobody.
const MAX_DIFFERENCES: usize = 8;

/// An answer to any of the questions.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Answer {
    Admission(Admission),
    Decision(Decision),
    FallBack(Option<Fallback>),
    Settlement(Settlement),
}

/// What is wrong with the policy's refusing its configuration in these `words`.
pub(super) fn refusal(expected: &Expected, words: &str) -> Option<Finding> {
    match expected {
        Expected::Refusal(part) if words.contains(part) => None,
        Expected::Refusal(part) => Some(Finding::differs("config_refused", format!("…{}…", shown(part)), shown(words))),
        Expected::Answer(_) | Expected::Failure(_) => Some(Finding::Complaint(format!(
            "the policy refuses the configuration, and cannot be asked: {words}. Change `config`, or expect \
             `config_refused`"
        ))),
    }
}

/// What is wrong with the policy's accepting its configuration, and nothing being asked.
pub(super) fn acceptance(expected: &Expected) -> Option<Finding> {
    match expected {
        Expected::Refusal(part) => {
            Some(Finding::differs("config_refused", format!("…{}…", shown(part)), "the configuration is accepted"))
        }
        Expected::Answer(_) | Expected::Failure(_) => None,
    }
}

/// Whether the same question got the same answer each time.
pub(super) fn purity(runs: &[(&'static str, Heard); 3]) -> Option<Finding> {
    let [(_, first), others @ ..] = runs;
    let same = |heard: &Heard| match (&first.failure, &heard.failure) {
        (None, None) => first.answer == heard.answer,
        // How much it had used when it was cut may differ.
        (Some(first), Some(other)) => kind_of(first) == kind_of(other),
        _ => false,
    };
    if others.iter().all(|(_, heard)| same(heard)) {
        return None;
    }
    let said = |heard: &Heard| match &heard.failure {
        Some(failure) => format!("failed: {failure}"),
        None => heard.answer.describe(),
    };
    Some(Finding::Impure(runs.iter().map(|(run, heard)| (*run, said(heard))).collect()))
}

/// What kind of failure it is: what stands before its details.
fn kind_of(failure: &str) -> &str {
    failure.split_once(':').map_or(failure, |(kind, _)| kind)
}

/// What is wrong with an answer.
pub(super) fn answer(expected: &Expected, heard: &Heard) -> Vec<Finding> {
    match (expected, &heard.failure) {
        (expected, Some(why)) => failure(expected, why).into_iter().collect(),
        (Expected::Failure(part), None) => {
            let got = format!("no failure: {}", heard.answer.describe());
            vec![Finding::differs("failure_contains", format!("…{}…", shown(part)), got)]
        }
        (Expected::Answer(expected), None) => differences(expected, heard),
        // Nothing is asked then.
        (Expected::Refusal(_), None) => Vec::new(),
    }
}

/// What is wrong with the policy's failing, and `why` it did.
pub(super) fn failure(expected: &Expected, why: &str) -> Option<Finding> {
    match expected {
        Expected::Failure(part) if why.contains(part) => None,
        Expected::Failure(part) => Some(Finding::differs("failure_contains", format!("…{}…", shown(part)), shown(why))),
        Expected::Answer(_) | Expected::Refusal(_) => Some(Finding::Complaint(format!(
            "the policy failed: {why}. A route would let its `on_policy_failure` decide. Mend the policy, give it other \
             `limits`, or expect `failure_contains`"
        ))),
    }
}

fn differences(expected: &ExpectedAnswer, heard: &Heard) -> Vec<Finding> {
    let mut found = Vec::new();
    let reason = match &heard.answer {
        Answer::Decision(decision) => {
            verdict(expected, decision, &mut found);
            Some(decision.reason.as_str())
        }
        Answer::Admission(said) => {
            let (kind, reason) = parts(said);
            if let Some(expected) = expected.admission.filter(|expected| *expected != kind) {
                found.push(Finding::differs("admission", expected.as_str(), kind.as_str()));
            }
            Some(reason)
        }
        Answer::FallBack(said) => {
            fallback(expected.fallback.as_ref(), said.as_ref(), &mut found);
            None
        }
        Answer::Settlement(said) => {
            if let Some(expected) = expected.settlement.filter(|expected| expected != said) {
                found.push(Finding::differs("settlement", expected.as_str(), said.as_str()));
            }
            None
        }
    };
    if let (Some(expected), Some(said)) = (&expected.reason, reason)
        && !expected.admits(said)
    {
        found.push(match expected {
            ExpectedText::Whole(whole) => Finding::differs("reason", shown(whole), shown(said)),
            ExpectedText::Part(part) => Finding::differs("reason_contains", format!("…{}…", shown(part)), shown(said)),
        });
    }
    if let Some(part) = &expected.log_contains
        && !heard.log.iter().any(|line| line.text.contains(part))
    {
        let got = if heard.log.is_empty() { "nothing is logged" } else { "the log below" };
        found.push(Finding::differs("log_contains", format!("…{}…", shown(part)), got));
    }
    if let Some(most) = expected.max_fuel.filter(|most| heard.fuel > *most) {
        found.push(Finding::differs("max_fuel", most.to_string(), heard.fuel.to_string()));
    }
    found
}

fn verdict(expected: &ExpectedAnswer, decision: &Decision, found: &mut Vec<Finding>) {
    let said = &decision.verdict;
    if let Some(kind) = expected.verdict.filter(|kind| *kind != said.kind()) {
        // What belongs to another verdict is not worth comparing.
        return found.push(Finding::differs("verdict", kind.as_str(), reasoned(describe(said), &decision.reason)));
    }
    match said {
        Verdict::Retry { after, scope } => {
            if let Some(expected) = expected.after.filter(|expected| !expected.admits(*after)) {
                found.push(Finding::differs("after", expected.to_string(), delay(*after)));
            }
            if let Some(expected) = expected.scope.filter(|expected| expected != scope) {
                found.push(Finding::differs("scope", expected.as_str(), scope.as_str()));
            }
        }
        Verdict::FallBack(said) => fallback(expected.fallback.as_ref(), said.as_ref(), found),
        Verdict::Accept | Verdict::Reauthenticate | Verdict::DeadLetter | Verdict::Drop => {}
    }
}

fn fallback(expected: Option<&ExpectedFallback>, said: Option<&Fallback>, found: &mut Vec<Finding>) {
    match (expected, said) {
        (None, _) | (Some(ExpectedFallback::Routes), None) => {}
        (Some(ExpectedFallback::Route(expected)), Some(Fallback::Route(said))) => {
            if expected != said {
                found.push(Finding::differs("fallback.route", expected.as_str(), said.as_str()));
            }
        }
        (Some(ExpectedFallback::Answer { status, headers, body }), Some(Fallback::Answer(said))) => {
            let got = said.status.as_u16();
            if let Some(expected) = status.filter(|expected| *expected != got) {
                found.push(Finding::differs("fallback.status", expected.to_string(), got.to_string()));
            }
            for (name, expected) in headers {
                let values: Vec<_> = said.headers.get_all(name).iter().collect();
                if !values.iter().copied().eq(expected) {
                    let listed = |values: &[&http::HeaderValue]| {
                        let text = |value: &&http::HeaderValue| shown(&String::from_utf8_lossy(value.as_bytes()));
                        let texts: Vec<_> = values.iter().map(text).collect();
                        if texts.is_empty() { "absent".to_owned() } else { texts.join(", ") }
                    };
                    let expected: Vec<_> = expected.iter().collect();
                    found.push(Finding::differs(
                        format!("fallback.headers.{name}"),
                        listed(&expected),
                        listed(&values),
                    ));
                }
            }
            if let Some(expected) = body {
                compare_body(expected, said, found);
            }
        }
        (Some(expected), said) => {
            let said = said.map_or_else(|| "none".to_owned(), describe_fallback);
            found.push(Finding::differs("fallback", expected.describe(), said));
        }
    }
}

fn compare_body(expected: &ExpectedBody, said: &message::Answer, found: &mut Vec<Finding>) {
    match expected {
        ExpectedBody::Text(text) if text.as_bytes() == said.body => {}
        ExpectedBody::Text(text) => {
            let got = shown(&String::from_utf8_lossy(&said.body));
            found.push(Finding::differs("fallback.body", shown(text), got));
        }
        ExpectedBody::Json(expected) => match serde_json::from_slice::<Value>(&said.body) {
            Ok(got) => {
                let mut differences = Vec::new();
                compare_json("fallback.json", Some(expected), Some(&got), &mut differences);
                differences.truncate(MAX_DIFFERENCES);
                found.extend(differences);
            }
            Err(_) => {
                let got = format!("no JSON: {}", shown(&String::from_utf8_lossy(&said.body)));
                found.push(Finding::differs("fallback.json", expected.to_string(), got));
            }
        },
    }
}

/// Finds the places, as deep as can be, at which two JSON values differ. A value of a case file is nested 64 levels deep
/// at most, and only what both have is descended into.
fn compare_json(place: &str, expected: Option<&Value>, got: Option<&Value>, found: &mut Vec<Finding>) {
    if found.len() >= MAX_DIFFERENCES || expected == got {
        return;
    }
    match (expected, got) {
        (Some(Value::Object(expected)), Some(Value::Object(got))) => {
            for (key, value) in expected {
                compare_json(&format!("{place}/{key}"), Some(value), got.get(key), found);
            }
            for (key, value) in got.iter().filter(|(key, _)| !expected.contains_key(*key)) {
                compare_json(&format!("{place}/{key}"), None, Some(value), found);
            }
        }
        (Some(Value::Array(expected)), Some(Value::Array(got))) => {
            for index in 0..expected.len().max(got.len()) {
                compare_json(&format!("{place}/{index}"), expected.get(index), got.get(index), found);
            }
        }
        _ => {
            let text = |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), ToString::to_string);
            found.push(Finding::differs(place, text(expected), text(got)));
        }
    }
}

impl Answer {
    /// In a few words, for people.
    fn describe(&self) -> String {
        match self {
            Self::Admission(said) => {
                let (kind, reason) = parts(said);
                reasoned(kind.as_str(), reason)
            }
            Self::Decision(decision) => reasoned(describe(&decision.verdict), &decision.reason),
            Self::FallBack(said) => said.as_ref().map_or_else(|| "none".to_owned(), describe_fallback),
            Self::Settlement(said) => said.as_str().to_owned(),
        }
    }
}

impl ExpectedFallback {
    fn describe(&self) -> String {
        match self {
            Self::Routes => "none".to_owned(),
            Self::Route(name) => format!("route {name}"),
            Self::Answer { status: Some(status), .. } => format!("an answer with status {status}"),
            Self::Answer { status: None, .. } => "an answer".to_owned(),
        }
    }
}

/// What was said, and why, if that was said.
fn reasoned(said: impl std::fmt::Display, reason: &str) -> String {
    if reason.is_empty() { said.to_string() } else { format!("{said}, {}", shown(reason)) }
}

fn describe(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Retry { after: Some(after), scope } => {
            format!("retry after {}, scope {}", show_duration(*after), scope.as_str())
        }
        Verdict::Retry { after: None, scope } => format!("retry, scope {}", scope.as_str()),
        Verdict::FallBack(Some(fallback)) => format!("{} to {}", VerdictKind::FallBack, describe_fallback(fallback)),
        other => other.kind().to_string(),
    }
}

fn describe_fallback(fallback: &Fallback) -> String {
    match fallback {
        Fallback::Route(name) => format!("route {name}"),
        Fallback::Answer(answer) => {
            let body = shown(&String::from_utf8_lossy(&answer.body));
            format!("an answer with status {} and body {body}", answer.status.as_u16())
        }
    }
}

fn parts(admission: &Admission) -> (AdmissionKind, &str) {
    match admission {
        Admission::Accept => (AdmissionKind::Accept, ""),
        Admission::Drop(reason) => (AdmissionKind::Drop, reason),
        Admission::DeadLetter(reason) => (AdmissionKind::DeadLetter, reason),
    }
}

fn delay(after: Option<Duration>) -> String {
    after.map_or_else(|| "none".to_owned(), show_duration)
}
