//! What a policy answered, for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::candidate::Opened;
use super::envelope::{Consequence, admitted, fallen_back, judged};
use super::millis;
use crate::message::{Admission, Answer, Decision, Envelope, Fallback, Provenance, Verdict};
use crate::policy::Judge;
use crate::policy::laws::saying::{fallback_in_words, verdict_in_words};
use crate::policy::laws::{Hook, Question, Said};

/// An answer, what it cost, and what follows.
pub(super) struct Answered {
    said: Said,
    provenance: Provenance,
    consequence: Consequence,
}

/// Puts the question, and asks the host what it makes of the answer under `envelope`.
pub(super) fn ask(judge: &Judge, question: &Question, envelope: &Envelope) -> Answered {
    let Question { hook, message, attempt, outcome } = question;
    match hook {
        Hook::Judge => {
            let asked = judge.judge(message, *attempt, outcome);
            let consequence = judged(judge, question, &asked.answer, envelope);
            Answered { said: Said::Decision(asked.answer), provenance: asked.provenance, consequence }
        }
        Hook::Admit => {
            let asked = judge.admit(message);
            let consequence = admitted(&asked.answer);
            Answered { said: Said::Admission(asked.answer), provenance: asked.provenance, consequence }
        }
        Hook::FallBack => {
            let asked = judge.fall_back(message, *attempt, outcome);
            let consequence = fallen_back(&message.progress, asked.answer.clone());
            Answered { said: Said::Fallback(asked.answer), provenance: asked.provenance, consequence }
        }
    }
}

impl Answered {
    /// Whether the policy gave no usable answer.
    pub(super) fn failed(&self) -> bool {
        self.provenance.failure.is_some()
    }

    /// Prints it as a table.
    pub(super) fn show(&self, opened: &Opened, notes: &[String]) {
        if let Some(failure) = &self.provenance.failure {
            out!("failed    {failure}");
            out!("          under `on_policy_failure: standard`, the default, the host's own rule answers instead:");
        }
        let (verdict, reason) = in_words(&self.said);
        out!("verdict   {verdict}");
        if let Some(reason) = reason.filter(|reason| !reason.is_empty()) {
            out!("reason    {reason}");
        }
        for (index, line) in self.provenance.log.iter().enumerate() {
            out!("{:<8}  {:<5}  {}", if index == 0 { "log" } else { "" }, line.level.as_str(), line.text);
        }
        if self.provenance.policy.is_some() {
            let took = Duration::from_nanos(self.provenance.took_ns);
            out!("cost      {} of {} units of fuel, {took:?}", self.provenance.fuel, opened.limits.fuel);
        }
        out!("then      {}", self.consequence.in_words);
        for clamp in &self.consequence.clamped {
            out!("          envelope: {clamp}");
        }
        for (index, note) in notes.iter().enumerate() {
            out!("{:<8}  {note}", if index == 0 { "note" } else { "" });
        }
    }

    /// As JSON; delays are in milliseconds.
    pub(super) fn as_json(&self, opened: &Opened, notes: &[String]) -> Value {
        let described = opened.candidate.describe();
        let Provenance { fuel, took_ns, log, failure, .. } = &self.provenance;
        json!({
            "policy": { "name": described.name, "version": described.version, "digest": described.digest },
            "answer": said_as_json(&self.said),
            "failure": failure,
            "fuel": fuel,
            "fuel_limit": opened.limits.fuel,
            "took_ns": took_ns,
            "log": log,
            "envelope": self.consequence.as_json(),
            "notes": notes,
        })
    }
}

/// The verdict, and its reason where there is room for one.
fn in_words(said: &Said) -> (String, Option<&str>) {
    match said {
        Said::Decision(Decision { verdict, reason }) => (verdict_in_words(verdict), Some(reason)),
        Said::Admission(Admission::Accept) => ("accept".to_owned(), None),
        Said::Admission(Admission::Drop(reason)) => ("drop".to_owned(), Some(reason)),
        Said::Admission(Admission::DeadLetter(reason)) => ("dead letter".to_owned(), Some(reason)),
        Said::Fallback(None) => ("no fallback of its own".to_owned(), None),
        Said::Fallback(Some(fallback)) => (format!("fall back to {}", fallback_in_words(fallback)), None),
    }
}

fn said_as_json(said: &Said) -> Value {
    match said {
        Said::Decision(Decision { verdict, reason }) => {
            let mut written = json!({ "verdict": verdict.kind(), "reason": reason });
            match verdict {
                Verdict::Retry { after, scope } => {
                    written["after_ms"] = json!(after.map(millis));
                    written["scope"] = json!(scope.as_str());
                }
                Verdict::FallBack(fallback) => written["fallback"] = json!(fallback.as_ref().map(fallback_as_json)),
                Verdict::Accept | Verdict::Reauthenticate | Verdict::DeadLetter | Verdict::Drop => {}
            }
            written
        }
        Said::Admission(Admission::Accept) => json!({ "admission": "accept" }),
        Said::Admission(Admission::Drop(reason)) => json!({ "admission": "drop", "reason": reason }),
        Said::Admission(Admission::DeadLetter(reason)) => json!({ "admission": "dead_letter", "reason": reason }),
        Said::Fallback(fallback) => json!({ "fallback": fallback.as_ref().map(fallback_as_json) }),
    }
}

fn fallback_as_json(fallback: &Fallback) -> Value {
    match fallback {
        Fallback::Route(route) => json!({ "route": route }),
        Fallback::Answer(Answer { status, headers, body }) => {
            let headers: Vec<(&str, String)> = headers
                .iter()
                .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
                .collect();
            json!({ "status": status.as_u16(), "headers": headers, "body": String::from_utf8_lossy(body) })
        }
    }
}
