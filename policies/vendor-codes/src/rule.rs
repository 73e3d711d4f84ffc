//! One rule of the table, checked.

use std::time::Duration;

use backstop_sdk::prelude::*;

use crate::config::{HeaderConfig, JsonConfig, RuleConfig, ScopeWord, VerdictWord};
use crate::matcher::{FieldTest, Matcher, Seen, Text, ValueTest};

/// A rule: what it looks at, and what is then to be done.
pub(crate) struct Rule {
    /// All of these must match; never empty.
    matchers: Vec<Matcher>,
    action: Action,
    reason: String,
}

/// What is to be done.
enum Action {
    Accept,
    Retry { after: Option<Duration>, scope: Option<ScopeWord> },
    Reauthenticate,
    DeadLetter,
    Drop,
    FallBack { route: Option<String> },
}

impl Rule {
    /// Checks a rule.
    ///
    /// # Errors
    /// Everything that is wrong with it, and what to write instead.
    pub(crate) fn new(config: RuleConfig) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut matchers = Vec::new();
        let asks_of_an_answer = config.status.is_some()
            || config.header.is_some()
            || config.body_contains.is_some()
            || config.json.is_some();
        if config.silence.is_some() && asks_of_an_answer {
            problems.push("`silence` is no answer, so nothing else of the rule can match: make two rules".into());
        }
        let action = action(&config, &mut problems);

        matchers.extend(config.status.map(Matcher::Status));
        matchers.extend(config.silence.map(Matcher::Silence));
        if let Some(header) = config.header {
            matchers.extend(header_matcher(header, config.ignore_case).map_err(|problem| problems.push(problem)).ok());
        }
        match config.body_contains {
            Some(text) if text.is_empty() => problems.push("`body_contains` is empty: every body contains that".into()),
            Some(text) => matchers.push(Matcher::BodyContains(Text::new(text, config.ignore_case))),
            None => {}
        }
        if let Some(json) = config.json {
            matchers.extend(json_matcher(json).map_err(|problem| problems.push(problem)).ok());
        }
        if matchers.is_empty() && problems.is_empty() {
            problems.push(
                "looks at nothing, so the rules after it would never be read: give it `status`, `silence`, `header`, \
                 `body_contains` or `json`, or use `otherwise` for the rest"
                    .into(),
            );
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let reason =
            config.reason.unwrap_or_else(|| matchers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
        Ok(Self { matchers, action, reason })
    }

    /// Whether all it looks at is so.
    pub(crate) fn matches(&self, seen: &Seen<'_>) -> bool {
        self.matchers.iter().all(|matcher| matcher.matches(seen))
    }

    /// What it says.
    pub(crate) fn decision(&self) -> Decision {
        let reason = self.reason.as_str();
        match &self.action {
            Action::Accept => accept(reason),
            Action::Retry { after, scope } => {
                let decision = match after {
                    Some(after) => retry_after(*after, reason),
                    None => retry(reason),
                };
                match scope {
                    None => decision,
                    Some(ScopeWord::Message) => decision.for_this_message(),
                    Some(ScopeWord::Destination) => decision.for_destination(),
                }
            }
            Action::Reauthenticate => reauthenticate(reason),
            Action::DeadLetter => dead_letter(reason),
            Action::Drop => drop_message(reason),
            Action::FallBack { route: None } => give_up(reason),
            Action::FallBack { route: Some(route) } => fall_back_to_route(route.as_str(), reason),
        }
    }

    /// The header field it reads, in lower case.
    pub(crate) fn header(&self) -> Option<&str> {
        self.matchers.iter().find_map(|matcher| match matcher {
            Matcher::Header { name, .. } => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether it reads the body.
    pub(crate) fn reads_body(&self) -> bool {
        self.matchers.iter().any(|matcher| matches!(matcher, Matcher::BodyContains(_) | Matcher::Json { .. }))
    }
}

fn action(config: &RuleConfig, problems: &mut Vec<String>) -> Action {
    let verdict = config.verdict;
    let mut only_with = |key: &str, given: bool, its: VerdictWord, word: &str| {
        if given && verdict != its {
            problems.push(format!("`{key}` belongs to `verdict: {word}`: remove it"));
        }
    };
    only_with("after", config.after.is_some(), VerdictWord::Retry, "retry");
    only_with("scope", config.scope.is_some(), VerdictWord::Retry, "retry");
    only_with("route", config.route.is_some(), VerdictWord::FallBack, "fall_back");
    match verdict {
        VerdictWord::Accept => Action::Accept,
        VerdictWord::Retry => Action::Retry { after: config.after.map(|after| *after), scope: config.scope },
        VerdictWord::Reauthenticate => Action::Reauthenticate,
        VerdictWord::DeadLetter => Action::DeadLetter,
        VerdictWord::Drop => Action::Drop,
        VerdictWord::FallBack => Action::FallBack { route: config.route.clone() },
    }
}

fn header_matcher(config: HeaderConfig, ignore_case: bool) -> Result<Matcher, String> {
    let mut name = config.name;
    name.make_ascii_lowercase();
    if !is_field_name(&name) {
        return Err(format!("`{name}` is no header field's name"));
    }
    let test = match (config.equals, config.contains, config.present) {
        (Some(text), None, None) => FieldTest::Equals(Text::new(text, ignore_case)),
        (None, Some(text), None) => FieldTest::Contains(Text::new(text, ignore_case)),
        (None, None, Some(present)) => FieldTest::Present(present),
        _ => return Err("`header` takes exactly one of `equals`, `contains` and `present`".into()),
    };
    Ok(Matcher::Header { name, test })
}

fn json_matcher(config: JsonConfig) -> Result<Matcher, String> {
    let pointer = config.pointer;
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Err(format!("`{pointer}` is no JSON Pointer: write `/{pointer}`"));
    }
    let test = match (config.equals, config.one_of, config.exists) {
        (Some(value), None, None) => ValueTest::OneOf(vec![value]),
        (None, Some(values), None) => ValueTest::OneOf(values),
        (None, None, Some(exists)) => ValueTest::Exists(exists),
        _ => return Err("`json` takes exactly one of `equals`, `in` and `exists`".into()),
    };
    Ok(Matcher::Json { pointer, test })
}

/// Whether `name` is a token of RFC 9110 section 5.6.2.
fn is_field_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
