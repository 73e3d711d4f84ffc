//! What came from the environment or a file is never shown.

use std::path::PathBuf;

use super::super::{Auth, Config};
use super::{Made, parse_in, route, said_in};

const SECRET: &str = "hunter2-tr0ub4dor";

fn surroundings() -> Made {
    let mut made = Made::default();
    made.variables.insert("SECRET", SECRET);
    made.variables.insert("URL", "https://hunter2-tr0ub4dor.example.com/hook");
    made.variables.insert("ATTEMPTS", "7");
    made.files.insert(PathBuf::from("/etc/backstop/key"), format!("{SECRET}\r\n").into_bytes());
    made
}

const EVERYWHERE: &str = "
store: postgres://app:${env:SECRET}@db.internal/app
admin: { token: '${env:SECRET}' }
routes:
  hook: { destination: '${env:URL}' }
  header:
    destination:
      url: https://a.example.com/${env:SECRET}
      auth: { header: { name: x-key, value: 'Key ${file:key}' } }
      headers: { x-other: '${env:SECRET}' }
  basic:
    destination: { url: 'https://b.example.com', auth: { basic: { username: '${env:SECRET}', password: '${file:key}' } } }
  oauth2:
    destination:
      url: https://c.example.com
      auth:
        oauth2:
          token_url: ${env:URL}
          client_id: ${env:SECRET}
          client_secret: ${env:SECRET}
          scope: ${env:SECRET}
          params: { audience: '${env:SECRET}' }
  policy:
    destination: https://d.example.com
    policy: vendor-codes
    policy_config: { keys: ['${env:SECRET}'], plain: seen }
    retry: { max_attempts: '${env:ATTEMPTS}' }
    fallback: { json: { key: '${env:SECRET}' }, headers: { x-key: '${env:SECRET}' } }
    alarm: { error_rate: 0.5, notify: '${env:URL}' }
";

#[test]
fn secrets_reach_the_one_place_that_sends_them() {
    let config = parse_in(EVERYWHERE, &surroundings()).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.admin.token.as_ref().unwrap().expose(), SECRET);
    let Some(Auth::Basic { username, password }) = &route(&config, "basic").destination.auth else { panic!("basic") };
    assert_eq!((username.as_str(), password.expose()), (SECRET, SECRET));
    let Some(Auth::Header { value, .. }) = &route(&config, "header").destination.auth else { panic!("header") };
    assert_eq!(value.as_bytes(), format!("Key {SECRET}").as_bytes());
    assert!(route(&config, "oauth2").envelope.renewable_credentials);
    assert_eq!(route(&config, "policy").policy.as_ref().unwrap().config["keys"][0], SECRET);
    assert_eq!(route(&config, "policy").envelope.max_attempts, 7, "a number may come from the environment");
}

#[test]
fn secrets_are_in_no_debug_and_in_no_description() {
    let config = parse_in(EVERYWHERE, &surroundings()).unwrap_or_else(|problems| panic!("{problems}"));
    let described = config.describe();
    for (what, text) in [
        ("describe", described.clone()),
        ("Config", format!("{config:#?}")),
        ("store", format!("{:?} {}", config.store, config.store)),
        ("routes", format!("{:#?}", config.routes)),
        ("admin", format!("{:?}", config.admin)),
        ("sources", format!("{:?}", config.sources)),
        ("destinations", format!("{:?}", config.routes.values().map(|route| &route.destination).collect::<Vec<_>>())),
        ("alarms", format!("{:?}", config.routes.values().map(|route| &route.alarm).collect::<Vec<_>>())),
    ] {
        assert!(!text.contains("hunter2"), "{what}: {text}");
    }
    // What a person needs is there: where it comes from, and what is no secret.
    for shown in ["${env:URL}", "https://a.example.com/${env:SECRET}", "plain: seen", "password: ${file:key}", "***"] {
        assert!(described.contains(shown), "{shown} in\n{described}");
    }
}

#[test]
fn a_secret_written_into_the_file_is_not_described_either() {
    let text = "
routes:
  orders:
    destination:
      url: https://a.example.com
      auth: { basic: { username: me, password: hunter2 } }
      headers: { x-key: hunter2 }";
    let config = parse_in(text, &Made::default()).unwrap();
    assert!(!config.describe().contains("hunter2"));
    assert!(!format!("{:?}", config.routes).contains("hunter2"));
}

#[test]
fn problems_with_secrets_quote_what_is_written_instead() {
    let text = "
listen: ${env:SECRET}
store: ${env:SECRET}
shutdown_grace: ${env:SECRET}
max_in_flight: ${env:SECRET}
routes:
  orders:
    destination:
      url: ${env:SECRET}
      allow: ['${env:SECRET}']
      response_limit: ${env:SECRET}
      auth: { header: { name: '${env:SECRET} ', value: [1] } }
    mode: ${env:SECRET}
    policy: ${env:SECRET}/
    fallback: { route: '${env:SECRET}' }
    alarm: { error_rate: '${env:SECRET}' }
    idempotency: { required: '${env:SECRET}' }
  third:
    destination: https://me:hunter2@a.example.com/
  fourth:
    destination: { url: 'https://a.example.com', headers: { x: \"hunter2\\n\" }, auth: { basic: hunter2 } }";
    let said = said_in(text, &surroundings());
    assert_eq!(said.len(), 17, "{said:#?}");
    assert!(!said.concat().contains("hunter2"), "{said:#?}");
    assert!(said.concat().contains("`${env:SECRET}`: write a duration"), "{said:#?}");
}

#[test]
fn what_is_not_there_is_a_problem_with_its_line() {
    let text = "
admin:
  token: ${env:ABSENT}
routes:
  orders:
    destination:
      url: https://a.example.com
      auth: { header: { name: x-key, value: '${file:absent}' } }";
    let said = said_in(text, &Made::default());
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(said[0].starts_with("3 admin.token: the environment variable ABSENT is not set"), "{said:#?}");
    let expected = "8 routes.orders.destination.auth.header.value: the file absent cannot be read";
    assert!(said[1].starts_with(expected), "{said:#?}");
}

#[test]
fn a_policy_s_binding_knows_whether_it_holds_secrets() {
    let plain = "
  plain:
    destination: https://e.example.com
    policy: vendor-codes
    policy_config: { keys: [seen] }
    fallback: { json: { key: '${env:SECRET}' } }
  bare: { destination: 'https://f.example.com', policy: standard }
";
    let config = parse_in(&format!("{EVERYWHERE}{plain}"), &surroundings()).unwrap();
    let holds_secret = |name| route(&config, name).policy.as_ref().unwrap().holds_secret;
    assert_eq!([holds_secret("policy"), holds_secret("plain"), holds_secret("bare")], [true, false, false]);
}

#[test]
fn policy_config_knows_where_it_holds_secrets() {
    let config: Config = parse_in(EVERYWHERE, &surroundings()).unwrap();
    let policy = crate::message::RouteName::new("policy").unwrap();
    assert!(config.sources.holds_secret(&policy, "/keys/0"));
    assert!(config.sources.holds_secret(&policy, ""), "and so does what is around it");
    assert!(!config.sources.holds_secret(&policy, "/plain"));
}
