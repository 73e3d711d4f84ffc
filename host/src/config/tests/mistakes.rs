//! Mistakes: each is reported with its line, its key and what to write instead.

use super::{said, with_route};

/// Asserts that the file has exactly one mistake, on `line`, of `key`, whose message holds `hint`.
#[track_caller]
pub(super) fn one_mistake(text: &str, line: &str, key: &str, hint: &str) {
    let said = said(text);
    assert_eq!(said.len(), 1, "{text}\n{said:#?}");
    assert!(said[0].starts_with(&format!("{line} {key}: ")), "expected {line} {key}: {said:#?}");
    assert!(said[0].contains(hint), "expected …{hint}…: {said:#?}");
}

#[test]
fn ten_mistakes_are_reported_in_one_go_in_order_of_line() {
    let text = "listen: localhost
listn: 127.0.0.1:80
admin: 0.0.0.0:8081
store: mysql://db/backstop
shutdown_grace: 10
routes:
  orders:
    destination: { url: 'ftp://vendor.example.com', timeout: 10 sec }
    mode: synchronous
    retry:
      max_attempts: 0
      max_delay: 25h
      max_delay: 1h
    fallback: { route: spare }
";
    let said = said(text);
    let places: Vec<_> = said.iter().map(|said| said.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(
        places,
        [
            "1 listen",
            "2 listn",
            "3 admin",
            "4 store",
            "5 shutdown_grace",
            "8 routes.orders.destination.url",
            "8 routes.orders.destination.timeout",
            "9 routes.orders.mode",
            "11 routes.orders.retry.max_attempts",
            "12 routes.orders.retry.max_delay",
            "13 routes.orders.retry.max_delay",
            "14 routes.orders.fallback.route",
        ],
        "{said:#?}"
    );
    assert!(!said.concat().contains("hunter2"));
}

#[test]
fn problems_read_as_file_line_key_and_message() {
    let problems = super::parse(&with_route("retry: { max_dely: 1s }")).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "backstop.yaml:4: routes.orders.retry.max_dely: unknown key: did you mean `max_delay`?"
    );
}

#[test]
fn mistakes_of_the_whole_file() {
    for (text, line, key, hint) in [
        ("", "-", "", "needs at least `routes`"),
        ("# nothing", "-", "", "needs at least `routes`"),
        ("listen: 127.0.0.1:1", "-", "routes", "missing"),
        ("routes:", "1", "routes", "write a section"),
        ("routes: {}", "1", "routes", "is empty"),
        ("routes: []", "1", "routes", "is a list"),
        ("- routes", "1", "", "is a list"),
        ("routes: { a: {destination: 'http://a'} }\n---\nlisten: x", "2", "", "second document"),
        ("listen: a\n\troutes: b", "2", "", "spaces, not tabs"),
        ("routes: {\n  a: [1, 2", "2", "", "left open"),
        ("routes: 'a\n", "1", "", "quote left open"),
        ("listen: a: b", "1", "", "column 10"),
        ("listen: *nobody", "1", "", "put text that begins with & or * in quotes"),
        ("listen: @a", "1", "", "in quotes"),
        ("routes: &a [*a]", "1", "routes[0]", "inside the value it repeats"),
    ] {
        one_mistake(text, line, key, hint);
    }
}

