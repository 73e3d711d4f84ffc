//! From raw twin to [`CaseFile`]: defaults filled in, and what cannot be meant refused.
//!
//! Whatever is wrong is reported and replaced by something harmless, so that the rest is checked as well; a file with
//! a problem never leaves [`read`].

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::Value;

use super::body::{MAX_BODIES, RawBody};
use super::raw::{RawAsk, RawAttempt, RawCase, RawFault, RawFile, RawMessage, RawOutcome};
use super::units::{FieldLines, Instant};
use super::{Case, CaseFile, Question};
use crate::clock::Timestamp;
use crate::config::{Field, Named, Place, PolicyLimits, Problems, RawPolicyLimits, Sheet, Written};
use crate::message::{Fault, Message, MessageId, Origin, Outcome, Progress, Request, Response, RouteName, Silence};
use crate::policy::{AttemptView, TRIAL_TIME};

/// 2026-01-01T00:00:00Z: when a case takes place that does not say.
const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// The id of a message that has none.
const ID: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Attempts that the route of a case allows that does not say.
const ATTEMPTS: u32 = 5;

/// A year: no message is tried for longer.
const MAX_ELAPSED: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A file being read.
pub(super) struct Reading<'r> {
    pub(super) sheet: &'r Sheet<'r>,
    pub(super) base_dir: &'r Path,
    /// Bytes that the bodies still to come may hold.
    pub(super) bodies_left: Cell<usize>,
}

/// What a file says of all its cases.
struct Shared {
    config: Value,
    limits: PolicyLimits,
}

/// Reads `text`, which came from the case file at `path`.
///
/// # Errors
/// Every mistake in it, in order of line.
pub(super) fn read(text: &str, path: &Path) -> Result<CaseFile, Problems> {
    let sheet = Sheet::open(text, path, "`cases`")?;
    let reading =
        Reading { sheet: &sheet, base_dir: path.parent().unwrap_or(Path::new("")), bodies_left: Cell::new(MAX_BODIES) };
    let file = sheet.read().and_then(|raw| reading.file_of_cases(raw, path));
    sheet.finish(file)
}

