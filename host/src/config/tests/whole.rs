//! Whole files: what they come to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::super::*;
use super::{Made, load, parse, parse_in, route, with_route};
use crate::backoff::{Backoff, Growth, Jitter};
use crate::message::{Envelope, Fallback, RouteName};

const SECOND: Duration = Duration::from_secs(1);

const DESIGN: &str = "
listen: 127.0.0.1:8080          # where messages come in
admin:  127.0.0.1:8081          # dashboard, API, metrics
store:  sqlite:backstop.db
policies: ./policies

routes:
  risk-check:
    destination: { url: https://rce.example.com/, timeout: 2s }
    mode: sync                   # sync | async | sync_then_async
    deadline: 8s
    policy: risk-control         # policies/risk-control.wasm
    policy_config: { retryable: [InternalError] }
    retry: { max_attempts: 4, min_delay: 1s, max_delay: 60s, backoff: exponential, jitter: full }
    fallback: { status: 200, json: { result: pass } }
    alarm: { error_rate: 20%, window: 1m, min_requests: 20, notify: https://alarms.example.com/ }
    dead_letter: { keep: 14d }
";

#[test]
fn the_example_of_the_design_comes_to_exactly_what_it_says() {
    let config = load(DESIGN);

    assert_eq!(config.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(config.admin.listen, "127.0.0.1:8081".parse().unwrap());
    assert_eq!(config.admin.token, None);
    assert_eq!(config.store, StoreUrl::Sqlite(PathBuf::from("/etc/backstop/backstop.db")));
    assert_eq!(config.policies, Path::new("/etc/backstop/policies"));

    let route = route(&config, "risk-check");
    assert_eq!(route.name, RouteName::new("risk-check").unwrap());
    assert_eq!(route.destination.url.as_str(), "https://rce.example.com/");
    assert_eq!(route.destination.timeout, 2 * SECOND);
    assert_eq!(route.mode, Mode::Sync { deadline: 8 * SECOND });
    let expected = PolicyBinding {
        name: "risk-control".to_owned(),
        config: json!({ "retryable": ["InternalError"] }),
        holds_secret: false,
        on_failure: OnPolicyFailure::Standard,
        limits: PolicyLimits::default(),
        isolation: Isolation::Reuse,
    };
    assert!(route.policy.as_ref() == Some(&expected));
    let expected = Envelope {
        max_attempts: 4,
        max_elapsed: 86_400 * SECOND,
        min_delay: SECOND,
        max_delay: 60 * SECOND,
        backoff: Backoff { growth: Growth::Exponential { factor: 2.0 }, jitter: Jitter::Full },
        retry_after_max: 3600 * SECOND,
        renewable_credentials: false,
    };
    assert_eq!(route.envelope, expected);
    let Some(Fallback::Answer(answer)) = &route.fallback else { panic!("a default answer") };
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, r#"{"result":"pass"}"#);
    assert_eq!(answer.headers.get("content-type").unwrap(), "application/json");
    let alarm = route.alarm.as_ref().unwrap();
    assert_eq!((alarm.error_rate, alarm.window, alarm.min_requests), (0.2, 60 * SECOND, 20));
    assert_eq!(alarm.notify.as_ref().unwrap().as_str(), "https://alarms.example.com/");
    assert_eq!(route.keep_dead, 14 * 86_400 * SECOND);
}

#[test]
fn one_url_is_a_route_and_everything_else_has_a_default() {
    let config = load("routes: { orders: { destination: 'http://127.0.0.1:9000/in' } }");

    assert_eq!(config.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(config.admin.listen, "127.0.0.1:8081".parse().unwrap());
    assert_eq!(config.shutdown_grace, 10 * SECOND);
    assert_eq!(config.lease, 30 * SECOND);
    assert_eq!(config.keep_finished, 86_400 * SECOND);
    assert_eq!(config.max_in_flight, 4096);
    let route = route(&config, "orders");
    assert_eq!(route.destination.timeout, 10 * SECOND);
    assert_eq!(route.destination.response_limit, 1 << 20);
    assert!(route.destination.auth.is_none());
    assert_eq!(route.mode, Mode::Async);
    assert!(route.policy.is_none() && route.fallback.is_none() && route.alarm.is_none());
    assert_eq!(route.envelope.max_attempts, 5);
    assert_eq!((route.envelope.min_delay, route.envelope.max_delay), (SECOND, 60 * SECOND));
    assert_eq!(route.envelope.backoff, Backoff::default());
    assert_eq!(route.keep_dead, 14 * 86_400 * SECOND);
    assert_eq!((route.concurrency, route.max_queued, route.body_limit), (64, 100_000, 1 << 20));
    assert_eq!(route.idempotency, Idempotency { required: false, keep: 86_400 * SECOND });
}

#[test]
fn the_profile_of_a_managed_bus_comes_to_the_schedule_of_one() {
    let profiled = |more: &str| {
        let config = load(&with_route(&format!("match: true\nretry: {{ profile: event-pipeline{more} }}")));
        route(&config, "orders").envelope
    };
    let bus = profiled("");
    assert_eq!((bus.max_attempts, bus.min_delay, bus.max_delay), (5, SECOND, 60 * SECOND));
    assert_eq!(bus.backoff, Backoff { growth: Growth::Exponential { factor: 2.0 }, jitter: Jitter::None });
    let own = profiled(", min_delay: 2s, max_delay: 600s, max_attempts: 1");
    assert_eq!((own.max_attempts, own.min_delay, own.max_delay), (1, 2 * SECOND, 600 * SECOND));
    let linear = profiled(", min_delay: 5s, max_delay: 5s");
    assert_eq!((linear.min_delay, linear.max_delay), (5 * SECOND, 5 * SECOND));
}

#[test]
fn unlimited_attempts_are_bounded_neither_in_number_nor_in_time() {
    let limits = |retry: &str| {
        let config = load(&with_route(retry));
        let envelope = &route(&config, "orders").envelope;
        (envelope.max_attempts, envelope.max_elapsed)
    };
    let century = SECOND * 86_400 * 36_500;
    assert_eq!(limits("retry: { max_attempts: unlimited }"), (u32::MAX, century));
    assert_eq!(limits("retry: { max_attempts: unlimited, max_elapsed: 1h }"), (u32::MAX, 3600 * SECOND));
    let (attempts, elapsed) = limits("retry: {}");
    assert!(attempts <= 10 && elapsed < century, "only where it is written out: {attempts}, {elapsed:?}");
}

#[test]
fn a_check_back_asks_when_and_as_often_as_it_says() {
    let back = |lines: &str| {
        let config = load(&with_route(lines));
        let back = route(&config, "orders").check_back.clone().expect("it is given");
        (back.after, back.every, back.max_checks)
    };
    assert_eq!(back("check_back: 'https://shop.test/{id}'"), (60 * SECOND, 60 * SECOND, 15));
    let own = "check_back: { url: https://shop.test/, after: 5s, every: 2s, max_checks: 3 }";
    assert_eq!(back(own), (5 * SECOND, 2 * SECOND, 3));
}

#[test]
fn what_bounds_a_lane_has_a_short_form_and_defaults() {
    let short = load(&with_route("rate: 50\nbreaker: {}\nretry: { budget: 10% }\norder_by: ce:subject"));
    let full = load(&with_route(
        "rate: { per_second: 50, burst: 5 }
breaker: { failures: 50%, window: 10s, min_attempts: 10, open_for: 30s, probes: 1 }
retry: { budget: { share: 0.1, reserve: 10, window: 10s } }
order_by: { key: ce:subject, on_failure: block }",
    ));
    assert!(route(&short, "orders") == route(&full, "orders"));
    let half = load(&with_route("rate: 0.5\norder_by: { key: 'header:x-key', on_failure: skip }"));
    let half = route(&half, "orders");
    assert_eq!(half.rate, Some(Rate { per_second: 0.5, burst: 1 }));
    assert_eq!(half.order.as_ref().unwrap().on_failure, OnFailure::Skip);
    let none = load("routes: { orders: { destination: 'http://127.0.0.1:9000/in' } }");
    let none = route(&none, "orders");
    assert!(none.rate.is_none() && none.breaker.is_none() && none.retry_budget.is_none() && none.order.is_none());
}

#[test]
fn policy_config_keeps_the_kinds_of_yaml_1_2() {
    let config = load(&with_route(
        "policy: vendor-codes
policy_config:
  text: [yes, no, on, 5xx, '429', \"true\", 1.2.3, 2026-11-21, 0777_, !!str 429]
  numbers: [429, -7, 0, 0o17, 0xff, +3]
  floats: [0.5, -1e3, 1.]
  truths: [true, False]
  nothing: [null, ~, ]
  '204': { nested: {} }",
    ));

    let policy = route(&config, "orders").policy.as_ref().unwrap();
    assert_eq!(
        policy.config,
        json!({
            "text": ["yes", "no", "on", "5xx", "429", "true", "1.2.3", "2026-11-21", "0777_", "429"],
            "numbers": [429, -7, 0, 15, 255, 3],
            "floats": [0.5, -1000.0, 1.0],
            "truths": [true, false],
            "nothing": [null, null],
            "204": { "nested": {} },
        })
    );
}

#[test]
fn a_section_can_be_written_once_and_repeated_by_alias() {
    let config = load(
        "routes:
  first: { destination: 'https://a.example.com', retry: &patient { max_attempts: 9 } }
  second: { destination: 'https://b.example.com', retry: *patient }",
    );
    assert_eq!(route(&config, "second").envelope.max_attempts, 9);
}

#[test]
fn the_line_of_anything_in_policy_config_is_known() {
    let config = load(
        "routes:
  orders:
    destination: https://vendor.example.com/
    policy: vendor-codes
    policy_config:
      rules:
        - status: 429
          delay: 1m
        - status: a/b
          'a/b': 1
      table: { 204: {} }",
    );
    let orders = RouteName::new("orders").unwrap();
    let line = |pointer| config.sources.line_of(&orders, pointer);
    assert_eq!(line(""), Some(5));
    assert_eq!(line("/rules/0/delay"), Some(8));
    assert_eq!(line("/rules/1/a~1b"), Some(10));
    assert_eq!(line("/rules/1/absent"), Some(9), "of what is around it");
    assert_eq!(config.sources.line_of(&RouteName::new("other").unwrap(), ""), None);
    let problem = config.sources.problem(&orders, "/rules/0/delay", "too long");
    assert_eq!((problem.line, problem.key.as_str()), (Some(8), "routes.orders.policy_config.rules[0].delay"));
    assert_eq!(config.sources.problem(&orders, "/table/204", "").key, "routes.orders.policy_config.table.204");
    assert_eq!(config.sources.route_problem(&orders, "policy", "is not there").line, Some(4));
}

const REFERENCE: &str = include_str!("../../../examples/backstop.yaml");

fn reference_surroundings() -> Made {
    let mut made = Made::default();
    for name in ["ADMIN_TOKEN", "PAYMENTS_PASSWORD", "PARTNER_SECRET", "SECOND_VENDOR_KEY"] {
        made.variables.insert(name, "hunter2");
    }
    made.files.insert(PathBuf::from("/etc/backstop/secrets/orders-key"), b"hunter2\n".to_vec());
    made
}

#[test]
fn the_reference_configuration_loads_and_mentions_every_key() {
    parse_in(REFERENCE, &reference_surroundings()).unwrap_or_else(|problems| panic!("{problems}"));

    fn keys_of(schema: &serde_json::Value, keys: &mut Vec<String>) {
        if let Some(properties) = schema.get("properties").and_then(|properties| properties.as_object()) {
            keys.extend(properties.keys().cloned());
        }
        match schema {
            serde_json::Value::Object(object) => object.values().for_each(|value| keys_of(value, keys)),
            serde_json::Value::Array(array) => array.iter().for_each(|value| keys_of(value, keys)),
            _ => {}
        }
    }
    let mut keys = Vec::new();
    keys_of(&Config::json_schema(), &mut keys);
    assert!(keys.len() > 60, "{keys:?}");
    for key in keys {
        assert!(REFERENCE.contains(&format!("{key}:")), "the reference configuration says nothing of `{key}`");
    }
}

#[test]
fn the_small_examples_load() {
    assert_eq!(load(include_str!("../../../examples/second-vendor.yaml")).routes.len(), 2);
    assert_eq!(load(include_str!("../../../examples/maintenance.yaml")).routes.len(), 1);
    assert_eq!(load(include_str!("../../../examples/fragile-vendor.yaml")).routes.len(), 1);
    assert_eq!(load(include_str!("../../../examples/reliable-message.yaml")).routes.len(), 1);
}

#[test]
fn the_examples_of_systems_load() {
    for (name, routes) in [("event-pipeline", 3), ("scan-platform", 3), ("risk-control", 1)] {
        let path = std::path::PathBuf::from(format!("{}/examples/{name}.yaml", env!("CARGO_MANIFEST_DIR")));
        let config = Config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(config.routes.len(), routes, "{name}");
    }
    let mut made = Made::default();
    made.variables.insert("CRM_SECRET", "hunter2");
    let config = parse_in(include_str!("../../../examples/async-retry.yaml"), &made);
    assert_eq!(config.unwrap_or_else(|problems| panic!("{problems}")).routes.len(), 2);
}

#[test]
fn the_reference_configuration_follows_the_json_schema() {
    let document: serde_json::Value = serde_yaml::from_str(REFERENCE).unwrap();
    let validator = jsonschema::validator_for(&Config::json_schema()).unwrap();
    let errors: Vec<_> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
    assert_eq!(errors, Vec::<String>::new());

    let wrong = json!({ "routes": { "orders": { "destination": { "url": "https://a", "timeout": 10 }, "mood": 1 } } });
    assert!(!validator.is_valid(&wrong));
    assert!(!validator.is_valid(&json!({})), "routes are required");
}

#[test]
fn a_description_loads_and_describes_itself() {
    let surroundings = reference_surroundings();
    for text in [REFERENCE, DESIGN] {
        let description = parse_in(text, &surroundings).unwrap().describe();
        let again =
            parse_in(&description, &surroundings).unwrap_or_else(|problems| panic!("{problems}\n{description}"));
        assert_eq!(again.describe(), description);
        assert_eq!(again.routes.len(), parse_in(text, &surroundings).unwrap().routes.len());
    }
}

#[test]
fn a_description_shows_defaults() {
    let description = load("routes: { orders: { destination: 'https://a.example.com' } }").describe();
    for line in ["max_attempts: 5", "max_delay: 60s", "mode: async", "timeout: 10s", "keep: 14d", "body_limit: 1MiB"] {
        assert!(description.contains(line), "{line} in\n{description}");
    }
}

#[test]
fn a_file_is_read_from_disk_and_its_paths_are_relative_to_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backstop.yaml");
    std::fs::write(folder.path().join("key"), "s3cr3t\n").unwrap();
    std::fs::write(
        &path,
        "admin: { token: '${file:key}' }\nroutes: { orders: { destination: 'https://a.example.com' } }",
    )
    .unwrap();
    let config = Config::load(&path).unwrap();
    assert_eq!(config.policies, folder.path().join("policies"));
    assert_eq!(config.admin.token.unwrap().expose(), "s3cr3t");

    let missing = Config::load(&folder.path().join("absent.yaml")).unwrap_err().to_string();
    assert!(missing.contains("absent.yaml: cannot be read"), "{missing}");
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("longer than 1 MiB"));
    std::fs::write(&path, b"listen: \xff").unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("not UTF-8"));
}

#[cfg(unix)]
#[test]
fn what_is_not_a_regular_file_is_refused_without_waiting_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("backstop.yaml");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    for path in [pipe.as_path(), folder.path()] {
        let problems = Config::load(path).unwrap_err().to_string();
        assert!(problems.contains("is not a regular file"), "{problems}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn nothing_that_looks_like_yaml_makes_it_panic(text in r#"([a-c\[\]{}:,&*!|>'"?#%@ \t\n0-9.~<-]|- |: |\$\{|&a |\*a|!!int |routes: ){0,60}"#) {
        let _ = parse(&text);
    }

    #[test]
    fn no_change_to_a_right_file_makes_it_panic(
        at in 0..REFERENCE.len(), length in 0..40_usize, put in r#"[\PC\n]{0,6}|null|\[\]|\{\}|-1|'|&a|\*a"#,
    ) {
        let floor = |mut at: usize| {
            at = at.min(REFERENCE.len());
            while !REFERENCE.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let (start, end) = (floor(at), floor(at + length));
        let text = format!("{}{put}{}", &REFERENCE[..start], &REFERENCE[end..]);
        if let Err(problems) = parse_in(&text, &reference_surroundings()) {
            prop_assert!(!problems.problems.is_empty());
            prop_assert!(!problems.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn a_duration_is_read_as_it_is_shown(millis in 0..10_000_000_000_u64) {
        let duration = Duration::from_millis(millis);
        let shown = super::super::units::show_duration(duration);
        prop_assert_eq!(<Duration as super::super::units::Unit>::from_text(&shown), Ok(duration));
    }

    #[test]
    fn a_size_is_read_as_it_is_shown(bytes in any::<u64>(), shift in 0..40_u32) {
        let bytes = bytes >> shift << shift;
        let shown = super::super::units::show_size(bytes);
        prop_assert_eq!(<super::super::units::Size as super::super::units::Unit>::from_text(&shown).map(|s| s.0), Ok(bytes));
    }
}
