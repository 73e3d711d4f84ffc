//! Each law kept and broken, by functions that stand in for policies.

use std::cell::Cell;
use std::time::Duration;

use http::header::{DATE, RETRY_AFTER};

use super::law::Law;
use super::*;
use crate::backoff::RetryAfter;
use crate::message::{Admission, Decision, LogLevel, LogLine, Outcome, Scope, Verdict};
use crate::policy::standard::standard_rule;

/// A function that answers as a policy would.
struct Policy<F>(F);

impl<F: Fn(&Question) -> Result<Said, Trouble>> Respondent for Policy<F> {
    fn ask(&self, question: &Question) -> Answer {
        Answer { said: (self.0)(question), fuel: 1, log: Vec::new() }
    }

    fn ask_afresh(&self, question: &Question) -> Answer {
        self.ask(question)
    }
}

fn hooks() -> Hooks {
    Hooks { judge: true, ..Hooks::default() }
}

fn tried(respondent: &impl Respondent, hooks: Hooks, interest: &Interest) -> Report {
    let words = Dictionary::of(&[], &serde_json::json!(["E17"]));
    let known = Known { hooks, interest, words: &words };
    try_laws(respondent, known, RouteName::new("orders").unwrap(), &Trial { cases: 3000, seed: 1, without: Vec::new() })
}

/// A policy that asks to see everything the laws are about.
fn curious() -> Interest {
    Interest { headers: vec![RETRY_AFTER, DATE], body_limit: 1024, request_limit: 64 }
}

/// The law that this policy breaks, and no other, with its counter-example.
fn breaks(law: Law, said: impl Fn(&Question) -> Result<Said, Trouble>) -> CounterExample {
    let report = tried(&Policy(said), hooks(), &curious());
    let broken = report.findings.into_iter().filter_map(|(law, finding)| match finding {
        Finding::Broken(example) => Some((law, *example)),
        Finding::Held(_) | Finding::Untried(_) => None,
    });
    let mut broken: Vec<(Law, CounterExample)> = broken.collect();
    assert_eq!(broken.iter().map(|(law, _)| *law).collect::<Vec<_>>(), [law]);
    broken.remove(0).1
}

fn decided(verdict: Verdict, reason: &str) -> Result<Said, Trouble> {
    Ok(Said::Decision(Decision { verdict, reason: reason.to_owned() }))
}

fn standard(question: &Question) -> Result<Said, Trouble> {
    Ok(Said::Decision(standard_rule(&question.outcome)))
}

fn retry(after: u64) -> Verdict {
    Verdict::Retry { after: Some(Duration::from_millis(after)), scope: Scope::Standard }
}

fn body(question: &Question) -> &[u8] {
    match &question.outcome {
        Outcome::Response(response) => &response.body,
        Outcome::Silence(_) => &[],
    }
}

#[test]
fn the_standard_rule_keeps_every_law() {
    let report = tried(&Policy(standard), hooks(), &curious());
    for (law, finding) in &report.findings {
        assert!(matches!(finding, Finding::Held(1..)), "{law}: {finding:?}");
    }
    assert!(report.holds());
    assert_eq!(report.asked, 3000);
}

#[test]
fn what_is_gone_is_not_tried_again() {
    let example = breaks(Law::NeverRetries410, |question| match question.status() {
        Some(410) => decided(retry(1000), "perhaps it comes back"),
        _ => standard(question),
    });
    assert_eq!(example.how, "retry after 1s: perhaps it comes back");
    let again = breaks(Law::NeverRetries410, |question| match question.status() {
        Some(410) if question.attempt.number > 3 => decided(Verdict::Reauthenticate, "with another token"),
        _ => standard(question),
    });
    assert_eq!(again.question.attempt.number, 4, "the lowest number that shows it");
}

#[test]
fn a_failure_of_the_server_s_is_not_accepted_even_if_only_one_body_has_it_so() {
    let example = breaks(Law::NeverAccepts5xx, |question| {
        let text = String::from_utf8_lossy(body(question));
        if question.status() >= Some(500) && text.contains("E17") {
            decided(Verdict::Accept, "they always say that")
        } else {
            standard(question)
        }
    });
    assert_eq!((body(&example.question), example.question.status()), (&b"E17"[..], Some(500)));
}

#[test]
fn silence_is_not_accepted() {
    breaks(Law::NeverAcceptsSilence, |question| match question.status() {
        None => decided(Verdict::Accept, "no news is good news"),
        Some(_) => standard(question),
    });
}