impl Reading<'_> {
    fn file_of_cases(&self, raw: RawFile, path: &Path) -> Option<CaseFile> {
        let root = Place::ROOT;
        let shared = Shared {
            config: raw.config.given().unwrap_or_default(),
            limits: self.limits(&root.key("limits"), raw.limits.given().unwrap_or_default()),
        };
        let place = root.key("cases");
        let raw_cases = match raw.cases {
            Field::Given(cases) => cases,
            Field::Broken => return None,
            Field::Absent => {
                self.sheet.complain(&place, "missing: write `cases:` and at least one case under it");
                return None;
            }
        };
        if raw_cases.is_empty() {
            self.sheet.complain(&place, "is empty: write at least one case");
        }
        let mut cases = Vec::with_capacity(raw_cases.len());
        let mut lines = HashMap::new();
        for (index, raw) in raw_cases.into_iter().enumerate() {
            let place = place.index(index);
            let Some(raw) = raw.given() else { continue };
            let Some(case) = self.case(&place, raw, &shared) else { continue };
            if let Some(first) = lines.insert(case.name.clone(), case.line).filter(|_| !case.name.is_empty()) {
                self.sheet.complain_of(
                    &place.key("name"),
                    format!("the case on line {first} is called so: say what differs"),
                );
            }
            cases.push(case);
        }
        let policy = raw.policy.given().map(|name| (name, self.sheet.line(&root.key("policy"))));
        Some(CaseFile { path: path.to_path_buf(), policy, cases })
    }

    /// One case. `None` when it cannot be asked; why was reported.
    fn case(&self, place: &Place<'_>, raw: RawCase, shared: &Shared) -> Option<Case> {
        if !raw.name.is_present() {
            self.sheet.complain(place, "a case needs its `name`: say in a few words what it is about");
        }
        let name = raw.name.given().unwrap_or_default().trim().to_owned();
        let ask = raw.ask.as_given().copied().unwrap_or_default();
        let expect = match raw.expect {
            Field::Given(expect) => Some(expect),
            Field::Broken => None,
            Field::Absent => {
                self.sheet.complain(place, format!("a case needs to expect something: write {}", ask.example()));
                None
            }
        };
        let is_refusal = expect.as_ref().is_some_and(|expect| expect.config_refused.is_present());
        if is_refusal {
            for (key, is_present) in [
                ("ask", raw.ask.is_present()),
                ("message", raw.message.is_present()),
                ("attempt", raw.attempt.is_present()),
                ("outcome", raw.outcome.is_present()),
            ] {
                if is_present {
                    let why =
                        "a policy that refuses its configuration is asked nothing: remove it, or `config_refused`";
                    self.sheet.complain(&place.key(key), why);
                }
            }
        }
        let message = self.message(&place.key("message"), raw.message.given().unwrap_or_default());
        let attempt_given = raw.attempt.is_present();
        let attempt = self.attempt(&place.key("attempt"), raw.attempt.given().unwrap_or_default());
        let question = if is_refusal {
            None
        } else if ask == RawAsk::Admit {
            for (key, is_present) in [("attempt", attempt_given), ("outcome", raw.outcome.is_present())] {
                if is_present {
                    let why = "`ask: admit` is about a message before its first attempt: remove it";
                    self.sheet.complain(&place.key(key), why);
                }
            }
            Some(Question::Admit(message?))
        } else {
            if ask == RawAsk::Settle && attempt_given {
                let why = "`ask: settle` is about a sender's answer, and no attempt: remove it";
                self.sheet.complain(&place.key("attempt"), why);
            }
            let outcome = self.outcome(place, raw.outcome);
            match ask {
                RawAsk::Settle => Some(Question::Settle(message?, outcome)),
                RawAsk::FallBack => Some(Question::FallBack(message?, attempt, outcome)),
                RawAsk::Judge | RawAsk::Admit => Some(Question::Judge(message?, attempt, outcome)),
            }
        };
        let limits = match raw.limits.given() {
            Some(limits) => self.limits(&place.key("limits"), limits),
            None => shared.limits,
        };
        let config = match raw.config {
            Field::Given(config) => config,
            Field::Absent | Field::Broken => shared.config.clone(),
        };
        let expected = expect.map(|expect| self.expected(&place.key("expect"), expect, ask));
        Some(Case { name, line: self.sheet.line(place), question, config, limits, expected: expected? })
    }

    fn message(&self, place: &Place<'_>, raw: RawMessage) -> Option<Message> {
        let body = RawBody {
            text: raw.body,
            json: raw.json,
            base64: raw.body_base64,
            file: raw.body_file,
            repeat: raw.repeat,
        };
        let body = self.body(place, body);
        let id = raw.id.given().and_then(|id| {
            let parsed = id.parse().ok();
            if parsed.is_none() {
                let form = "write a UUID such as 0190b1f4-4c5e-7aaa-8b1c-1f2e3d4c5b6a";
                self.sheet.complain_of(&place.key("id"), form);
            }
            parsed
        });
        let method = raw.method.given().and_then(|method| {
            let parsed = Method::from_bytes(method.as_bytes()).ok().filter(|_| !method.contains(char::is_lowercase));
            if parsed.is_none() {
                self.sheet.complain_of(&place.key("method"), "write a method in upper case, such as POST");
            }
            parsed
        });
        let path = raw.path.given().unwrap_or_else(|| "/".to_owned());
        if !path.starts_with('/') {
            self.sheet.complain_of(&place.key("path"), "write the path below the route, from its `/`");
        }
        let request = Request {
            method: method.unwrap_or(Method::POST),
            path,
            headers: self.header_map(&place.key("headers"), raw.headers, body.is_json),
            body: body.bytes,
        };
        Some(Message {
            id: id.unwrap_or(MessageId::from_bytes(ID)),
            route: self.route(&place.key("route"), raw.route.given().as_deref().unwrap_or("test"))?,
            request: Arc::new(request),
            idempotency_key: raw.idempotency_key.given(),
            accepted_at: NOW,
            progress: Progress::default(),
            origin: Origin::default(),
        })
    }

    fn attempt(&self, place: &Place<'_>, raw: RawAttempt) -> AttemptView {
        let most = u64::from(u32::MAX);
        let number = self.sheet.count(&place.key("number"), raw.number, 1..=most, 1);
        let range = Duration::ZERO..=MAX_ELAPSED;
        AttemptView {
            number,
            of: self.sheet.count(&place.key("of"), raw.of, 1..=most, ATTEMPTS.max(number)),
            elapsed: self.sheet.duration(&place.key("elapsed"), raw.elapsed, range.clone(), Duration::ZERO),
            latency: self.sheet.duration(&place.key("latency"), raw.latency, range, Duration::ZERO),
            now: raw.now.given().map_or(NOW, |Written(Instant(now))| now),
            reauthenticated: raw.reauthenticated.given().unwrap_or(false),
        }
    }

    fn outcome(&self, case: &Place<'_>, raw: Field<RawOutcome>) -> Outcome {
        let place = &case.key("outcome");
        let silent = |fault| Outcome::Silence(Silence { fault, detail: String::new() });
        let raw = match raw {
            Field::Given(raw) => raw,
            Field::Broken => return silent(Fault::Timeout),
            Field::Absent => {
                let form = "a case needs its `outcome`: write `outcome: { status: 503 }`, or `{ silence: timeout }`";
                self.sheet.complain(case, form);
                return silent(Fault::Timeout);
            }
        };
        let answers = raw.status.is_present()
            || raw.headers.is_present()
            || raw.truncated.is_present()
            || [&raw.body, &raw.body_base64, &raw.body_file].into_iter().any(Field::is_present)
            || raw.json.is_present()
            || raw.repeat.is_present();
        if raw.silence.is_present() {
            if answers {
                self.sheet.complain(
                    place,
                    "write either `silence` or an answer, not both: silence has no fields and no body",
                );
            }
            return silent(raw.silence.given().map_or(Fault::Timeout, RawFault::fault));
        }
        if !raw.status.is_present() {
            self.sheet
                .complain(place, "an answer needs its `status`: write `status: 200`, or `silence: timeout` for none");
        }
        let status: u16 = self.sheet.count(&place.key("status"), raw.status, 100..=599, 200);
        let body = RawBody {
            text: raw.body,
            json: raw.json,
            base64: raw.body_base64,
            file: raw.body_file,
            repeat: raw.repeat,
        };
        let body = self.body(place, body);
        Outcome::Response(Response {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::OK),
            headers: self.header_map(&place.key("headers"), raw.headers, body.is_json),
            body: body.bytes,
            truncated: raw.truncated.given().unwrap_or(false),
        })
    }

    /// The fields given, and the Content-Type of a body written as JSON.
    fn header_map(&self, place: &Place<'_>, raw: Field<Named<FieldLines>>, is_json: bool) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, values) in self.fields(place, raw) {
            for value in values {
                map.append(&name, value);
            }
        }
        if is_json {
            map.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        }
        map
    }

    /// Header fields, with each one's values.
    pub(super) fn fields(
        &self,
        place: &Place<'_>,
        raw: Field<Named<FieldLines>>,
    ) -> Vec<(HeaderName, Vec<HeaderValue>)> {
        let Some(Named(entries)) = raw.given() else { return Vec::new() };
        let mut fields = Vec::with_capacity(entries.len());
        for (name, lines) in entries {
            let place = place.key(&name);
            let Some(FieldLines(lines)) = lines.given() else { continue };
            let Ok(field) = HeaderName::from_bytes(name.as_bytes()) else {
                self.sheet.complain(&place, "no header field can be called so: letters, digits and -");
                continue;
            };
            let values: Result<Vec<_>, _> = lines.iter().map(|line| HeaderValue::from_bytes(line.as_bytes())).collect();
            match values {
                Ok(values) => fields.push((field, values)),
                Err(_) => {
                    self.sheet.complain(&place, "no header field can hold this: no control characters, in one line")
                }
            }
        }
        fields
    }

    /// What one question may cost. Unless the file says, time is no bound but a backstop behind the fuel.
    fn limits(&self, place: &Place<'_>, raw: RawPolicyLimits) -> PolicyLimits {
        let says_time = raw.time.is_present();
        let limits = self.sheet.policy_limits(place, raw);
        if says_time { limits } else { PolicyLimits { time: TRIAL_TIME, ..limits } }
    }

    /// A route's name. `None` when it can be none's; that was reported.
    pub(super) fn route(&self, place: &Place<'_>, name: &str) -> Option<RouteName> {
        RouteName::new(name).map_err(|error| self.sheet.complain_of(place, error.to_string())).ok()
    }
}

impl RawFault {
    const fn fault(self) -> Fault {
        match self {
            Self::Resolve => Fault::Resolve,
            Self::Connect => Fault::Connect,
            Self::Tls => Fault::Tls,
            Self::Timeout => Fault::Timeout,
            Self::Reset => Fault::Reset,
            Self::Protocol => Fault::Protocol,
            Self::Credentials => Fault::Credentials,
        }
    }
}
