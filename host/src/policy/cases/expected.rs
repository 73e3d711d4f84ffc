//! What the author of a case expects, and the reading of it: an expectation that no answer to the question could meet is
//! refused, since a case that can only fail says nothing of the policy.

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::raw::{RawAdmission, RawAsk, RawExpect, RawFallback, RawScope, RawSettlement, RawVerdict};
use super::read::Reading;
use super::units::{After, NoFallback};
use crate::config::{Place, Shorthand, Written};
use crate::message::{RouteName, Scope, VerdictKind};
use crate::transaction::Settlement;

/// What a case expects.
#[derive(Debug)]
pub(super) enum Expected {
    /// An answer.
    Answer(Box<ExpectedAnswer>),
    /// That the policy fails, and a part of how.
    Failure(String),
    /// That the policy refuses its configuration, and a part of its words.
    Refusal(String),
}

/// What an answer must be. Only what is here is compared.
#[derive(Debug, Default)]
pub(super) struct ExpectedAnswer {
    pub(super) verdict: Option<VerdictKind>,
    pub(super) after: Option<After>,
    pub(super) scope: Option<Scope>,
    pub(super) fallback: Option<ExpectedFallback>,
    pub(super) admission: Option<AdmissionKind>,
    pub(super) settlement: Option<Settlement>,
    pub(super) reason: Option<ExpectedText>,
    pub(super) log_contains: Option<String>,
    pub(super) max_fuel: Option<u64>,
}

/// A text, or a part of it.
#[derive(Debug)]
pub(super) enum ExpectedText {
    Whole(String),
    Part(String),
}

/// What stands in the destination's stead.
#[derive(Debug)]
pub(super) enum ExpectedFallback {
    /// What the route has.
    Routes,
    /// Another route.
    Route(RouteName),
    /// An answer.
    Answer { status: Option<u16>, headers: Vec<(HeaderName, Vec<HeaderValue>)>, body: Option<ExpectedBody> },
}

/// An answer's body.
#[derive(Debug)]
pub(super) enum ExpectedBody {
    /// JSON, however it is written.
    Json(Value),
    Text(String),
}

/// An admission, without its reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AdmissionKind {
    Accept,
    Drop,
    DeadLetter,
}

impl AdmissionKind {
    /// As it is written.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
            Self::DeadLetter => "dead_letter",
        }
    }
}

impl ExpectedText {
    /// Whether `said` is what is expected.
    pub(super) fn admits(&self, said: &str) -> bool {
        match self {
            Self::Whole(whole) => said == whole,
            Self::Part(part) => said.contains(part),
        }
    }
}

impl Reading<'_> {
    /// What is expected of the answer to `ask`.
    pub(super) fn expected(&self, place: &Place<'_>, raw: RawExpect, ask: RawAsk) -> Expected {
        let given = raw.keys_given();
        for alone in ["config_refused", "failure_contains"] {
            if given.contains(&alone)
                && let Some(other) = given.iter().find(|other| **other != alone)
            {
                self.sheet
                    .complain(&place.key(other), format!("there is no answer beside `{alone}`: remove one of the two"));
            }
        }
        if raw.config_refused.is_present() {
            return Expected::Refusal(raw.config_refused.given().unwrap_or_default());
        }
        if raw.failure_contains.is_present() {
            return Expected::Failure(raw.failure_contains.given().unwrap_or_default());
        }
        for key in given.iter().filter(|key| !ask.knows(key)) {
            let message = format!("means nothing for `ask: {}`: remove it, or ask another question", ask.as_str());
            self.sheet.complain(&place.key(key), message);
        }
        let main = ask.main_key();
        if !given.contains(&main) {
            self.sheet.complain(place, format!("says too little: write at least `{main}`, such as {}", ask.example()));
        }
        if raw.reason.is_present() && raw.reason_contains.is_present() {
            self.sheet.complain(&place.key("reason_contains"), "write either `reason` or `reason_contains`, not both");
        }
        let verdict = raw.verdict.as_given().copied();
        for (key, its) in
            [("after", RawVerdict::Retry), ("scope", RawVerdict::Retry), ("fallback", RawVerdict::FallBack)]
        {
            let is_detail = ask == RawAsk::Judge && given.contains(&key);
            if is_detail && verdict.is_some_and(|verdict| verdict != its) {
                let message = format!("belongs to `verdict: {}`: remove it, or change the verdict", its.kind());
                self.sheet.complain(&place.key(key), message);
            }
        }
        let fuel_place = place.key("max_fuel");
        let max_fuel = raw.max_fuel.is_present();
        let most: u64 = self.sheet.count(&fuel_place, raw.max_fuel, 1..=1_000_000_000_000, u64::MAX);
        let part = raw.reason_contains.given().map(ExpectedText::Part);
        Expected::Answer(Box::new(ExpectedAnswer {
            verdict: verdict.map(RawVerdict::kind),
            after: raw.after.given().map(|Written(after)| after),
            scope: raw.scope.given().map(RawScope::scope),
            fallback: raw.fallback.given().and_then(|fallback| self.fallback(&place.key("fallback"), fallback)),
            admission: raw.admission.given().map(RawAdmission::kind),
            settlement: raw.settlement.given().map(RawSettlement::settlement),
            reason: raw.reason.given().map(ExpectedText::Whole).or(part),
            log_contains: raw.log_contains.given(),
            max_fuel: max_fuel.then_some(most),
        }))
    }

    fn fallback(
        &self,
        place: &Place<'_>,
        raw: Shorthand<Written<NoFallback>, RawFallback>,
    ) -> Option<ExpectedFallback> {
        let raw = match raw {
            Shorthand::Short(Written(NoFallback)) => return Some(ExpectedFallback::Routes),
            Shorthand::Full(raw) => raw,
        };
        let answers =
            raw.status.is_present() || raw.headers.is_present() || raw.json.is_present() || raw.body.is_present();
        if raw.route.is_present() {
            if answers {
                let message = "write either `route: NAME` or an answer (status, headers, json, body), not both";
                self.sheet.complain(place, message);
            }
            return self.route(&place.key("route"), &raw.route.given()?).map(ExpectedFallback::Route);
        }
        if !answers {
            let message = "is empty: write an answer such as { status: 200 }, { route: NAME }, or none";
            self.sheet.complain(place, message);
        }
        if raw.json.is_present() && raw.body.is_present() {
            self.sheet.complain(place, "write either `json` or `body`, not both");
        }
        let status = raw.status.is_present();
        let status = status.then_some(self.sheet.count(&place.key("status"), raw.status, 200..=599, 200));
        let text = raw.body.given().map(ExpectedBody::Text);
        Some(ExpectedFallback::Answer {
            status,
            headers: self.fields(&place.key("headers"), raw.headers),
            body: raw.json.given().map(ExpectedBody::Json).or(text),
        })
    }
}