#[test]
fn mistakes_at_the_top() {
    let routes = "routes: { a: { destination: 'http://127.0.0.1:9/' } }\n";
    for (text, key, hint) in [
        ("listen: localhost:8080", "listen", "127.0.0.1:8080"),
        ("listen: 8080", "listen", "an address and a port"),
        ("listen: [a]", "listen", "is a list"),
        ("listen:", "listen", "is empty"),
        ("admin: 0.0.0.0:8081", "admin", "token: ${env:NAME}"),
        ("admin: { listen: '[::]:8081' }", "admin", "needs a token"),
        ("admin: { token: 'two words' }", "admin.token", "without spaces"),
        ("admin: { token: '' }", "admin.token", "is empty"),
        ("admin: { tokn: x }", "admin.tokn", "did you mean `token`?"),
        ("admin: 127.0.0.1:8080", "admin", "another port"),
        ("store: 'sqlite:'", "store", "names no file"),
        ("store: 'sqlite::memory:'", "store", "on disk"),
        ("store: sqlite://backstop.db", "store", "without //"),
        ("store: postgres:///backstop", "store", "names no host"),
        ("store: postgres://db/backstop?color=red", "store", "cannot be read"),
        ("store: postgres://db/backstop?schema=No", "store", "schema's name"),
        ("store: mysql:x", "store", "sqlite:PATH"),
        ("policies: ''", "policies", "./policies"),
        ("shutdown_grace: 10", "shutdown_grace", "write 10s"),
        ("lease: 0s", "lease", "from 1s to 10m"),
        ("shutdown_grace: 2h", "shutdown_grace", "from 0s to 1h"),
        ("keep_finished: 14 days", "keep_finished", "14d"),
        ("max_in_flight: 0", "max_in_flight", "from 1 to"),
        ("max_in_flight: many", "max_in_flight", "write a number"),
        ("max_in_flight: 1.5", "max_in_flight", "a whole number"),
        ("max_in_flight: 99999999999999999999", "max_in_flight", "64 bits"),
        ("max-in-flight: 1", "max-in-flight", "did you mean `max_in_flight`?"),
        ("something_else: 1", "something_else", "write one of listen, admin"),
        ("<<: {}", "<<", "merge keys"),
        ("listen: !local a", "listen", "means nothing here"),
        ("? [a]\n: b", "", "a key must be text"),
    ] {
        // A tag is one mistake, and what is left of its value another.
        if text.contains('!') {
            let said = said(&format!("{text}\n{routes}"));
            assert!(said[0].contains(hint), "{said:#?}");
            continue;
        }
        one_mistake(&format!("{text}\n{routes}"), "1", key, hint);
    }
    one_mistake(&format!("{routes}listen: 127.0.0.1:1\nlisten: 127.0.0.1:2"), "3", "listen", "first on line 2");
}

#[test]
fn mistakes_of_a_route() {
    for (lines, key, hint) in [
        ("mod: 1", "mod", "did you mean `mode`?"),
        ("mode: sinc", "mode", "did you mean `sync`?"),
        ("mode: batch", "mode", "sync, async, sync_then_async"),
        ("mode: [sync]", "mode", "is a list"),
        ("deadline: 8s", "deadline", "nobody waits in mode async"),
        ("{mode: sync, deadline: 0s}", "deadline", "from 1ms to 24h"),
        ("{mode: sync, sync_attempts: 2}", "sync_attempts", "sync_then_async"),
        ("{mode: sync_then_async, sync_attempts: 0}", "sync_attempts", "from 1 to 5"),
        ("{mode: sync_then_async, sync_attempts: 6}", "sync_attempts", "from 1 to 5"),
        ("concurrency: 0", "concurrency", "from 1 to"),
        ("concurrency: -1", "concurrency", "a whole number from zero"),
        ("max_queued: 0", "max_queued", "from 1 to"),
        ("body_limit: 64K", "body_limit", "64KiB"),
        ("body_limit: 1GiB", "body_limit", "256MiB"),
        ("dead_letter: { keep: 0s }", "dead_letter.keep", "from 1s"),
        ("dead_letter: 14d", "dead_letter", "write a section"),
        ("dead_letter:", "dead_letter", "is empty"),
        ("idempotency: { required: yes }", "idempotency.required", "write true or false"),
        ("idempotency: { keep: 2y }", "idempotency.keep", "a duration such as"),
        ("policy: ../evil", "policy", "letters, digits"),
        ("policy: standard.wasm", "policy", "without .wasm"),
        ("policy_config: {}", "policy_config", "write `policy: NAME`"),
        ("isolation: fresh", "isolation", "write `policy: NAME`"),
        ("{policy: p, isolation: never}", "isolation", "reuse, fresh"),
        ("{policy: p, on_policy_failure: dead-letter}", "on_policy_failure", "did you mean `dead_letter`?"),
        ("{policy: p, policy_limits: { fuel: 0 }}", "policy_limits.fuel", "from 1 to"),
        ("{policy: p, policy_limits: { memory: 1KiB }}", "policy_limits.memory", "from 64KiB to 256MiB"),
        ("{policy: p, policy_limits: { memory: 257MiB }}", "policy_limits.memory", "from 64KiB to 256MiB"),
        ("{policy: p, policy_limits: { time: 2m }}", "policy_limits.time", "from 1ms to 60s"),
        ("{policy: p, policy_config: { a: [.inf] }}", "policy_config.a[0]", "a finite number"),
        ("{policy: p, policy_config: { a: 1, a: 2 }}", "policy_config.a", "given twice"),
        ("alarm: {}", "alarm.error_rate", "missing"),
        ("alarm: { error_rate: 0 }", "alarm.error_rate", "above 0%"),
        ("alarm: { error_rate: 101% }", "alarm.error_rate", "up to 100%"),
        ("alarm: { error_rate: 20 }", "alarm.error_rate", "write 20%"),
        ("alarm: { error_rate: 1.5 }", "alarm.error_rate", "up to 100%"),
        ("alarm: { error_rate: 20%, window: 0s }", "alarm.window", "from 1s to 24h"),
        ("alarm: { error_rate: 20%, min_requests: 0 }", "alarm.min_requests", "from 1"),
        ("alarm: { error_rate: 20%, notify: alarms.example.com }", "alarm.notify", "https://"),
    ] {
        one_mistake_of_route(lines, key, hint);
    }
}

