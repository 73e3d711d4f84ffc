//! Header fields that a policy may see: well-formed, malformed and hostile.

use fastrand::Rng;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::super::super::Interest;
use super::super::dictionary::Dictionary;
use crate::clock::Timestamp;

/// The longest value made: servers rarely take more than 8 KiB of header fields in all.
const LONG: usize = 8 << 10;

/// What an HTTP-date looks like, in the three forms of RFC 9110 §5.6.7.
const DATE_FORMS: [&str; 3] = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// Fields that the policy asked for, each absent, once or twice.
pub(super) fn wanted(rng: &mut Rng, interest: &Interest, words: &Dictionary, now: Timestamp) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in &interest.headers {
        let times = rng.choice([0, 0, 1, 1, 1, 1, 1, 2]).unwrap_or(0);
        for _ in 0..times {
            if let Ok(value) = HeaderValue::from_bytes(value(rng, name, words, now).as_bytes()) {
                headers.append(name.clone(), value);
            }
        }
    }
    headers
}

/// Fields of a request that the policy's words name as `header:NAME`, and one that it may not see.
pub(super) fn of_request(rng: &mut Rng, words: &Dictionary) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for _ in 0..rng.u8(..4) {
        let word = words.word(rng).trim_start_matches("header:").to_ascii_lowercase();
        let value = HeaderValue::from_str(words.word(rng));
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(word.as_bytes()), value) {
            headers.append(name, value);
        }
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
}

fn value(rng: &mut Rng, name: &HeaderName, words: &Dictionary, now: Timestamp) -> String {
    if name == header::RETRY_AFTER && rng.u8(..8) > 0 {
        return rng.choice(retry_afters(now)).unwrap_or_default();
    }
    if name == header::DATE && rng.u8(..4) > 0 {
        return date(now, rng.i64(-2..3) * 60, 0);
    }
    match rng.u8(..16) {
        0 => String::new(),
        1 => "x".repeat(LONG),
        2 => "grün ½ 錯誤".to_owned(),
        3 => rng.choice(["0", "1", "-1", "true", "18446744073709551616", "1e400", "NaN"]).unwrap_or("0").to_owned(),
        // As `WWW-Authenticate`, `Content-Type` and their like put words.
        4 | 5 => format!("Bearer realm=\"api\", error=\"{}\"", words.word(rng)),
        6 => format!("{}; charset=\"{}\"", words.word(rng), words.word(rng)),
        7 => format!("\"{}", words.word(rng)),
        8 => format!("{}, {}", words.word(rng), words.word(rng)),
        _ => words.word(rng).to_owned(),
    }
}

/// Ways to write a `Retry-After`.
pub(super) fn retry_afters(now: Timestamp) -> Vec<String> {
    let seconds = [
        "30",
        "0",
        "1",
        "120",
        "007",
        "3600",
        "86400",
        "4294967295",
        "4294967296",
        "18446744073709551615",
        "99999999999999999999999",
    ];
    let malformed =
        ["", "-1", "+5", "1.5", "30s", "1e3", "0x10", "30, 60", "soon", "½", "Sun, 99 Foo 2027 00:00:00 GMT"];
    let dates = [30, 90, 0, -3600, 3600, 400 * 86_400];
    let dates = dates.into_iter().flat_map(|ahead| (0..DATE_FORMS.len()).map(move |form| date(now, ahead, form)));
    seconds.into_iter().chain(malformed).map(ToOwned::to_owned).chain(dates).collect()
}

/// The moment so many seconds after `now`, in one of the three forms.
fn date(now: Timestamp, ahead: i64, form: usize) -> String {
    let now = i64::try_from(now.as_millis() / 1000).unwrap_or(i64::MAX);
    let format = DATE_FORMS.get(form).copied().unwrap_or("%c");
    jiff::Timestamp::from_second(now.saturating_add(ahead))
        .map(|moment| moment.strftime(format).to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::RetryAfter;

    #[test]
    fn a_retry_after_is_written_in_both_forms_and_wrongly() {
        let now = super::super::NOW;
        let read = |text: &String| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_bytes(text.as_bytes()).unwrap());
            RetryAfter::of(&headers, now)
        };
        let (right, wrong): (Vec<_>, Vec<_>) =
            retry_afters(now).iter().map(read).partition(|read| matches!(read, RetryAfter::After(_)));
        assert_eq!((right.len(), wrong.len()), (11 + 18, 11), "numbers and dates; malformed");
        let ninety = RetryAfter::After(std::time::Duration::from_secs(90));
        assert_eq!(right.iter().filter(|read| **read == ninety).count(), DATE_FORMS.len(), "in each form of a date");
    }
}
