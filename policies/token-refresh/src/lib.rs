//! For a destination whose tokens expire: a 401 that says so is answered by **fetching a fresh token** and trying
//! again, where the standard rule would give the message up.
//!
//! A 401 says that the token expired when its `WWW-Authenticate` carries `error="invalid_token"` (RFC 6750 section 3.1),
//! or its JSON body has one of the `codes` at one of the `pointers`. Any other 401 is a refusal that a fresh token
//! would not change, and becomes a dead letter. Fresh credentials are fetched at most once for a chain of attempts,
//! whatever a policy says; that the second token was refused too is the host's to deal with.
//!
//! The rest is the rule of a generic retry service. Tried again are: silence of any kind; 408, 409, 429 and every 5xx;
//! and any other failure but 410 whose answer carries a `Retry-After`. 2xx is success, whatever else it carries, and everything
//! else becomes a dead letter.
//!
//! ```yaml
//! policy: token-refresh
//! policy_config: { codes: [TOKEN_EXPIRED], pointers: [/fault/code] }
//! ```

use backstop_sdk::prelude::*;
use backstop_sdk::standard::{Class, classify};

mod challenge;

/// As much of a 401's body as is read; its JSON must end within it.
const BODY_LIMIT: u32 = 8 * 1024;

/// How the destination says that a token expired.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TokenRefresh {
    /// Error codes that mean an expired token, in the body or in `WWW-Authenticate`.
    codes: Vec<String>,
    /// Where in a JSON body the code stands: JSON Pointers, tried in order.
    pointers: Vec<String>,
}

impl Default for TokenRefresh {
    fn default() -> Self {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Self {
            codes: owned(&["token_expired", "expired_token", "invalid_token"]),
            pointers: owned(&["/error", "/code", "/error/code"]),
        }
    }
}

impl Configured for TokenRefresh {
    type Config = Self;

    fn new(config: Self) -> Result<Self, String> {
        match config.pointers.iter().find(|pointer| !pointer.is_empty() && !pointer.starts_with('/')) {
            Some(pointer) => Err(format!("`{pointer}` is no JSON Pointer: write `/{pointer}`")),
            None => Ok(config),
        }
    }
}

impl Policy for TokenRefresh {
    fn interest(&self) -> Interest {
        Interest::none().header("www-authenticate").header("retry-after").body(BODY_LIMIT)
    }

    fn judge(&self, attempt: &Attempt, outcome: &Outcome) -> Decision {
        let status = outcome.status();
        match classify(status) {
            _ if status == Some(401) && self.says_expired(outcome) => reauthenticate("token expired"),
            Class::Persistent if matches!(status, Some(500..=599)) => retry("server failure"),
            // Gone is for good, whatever else it says (RFC 9110 section 15.5.11).
            Class::Persistent if status != Some(410) && outcome.header("retry-after").is_some() => {
                retry("asked to be tried again")
            }
            _ => standard(attempt, outcome),
        }
    }
}

impl TokenRefresh {
    fn says_expired(&self, outcome: &Outcome) -> bool {
        let is_known = |code: &str| self.codes.iter().any(|known| known == code);
        if outcome.headers("www-authenticate").filter_map(challenge::error).any(is_known) {
            return true;
        }
        let Some(body) = outcome.json_value() else { return false };
        self.pointers.iter().filter_map(|pointer| body.pointer(pointer)?.as_str()).any(is_known)
    }
}

export_policy!(TokenRefresh, config = TokenRefresh);

#[cfg(test)]
mod tests {
    use backstop_sdk::test::{Tested, attempt, configured, refused, response, silence};

    use super::*;

    fn unconfigured() -> Tested<TokenRefresh> {
        configured(Value::Null)
    }

    #[test]
    fn a_401_with_an_expired_token_code_asks_for_a_fresh_token() {
        for body in [
            json!({ "error": "token_expired" }),
            json!({ "code": "invalid_token" }),
            json!({ "error": { "code": "expired_token" } }),
        ] {
            let asked = unconfigured().judge(attempt(1), response(401).json(body));
            assert_eq!(asked, reauthenticate("token expired"));
        }
    }

    #[test]
    fn a_bearer_challenge_says_it_as_well() {
        let answer = response(401).header("WWW-Authenticate", r#"Bearer realm="api", error="invalid_token""#);
        assert_eq!(unconfigured().judge(attempt(1), answer), reauthenticate("token expired"));
    }

    #[test]
    fn what_is_gone_is_not_tried_again_even_if_it_asks_to_be() {
        let gone = response(410).header("Retry-After", "30");
        assert_eq!(unconfigured().judge(attempt(1), gone), dead_letter("gone"));
    }

    #[test]
    fn another_401_is_a_refusal() {
        let refusal = dead_letter("not allowed by the destination");
        for answer in [
            response(401),
            response(401).body("token_expired"),
            response(401).json(json!({ "error": "insufficient_scope" })),
            response(401).header("www-authenticate", r#"Bearer error="insufficient_scope""#),
        ] {
            assert_eq!(unconfigured().judge(attempt(1), answer), refusal);
        }
    }

    #[test]
    fn an_expired_token_code_means_nothing_in_another_status() {
        let asked = unconfigured().judge(attempt(1), response(403).json(json!({ "error": "token_expired" })));
        assert_eq!(asked, dead_letter("not allowed by the destination"));
    }

    #[test]
    fn codes_and_pointers_are_the_operator_s() {
        let policy = configured::<TokenRefresh>(json!({ "codes": ["E17"], "pointers": ["/fault/0"] }));
        let judge = |body: Value| policy.judge(attempt(1), response(401).json(body)).verdict;
        assert_eq!(judge(json!({ "fault": ["E17"] })), reauthenticate("").verdict);
        assert_eq!(judge(json!({ "error": "token_expired" })), dead_letter("").verdict);
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        for status in [408, 409, 429, 500, 501, 505, 599] {
            assert_eq!(unconfigured().judge(attempt(1), response(status)).verdict, retry("").verdict, "{status}");
        }
        assert_eq!(unconfigured().judge(attempt(1), silence(Fault::Connect)), retry("no answer"));
    }

    #[test]
    fn a_retry_after_is_an_invitation_on_any_failure_but_not_on_a_success() {
        let with = |status| response(status).header("retry-after", "3");
        let asked_for = retry("asked to be tried again");
        assert_eq!(unconfigured().judge(attempt(1), with(403)), asked_for);
        assert_eq!(unconfigured().judge(attempt(1), with(302)), asked_for);
        assert_eq!(unconfigured().judge(attempt(1), with(429)), retry("too many requests"));
        assert_eq!(unconfigured().judge(attempt(1), with(202)), accept("success"));
    }

    #[test]
    fn a_pointer_without_its_slash_is_refused_with_the_mending() {
        let why = refused::<TokenRefresh>(json!({ "pointers": ["error"] }));
        assert_eq!(why, "`error` is no JSON Pointer: write `/error`");
    }
}