/// As [`one_mistake`], of a route with these keys, either one `key: value` or `{…}`.
#[track_caller]
fn one_mistake_of_route(keys: &str, key: &str, hint: &str) {
    let keys = keys.strip_prefix('{').and_then(|keys| keys.strip_suffix('}')).unwrap_or(keys);
    // A single key keeps its line as it is; several are put into one flow section, so that all stand on line 3.
    let text = format!("routes:\n  orders:\n    {{ destination: 'https://a.example.com', {keys} }}");
    one_mistake(&text, "3", &format!("routes.orders.{key}"), hint);
}

#[test]
fn only_a_destination_may_be_a_broker_s() {
    for (keys, key) in [
        ("alarm: { error_rate: 20%, notify: 'nats://broker/alarms' }", "alarm.notify"),
        ("check_back: 'amqp://broker/?routing_key=checks'", "check_back"),
    ] {
        one_mistake_of_route(keys, key, "only http and https are spoken");
    }
}

#[test]
fn mistakes_of_the_envelope() {
    for (retry, key, hint) in [
        ("max_attempts: 0", "max_attempts", "1 means one delivery and no retry"),
        ("max_attempts: -1", "max_attempts", "a whole number from zero"),
        ("max_attempts: 4294967296", "max_attempts", "from 1 to 4294967295"),
        ("max_attempts: '5'", "max_attempts", "without quotes"),
        ("max_attempts: five", "max_attempts", "a whole number from zero, or unlimited"),
        ("max_elapsed: 0s", "max_elapsed", "from 1ms to 36500d"),
        ("min_delay: 0ms", "min_delay", "`0ms`: write a duration from 1ms to 24h"),
        ("max_delay: 25h", "max_delay", "`25h`: write a duration from 1ms to 24h"),
        ("max_delay: 86400001ms", "max_delay", "from 1ms to 24h"),
        ("max_delay: 60", "max_delay", "write 60s"),
        ("max_delay: 1m1h", "max_delay", "1h30m"),
        ("max_delay: 1.5s", "max_delay", "500ms"),
        ("max_delay: 99999999999999999999s", "max_delay", "a duration such as"),
        ("min_delay: 10s, max_delay: 5s", "min_delay", "longer than max_delay"),
        ("min_delay: 2m", "min_delay", "which is 60s by default"),
        ("max_delay: 500ms", "max_delay", "which is 1s by default"),
        ("backoff: linear", "backoff", "exponential, constant"),
        ("factor: 0.5", "factor", "from 1 to 100"),
        ("factor: two", "factor", "write a number"),
        ("backoff: constant, factor: 2", "factor", "only for `backoff: exponential`"),
        ("jitter: fulll", "jitter", "did you mean `full`?"),
        ("retry_after_max: 2d", "retry_after_max", "from 1ms to 24h"),
        ("attempts: 3", "attempts", "unknown key"),
    ] {
        one_mistake_of_route(&format!("retry: {{ {retry} }}"), &format!("retry.{key}"), hint);
    }
}

