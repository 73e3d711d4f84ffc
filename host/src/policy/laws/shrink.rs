//! A question that breaks a law, made as small as it can be while it still does.
//!
//! Greedy: of all the ways to make a question simpler the first that keeps it broken is taken, and so on until none is
//! left or [`MOST_ASKED`] questions were asked. Every way leads towards the plainest question there is, so it ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::Value;

use super::super::AttemptView;
use super::generate::plain_attempt;
use super::question::{Hook, Question};
use crate::message::{Outcome, Request, Response};

/// Questions asked to make one smaller.
const MOST_ASKED: usize = 1500;

/// The longest body that is made shorter as JSON, in bytes; a longer one only as text.
const LARGEST_TREE: usize = 16 << 10;

/// The statuses a question may be led to, when its own does not matter.
const PLAIN: [u16; 6] = [200, 400, 500, 429, 503, 410];

/// A question as small as can be that is still `broken`.
pub(super) fn shrink(question: Question, mut broken: impl FnMut(&Question) -> bool) -> Question {
    let mut smallest = question;
    let mut asked = 0;
    'smaller: loop {
        for candidate in simpler(&smallest) {
            if asked >= MOST_ASKED {
                return smallest;
            }
            asked += 1;
            if broken(&candidate) {
                smallest = candidate;
                continue 'smaller;
            }
        }
        return smallest;
    }
}

/// Every way to make `question` simpler by one step, the boldest first.
fn simpler(question: &Question) -> Vec<Question> {
    let mut ways = Vec::new();
    if let Some(request) = plain_request(&question.message.request) {
        ways.push(with_request(question, request));
    }
    if question.hook == Hook::Admit {
        let request = &question.message.request;
        for body in shorter(&request.body) {
            ways.push(with_request(question, Request { body, ..Request::clone(request) }));
        }
        for headers in fewer(&request.headers) {
            ways.push(with_request(question, Request { headers, ..Request::clone(request) }));
        }
        return ways;
    }
    for attempt in plainer(&question.attempt) {
        ways.push(Question { attempt, ..question.clone() });
    }
    if let Outcome::Response(response) = &question.outcome {
        for response in simpler_responses(response) {
            ways.push(Question { outcome: Outcome::Response(response), ..question.clone() });
        }
    }
    ways
}

fn with_request(question: &Question, request: Request) -> Question {
    let mut question = question.clone();
    question.message.request = Arc::new(request);
    question
}

/// A request that says nothing, unless this one does already.
fn plain_request(request: &Request) -> Option<Request> {
    let is_plain =
        request.method == Method::POST && request.path == "/" && request.headers.is_empty() && request.body.is_empty();
    let plain =
        || Request { method: Method::POST, path: "/".to_owned(), headers: HeaderMap::new(), body: Bytes::new() };
    (!is_plain).then(plain)
}

fn plainer(attempt: &AttemptView) -> Vec<AttemptView> {
    let plain = plain_attempt();
    let mut ways = vec![
        plain,
        AttemptView { number: plain.number, of: plain.of, ..*attempt },
        AttemptView { number: plain.number, ..*attempt },
        AttemptView { number: attempt.number.div_ceil(2), ..*attempt },
        AttemptView { number: attempt.number.saturating_sub(1).max(1), ..*attempt },
        AttemptView { of: plain.of.max(attempt.number), ..*attempt },
        AttemptView { elapsed: plain.elapsed, ..*attempt },
        AttemptView { elapsed: halved(attempt.elapsed), ..*attempt },
        AttemptView { latency: plain.latency, ..*attempt },
        AttemptView { now: plain.now, ..*attempt },
        AttemptView { reauthenticated: false, ..*attempt },
    ];
    ways.retain(|way| way != attempt);
    ways
}

fn halved(length: Duration) -> Duration {
    Duration::from_millis(u64::try_from(length.as_millis() / 2).unwrap_or(u64::MAX))
}

