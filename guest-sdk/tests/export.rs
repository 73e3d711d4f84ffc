//! What `export_policy!` makes of a policy, asked natively through the functions that the host calls in the sandbox.

use backstop_sdk::export::Guest;
use backstop_sdk::prelude::*;
use backstop_sdk::test::{attempt, message, policy, response};
use backstop_sdk::{Hooks, Settlement};

/// Answers `judge` alone.
mod plain {
    use super::*;

    pub(crate) struct Plain;

    impl Policy for Plain {
        fn judge(&self, attempt: &Attempt, outcome: &Outcome) -> Decision {
            standard(attempt, outcome)
        }
    }

    export_policy!(Plain);
}

/// Answers everything, as its configuration says.
mod busy {
    use super::*;

    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    pub(crate) struct Config {
        /// The field that is read.
        field: String,
    }

    pub(crate) struct Busy(String);

    impl Configured for Busy {
        type Config = Config;

        fn new(config: Config) -> Result<Self, String> {
            if config.field.is_empty() { Err("`field` is empty".into()) } else { Ok(Self(config.field)) }
        }
    }

    impl Policy for Busy {
        fn interest(&self) -> Interest {
            Interest::none().header(&self.0)
        }

        fn judge(&self, _: &Attempt, outcome: &Outcome) -> Decision {
            retry(outcome.header(&self.0).unwrap_or("absent"))
        }
    }

    impl Admit for Busy {
        fn admit(&self, message: &Message) -> Admission {
            Admission::drop(message.path.as_str())
        }
    }

    impl FallBack for Busy {
        fn fall_back(&self, _: &Attempt, _: &Outcome) -> Option<Fallback> {
            Some(Fallback::Route("second".into()))
        }
    }

    impl Settle for Busy {
        fn settle(&self, _: &Outcome) -> Settlement {
            Settlement::Committed
        }
    }

    export_policy!(Busy, config = Config);
}

/// Reads what it did not ask for.
mod careless {
    use super::*;

    pub(crate) struct Careless;

    impl Policy for Careless {
        fn interest(&self) -> Interest {
            Interest::none()
        }

        fn judge(&self, _: &Attempt, outcome: &Outcome) -> Decision {
            match outcome.status() {
                Some(200) => accept(outcome.body_text()),
                _ => retry(outcome.header("retry-after").unwrap_or("absent")),
            }
        }
    }
}

use busy::Busy;
use careless::Careless;
use plain::Plain;

#[test]
fn the_manifest_names_the_questions_that_are_implemented_and_no_others() {
    assert_eq!(<Plain as Guest>::describe().hooks, Hooks::JUDGE);
    assert_eq!(<Busy as Guest>::describe().hooks, Hooks::all());
}

#[test]
fn name_and_version_are_the_crate_s() {
    let manifest = <Plain as Guest>::describe();
    assert_eq!((&*manifest.name, &*manifest.version), ("backstop-sdk", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_a_policy_does_not_answer_is_answered_harmlessly() {
    assert_eq!(<Plain as Guest>::configure("null".into()), Ok(Interest::default()));
    assert_eq!(<Plain as Guest>::admit(message("")), Admission::Accept);
    assert_eq!(<Plain as Guest>::fall_back(attempt(5), response(500).into()), None);
    assert_eq!(<Plain as Guest>::settle(response(200).into()), Settlement::Unknown);
    assert_eq!(<Plain as Guest>::judge(attempt(1), response(200).into()), accept("success"));
}

#[test]
fn what_a_policy_answers_is_its_own_under_its_configuration() {
    assert_eq!(<Busy as Guest>::configure(r#"{"field":"X-Load"}"#.into()), Ok(Interest::none().header("x-load")));
    assert_eq!(<Busy as Guest>::judge(attempt(1), response(200).header("x-load", "high").into()), retry("high"));
    assert_eq!(<Busy as Guest>::admit(message("")), Admission::Drop("/".into()));
    assert_eq!(<Busy as Guest>::fall_back(attempt(5), response(500).into()), Some(Fallback::Route("second".into())));
    assert_eq!(<Busy as Guest>::settle(response(200).into()), Settlement::Committed);
}

#[test]
fn an_instance_is_configured_once() {
    assert!(<Plain as Guest>::configure("{}".into()).is_ok());
    assert_eq!(<Plain as Guest>::configure("{}".into()), Err("this instance is configured already".into()));
}

#[test]
fn a_wrong_configuration_says_what_is_wrong_and_not_where_in_our_json() {
    let refused = |config: &str| <Busy as Guest>::configure(config.into()).unwrap_err();
    assert_eq!(refused(r#"{"feild":"a"}"#), "unknown field `feild`, expected `field`");
    assert_eq!(refused("null"), "missing field `field`");
    assert_eq!(refused(r#"{"field":""}"#), "`field` is empty");
    assert!(<Plain as Guest>::configure(r#"{"anything":1}"#.into()).is_err());
}

#[test]
fn the_schema_closes_the_configuration_and_lets_it_be_left_out_only_where_it_may() {
    let schema = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let busy = schema(<Busy as Guest>::describe().config_schema);
    assert_eq!(busy["type"], json!("object"));
    assert_eq!(busy["required"], json!(["field"]));
    assert_eq!(busy["additionalProperties"], json!(false));
    assert_eq!(busy["properties"]["field"]["description"], json!("The field that is read."));

    let plain = schema(<Plain as Guest>::describe().config_schema);
    assert_eq!(plain["type"], json!(["object", "null"]));
    assert_eq!(plain["additionalProperties"], json!(false));
}

#[test]
#[should_panic(expected = "the header field `retry-after` was read, but the policy's interest does not name it")]
fn a_test_fails_when_the_policy_reads_a_header_field_it_did_not_ask_for() {
    policy(Careless).judge(attempt(1), response(503).header("retry-after", "1"));
}

#[test]
#[should_panic(expected = "the body was read, but the policy's interest does not name it")]
fn a_test_fails_when_the_policy_reads_a_body_it_did_not_ask_for() {
    policy(Careless).judge(attempt(1), response(200).body("hello"));
}

#[test]
fn a_body_is_shown_as_far_as_the_interest_goes() {
    struct Length;
    impl Policy for Length {
        fn interest(&self) -> Interest {
            Interest::none().body(3)
        }
        fn judge(&self, _: &Attempt, outcome: &Outcome) -> Decision {
            accept(format!("{} {}", outcome.body_text(), outcome.is_truncated()))
        }
    }
    let judge = |body: &str| policy(Length).judge(attempt(1), response(200).body(body)).reason;
    assert_eq!((judge("abc"), judge("abcd")), ("abc false".to_owned(), "abc true".to_owned()));
}