#[test]
fn mistakes_of_what_bounds_a_lane() {
    for (lines, key, hint) in [
        ("rate: 0", "rate", "from 0.001 to 1000000"),
        ("rate: 1000001", "rate", "from 0.001 to 1000000"),
        ("rate: -1", "rate", "such as 50 or 0.5"),
        ("rate: 50/s", "rate", "such as 50 or 0.5"),
        ("rate: { burst: 5 }", "rate.per_second", "missing"),
        ("rate: { per_second: 5, burst: 0 }", "rate.burst", "from 1 to 1000000"),
        ("rate: { per_second: 5, bursts: 1 }", "rate.bursts", "did you mean `burst`?"),
        ("breaker: { failures: 0% }", "breaker.failures", "above 0%"),
        ("breaker: { window: 100ms }", "breaker.window", "from 1s to 1h"),
        ("breaker: { min_attempts: 0 }", "breaker.min_attempts", "from 1 to"),
        ("breaker: { open_for: 30 }", "breaker.open_for", "write 30s"),
        ("breaker: { open_for: 10ms }", "breaker.open_for", "from 100ms to 24h"),
        ("breaker: { probes: 0 }", "breaker.probes", "from 1 to 1000"),
        ("breaker: { threshold: 5 }", "breaker.threshold", "unknown key"),
        ("breaker: true", "breaker", "write a section"),
        ("retry: { budget: 20 }", "retry.budget", "write 20%"),
        ("retry: { budget: { share: 120% } }", "retry.budget.share", "up to 100%"),
        ("retry: { budget: { reserve: 0 } }", "retry.budget.reserve", "from 1 to"),
        ("retry: { budget: { window: 1h } }", "retry.budget.window", "from 1s to 10m"),
        ("order_by: x-key", "order_by", "header:NAME"),
        ("order_by: 'header:a b'", "order_by", "no header field"),
        ("order_by: 'json:account'", "order_by", "no JSON pointer"),
        ("order_by: 'ce:Subject'", "order_by", "of a-z and 0-9"),
        ("order_by: { on_failure: skip }", "order_by.key", "missing"),
        ("order_by: { key: 'ce:subject', on_failure: stop }", "order_by.on_failure", "block, skip"),
        ("{mode: sync, order_by: 'ce:subject'}", "order_by", "only for `mode: async`"),
        ("{mode: sync_then_async, check_back: https://shop.test/}", "check_back", "only for `mode: async`"),
        ("check_back: { after: 1m }", "check_back.url", "missing"),
        ("check_back: shop.test", "check_back", "https://"),
        ("check_back: 'https://{id}.shop.test/'", "check_back", "in the path or the query"),
        ("check_back: { url: 'nats://shop.test:4222/orders' }", "check_back.url", "only http and https are spoken"),
        ("check_back: { url: https://shop.test/, every: 1ms }", "check_back.every", "10ms to 24h"),
        ("check_back: { url: https://shop.test/, after: 31d }", "check_back.after", "1ms to 30d"),
        ("check_back: { url: https://shop.test/, max_checks: 0 }", "check_back.max_checks", "1 to 1000000"),
        ("check_back: { url: https://shop.test/, max_check: 5 }", "check_back.max_check", "did you mean `max_checks`?"),
        ("check_back: { url: https://shop.test/, auth: {} }", "check_back.auth", "exactly one"),
        ("enabled: maybe", "enabled", "true or false"),
    ] {
        one_mistake_of_route(lines, key, hint);
    }
}