impl RawExpect {
    fn keys_given(&self) -> Vec<&'static str> {
        [
            ("verdict", self.verdict.is_present()),
            ("after", self.after.is_present()),
            ("scope", self.scope.is_present()),
            ("fallback", self.fallback.is_present()),
            ("admission", self.admission.is_present()),
            ("settlement", self.settlement.is_present()),
            ("reason", self.reason.is_present()),
            ("reason_contains", self.reason_contains.is_present()),
            ("log_contains", self.log_contains.is_present()),
            ("max_fuel", self.max_fuel.is_present()),
            ("failure_contains", self.failure_contains.is_present()),
            ("config_refused", self.config_refused.is_present()),
        ]
        .into_iter()
        .filter_map(|(key, is_given)| is_given.then_some(key))
        .collect()
    }
}

impl RawAsk {
    /// As it is written.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Judge => "judge",
            Self::Admit => "admit",
            Self::FallBack => "fall_back",
            Self::Settle => "settle",
        }
    }

    /// Whether the answer has what `key` expects.
    fn knows(self, key: &str) -> bool {
        match key {
            "verdict" | "after" | "scope" => self == Self::Judge,
            "admission" => self == Self::Admit,
            "fallback" => matches!(self, Self::Judge | Self::FallBack),
            "settlement" => self == Self::Settle,
            "reason" | "reason_contains" => matches!(self, Self::Judge | Self::Admit),
            _ => true,
        }
    }

    /// Without this, nothing is expected that matters.
    const fn main_key(self) -> &'static str {
        match self {
            Self::Judge => "verdict",
            Self::Admit => "admission",
            Self::FallBack => "fallback",
            Self::Settle => "settlement",
        }
    }

    /// What a least expectation looks like.
    pub(super) const fn example(self) -> &'static str {
        match self {
            Self::Judge => "`expect: { verdict: retry }`",
            Self::Admit => "`expect: { admission: drop }`",
            Self::FallBack => "`expect: { fallback: { status: 200 } }`",
            Self::Settle => "`expect: { settlement: committed }`",
        }
    }
}

impl RawVerdict {
    const fn kind(self) -> VerdictKind {
        match self {
            Self::Accept => VerdictKind::Accept,
            Self::Retry => VerdictKind::Retry,
            Self::Reauthenticate => VerdictKind::Reauthenticate,
            Self::DeadLetter => VerdictKind::DeadLetter,
            Self::Drop => VerdictKind::Drop,
            Self::FallBack => VerdictKind::FallBack,
        }
    }
}

impl RawScope {
    const fn scope(self) -> Scope {
        match self {
            Self::Standard => Scope::Standard,
            Self::Message => Scope::Message,
            Self::Destination => Scope::Destination,
        }
    }
}

impl RawSettlement {
    const fn settlement(self) -> Settlement {
        match self {
            Self::Committed => Settlement::Committed,
            Self::RolledBack => Settlement::RolledBack,
            Self::Unknown => Settlement::Unknown,
        }
    }
}

impl RawAdmission {
    const fn kind(self) -> AdmissionKind {
        match self {
            Self::Accept => AdmissionKind::Accept,
            Self::Drop => AdmissionKind::Drop,
            Self::DeadLetter => AdmissionKind::DeadLetter,
        }
    }
}
