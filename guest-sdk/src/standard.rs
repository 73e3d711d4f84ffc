//! The standard rule: what an outcome means when no policy says otherwise.
//!
//! It knows neither the contract's types nor the sandbox, and allocates nothing: the host calls the same functions
//! natively for routes without a policy, or with a broken one.
//!
//! Transient are HTTP 408, 409, 429, 500, 502, 503, 504 and silence of any kind; 2xx is success; everything else is
//! persistent.

/// What an outcome means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// The destination did what was asked: accept.
    Success,
    /// It did not, and may later: retry.
    Transient,
    /// It never will: dead letter.
    Persistent,
}

/// Classifies an outcome by its HTTP status; `None` is silence, whatever its fault.
///
/// ```
/// use backstop_sdk::standard::{Class, classify};
/// assert_eq!(classify(Some(204)), Class::Success);
/// assert_eq!(classify(Some(503)), Class::Transient);
/// assert_eq!(classify(Some(501)), Class::Persistent);
/// assert_eq!(classify(None), Class::Transient);
/// ```
pub const fn classify(status: Option<u16>) -> Class {
    match status {
        Some(200..=299) => Class::Success,
        None | Some(408 | 409 | 429 | 500 | 502 | 503 | 504) => Class::Transient,
        Some(_) => Class::Persistent,
    }
}

/// The reason that goes with [`classify`]: short and stable, for people and for search. The status itself stands
/// beside it in the record.
pub const fn reason(status: Option<u16>) -> &'static str {
    match status {
        None => "no answer",
        Some(200..=299) => "success",
        Some(408) => "request timeout",
        Some(409) => "conflict",
        Some(429) => "too many requests",
        Some(500 | 502 | 503 | 504) => "server failure",
        Some(300..=399) => "redirects are not followed",
        Some(401 | 403) => "not allowed by the destination",
        Some(404) => "not found",
        Some(410) => "gone",
        Some(400..=499) => "refused by the destination",
        Some(_) => "an answer that another attempt will not change",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSIENT: [u16; 7] = [408, 409, 429, 500, 502, 503, 504];

    #[test]
    fn exactly_the_seven_listed_statuses_are_transient() {
        let transient: Vec<u16> = (100..600).filter(|&status| classify(Some(status)) == Class::Transient).collect();
        assert_eq!(transient, TRANSIENT);
    }

    #[test]
    fn exactly_the_two_hundreds_are_success() {
        let success: Vec<u16> = (0..=u16::MAX).filter(|&status| classify(Some(status)) == Class::Success).collect();
        assert_eq!(success, (200..300).collect::<Vec<_>>());
    }

    #[test]
    fn silence_is_transient() {
        assert_eq!(classify(None), Class::Transient);
        assert_eq!(reason(None), "no answer");
    }

    #[test]
    fn a_reason_never_says_success_of_a_failure() {
        for status in (0..200).chain(300..=u16::MAX) {
            assert_ne!(reason(Some(status)), "success", "{status}");
        }
    }
}