fn simpler_responses(response: &Response) -> Vec<Response> {
    let mut ways = Vec::new();
    let with_body = |body| Response { body, ..response.clone() };
    ways.extend(fewer(&response.headers).into_iter().map(|headers| Response { headers, ..response.clone() }));
    ways.extend(shorter(&response.body).into_iter().map(with_body));
    if response.truncated {
        ways.push(Response { truncated: false, ..response.clone() });
    }
    // A status that comes earlier in the list is plainer; any in it is plainer than one that is not.
    let plainer = PLAIN.into_iter().take_while(|plain| *plain != response.status.as_u16());
    let statuses = plainer.filter_map(|status| StatusCode::from_u16(status).ok());
    ways.extend(statuses.map(|status| Response { status, ..response.clone() }));
    ways
}

/// Bodies that are shorter than `body`.
fn shorter(body: &Bytes) -> Vec<Bytes> {
    if body.is_empty() {
        return Vec::new();
    }
    let length = body.len();
    let mut ways = vec![Bytes::new()];
    let cut = |ways: &mut Vec<Bytes>, part: usize| {
        if part > 0 && part < length {
            ways.push(body.slice(..length - part));
            ways.push(body.slice(part..));
        }
    };
    [length / 2, length / 4].into_iter().for_each(|part| cut(&mut ways, part));
    if length <= LARGEST_TREE
        && let Ok(value) = serde_json::from_slice::<Value>(body)
    {
        ways.extend(less(&value).into_iter().map(|value| Bytes::from(value.to_string())));
    }
    [length / 8, length / 64, 8, 1].into_iter().for_each(|part| cut(&mut ways, part));
    // JSON that is written again may come out longer, and would be made shorter for ever.
    ways.retain(|way| way.len() < length);
    ways
}

