//! What the heart promises, for every outcome, verdict and envelope.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use proptest::prelude::*;

use super::*;
use crate::backoff::{Backoff, Growth, Jitter};
use crate::clock::Chance;

const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn envelope() -> Envelope {
    Envelope {
        max_attempts: 5,
        max_elapsed: secs(86_400),
        min_delay: secs(1),
        max_delay: secs(60),
        backoff: Backoff { growth: Growth::Exponential { factor: 2.0 }, jitter: Jitter::None },
        retry_after_max: secs(3600),
        renewable_credentials: true,
    }
}

fn after_attempt(attempts: u32) -> Progress {
    Progress { attempts, journal: attempts, started_at: Some(NOW), ..Progress::default() }
}

fn answer(status: u16, fields: &[(header::HeaderName, &'static str)]) -> Outcome {
    Outcome::Response(Response {
        status: StatusCode::from_u16(status).unwrap(),
        headers: fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect(),
        body: Bytes::new(),
        truncated: false,
    })
}

fn decide(verdict: Verdict) -> Decision {
    Decision { verdict, reason: "because".to_owned() }
}

fn retry(after: Option<u64>, scope: Scope) -> Decision {
    decide(Verdict::Retry { after: after.map(secs), scope })
}

fn step(progress: Progress, outcome: &Outcome, decision: &Decision) -> Step {
    advance(&progress, outcome, decision, &envelope(), NOW, Chance::new(0.5))
}

fn delay_of(step: &Step) -> Duration {
    match step.transition {
        Transition::Retry { delay, .. } => delay,
        ref other => panic!("expected a retry, got {other:?}"),
    }
}

#[test]
fn a_policy_s_delay_is_held_within_the_envelope() {
    let outcome = answer(500, &[]);
    let asked = |seconds| step(after_attempt(1), &outcome, &retry(Some(seconds), Scope::Standard));
    assert_eq!(delay_of(&asked(30)), secs(30));
    assert_eq!(delay_of(&asked(0)), secs(1));
    assert_eq!(asked(0).clamped, [Clamp::RaisedToMinDelay(secs(0))]);
    assert_eq!(delay_of(&asked(600)), secs(60));
    assert_eq!(asked(600).clamped, [Clamp::LoweredToMaxDelay(secs(600))]);
}

#[test]
fn max_attempts_of_one_means_one_delivery_and_no_retry() {
    let envelope = Envelope { max_attempts: 1, ..envelope() };
    let step =
        advance(&after_attempt(1), &answer(500, &[]), &retry(None, Scope::Standard), &envelope, NOW, Chance::new(0.0));
    assert_eq!(step.transition, Transition::Exhausted(Exhaustion::Attempts));
}

#[test]
fn no_attempt_begins_after_max_elapsed() {
    let envelope = Envelope { max_elapsed: secs(10), ..envelope() };
    let at = |now: Timestamp| {
        advance(
            &after_attempt(1),
            &answer(500, &[]),
            &retry(Some(4), Scope::Standard),
            &envelope,
            now,
            Chance::new(0.0),
        )
        .transition
    };
    assert!(matches!(at(NOW.after(secs(6))), Transition::Retry { .. }), "due exactly at the limit");
    assert_eq!(at(NOW.after(secs(7))), Transition::Exhausted(Exhaustion::Elapsed));
}

/// RFC 9110 §10.2.3: delay = max(backoff, min(retry-after, the route's cap)).
#[test]
fn a_retry_after_is_never_undercut() {
    let outcome = answer(503, &[(header::RETRY_AFTER, "30")]);
    assert_eq!(delay_of(&step(after_attempt(1), &outcome, &retry(None, Scope::Standard))), secs(30));
    assert_eq!(delay_of(&step(after_attempt(1), &outcome, &retry(Some(2), Scope::Standard))), secs(30));
    assert_eq!(delay_of(&step(after_attempt(1), &outcome, &retry(Some(45), Scope::Standard))), secs(45));
    let long = answer(503, &[(header::RETRY_AFTER, "99999")]);
    assert_eq!(delay_of(&step(after_attempt(1), &long, &retry(None, Scope::Standard))), secs(3600));
}

#[test]
fn jitter_on_a_retry_after_is_positive_only() {
    let envelope = Envelope { backoff: Backoff { jitter: Jitter::Full, ..envelope().backoff }, ..envelope() };
    let outcome = answer(429, &[(header::RETRY_AFTER, "30")]);
    for chance in [0.0, 0.5, 0.99] {
        let decision = retry(None, Scope::Standard);
        let step = advance(&after_attempt(1), &outcome, &decision, &envelope, NOW, Chance::new(chance));
        assert!(delay_of(&step) >= secs(30));
    }
}

#[test]
fn a_429_or_503_with_retry_after_holds_the_destination_unless_the_policy_says_otherwise() {
    let fields = [(header::RETRY_AFTER, "30")];
    let hold = |outcome, scope| step(after_attempt(1), &outcome, &retry(None, scope)).hold;
    assert_eq!(hold(answer(429, &fields), Scope::Standard), Some(NOW.after(secs(30))));
    assert_eq!(hold(answer(503, &fields), Scope::Standard), Some(NOW.after(secs(30))));
    assert_eq!(hold(answer(503, &fields), Scope::Message), None);
    assert_eq!(hold(answer(500, &fields), Scope::Standard), None);
    assert_eq!(hold(answer(503, &[]), Scope::Standard), None);
    assert_eq!(hold(answer(503, &[]), Scope::Destination), Some(NOW.after(secs(1))));
}

/// The message that was told to wait may have used up its attempts; the others were told all the same.
#[test]
fn the_hold_stands_even_when_this_message_is_exhausted() {
    let step = step(after_attempt(5), &answer(429, &[(header::RETRY_AFTER, "30")]), &retry(None, Scope::Standard));
    assert_eq!(step.transition, Transition::Exhausted(Exhaustion::Attempts));
    assert_eq!(step.hold, Some(NOW.after(secs(30))));
}

/// RFC 9110 §15.5.11.
#[test]
fn gone_is_never_retried() {
    for verdict in [Verdict::Retry { after: None, scope: Scope::Standard }, Verdict::Reauthenticate] {
        let step = step(after_attempt(1), &answer(410, &[]), &decide(verdict));
        assert_eq!(step.transition, Transition::DeadLetter);
        assert_eq!(step.clamped, [Clamp::GoneIsFinal]);
    }
}

#[test]
fn fresh_credentials_are_fetched_once_and_then_it_is_an_ordinary_failure() {
    let outcome = answer(401, &[]);
    let first = step(after_attempt(1), &outcome, &decide(Verdict::Reauthenticate));
    assert_eq!(first.transition, Transition::Retry { due: NOW, delay: secs(0), reauthenticate: true });
    let second = step(Progress { attempts: 2, ..first.progress }, &outcome, &decide(Verdict::Reauthenticate));
    assert!(matches!(second.transition, Transition::Retry { reauthenticate: false, .. }), "{second:?}");
    let third = step(Progress { attempts: 3, ..second.progress }, &outcome, &decide(Verdict::Reauthenticate));
    assert!(matches!(third.transition, Transition::Retry { reauthenticate: false, .. }), "{third:?}");
}

/// Silence or a failure in between does not make it another chain: a vendor that alternates gets one fresh token.
#[test]
fn fresh_credentials_are_fetched_once_whatever_comes_between() {
    let first = step(after_attempt(1), &answer(401, &[]), &decide(Verdict::Reauthenticate));
    let between = Progress { attempts: 2, ..first.progress };
    let second = step(between, &answer(503, &[]), &retry(None, Scope::Standard));
    let third = step(Progress { attempts: 3, ..second.progress }, &answer(401, &[]), &decide(Verdict::Reauthenticate));
    assert!(matches!(third.transition, Transition::Retry { reauthenticate: false, .. }), "{third:?}");
}

fn to(route: &str) -> Fallback {
    Fallback::Route(RouteName::new(route).unwrap())
}

#[test]
fn an_exhausted_message_takes_the_first_fallback_that_can_be_taken() {
    let concluded = |fallbacks: &[&str]| {
        let known = |route: &RouteName| route.as_str() != "unknown";
        conclude(&after_attempt(5), fallbacks.iter().map(|route| to(route)), known)
    };
    let rerouted = |route| Transition::Rerouted(RouteName::new(route).unwrap());
    assert_eq!(concluded(&["second", "third"]).transition, rerouted("second"), "the policy's before the route's");
    assert_eq!(concluded(&["unknown", "third"]).transition, rerouted("third"));
    assert_eq!(concluded(&["unknown", "third"]).clamped, [Clamp::UnusableFallbackRoute]);
    assert_eq!(concluded(&[]).transition, Transition::DeadLetter);
}

#[test]
fn a_circle_of_fallback_routes_ends() {
    let mut progress = after_attempt(5);
    let mut hops = 0;
    loop {
        let step = conclude(&progress, [to("round")], |_| true);
        progress = step.progress;
        if step.transition == Transition::DeadLetter {
            assert_eq!(step.clamped, [Clamp::TooManyHops]);
            break;
        }
        hops += 1;
        assert!(hops <= u32::from(MAX_HOPS), "never ends");
    }
    assert_eq!(progress.journal, 5, "the journal's numbering goes on");
}

#[test]
fn a_route_s_name_is_bounded() {
    for good in ["a", "orders", "7-eleven_x", &"x".repeat(64)] {
        assert!(RouteName::new(good).is_ok(), "{good}");
    }
    for bad in ["", "-a", "_a", "Orders", "a/b", "a b", "ä", &"x".repeat(65)] {
        assert!(RouteName::new(bad).is_err(), "{bad}");
    }
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    let retry_after = prop_oneof![Just(None), Just(Some("7")), Just(Some("100000")), Just(Some("soon"))];
    let response = (100..600_u16, retry_after).prop_map(|(status, retry_after)| {
        answer(status, &retry_after.map(|value| (header::RETRY_AFTER, value)).into_iter().collect::<Vec<_>>())
    });
    let silence = Just(Outcome::Silence(Silence { fault: Fault::Timeout, detail: String::new() }));
    prop_oneof![4 => response, 1 => silence]
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    let after = proptest::option::of(prop_oneof![0..200_u64, any::<u64>()].prop_map(secs));
    let scope = prop_oneof![Just(Scope::Standard), Just(Scope::Message), Just(Scope::Destination)];
    let default = Fallback::Answer(Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: Bytes::new() });
    let route = Fallback::Route(RouteName::new("other").unwrap());
    let fallback = proptest::option::of(prop_oneof![Just(default), Just(route)]);
    prop_oneof![
        1 => Just(Verdict::Accept),
        8 => (after, scope).prop_map(|(after, scope)| Verdict::Retry { after, scope }),
        2 => Just(Verdict::Reauthenticate),
        1 => Just(Verdict::DeadLetter),
        1 => Just(Verdict::Drop),
        2 => fallback.prop_map(Verdict::FallBack),
    ]
}

proptest! {
    /// Whatever destinations answer and policies say: attempts never exceed the envelope on any route, no delay leaves
    /// it, and every message comes to exactly one end.
    #[test]
    fn every_message_ends_once_and_within_its_envelope(
        max_attempts in 1..20_u32,
        max_elapsed in 0..100_000_u64,
        turns in proptest::collection::vec((any_outcome(), any_verdict(), 0.0..1.0, 0..5_000_u64), 120),
    ) {
        let envelope = Envelope { max_attempts, max_elapsed: secs(max_elapsed), ..envelope() };
        let mut now = NOW;
        let mut progress = Progress::default();
        let mut attempts_on_route = 0;
        let mut ended = false;
        for (outcome, verdict, chance, took) in turns {
            attempts_on_route += 1;
            progress.attempts += 1;
            progress.journal += 1;
            let started_at = *progress.started_at.get_or_insert(now);
            prop_assert!(attempts_on_route <= max_attempts);
            prop_assert!(now.since(started_at) <= envelope.max_elapsed);
            now = now.after(Duration::from_millis(took));
            let mut step = advance(&progress, &outcome, &decide(verdict.clone()), &envelope, now, Chance::new(chance));
            if let Transition::Exhausted(_) = step.transition {
                let policy = match verdict {
                    Verdict::FallBack(fallback) => fallback,
                    _ => None,
                };
                step = conclude(&step.progress, policy, |_| true);
            }
            progress = step.progress;
            match step.transition {
                Transition::Retry { due, delay, reauthenticate } => {
                    prop_assert_eq!(due, now.after(delay));
                    prop_assert!(delay <= envelope.max_delay.max(envelope.retry_after_max + secs(1)));
                    prop_assert!(reauthenticate || delay >= envelope.min_delay);
                    now = due;
                }
                Transition::Rerouted(_) => {
                    prop_assert!(progress.hops <= MAX_HOPS);
                    attempts_on_route = 0;
                }
                Transition::Exhausted(_) => prop_assert!(false, "exhausted is not an end"),
                Transition::Delivered | Transition::Answered(_) | Transition::DeadLetter | Transition::Dropped => {
                    ended = true;
                    break;
                }
            }
        }
        // 19 attempts on each of 5 routes at the most: 120 turns are enough for any message.
        prop_assert!(ended);
    }
}
