//! `backstop policy check`: what a policy is, and whether it keeps the laws that every policy is held to.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::candidate::{CandidateArgs, Opened, ROUTE, refuse, unfit};
use super::inspect::{Sight, as_json, show};
use crate::message::RouteName;
use crate::policy::laws::saying::{MAX_SHOWN, case, command_line};
use crate::policy::laws::{
    CounterExample, Dictionary, Finding, Known, Law, Report, Subject, Trial, UnknownLaw, try_laws,
};

/// The most frequent answers, which are shown.
const ANSWERS_SHOWN: usize = 12;

#[derive(clap::Args, Debug)]
pub(super) struct Check {
    #[command(flatten)]
    policy: CandidateArgs,
    /// Switch a law off, and say why; may be repeated.
    #[arg(long, value_name = "LAW[=REASON]")]
    without: Vec<Without>,
    /// How many questions to ask. Each costs three calls; the first 600 to 2,100 are the same for every seed: every
    /// status, fault and way to write a Retry-After, and the policy's words where its JSON pointers point.
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    cases: u32,
    /// What chance starts from: the same seed asks the same questions.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Where the bodies of counter-examples go that are too long to be printed.
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A law that is switched off.
#[derive(Clone, Debug)]
struct Without {
    law: Law,
    reason: Option<String>,
}

impl FromStr for Without {
    type Err = UnknownLaw;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, reason) = text.split_once('=').map_or((text, None), |(name, reason)| (name, Some(reason)));
        Ok(Self { law: name.trim().parse()?, reason: reason.map(ToOwned::to_owned) })
    }
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let opened = match self.policy.open() {
            Ok(opened) => opened,
            Err(error) => return Ok(refuse(&error)),
        };
        let subject = match Subject::new(&opened.candidate, &opened.config, opened.limits) {
            Ok(subject) => subject,
            Err(error) => return Ok(refuse(&unfit(error, self.policy.config.is_some()))),
        };
        let words = Dictionary::of(&opened.bytes, &opened.config);
        let hooks = opened.candidate.describe().hooks;
        let known = Known { hooks, interest: subject.interest(), words: &words };
        let without = self.without.iter().map(|without| without.law).collect();
        let trial = Trial { cases: self.cases, seed: self.seed, without };
        let report = try_laws(&subject, known, RouteName::new(ROUTE)?, &trial);
        let told = self.tell(&report)?;
        let sight = Sight::Sees(subject.interest().clone());
        if self.json {
            let mut written = as_json(&opened, &sight);
            if let Some(fields) = written.as_object_mut() {
                fields.insert("seed".to_owned(), json!(self.seed));
                fields.insert("asked".to_owned(), json!(report.asked));
                fields.insert("most_fuel".to_owned(), json!(report.most_fuel));
                fields.insert("laws".to_owned(), told.iter().map(Told::as_json).collect());
                fields.insert("holds".to_owned(), json!(report.holds()));
            }
            out!("{}", serde_json::to_string_pretty(&written)?);
        } else {
            show(&opened, &sight);
            self.show_laws(&opened, &report, &told);
        }
        Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// What is told of each law, in order.
    fn tell(&self, report: &Report) -> anyhow::Result<Vec<Told>> {
        let tell = |law: Law| {
            if let Some(without) = self.without.iter().find(|without| without.law == law) {
                return Ok(Some(Told { law, outcome: Outcome::Off(without.reason.clone()) }));
            }
            let Some((_, finding)) = report.findings.iter().find(|(found, _)| *found == law) else { return Ok(None) };
            let outcome = match finding {
                Finding::Held(cases) => Outcome::Held(*cases),
                Finding::Untried(why) => Outcome::Untried(why),
                Finding::Broken(example) => Outcome::Broken(self.reproduction(law, example)?),
            };
            Ok(Some(Told { law, outcome }))
        };
        Law::ALL.into_iter().filter_map(|law| tell(law).transpose()).collect()
    }

    /// How a counter-example is asked again.
    fn reproduction(&self, law: Law, example: &CounterExample) -> anyhow::Result<Reproduction> {
        let body = example.longest_body();
        let too_long = body.len() > MAX_SHOWN;
        let saved = match &self.save {
            Some(folder) if too_long => {
                let file = folder.join(format!("{law}.body"));
                let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, body));
                written.with_context(|| format!("failed to write {}", file.display()))?;
                Some(file.display().to_string())
            }
            _ => None,
        };
        let file = self.policy.file.display().to_string();
        let name = format!("{law}: {}", example.question.in_words());
        Ok(Reproduction {
            how: example.how.clone(),
            found_at: example.found_at,
            ask: command_line(&example.question, &file, self.policy.config.as_deref(), saved.as_deref()),
            case: case(&example.question, &name, example.expected(law)),
            unsaved: (too_long && saved.is_none()).then_some(body.len()),
        })
    }

    fn show_laws(&self, opened: &Opened, report: &Report, told: &[Told]) {
        out!();
        out!(
            "{} questions by seed {}, each asked three times; the dearest took {} of {} units of fuel",
            report.asked,
            self.seed,
            report.most_fuel,
            opened.limits.fuel
        );
        out!();
        for Told { law, outcome } in told {
            match outcome {
                Outcome::Held(cases) => out!("  ✓ {law:<26}  held in {cases} cases"),
                Outcome::Untried(why) => out!("  - {law:<26}  not tried: {why}"),
                Outcome::Off(reason) => {
                    out!("  - {law:<26}  switched off: {}", reason.as_deref().unwrap_or("no reason given"));
                }
                Outcome::Broken(found) => out!("  ✗ {law:<26}  broken: {}", found.how),
            }
        }
        out!();
        out!("what it answered:");
        for (answer, times) in report.answers.iter().take(ANSWERS_SHOWN) {
            out!("  {times:>6} × {answer}");
        }
        if let Some(others) = report.answers.len().checked_sub(ANSWERS_SHOWN).filter(|others| *others > 0) {
            out!("         and {others} other answers");
        }
        let broken = || told.iter().filter_map(Told::broken);
        for (law, found) in broken() {
            out!();
            out!("{law}: {}", law.meaning());
            out!("  the policy says  {}", found.how);
            out!("  ask it yourself  {}", found.ask);
            if let Some(length) = found.unsaved {
                out!(
                    "                   (its body of {length} bytes is too long to be printed: `--save DIR` writes it to a file)"
                );
            }
            if law == Law::Pure {
                out!("                   (that asks a new instance; this one had answered other questions before)");
            }
            if let Some(case) = &found.case {
                out!("  as a case of `backstop policy test`, with the verdict that the policy should come to:");
                for line in case.lines() {
                    out!("    {line}");
                }
            }
        }
        out!();
        match broken().next() {
            None => out!("no law is broken by these answers; what the policy never answered here was not tried"),
            Some((law, _)) => out!(
                "{} broken: mend the policy, or say why the law is not meant for it: --without {law}='…'",
                match broken().count() {
                    1 => "1 law is".to_owned(),
                    count => format!("{count} laws are"),
                }
            ),
        }
    }
}

