//! `backstop policy inspect`: what a policy's file holds.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::candidate::{CandidateArgs, Opened, refuse};
use crate::config::Isolation;
use crate::policy::{Description, Hooks, Interest};

#[derive(clap::Args, Debug)]
pub(super) struct Inspect {
    #[command(flatten)]
    policy: CandidateArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let opened = match self.policy.open() {
            Ok(opened) => opened,
            Err(error) => return Ok(refuse(&error)),
        };
        let sight = Sight::of(&opened);
        if self.json {
            out!("{}", serde_json::to_string_pretty(&as_json(&opened, &sight))?);
        } else {
            show(&opened, &sight);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What a policy wants to see, as far as it can be known without the right configuration.
pub(super) enum Sight {
    /// This.
    Sees(Interest),
    /// It does not serve under this configuration, for this reason.
    Unfit(String),
}

impl Sight {
    /// Asks the policy, by configuring it.
    fn of(opened: &Opened) -> Self {
        match opened.candidate.judge(&opened.config, opened.limits, Isolation::Reuse) {
            Ok(judge) => Self::Sees(judge.interest().clone()),
            Err(unfit) => Self::Unfit(format!("{:#}", anyhow::Error::new(unfit))),
        }
    }
}

/// A policy as JSON: its description, and its interest under the configuration.
pub(super) fn as_json(opened: &Opened, sight: &Sight) -> Value {
    let mut written = json!(opened.candidate.describe());
    if let Some(fields) = written.as_object_mut() {
        match sight {
            Sight::Sees(interest) => {
                let headers: Vec<&str> = interest.headers.iter().map(|name| name.as_str()).collect();
                let interest = json!({
                    "headers": headers,
                    "body_limit": interest.body_limit,
                    "request_limit": interest.request_limit,
                });
                fields.insert("interest".to_owned(), interest);
            }
            Sight::Unfit(why) => {
                fields.insert("interest".to_owned(), Value::Null);
                fields.insert("unfit".to_owned(), json!(why));
            }
        }
        fields.insert("config".to_owned(), opened.config.clone());
    }
    written
}

/// Prints a policy as a table.
pub(super) fn show(opened: &Opened, sight: &Sight) {
    let described = opened.candidate.describe();
    let Description { name, version, digest, size, hooks, imports, config_schema } = &described;
    out!("policy    {name} {version}");
    out!("digest    sha256 {digest}");
    out!("size      {size} bytes");
    out!("imports   {}", listed(imports));
    out!("answers   {}", listed(&answered(*hooks)));
    match sight {
        Sight::Sees(interest) => {
            for (index, line) in seen(interest, *hooks).iter().enumerate() {
                out!("{:<8}  {line}", if index == 0 { "sees" } else { "" });
            }
        }
        Sight::Unfit(why) => {
            out!("sees      unknown: {why}");
            out!("          (what a policy wants to see may depend on its configuration: give it one with --config)");
        }
    }
    let keys = config_schema.as_ref().map(keys);
    match keys {
        None => out!("config    any"),
        Some(keys) if keys.is_empty() => out!("config    none"),
        Some(keys) => {
            for (index, key) in keys.iter().enumerate() {
                out!("{:<8}  {key}", if index == 0 { "config" } else { "" });
            }
        }
    }
}

fn listed(words: &[impl AsRef<str>]) -> String {
    if words.is_empty() { "nothing".to_owned() } else { words.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ") }
}

fn answered(hooks: Hooks) -> Vec<&'static str> {
    let Hooks { admit, judge, fall_back, settle } = hooks;
    [(admit, "admit"), (judge, "judge"), (fall_back, "fall-back"), (settle, "settle")]
        .into_iter()
        .filter_map(|(answers, name)| answers.then_some(name))
        .collect()
}

/// What it wants to see, a line each.
fn seen(interest: &Interest, hooks: Hooks) -> Vec<String> {
    let names: Vec<&str> = interest.headers.iter().map(|name| name.as_str()).collect();
    let mut lines = vec![
        if names.is_empty() { "no header field".to_owned() } else { format!("header fields {}", names.join(", ")) },
        of_body(interest.body_limit, "body of an answer"),
    ];
    if hooks.admit {
        lines.push(of_body(interest.request_limit, "body of a request"));
    }
    lines
}

fn of_body(limit: usize, what: &str) -> String {
    if limit == 0 { format!("no {what}") } else { format!("the first {limit} bytes of the {what}") }
}

/// The keys that a schema knows, each with the first line of what it says of it.
fn keys(schema: &Value) -> Vec<String> {
    let required = |key: &str| {
        let required = schema.get("required").and_then(Value::as_array);
        required.is_some_and(|required| required.iter().any(|name| name == key))
    };
    let properties = schema.get("properties").and_then(Value::as_object);
    let line = |(key, of): (&String, &Value)| {
        let said =
            of.get("description").and_then(Value::as_str).and_then(|text| text.lines().next()).unwrap_or_default();
        let need = if required(key) { " (required)" } else { "" };
        format!("{key}{need}{}{said}", if said.is_empty() { "" } else { ": " })
    };
    properties.into_iter().flatten().map(line).collect()
}
