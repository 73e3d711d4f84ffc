//! What a configuration amounts to, for `backstop check`: every default filled in, every secret left out.
//!
//! The description is itself YAML that loads: what came from a variable or a file stands there as `${env:NAME}`,
//! other secrets as `***`.

mod limits;
mod tapped;

use std::time::Duration;

use serde_json::{Map, Value, json};
use url::Url;

use super::check_back::CheckBack;
use super::problem::Place;
use super::resolved::{Alarm, Auth, Config, Destination, Isolation, Mode, OnPolicyFailure, PolicyBinding, Route};
use super::units::{show_duration, show_size};
use super::{Events, Sources, Tapped};
use crate::backoff::{Growth, Jitter};
use crate::message::{Answer, Envelope, Fallback};

const HIDDEN: &str = "***";

impl Config {
    /// The resolved configuration as YAML, for people to read. Holds no secret.
    pub fn describe(&self) -> String {
        let shown = self.shown();
        // Writing a tree of text and numbers to memory cannot fail; if it did, JSON is YAML.
        serde_yaml::to_string(&shown).unwrap_or_else(|_| shown.to_string())
    }

    fn shown(&self) -> Value {
        let describer = Describer { sources: &self.sources };
        let root = Place::ROOT;
        let mut top = Map::new();
        top.insert("listen".into(), describer.text(&root.key("listen"), &self.listen.to_string()));
        let admin = root.key("admin");
        let listen = describer.short_text(&admin, "listen", &self.admin.listen.to_string());
        let admin = match &self.admin.token {
            Some(_) => json!({ "listen": listen, "token": describer.secret(&admin.key("token")) }),
            None => listen,
        };
        top.insert("admin".into(), admin);
        if !self.tapped.is_empty() {
            let sources = root.key("sources");
            let shown = |tapped: &Tapped| (tapped.name.clone(), describer.tapped(&sources.key(&tapped.name), tapped));
            top.insert("sources".into(), self.tapped.iter().map(shown).collect::<Map<_, _>>().into());
        }
        top.insert("store".into(), describer.text(&root.key("store"), &self.store.to_string()));
        top.insert("policies".into(), describer.text(&root.key("policies"), &self.policies.display().to_string()));
        let state = match &self.state {
            Some(folder) => describer.text(&root.key("state"), &folder.display().to_string()),
            None => "none".into(),
        };
        top.insert("state".into(), state);
        top.insert("shutdown_grace".into(), duration(self.shutdown_grace));
        top.insert("lease".into(), duration(self.lease));
        top.insert("keep_finished".into(), duration(self.keep_finished));
        top.insert("max_in_flight".into(), self.max_in_flight.into());
        let routes = root.key("routes");
        let routes: Map<String, Value> = self
            .routes
            .iter()
            .map(|(name, route)| (name.to_string(), describer.route(&routes.key(name.as_str()), route)))
            .collect();
        top.insert("routes".into(), routes.into());
        top.into()
    }
}

struct Describer<'c> {
    sources: &'c Sources,
}