#[test]
fn mistakes_of_the_destination() {
    let url = "url: 'https://a.example.com'";
    for (destination, key, hint) in [
        ("{}".to_owned(), "destination.url", "missing"),
        ("{ timeout: 1s }".to_owned(), "destination.url", "missing"),
        ("[]".to_owned(), "destination", "is a list"),
        ("vendor.example.com".to_owned(), "destination", "with https://"),
        ("'ftp://a'".to_owned(), "destination", "only http, https, nats and amqp"),
        ("'https://me:pw@a'".to_owned(), "destination", "auth: { basic"),
        ("'https://a/#top'".to_owned(), "destination", "#fragment"),
        ("'https://'".to_owned(), "destination", "is no URL"),
        ("{ url: 'https://me@a' }".to_owned(), "destination.url", "auth: { basic"),
        (format!("{{ {url}, timeout: 0s }}"), "destination.timeout", "from 1ms to 24h"),
        (format!("{{ {url}, response_limit: 1TB }}"), "destination.response_limit", "1MiB"),
        (format!("{{ {url}, allow: 10.0.0.0/8 }}"), "destination.allow", "[first, second]"),
        (format!("{{ {url}, allow: [10.0.0.1] }}"), "destination.allow[0]", "/32"),
        (format!("{{ {url}, allow: [10.0.0.0/8, 10.0.0.1/8] }}"), "destination.allow[1]", "first address"),
        (format!("{{ {url}, headers: {{ 'a b': c }} }}"), "destination.headers.a b", "the name of a header field"),
        (format!("{{ {url}, headers: {{ host: c }} }}"), "destination.headers.host", "the host sets"),
        (format!("{{ {url}, headers: {{ a: 1 }} }}"), "destination.headers.a", "in quotes"),
        (format!("{{ {url}, headers: {{ a: b, A: c }} }}"), "destination.headers.A", "given twice"),
        (format!("{{ {url}, auth: {{}} }}"), "destination.auth", "exactly one of"),
        (
            format!("{{ {url}, auth: {{ basic: {{ username: a, password: b }}, header: {{ name: a, value: b }} }} }}"),
            "destination.auth",
            "exactly one of",
        ),
        (
            format!("{{ {url}, auth: {{ basic: {{ username: a }} }} }}"),
            "destination.auth.basic.password",
            "${env:NAME}",
        ),
        (
            format!("{{ {url}, auth: {{ basic: {{ username: 'a:b', password: b }} }} }}"),
            "destination.auth.basic.username",
            "colon",
        ),
        (
            format!("{{ {url}, auth: {{ header: {{ name: a, value: 1234 }} }} }}"),
            "destination.auth.header.value",
            "in quotes",
        ),
        (
            format!("{{ {url}, auth: {{ basic: {{ username: a, password: b }} }}, headers: {{ Authorization: c }} }}"),
            "destination.headers",
            "sets authorization already",
        ),
        (
            format!(
                "{{ {url}, auth: {{ oauth2: {{ token_url: 'https://t', client_id: a, client_secret: b, \
                 params: {{ grant_type: x }} }} }} }}"
            ),
            "destination.auth.oauth2.params.grant_type",
            "sets this parameter itself",
        ),
    ] {
        let text = format!("routes:\n  orders:\n    destination: {destination}");
        one_mistake(&text, "3", &format!("routes.orders.{key}"), hint);
    }
    one_mistake("routes:\n  orders: { mode: async }", "2", "routes.orders.destination", "missing");
    one_mistake("routes:\n  orders:", "2", "routes.orders", "write a section");
}

/// What a broker keeps is held until its delay is over, and RabbitMQ lets nobody hold anything for long.
#[test]
fn a_delay_beyond_what_a_broker_waits_is_refused_where_it_is_written() {
    let text = |settle: &str, broker: &str, delay: &str| {
        format!(
            "sources:\n  pages: {{ route: engine, settle: {settle}, {broker} }}\nroutes:\n  engine:\n    destination: \
             http://a.example.com\n    retry:\n      max_delay: {delay}"
        )
    };
    let (rabbitmq, nats) =
        ("rabbitmq: { url: 'amqp://a', queue: q }", "nats: { url: 'nats://a', stream: s, consumer: c }");
    let key = "routes.engine.retry.max_delay";
    one_mistake(&text("on_delivery", rabbitmq, "21m"), "7", key, "`21m`: a RabbitMQ source that settles on delivery");
    one_mistake(&text("on_delivery", rabbitmq, "24h"), "7", key, "write 20m or less");
    for (settle, broker, delay) in
        [("on_delivery", rabbitmq, "20m"), ("on_store", rabbitmq, "24h"), ("on_delivery", nats, "24h")]
    {
        assert!(super::parse(&text(settle, broker, delay)).is_ok(), "{settle} {broker} {delay}");
    }
}

