//! Sources: what each key comes to, and what is said of mistakes.

use std::time::Duration;

use super::super::{Config, Tap};
use super::mistakes::one_mistake;
use super::{Made, load, parse_in};
use crate::ingress::feed::Settings;
use crate::ingress::source::Connect;

/// A source of one line, the second, for the async route `scans`; and a route that is not async.
fn with_source(source: &str) -> String {
    format!(
        "sources:\n  changed: {{ {source} }}\nroutes:\n  scans: {{ destination: 'https://a.example.com' }}\n  \
         now: {{ destination: 'https://a.example.com', mode: sync }}\n"
    )
}

const LEAST: &str =
    "route: scans, feed: { url: 'postgres://bob:s3cret@db.test/app', table: scans, cursor: at, key: id }";

fn feed(config: &Config) -> &Settings {
    match config.tapped.as_slice() {
        [tapped] => match &tapped.tap {
            Tap::Feed(feed) => feed,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_feed_has_defaults() {
    let config = load(&with_source(LEAST));
    let Settings { name, database, table, cursor, key, partitions, batch, poll, lease, connect } = feed(&config);
    let texts = [name.clone(), table.to_string(), cursor.clone(), key.clone(), database.without_schema()];
    assert_eq!(texts, ["changed", "public.scans", "at", "id", "postgres://bob:***@db.test:5432/app"]);
    assert_eq!((*partitions, *batch), (1, 100));
    assert_eq!((*poll, *lease), (Duration::from_secs(1), Duration::from_secs(30)));
    assert_eq!(*connect, Connect { retries: None, wait: Duration::from_secs(5) });
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn a_feed_is_what_is_written_and_describes_itself() {
    let mut made = Made::default();
    made.variables.insert("SCANS", "postgres://bob:s3cret@db.test/app?sslmode=require");
    let text = with_source(
        "route: scans, connect: { retries: 3, wait: 1s }, feed: { url: '${env:SCANS}', table: app.Scans, cursor: changed, \
         key: scan id, partitions: 4, batch: 1000, poll: 100ms, lease: 10m }",
    );
    let config = parse_in(&text, &made).unwrap_or_else(|problems| panic!("{problems}"));
    let Settings { table, key, partitions, batch, poll, lease, .. } = feed(&config);
    assert_eq!((table.to_string(), key.as_str()), ("app.Scans".to_owned(), "scan id"));
    assert_eq!((*partitions, *batch), (4, 1000));
    assert_eq!((*poll, *lease), (Duration::from_millis(100), Duration::from_secs(600)));
    let description = config.describe();
    assert!(description.contains("${env:SCANS}") && !description.contains("s3cret"), "{description}");
    let again = parse_in(&description, &made).unwrap_or_else(|problems| panic!("{problems}\n{description}"));
    assert_eq!(again.describe(), description);
    assert_eq!(feed(&again), feed(&config));

    let shown = load(&with_source(LEAST)).describe();
    assert!(shown.contains("postgres://bob:***@db.test:5432/app") && !shown.contains("schema="), "{shown}");
    load(&shown);
}

#[test]
fn mistakes_of_a_feed() {
    let url = "url: 'postgres://db.test/app'";
    for (source, key, hint) in [
        (
            format!("route: scans, feed: {{ {url}, table: scans, cursor: at }}"),
            "feed.key",
            "missing: write `key: COLUMN`",
        ),
        (
            format!("route: scans, feed: {{ {url}, table: scans, key: id }}"),
            "feed.cursor",
            "missing: write `cursor: COLUMN`",
        ),
        (
            format!("route: scans, feed: {{ {url}, cursor: at, key: id }}"),
            "feed.table",
            "missing: write `table: SCHEMA.TABLE`",
        ),
        (
            "route: scans, feed: { table: scans, cursor: at, key: id }".to_owned(),
            "feed.url",
            "missing: write `url: postgres://",
        ),
        (LEAST.replace("postgres:", "mysql:"), "feed.url", "only Postgres tables are read"),
        (LEAST.replace("/app", "/app?schema=x"), "feed.url", "write `table: SCHEMA.TABLE`"),
        (LEAST.replace("db.test", "db.test:port"), "feed.url", "cannot be read"),
        (LEAST.replace("table: scans", "table: a.b.c"), "feed.table", "`a.b.c`: write SCHEMA.TABLE"),
        (LEAST.replace("table: scans", "table: '\"Scans\"'"), "feed.table", "without quotes"),
        (LEAST.replace("cursor: at", "cursor: ''"), "feed.cursor", "1 to 63 bytes"),
        (LEAST.replace("key: id", "key: id, partitions: 0"), "feed.partitions", "from 1 to 64"),
        (LEAST.replace("key: id", "key: id, batch: 1001"), "feed.batch", "from 1 to 1000"),
        (LEAST.replace("key: id", "key: id, poll: 10ms"), "feed.poll", "from 100ms to 1h"),
        (LEAST.replace("key: id", "key: id, lease: 11m"), "feed.lease", "from 1s to 10m"),
        (LEAST.replace("key: id", "key: id, partition: 4"), "feed.partition", "did you mean `partitions`?"),
        (format!("{LEAST}, settle: on_delivery"), "settle", "takes nothing back"),
        (format!("{LEAST}, prefetch: 10"), "prefetch", "only for brokers"),
        (LEAST.replace("route: scans", "route: now"), "route", "nobody waits for what a source brings"),
        (format!("{LEAST}, rabbitmq: {{ url: 'amqp://mq.test', queue: q }}"), "", "write exactly one of"),
        ("route: scans".to_owned(), "", "`feed: { url: …, table: …, cursor: …, key: … }`"),
    ] {
        let key = if key.is_empty() { "sources.changed".to_owned() } else { format!("sources.changed.{key}") };
        one_mistake(&with_source(&source), "2", &key, hint);
    }
}

#[test]
fn a_bad_url_is_not_quoted() {
    let problems = parse_in(&with_source(&LEAST.replace("db.test", "db.test:port")), &Made::default()).unwrap_err();
    assert!(!problems.to_string().contains("s3cret"), "{problems}");
}