#[test]
fn a_retry_after_is_not_shortened_in_seconds_or_as_a_date() {
    let half = |question: &Question, wanted: fn(&http::HeaderValue) -> bool| {
        let Outcome::Response(response) = &question.outcome else { return standard(question) };
        match RetryAfter::of(&response.headers, question.attempt.now) {
            RetryAfter::After(asked) if response.headers.get(RETRY_AFTER).is_some_and(wanted) => {
                let half = Duration::from_secs((asked.as_secs() / 2).min(86_400));
                decided(Verdict::Retry { after: Some(half), scope: Scope::Standard }, "half")
            }
            _ => decided(Verdict::DeadLetter, "no"),
        }
    };
    let limited = |question: &Question, wanted| match question.status() {
        Some(429 | 503) => half(question, wanted),
        _ => standard(question),
    };
    let seconds = breaks(Law::NeverShortensRetryAfter, |question| {
        limited(question, |value| value.as_bytes().first().is_some_and(u8::is_ascii_digit))
    });
    assert_eq!(seconds.how, "retry after 0s, where 1s is asked for");
    breaks(Law::NeverShortensRetryAfter, |question| {
        limited(question, |value| value.as_bytes().first().is_some_and(u8::is_ascii_alphabetic))
    });
}

#[test]
fn a_retry_after_beyond_what_a_route_honours_may_be_cut_to_that() {
    let report = tried(
        &Policy(|question: &Question| match question.status() {
            Some(429 | 503) => decided(retry(3_600_000), "an hour"),
            _ => standard(question),
        }),
        hooks(),
        &curious(),
    );
    assert!(report.holds(), "{report:?}");
}

#[test]
fn who_does_not_see_a_retry_after_cannot_shorten_it() {
    let policy = Policy(|question: &Question| match question.status() {
        Some(429 | 503) => decided(retry(1), "at once"),
        _ => standard(question),
    });
    let report = tried(&policy, hooks(), &Interest::default());
    let (_, finding) = report.findings.iter().find(|(law, _)| *law == Law::NeverShortensRetryAfter).unwrap();
    assert!(matches!(finding, Finding::Untried(why) if why.contains("does not ask to see `retry-after`")));
}

#[test]
fn a_dead_letter_has_a_reason() {
    breaks(Law::GivesAReason, |question| match question.status() {
        Some(404) => decided(Verdict::DeadLetter, " "),
        _ => standard(question),
    });
}

#[test]
fn fuel_and_traps_are_laws_of_their_own() {
    let fuel = breaks(Law::AnswersWithinFuel, |question| {
        if body(question).len() > 300 { Err(Trouble::OutOfFuel("out of fuel".to_owned())) } else { standard(question) }
    });
    assert_eq!(body(&fuel.question).len(), 301);
    let trap = breaks(Law::Total, |question| match question.status() {
        Some(418) => Err(Trouble::Broken("panicked at a teapot".to_owned())),
        _ => standard(question),
    });
    assert_eq!((trap.question.status(), trap.how.as_str()), (Some(418), "panicked at a teapot"));
}

/// Answers well, and then worse and worse.
struct Forgetful(Cell<u32>);

impl Respondent for Forgetful {
    fn ask(&self, question: &Question) -> Answer {
        self.0.set(self.0.get() + 1);
        let reason = format!("for the {}th time", self.0.get());
        let said = if self.0.get() > 100 { decided(Verdict::DeadLetter, &reason) } else { standard(question) };
        Answer { said, fuel: 1, log: Vec::new() }
    }

    fn ask_afresh(&self, question: &Question) -> Answer {
        Forgetful(Cell::new(0)).ask(question)
    }
}

#[test]
fn what_remembers_is_not_pure() {
    let report = tried(&Forgetful(Cell::new(0)), hooks(), &curious());
    let broken = report.findings.iter().filter(|(_, finding)| matches!(finding, Finding::Broken(_)));
    let laws: Vec<Law> = broken.map(|(law, _)| *law).collect();
    assert_eq!(laws, [Law::Pure]);
}

