//! What is generated, held against what must be.

use std::collections::HashSet;

use super::*;

fn interest(headers: &[header::HeaderName], body_limit: usize) -> Interest {
    Interest { headers: headers.to_vec(), body_limit, request_limit: 64 }
}

fn generated(interest: &Interest, words: &Dictionary, hooks: &[Hook], count: usize) -> Vec<Question> {
    let route = RouteName::new("orders").unwrap();
    let mut generator = Generator::new(7, words, interest, hooks.to_vec(), route).unwrap();
    (0..count).map(|_| generator.question()).collect()
}

fn bodies(questions: &[Question]) -> impl Iterator<Item = &Bytes> {
    questions.iter().filter_map(|question| match &question.outcome {
        Outcome::Response(response) => Some(&response.body),
        Outcome::Silence(_) => None,
    })
}

#[test]
fn every_status_and_every_fault_come_first() {
    let questions = generated(&interest(&[], 0), &Dictionary::default(), &[Hook::Judge], 507);
    let statuses: HashSet<u16> = questions.iter().filter_map(Question::status).collect();
    assert_eq!(statuses, (100..600).collect());
    let faults: HashSet<String> = questions
        .iter()
        .filter_map(|question| match &question.outcome {
            Outcome::Silence(silence) => Some(silence.fault.to_string()),
            Outcome::Response(_) => None,
        })
        .collect();
    assert_eq!(faults.len(), FAULTS.len());
}

#[test]
fn the_same_seed_makes_the_same_questions() {
    let interest = interest(&[header::RETRY_AFTER], 256);
    let made = || format!("{:?}", generated(&interest, &Dictionary::default(), &[Hook::Judge, Hook::Admit], 2000));
    assert_eq!(made(), made());
}

#[test]
fn nothing_is_made_that_the_policy_would_not_be_shown() {
    let questions = generated(&interest(&[header::RETRY_AFTER], 100), &Dictionary::default(), &[Hook::Judge], 3000);
    for question in &questions {
        let Outcome::Response(response) = &question.outcome else { continue };
        assert!(response.headers.keys().all(|name| name == header::RETRY_AFTER));
        assert!(response.body.len() <= 101);
    }
    assert!(bodies(&questions).any(|body| body.len() == 101), "one is cut short now and then");
    assert!(bodies(&questions).any(|body| std::str::from_utf8(body).is_err()));
    assert!(bodies(&questions).any(|body| body.len() > 2 && serde_json::from_slice::<serde_json::Value>(body).is_ok()));
}

#[test]
fn the_words_of_the_configuration_stand_where_its_pointers_point() {
    let config = serde_json::json!({ "pointer": "/fault/0/code", "in": ["E17"] });
    let words = Dictionary::of(&[], &config);
    let questions = generated(&interest(&[], 1024), &words, &[Hook::Judge], 5000);
    let hit = |body: &&Bytes| {
        let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        value.pointer("/fault/0/code").is_some_and(|code| code == "E17")
    };
    assert!(bodies(&questions).filter(hit).count() >= 10);
}

#[test]
fn a_policy_that_answers_nothing_is_asked_nothing() {
    let route = RouteName::new("orders").unwrap();
    assert!(Generator::new(7, &Dictionary::default(), &interest(&[], 0), Vec::new(), route).is_none());
}

#[test]
fn what_was_kept_is_asked_again_with_one_thing_changed() {
    let (words, interest) = (Dictionary::default(), interest(&[], 1024));
    let route = RouteName::new("orders").unwrap();
    let mut generator = Generator::new(7, &words, &interest, vec![Hook::Judge], route).unwrap();
    let mut known = generator.plain(Hook::Judge, response(StatusCode::IM_A_TEAPOT));
    if let Outcome::Response(response) = &mut known.outcome {
        response.body = Bytes::from_static(br#"{"brew":{"kind":"earl grey"}}"#);
    }
    generator.keep(&known);
    let questions: Vec<Question> = (0..2000).map(|_| generator.question()).collect();
    let related = |body: &&Bytes| body.windows(6).any(|part| part == b"\"brew\"");
    let related: HashSet<&Bytes> = bodies(&questions).filter(related).collect();
    assert!(related.len() > 20, "{}", related.len());
}