impl Describer<'_> {
    fn route(&self, place: &Place<'_>, route: &Route) -> Value {
        let mut shown = Map::new();
        shown.insert("destination".into(), self.destination(&place.key("destination"), &route.destination));
        if !route.enabled {
            shown.insert("enabled".into(), false.into());
        }
        shown.insert("mode".into(), route.mode.as_str().into());
        match route.mode {
            Mode::Async => {}
            Mode::Sync { deadline } => {
                shown.insert("deadline".into(), duration(deadline));
            }
            Mode::SyncThenAsync { deadline, attempts } => {
                shown.insert("deadline".into(), duration(deadline));
                shown.insert("sync_attempts".into(), attempts.into());
            }
        }
        if let Some(policy) = &route.policy {
            self.policy(place, policy, &mut shown);
        }
        let mut retry = retry(&route.envelope);
        if let Some(budget) = &route.retry_budget {
            retry.insert("budget".into(), limits::budget(budget));
        }
        shown.insert("retry".into(), retry.into());
        match &route.fallback {
            Some(Fallback::Route(name)) => {
                let name = self.text(&place.key("fallback").key("route"), name.as_str());
                shown.insert("fallback".into(), json!({ "route": name }));
            }
            Some(Fallback::Answer(answer)) => {
                shown.insert("fallback".into(), self.answer(&place.key("fallback"), answer));
            }
            None => {}
        }
        if let Some(alarm) = &route.alarm {
            shown.insert("alarm".into(), self.alarm(&place.key("alarm"), alarm));
        }
        shown.insert("dead_letter".into(), json!({ "keep": duration(route.keep_dead) }));
        shown.insert("concurrency".into(), route.concurrency.into());
        limits::show(route, &mut shown);
        if let Some(check_back) = &route.check_back {
            shown.insert("check_back".into(), self.check_back(&place.key("check_back"), check_back));
        }
        shown.insert("max_queued".into(), route.max_queued.into());
        shown.insert("body_limit".into(), size(route.body_limit));
        let idempotency = json!({ "required": route.idempotency.required, "keep": duration(route.idempotency.keep) });
        shown.insert("idempotency".into(), idempotency);
        if let Some(events) = &route.events {
            self.events(place, events, &mut shown);
        }
        shown.into()
    }

    fn destination(&self, place: &Place<'_>, destination: &Destination) -> Value {
        let mut shown = Map::new();
        shown.insert("url".into(), self.short_text(place, "url", &shown_url(&destination.url)));
        shown.insert("timeout".into(), duration(destination.timeout));
        shown.insert("response_limit".into(), size(destination.response_limit));
        if let Some(auth) = &destination.auth {
            shown.insert("auth".into(), self.auth(&place.key("auth"), auth));
        }
        if !destination.headers.is_empty() {
            let headers = place.key("headers");
            let headers = destination.headers.iter().map(|(name, _)| {
                // Which of them are secret, only their author knows.
                (name.to_string(), self.secret(&headers.key(name.as_str())))
            });
            shown.insert("headers".into(), headers.collect::<Map<_, _>>().into());
        }
        if !destination.allow.is_empty() {
            let allow = place.key("allow");
            let networks = destination.allow.iter().enumerate();
            let networks = networks.map(|(index, net)| self.text(&allow.index(index), &net.to_string()));
            shown.insert("allow".into(), networks.collect::<Vec<_>>().into());
        }
        shown.into()
    }

    fn check_back(&self, place: &Place<'_>, check_back: &CheckBack) -> Value {
        let mut shown = self.destination(place, &check_back.sender);
        if let Some(keys) = shown.as_object_mut() {
            keys.remove("response_limit");
            keys.insert("url".into(), self.short_text(place, "url", &check_back.written()));
            keys.insert("after".into(), duration(check_back.after));
            keys.insert("every".into(), duration(check_back.every));
            keys.insert("max_checks".into(), check_back.max_checks.into());
        }
        shown
    }

    fn auth(&self, place: &Place<'_>, auth: &Auth) -> Value {
        match auth {
            Auth::Header { name, .. } => {
                let place = place.key("header");
                let name = self.text(&place.key("name"), name.as_str());
                json!({ "header": { "name": name, "value": self.secret(&place.key("value")) } })
            }
            Auth::Basic { username, .. } => {
                let place = place.key("basic");
                let username = self.text(&place.key("username"), username);
                json!({ "basic": { "username": username, "password": self.secret(&place.key("password")) } })
            }
            Auth::ClientCredentials { token_url, client_id, scope, params, .. } => {
                let place = place.key("oauth2");
                let mut shown = Map::new();
                shown.insert("token_url".into(), self.text(&place.key("token_url"), token_url.as_str()));
                shown.insert("client_id".into(), self.text(&place.key("client_id"), client_id));
                shown.insert("client_secret".into(), self.secret(&place.key("client_secret")));
                if let Some(scope) = scope {
                    shown.insert("scope".into(), self.text(&place.key("scope"), scope));
                }
                if !params.is_empty() {
                    let place = place.key("params");
                    let params = params.iter().map(|(name, _)| (name.clone(), self.secret(&place.key(name))));
                    shown.insert("params".into(), params.collect::<Map<_, _>>().into());
                }
                json!({ "oauth2": shown })
            }
        }
    }

    fn policy(&self, place: &Place<'_>, policy: &PolicyBinding, shown: &mut Map<String, Value>) {
        shown.insert("policy".into(), self.text(&place.key("policy"), &policy.name));
        if !policy.config.is_null() {
            shown.insert("policy_config".into(), self.value(&place.key("policy_config"), &policy.config));
        }
        let limits = json!({
            "fuel": policy.limits.fuel,
            "memory": size(policy.limits.memory),
            "time": duration(policy.limits.time),
            "output": size(policy.limits.output),
            "failures": policy.limits.failures,
        });
        shown.insert("policy_limits".into(), limits);
        let isolation = match policy.isolation {
            Isolation::Reuse => "reuse",
            Isolation::Fresh => "fresh",
        };
        shown.insert("isolation".into(), isolation.into());
        let on_failure = match policy.on_failure {
            OnPolicyFailure::Standard => "standard",
            OnPolicyFailure::Retry => "retry",
            OnPolicyFailure::DeadLetter => "dead_letter",
        };
        shown.insert("on_policy_failure".into(), on_failure.into());
    }

    fn events(&self, place: &Place<'_>, events: &Events, shown: &mut Map<String, Value>) {
        shown.insert("match".into(), self.text(&place.key("match"), events.taken.as_str()));
        if let Some(schema) = &events.schema {
            shown.insert("schema".into(), self.text(&place.key("schema"), &schema.path));
        }
        if let Some(window) = events.dedupe {
            shown.insert("dedupe".into(), json!({ "by": "source+id", "window": duration(window) }));
        }
    }

    fn answer(&self, place: &Place<'_>, answer: &Answer) -> Value {
        let mut shown = Map::new();
        shown.insert("status".into(), answer.status.as_u16().into());
        let (headers_place, json_place) = (place.key("headers"), place.key("json"));
        let headers = answer.headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            (name.to_string(), self.text(&headers_place.key(name.as_str()), &value))
        });
        let headers: Map<String, Value> = headers.collect();
        if !headers.is_empty() {
            shown.insert("headers".into(), headers.into());
        }
        let is_json = answer.headers.get(http::header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
        match serde_json::from_slice(&answer.body) {
            Ok(value) if is_json && !self.sources.has(&place.key("body")) => {
                shown.insert("json".into(), self.value(&json_place, &value));
            }
            _ if answer.body.is_empty() => {}
            _ => {
                let body = String::from_utf8_lossy(&answer.body);
                shown.insert("body".into(), self.text(&place.key("body"), &body));
            }
        }
        shown.into()
    }

    fn alarm(&self, place: &Place<'_>, alarm: &Alarm) -> Value {
        let mut shown = Map::new();
        shown.insert("error_rate".into(), alarm.error_rate.into());
        shown.insert("window".into(), duration(alarm.window));
        shown.insert("min_requests".into(), alarm.min_requests.into());
        if let Some(notify) = &alarm.notify {
            shown.insert("notify".into(), self.text(&place.key("notify"), notify.as_str()));
        }
        shown.into()
    }

    /// Text that is no secret, unless it came from a variable or a file.
    fn text(&self, place: &Place<'_>, text: &str) -> Value {
        match self.sources.reference(place, false) {
            Some(written) => written.into(),
            None => text.replace("${", "$${").into(),
        }
    }

    /// The same for a key that a section's short form stands for.
    fn short_text(&self, section: &Place<'_>, key: &str, text: &str) -> Value {
        match self.sources.reference(section, false) {
            Some(written) => written.into(),
            None => self.text(&section.key(key), text),
        }
    }

    /// A secret: where it comes from, or nothing.
    fn secret(&self, place: &Place<'_>) -> Value {
        self.sources.reference(place, true).unwrap_or(HIDDEN).into()
    }

    fn value(&self, place: &Place<'_>, value: &Value) -> Value {
        match value {
            Value::String(text) => self.text(place, text),
            Value::Array(items) => {
                items.iter().enumerate().map(|(index, item)| self.value(&place.index(index), item)).collect()
            }
            Value::Object(entries) => {
                entries.iter().map(|(key, value)| (key.clone(), self.value(&place.key(key), value))).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }
}

/// A URL without the credentials that a broker's may hold.
fn shown_url(url: &Url) -> String {
    let mut shown = url.clone();
    if url.password().is_some() {
        // Neither fails for a URL that has a password.
        let _ = shown.set_password(Some(HIDDEN));
    } else if !url.username().is_empty() {
        let _ = shown.set_username(HIDDEN);
    }
    shown.into()
}

fn retry(envelope: &Envelope) -> Map<String, Value> {
    let mut shown = Map::new();
    let max_attempts: Value = match envelope.max_attempts {
        u32::MAX => "unlimited".into(),
        count => count.into(),
    };
    shown.insert("max_attempts".into(), max_attempts);
    shown.insert("max_elapsed".into(), duration(envelope.max_elapsed));
    shown.insert("min_delay".into(), duration(envelope.min_delay));
    shown.insert("max_delay".into(), duration(envelope.max_delay));
    match envelope.backoff.growth {
        Growth::Constant => {
            shown.insert("backoff".into(), "constant".into());
        }
        Growth::Exponential { factor } => {
            shown.insert("backoff".into(), "exponential".into());
            shown.insert("factor".into(), factor.into());
        }
    }
    let jitter = match envelope.backoff.jitter {
        Jitter::None => "none",
        Jitter::Full => "full",
        Jitter::Equal => "equal",
        Jitter::Decorrelated => "decorrelated",
    };
    shown.insert("jitter".into(), jitter.into());
    shown.insert("retry_after_max".into(), duration(envelope.retry_after_max));
    shown
}

fn duration(duration: Duration) -> Value {
    show_duration(duration).into()
}

fn size(bytes: usize) -> Value {
    show_size(u64::try_from(bytes).unwrap_or(u64::MAX)).into()
}