#[test]
fn what_reads_more_than_it_asked_for_is_told_by_its_warning() {
    struct Blind;
    impl Respondent for Blind {
        fn ask(&self, question: &Question) -> Answer {
            let text = "the body was read, but the policy's interest does not name it".to_owned();
            Answer { said: standard(question), fuel: 1, log: vec![LogLine { level: LogLevel::Warn, text }] }
        }
        fn ask_afresh(&self, question: &Question) -> Answer {
            self.ask(question)
        }
    }
    let report = tried(&Blind, hooks(), &curious());
    let (_, finding) = report.findings.iter().find(|(law, _)| *law == Law::DeclaresWhatItReads).unwrap();
    assert!(matches!(finding, Finding::Broken(_)), "{finding:?}");
}

#[test]
fn admission_is_held_to_its_laws_as_well() {
    let policy = Policy(|question: &Question| match question.hook {
        Hook::Admit if question.message.request.body.is_empty() => Ok(Said::Admission(Admission::Drop(String::new()))),
        Hook::Admit => Ok(Said::Admission(Admission::Accept)),
        Hook::Judge | Hook::FallBack => standard(question),
    });
    let report = tried(&policy, Hooks { judge: true, admit: true, ..Hooks::default() }, &curious());
    let (_, finding) = report.findings.iter().find(|(law, _)| *law == Law::GivesAReason).unwrap();
    let Finding::Broken(example) = finding else { panic!("{finding:?}") };
    assert_eq!(example.question.hook, Hook::Admit);
}

#[test]
fn a_law_that_is_switched_off_is_not_tried() {
    let words = Dictionary::default();
    let interest = Interest::default();
    let known = Known { hooks: hooks(), interest: &interest, words: &words };
    let policy = Policy(|_: &Question| decided(Verdict::Accept, "all is well"));
    let without = vec![Law::NeverAccepts5xx, Law::NeverAcceptsSilence];
    let trial = Trial { cases: 600, seed: 1, without };
    let report = try_laws(&policy, known, RouteName::new("orders").unwrap(), &trial);
    assert!(report.holds() && report.findings.len() == Law::ALL.len() - 2);
}

#[test]
fn a_policy_that_answers_no_question_breaks_no_law_and_keeps_none() {
    let report = tried(&Policy(standard), Hooks::default(), &curious());
    assert!(report.holds() && report.asked == 0);
    assert!(report.findings.iter().all(|(_, finding)| matches!(finding, Finding::Untried(_))));
}

#[test]
fn every_law_is_known_by_its_name_and_no_other() {
    for law in Law::ALL {
        assert_eq!(law.name().parse(), Ok(law));
    }
    let unknown = "never-sleeps".parse::<Law>().unwrap_err().to_string();
    assert!(unknown.contains("never-sleeps") && unknown.contains("never-retries-410"), "{unknown}");
}

#[test]
fn a_question_is_written_as_the_command_and_the_case_that_ask_it() {
    let words = Dictionary::default();
    let interest = curious();
    let known = Known { hooks: hooks(), interest: &interest, words: &words };
    let mut question = known.questions(1, RouteName::new("orders").unwrap()).unwrap().question();
    let Outcome::Response(response) = &mut question.outcome else { panic!("the first is a status") };
    response.status = http::StatusCode::SERVICE_UNAVAILABLE;
    response.headers.insert(RETRY_AFTER, http::HeaderValue::from_static("30"));
    response.body = "it's down".into();
    assert_eq!(
        saying::command_line(&question, "policies/my rule.wasm", Some("{}"), None),
        r"backstop policy ask 'policies/my rule.wasm' --config '{}' --status 503 --header 'retry-after: 30' --body 'it'\''s down' --now 1800000000000"
    );
    let case = saying::case(&question, "down", crate::message::VerdictKind::DeadLetter).unwrap();
    let file = crate::policy::cases::CaseFile::parse(&format!("cases:\n{case}"), std::path::Path::new("cases.yaml"));
    assert_eq!(file.map(|file| file.len()).unwrap(), 1, "`policy test` takes it");
    let case: serde_json::Value = serde_yaml::from_str(&case).unwrap();
    let attempt = serde_json::json!({
        "number": 1, "of": 5, "elapsed": "0s", "latency": "0s", "now": "2027-01-15T08:00:00.000Z", "reauthenticated": false,
    });
    let expected = serde_json::json!([{
        "name": "down",
        "attempt": attempt,
        "outcome": { "status": 503, "headers": { "retry-after": "30" }, "body": "it's down" },
        "expect": { "verdict": "dead_letter" },
    }]);
    assert_eq!(case, expected);
}
