//! For a vendor that answers **HTTP 200 with an error inside**:
//!
//! ```json
//! { "Response": { "Error": { "Code": "InternalError", "Message": "…" }, "RequestId": "3c140219-…" } }
//! ```
//!
//! The verdict reads the body, not the status:
//!
//! | Answer | Verdict |
//! |---|---|
//! | 2xx, no `Error` | accept |
//! | 2xx, a code named under `codes` | as that says |
//! | 2xx, a code among `retryable` | retry |
//! | 2xx, any other code | fall back |
//! | 2xx, but not of this structure | retry |
//! | silence, or a transient status of the standard rule | retry |
//! | any other status | fall back |
//!
//! *Fall back* stops trying and lets the route's fallback answer: the caller of a risk check is not failed because the
//! vendor is. So it is for a status the standard rule would call persistent, too. On a route without a fallback the
//! message becomes a dead letter. Either way the host keeps the request, and the reason (code and request id) and the
//! vendor's own message stand in its record, for later analysis.
//!
//! ```yaml
//! policy: risk-control
//! policy_config:
//!   retryable: [InternalError, RequestLimitExceeded]
//!   codes: { ResourceNotFound: accept, InvalidParameter: dead_letter }
//! ```

use std::collections::BTreeMap;

use backstop_sdk::prelude::*;
use backstop_sdk::standard::{Class, classify, reason};

/// As much of a body as is read; its JSON must end within it. The worst of bodies is then read with half the fuel that a
/// question has unless its route says more.
const BODY_LIMIT: u32 = 64 * 1024;

/// What each of the vendor's error codes means.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RiskControl {
    /// Error codes after which another attempt may succeed.
    retryable: Vec<String>,
    /// What to do about further error codes; a code that stands here as well as in `retryable` is treated as it says
    /// here.
    codes: BTreeMap<String, Treatment>,
}

impl Default for RiskControl {
    fn default() -> Self {
        Self { retryable: vec!["InternalError".into()], codes: BTreeMap::new() }
    }
}

/// What to do about an error code.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Treatment {
    /// It is no failure: the answer goes to the caller.
    Accept,
    /// Try again.
    Retry,
    /// Put the request aside for a person.
    DeadLetter,
    /// Forget the request.
    Drop,
    /// Stop trying, and let the route's fallback answer.
    FallBack,
}

impl Configured for RiskControl {
    type Config = Self;

    fn new(config: Self) -> Result<Self, String> {
        Ok(config)
    }
}

impl Policy for RiskControl {
    fn interest(&self) -> Interest {
        Interest::none().body(BODY_LIMIT)
    }

    fn judge(&self, _attempt: &Attempt, outcome: &Outcome) -> Decision {
        let status = outcome.status();
        match classify(status) {
            Class::Success => self.judge_body(outcome),
            Class::Transient => retry(reason(status)),
            Class::Persistent => give_up(reason(status)),
        }
    }
}

impl RiskControl {
    fn judge_body(&self, outcome: &Outcome) -> Decision {
        let Answer { response } = match outcome.json() {
            Ok(answer) => answer,
            Err(_) if outcome.is_truncated() => return retry("answer too long to be read"),
            Err(error) => {
                // Where, but not what: the error's own text quotes the answer.
                warn!("not the vendor's structure, at line {} column {}", error.line(), error.column());
                return retry("answer of a wrong structure");
            }
        };
        let Some(VendorError { code, message }) = response.error else { return accept("success") };
        let request = response.request_id.as_deref().unwrap_or("unknown");
        info!("{code}: {message} (request {request})");
        let why = format!("{code} (request {request})");
        match self.treatment(&code) {
            Treatment::Accept => accept(why),
            Treatment::Retry => retry(why),
            Treatment::DeadLetter => dead_letter(why),
            Treatment::Drop => drop_message(why),
            Treatment::FallBack => give_up(why),
        }
    }

    fn treatment(&self, code: &str) -> Treatment {
        match self.codes.get(code) {
            Some(named) => *named,
            None if self.retryable.iter().any(|retryable| retryable == code) => Treatment::Retry,
            None => Treatment::FallBack,
        }
    }
}