#[test]
fn more_header_fields_than_anybody_sends_are_refused() {
    let fields: String = (0..40_000).map(|number| format!("x-{number}: a, ")).collect();
    let text = format!("routes:\n  orders:\n    destination: http://a\n    fallback: {{ headers: {{ {fields} }} }}");
    one_mistake(&text, "4", "routes.orders.fallback.headers", "at most 100");
}

#[test]
fn mistakes_of_the_fallback() {
    for (fallback, key, hint) in [
        ("{}", "fallback", "is empty"),
        ("{ status: 99 }", "fallback.status", "from 200 to 599"),
        ("{ status: 204, body: x }", "fallback", "has no body"),
        ("{ json: 1, body: x }", "fallback", "not both"),
        ("{ route: orders }", "fallback.route", "cannot fall back to itself"),
        ("{ route: nowhere }", "fallback.route", "no such route"),
        ("{ route: spares }", "fallback.route", "did you mean `spare`?"),
        ("{ route: spare, status: 200 }", "fallback", "not both"),
        ("{ status: 200, headers: { content-length: '1' } }", "fallback.headers.content-length", "the host sets"),
        ("nothing", "fallback", "write a section"),
    ] {
        let text = format!(
            "routes:\n  orders:\n    destination: http://a.example.com\n    fallback: {fallback}\n  spare: {{ destination: \
             'http://b.example.com' }}"
        );
        one_mistake(&text, "4", &format!("routes.orders.{key}"), hint);
    }
}

#[test]
fn fallback_routes_lead_in_no_circle_and_not_too_far() {
    let chain = |targets: &[(&str, &str)]| {
        let mut text = "routes:\n".to_owned();
        for (name, target) in targets {
            let fallback = if target.is_empty() { String::new() } else { format!(", fallback: {{ route: {target} }}") };
            text.push_str(&format!("  {name}: {{ destination: 'http://a.example.com'{fallback} }}\n"));
        }
        text
    };
    one_mistake(
        &chain(&[("start", "b"), ("b", "c"), ("c", "b")]),
        "3",
        "routes.b.fallback.route",
        "leads in a circle (b → c → b)",
    );
    one_mistake(
        &chain(&[("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "f"), ("f", "")]),
        "2",
        "routes.a.fallback.route",
        "more than 4 further routes",
    );
    assert!(super::parse(&chain(&[("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "")])).is_ok());
}

#[test]
fn a_route_given_twice_and_a_route_with_an_impossible_name() {
    let text = "routes:
  orders: { destination: 'http://a.example.com' }
  Orders!: { destination: 'http://a.example.com' }
  orders: { destination: 'http://b.example.com' }";
    let said = said(text);
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(said[0].starts_with("3 routes.Orders!: a route's name is 1 to 64 of"), "{said:#?}");
    assert!(said[1].starts_with("4 routes.orders: given twice, first on line 2"), "{said:#?}");
}

#[test]
fn a_file_made_to_exhaust_memory_is_refused() {
    let mut laughs = String::from("a: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..30 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        laughs.push_str(&format!("b{level}: &a{level} [{aliases}]\n"));
    }
    assert!(said(&laughs).concat().contains("aliases repeat more than 1 MiB"));
    assert!(said(&"[".repeat(100_000)).concat().contains("nested too deeply"));
    assert!(said(&"[".repeat(100)).concat().contains("nested deeper than 64 levels"));
    assert!(said(&"a: {".repeat(1000)).concat().contains("64 levels"));
    let many: String = (0..50_000).map(|number| format!("k{number}: 1\n")).collect();
    let said = said(&many);
    assert!(said.len() < 300 && said.concat().contains("more mistakes are not shown"), "{}", said.len());
}
