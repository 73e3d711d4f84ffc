//! The host's own reading of a sender's answer to a check-back, where the route's policy does not read it.

use http::StatusCode;
use serde::Deserialize;

use crate::message::Response;
use crate::transaction::Settlement;

/// How much of the answer's body is read, in bytes. A longer one says nothing.
pub const ANSWER_LIMIT: usize = 16 << 10;

/// The body of an answer, as much of it as is looked at.
#[derive(Deserialize)]
struct Answer {
    state: Settlement,
}

/// What `answer` says: 200 with `{"state": "committed" | "rolled_back" | "unknown"}`. Anything else is unknown: nothing
/// is delivered, and nothing forgotten, that the sender has not spoken of.
pub(super) fn standard_settlement(answer: &Response) -> Settlement {
    if answer.status != StatusCode::OK || answer.truncated {
        return Settlement::Unknown;
    }
    // A list would be read in the order of the members.
    if !answer.body.trim_ascii_start().starts_with(b"{") {
        return Settlement::Unknown;
    }
    serde_json::from_slice(&answer.body).map_or(Settlement::Unknown, |Answer { state }| state)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;

    fn settled(status: u16, body: impl Into<Bytes>, truncated: bool) -> Settlement {
        let status = StatusCode::from_u16(status).unwrap();
        standard_settlement(&Response { status, headers: HeaderMap::new(), body: body.into(), truncated })
    }

    #[test]
    fn a_list_says_nothing() {
        assert_eq!(settled(200, r#"["committed"]"#, false), Settlement::Unknown);
        assert_eq!(settled(200, " {\"state\": \"committed\"}", false), Settlement::Committed);
    }

    #[test]
    fn a_state_that_is_spelt_out_counts() {
        assert_eq!(settled(200, r#"{"state":"committed"}"#, false), Settlement::Committed);
        assert_eq!(settled(200, r#"{"order": 7, "state": "rolled_back"}"#, false), Settlement::RolledBack);
        assert_eq!(settled(200, r#"{"state":"unknown"}"#, false), Settlement::Unknown);
    }

    #[test]
    fn anything_else_is_unknown() {
        for (status, body) in [
            (200, ""),
            (200, "committed"),
            (200, r#""committed""#),
            (200, r#"{"state":"COMMITTED"}"#),
            (200, r#"{"state":true}"#),
            (200, r#"{"state":"committed""#),
            (200, r#"{"state":"committed"} and more"#),
            (200, r#"{"state":"committed","state":"rolled_back"}"#),
            (201, r#"{"state":"committed"}"#),
            (204, ""),
            (404, r#"{"state":"rolled_back"}"#),
            (500, r#"{"state":"committed"}"#),
        ] {
            assert_eq!(settled(status, body, false), Settlement::Unknown, "{status} {body}");
        }
        assert_eq!(settled(200, r#"{"state":"committed"}"#, true), Settlement::Unknown, "there was more of it");
    }

    proptest! {
        #[test]
        fn no_other_text_is_a_word(status in 100_u16..600, body in ".{0,60}") {
            prop_assume!(!body.contains("committed") && !body.contains("rolled_back"));
            prop_assert_eq!(settled(status, body, false), Settlement::Unknown);
        }
    }
}