/// What is told of a law.
struct Told {
    law: Law,
    outcome: Outcome,
}

enum Outcome {
    Held(u32),
    Untried(&'static str),
    Off(Option<String>),
    Broken(Reproduction),
}

/// A counter-example, and how it is asked again.
struct Reproduction {
    how: String,
    found_at: u32,
    ask: String,
    case: Option<String>,
    /// The length of a body that is nowhere to be found.
    unsaved: Option<usize>,
}

impl Told {
    fn broken(&self) -> Option<(Law, &Reproduction)> {
        match &self.outcome {
            Outcome::Broken(found) => Some((self.law, found)),
            Outcome::Held(_) | Outcome::Untried(_) | Outcome::Off(_) => None,
        }
    }

    fn as_json(&self) -> Value {
        let mut written = match &self.outcome {
            Outcome::Held(cases) => json!({ "state": "held", "cases": cases }),
            Outcome::Untried(why) => json!({ "state": "untried", "why": why }),
            Outcome::Off(reason) => json!({ "state": "off", "reason": reason }),
            Outcome::Broken(found) => json!({
                "state": "broken",
                "how": found.how,
                "found_at": found.found_at,
                "ask": found.ask,
                "case": found.case,
            }),
        };
        written["law"] = json!(self.law.name());
        written["meaning"] = json!(self.law.meaning());
        written
    }
}