/// Values that hold less than `value`: one of its parts, or it without one of them, or with one that holds less.
fn less(value: &Value) -> Vec<Value> {
    let mut ways = Vec::new();
    match value {
        Value::Object(entries) => {
            ways.extend(entries.values().cloned());
            if entries.len() > 3 {
                let entry = |(key, value): (&String, &Value)| (key.clone(), value.clone());
                let half = entries.len() / 2;
                ways.push(Value::Object(entries.iter().take(half).map(entry).collect()));
                ways.push(Value::Object(entries.iter().skip(half).map(entry).collect()));
            }
            for key in entries.keys() {
                let mut without = entries.clone();
                without.remove(key);
                ways.push(Value::Object(without));
            }
            for (key, inner) in entries {
                for inner in less(inner) {
                    let mut with = entries.clone();
                    with.insert(key.clone(), inner);
                    ways.push(Value::Object(with));
                }
            }
        }
        Value::Array(items) => {
            ways.extend(items.iter().cloned());
            if items.len() > 3 {
                let (first, second) = items.split_at(items.len() / 2);
                ways.extend([first, second].map(|half| Value::Array(half.to_vec())));
            }
            for (index, inner) in items.iter().enumerate() {
                let but = || items.iter().enumerate().filter(move |(at, _)| *at != index).map(|(_, item)| item.clone());
                ways.push(but().collect());
                for inner in less(inner) {
                    let mut with = items.clone();
                    if let Some(place) = with.get_mut(index) {
                        *place = inner;
                    }
                    ways.push(Value::Array(with));
                }
            }
        }
        Value::String(text) if !text.is_empty() => ways.push(Value::String(String::new())),
        Value::Number(number) if number.as_u64() != Some(0) => ways.push(Value::from(0)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    ways
}

/// Header fields that are fewer than `headers`, or say less.
fn fewer(headers: &HeaderMap) -> Vec<HeaderMap> {
    let mut ways = Vec::new();
    if headers.len() > 1 {
        ways.push(HeaderMap::new());
    }
    let without = |index: usize, instead: Option<HeaderValue>| {
        let mut left = HeaderMap::new();
        for (at, (name, value)) in headers.iter().enumerate() {
            match &instead {
                _ if at != index => drop(left.append(name, value.clone())),
                Some(instead) => drop(left.append(name, instead.clone())),
                None => {}
            }
        }
        left
    };
    for (index, value) in headers.values().enumerate() {
        ways.push(without(index, None));
        ways.extend(simpler_values(value).into_iter().map(|value| without(index, Some(value))));
    }
    ways
}

/// A lower number, or a shorter text.
fn simpler_values(value: &HeaderValue) -> Vec<HeaderValue> {
    let Ok(text) = value.to_str() else { return vec![HeaderValue::from_static("")] };
    match text.parse::<u64>() {
        Ok(0) => Vec::new(),
        // By ever smaller steps, so that the least is found soon.
        Ok(number) => {
            let lower = |step: u32| number - number.checked_shr(step).unwrap_or(0).max(1);
            let lower = [1, 30].into_iter().chain((1..64).step_by(3).map(lower));
            lower.filter(|lower| *lower < number).map(HeaderValue::from).collect()
        }
        Err(_) if text.len() > 1 => {
            let half = text.get(..text.floor_char_boundary(text.len() / 2)).unwrap_or_default();
            ["", half].into_iter().filter_map(|text| HeaderValue::from_str(text.trim()).ok()).collect()
        }
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::question::plain_message;
    use super::*;
    use crate::message::RouteName;

    fn question(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Question {
        let attempt = AttemptView { number: 17, of: 100, elapsed: Duration::from_secs(7), ..plain_attempt() };
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let (status, body) = (StatusCode::from_u16(status).unwrap(), Bytes::from_static(body.as_bytes()));
        Question {
            hook: Hook::Judge,
            message: plain_message(RouteName::new("orders").unwrap(), &attempt),
            attempt,
            outcome: Outcome::Response(Response { status, headers, body, truncated: true }),
        }
    }

    fn response(question: &Question) -> &Response {
        match &question.outcome {
            Outcome::Response(response) => response,
            Outcome::Silence(_) => panic!("a question about an answer stays one"),
        }
    }

    #[test]
    fn what_does_not_matter_is_left_out() {
        let large = question(
            503,
            &[("retry-after", "3600"), ("x-vendor", "busy")],
            r#"{"Response": {"Error": {"Code": "Busy", "Message": "later"}, "RequestId": "3c14"}, "n": [1, 2, 3]}"#,
        );
        let broken = |question: &Question| {
            let seen = response(question);
            let value: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
            let asks = seen.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
            value.pointer("/Response/Error/Code").is_some_and(|code| code == "Busy")
                && asks.is_some_and(|asks| asks >= 10)
        };
        let small = shrink(large, broken);
        assert_eq!(small.attempt, plain_attempt());
        let seen = response(&small);
        assert_eq!(seen.status, 200);
        assert!(!seen.truncated);
        assert_eq!(seen.body, r#"{"Response":{"Error":{"Code":"Busy"}}}"#);
        assert_eq!((seen.headers.len(), &seen.headers["retry-after"]), (1, &HeaderValue::from(10)));
    }

    #[test]
    fn a_text_is_cut_down_to_the_part_that_matters() {
        let large = question(400, &[], "the vendor is down for maintenance until five o'clock");
        let small = shrink(large, |question| response(question).body.windows(11).any(|part| part == b"maintenance"));
        assert_eq!(response(&small).body, "maintenance");
    }

    #[test]
    fn the_shortest_body_that_is_too_long_is_found() {
        let mut large = question(400, &[], "");
        large.outcome = Outcome::Response(Response { body: vec![b'['; 100_000].into(), ..response(&large).clone() });
        let small = shrink(large, |question| response(question).body.len() >= 1234);
        assert_eq!(response(&small).body.len(), 1234);
    }

    #[test]
    fn it_ends_whatever_is_called_broken() {
        let large = question(599, &[("a", "x"), ("b", "18446744073709551615")], r#"{"a":[1e300,{"":"½"}]}"#);
        let small = shrink(large, |_| true);
        assert!(response(&small).body.is_empty() && response(&small).headers.is_empty());
        let mut asked = 0;
        let mut flip = false;
        shrink(small, |_| {
            asked += 1;
            flip = !flip;
            flip
        });
        assert!(asked <= MOST_ASKED);
    }
}