/// The vendor's answer, as far as it matters here.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Response")]
    response: Response,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    error: Option<VendorError>,
    request_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VendorError {
    code: String,
    #[serde(default)]
    message: String,
}

export_policy!(RiskControl, config = RiskControl);

#[cfg(test)]
mod tests {
    use backstop_sdk::test::{Tested, attempt, configured, log, refused, response, silence};

    use super::*;

    fn unconfigured() -> Tested<RiskControl> {
        configured(Value::Null)
    }

    fn error(code: &str) -> backstop_sdk::test::ResponseBuilder {
        let error = json!({ "Code": code, "Message": "try later" });
        response(200).json(json!({ "Response": { "Error": error, "RequestId": "3c14" } }))
    }

    #[test]
    fn an_answer_without_an_error_is_accepted() {
        let answer = response(200).json(json!({ "Response": { "Result": "pass", "RequestId": "3c14" } }));
        assert_eq!(unconfigured().judge(attempt(1), answer), accept("success"));
    }

    #[test]
    fn an_internal_error_inside_a_200_is_tried_again_and_named_with_its_request() {
        assert_eq!(unconfigured().judge(attempt(1), error("InternalError")), retry("InternalError (request 3c14)"));
        assert_eq!(log(), ["InternalError: try later (request 3c14)"]);
    }

    #[test]
    fn any_other_code_lets_the_route_s_fallback_answer() {
        assert_eq!(unconfigured().judge(attempt(1), error("AuthFailure")), give_up("AuthFailure (request 3c14)"));
    }

    #[test]
    fn the_configuration_says_which_codes_are_retryable() {
        let policy = configured::<RiskControl>(json!({ "retryable": ["Busy"] }));
        assert_eq!(policy.judge(attempt(1), error("Busy")), retry("Busy (request 3c14)"));
        assert_eq!(policy.judge(attempt(1), error("InternalError")), give_up("InternalError (request 3c14)"));
    }

    #[test]
    fn further_codes_are_treated_case_by_case_and_before_the_retryable_ones() {
        let codes =
            json!({ "A": "accept", "R": "retry", "L": "dead_letter", "D": "drop", "InternalError": "fall_back" });
        let policy = configured::<RiskControl>(json!({ "codes": codes }));
        let judge = |code| policy.judge(attempt(1), error(code)).verdict;
        assert_eq!(judge("A"), accept("").verdict);
        assert_eq!(judge("R"), retry("").verdict);
        assert_eq!(judge("L"), dead_letter("").verdict);
        assert_eq!(judge("D"), drop_message("").verdict);
        assert_eq!(judge("InternalError"), give_up("").verdict);
    }

    #[test]
    fn a_wrong_structure_is_a_failure_of_its_own_and_tried_again() {
        for body in ["", "<html>", "[]", "{}", r#"{"Response":7}"#, r#"{"Response":{"Error":"InternalError"}}"#] {
            let asked = unconfigured().judge(attempt(1), response(200).body(body));
            assert_eq!(asked, retry("answer of a wrong structure"), "{body}");
        }
    }

    #[test]
    fn an_endless_answer_is_not_mistaken_for_success() {
        let asked = unconfigured().judge(attempt(1), response(200).body(vec![b' '; 70 * 1024]));
        assert_eq!(asked, retry("answer too long to be read"));
    }

    #[test]
    fn no_answer_and_a_transient_status_are_tried_again() {
        assert_eq!(unconfigured().judge(attempt(1), silence(Fault::Timeout)), retry("no answer"));
        assert_eq!(unconfigured().judge(attempt(1), response(503)), retry("server failure"));
    }

    #[test]
    fn a_persistent_status_does_not_fail_the_caller() {
        assert_eq!(unconfigured().judge(attempt(1), response(403)), give_up("not allowed by the destination"));
    }

    #[test]
    fn a_misspelt_key_or_treatment_is_refused() {
        assert!(refused::<RiskControl>(json!({ "retriable": [] })).starts_with("unknown field `retriable`"));
        assert!(refused::<RiskControl>(json!({ "codes": { "A": "acept" } })).starts_with("unknown variant `acept`"));
    }
}
