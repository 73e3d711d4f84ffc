//! `event-pipeline`: what failed is found in the archive by what is known of it, taken out, and published again, each
//! message linked to its original.

use std::time::Duration;

use backstop::clock::Stopwatch;
use backstop_tests::host::answer_to;
use backstop_tests::{Host, Postgres, Setup, Vendor, eventually, ok, status};
use reqwest::Method;
use serde_json::{Value, json};

const SQLITE: &str = "sqlite:backstop.db";

/// A bus with one route that takes everything, on this store.
async fn bus(vendor: &Vendor, store: &str) -> Host {
    let routes = format!("all:\n  destination: '{vendor}'\n  match: true\n  policy: standard\n");
    Setup::routes(&routes).setting("store", store).start().await
}

/// Publishes an event; answers the id of its message.
async fn publish(host: &Host, id: &str, data: &Value) -> String {
    let request = host.request(Method::POST, "/events").body(data.to_string()).header("ce-id", id);
    let request = request.header("ce-specversion", "1.0").header("ce-type", "t").header("ce-source", "/shop");
    let answer = answer_to(request.header("content-type", "application/json")).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()["events"][0]["messages"][0]["id"].as_str().expect("a message").to_owned()
}

/// What a command of the archive prints: a line of JSON each.
async fn lines(host: &Host, arguments: &[&str]) -> Vec<Value> {
    let printed = host.cli(&[&["archive"], arguments].concat()).await;
    printed.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// The ids of the messages that a filter finds.
async fn found(host: &Host, filter: &[&str]) -> Vec<String> {
    let lines = lines(host, &[&["query", "--json"], filter].concat()).await;
    lines.iter().map(|line| line["id"].as_str().expect("an id").to_owned()).collect()
}

/// Three events that the vendor refuses and one that it takes; all have ended.
async fn three_refused_and_one_taken(host: &Host, vendor: &Vendor) -> Vec<String> {
    vendor.answers_by(|request| status(if request.header("ce-id") == "taken" { 200 } else { 400 }));
    let mut ids = Vec::new();
    for (id, data) in [
        ("one", json!({ "total": 1, "to": { "country": "NO" } })),
        ("two", json!({ "total": 2, "to": { "country": "SE" } })),
        ("three", json!({ "total": "3", "to": { "country": "NO" } })),
        ("taken", json!({ "total": 4, "to": { "country": "NO" } })),
    ] {
        let message = publish(host, id, &data).await;
        host.until(&message, if id == "taken" { "delivered" } else { "dead" }).await;
        ids.push(message);
    }
    ids
}

async fn what_failed_is_found_and_published_again(store: &str) {
    let vendor = Vendor::answering([]).await;
    let host = bus(&vendor, store).await;
    let ids = three_refused_and_one_taken(&host, &vendor).await;
    let norwegian = ["--state", "dead", "--reason", "refused", "--body", "/to/country=NO"];
    assert_eq!(found(&host, &norwegian).await, [ids[0].clone(), ids[2].clone()], "oldest first");
    let first = vendor.received()[0].header("ce-messageuid");

    vendor.answers_by(|_| ok());
    let again =
        lines(&host, &[&["republish", "--json", "--rate", "1000", "--run", "norway"], &norwegian[..]].concat()).await;
    assert_eq!(
        again.iter().map(|line| line["original"].as_str()).collect::<Vec<_>>(),
        [Some(&*ids[0]), Some(&*ids[2])]
    );
    for line in &again {
        let message = host.until(line["id"].as_str().expect("an id"), "delivered").await;
        assert_eq!(message["attempts"], 1, "{message}");
    }
    let repeat = &vendor.receives(6).await[4];
    assert_eq!((repeat.header("ce-id"), repeat.text().contains("NO")), ("one".to_owned(), true));
    assert_ne!(repeat.header("ce-messageuid"), first, "a publish of its own");
    assert_eq!(repeat.header("ce-messageuid"), again[0]["id"].as_str().expect("an id"));

    let found_again = lines(&host, &["query", "--json", "--uid", &repeat.header("ce-messageuid")]).await;
    assert_eq!(found_again[0]["original"], ids[0], "it is linked to its original: {found_again:?}");
    assert_eq!(host.message(&ids[0]).await["state"], "dead", "which stays as it is");

    let broken_off = host.cli(&[&["archive", "republish", "--run", "norway"], &norwegian[..]].concat()).await;
    assert!(broken_off.contains("0 published again, as norway\n2 were in this run before"), "{broken_off}");
    assert_eq!(vendor.received().len(), 6, "nothing of a run is published twice");
}

#[tokio::test]
async fn event_pipeline_what_failed_is_found_in_the_archive_and_published_again() {
    what_failed_is_found_and_published_again(SQLITE).await;
}

#[tokio::test]
async fn event_pipeline_what_failed_is_published_again_from_an_archive_on_postgres() {
    let postgres = Postgres::start();
    what_failed_is_found_and_published_again(&postgres.database()).await;
}

#[tokio::test]
async fn event_pipeline_the_archive_is_searched_by_all_that_is_known() {
    let vendor = Vendor::answering([]).await;
    let host = bus(&vendor, SQLITE).await;
    let ids = three_refused_and_one_taken(&host, &vendor).await;
    let [one, two, three, taken] = [0, 1, 2, 3].map(|index| ids[index].clone());
    let digest = host.message(&one).await["journal"][0]["provenance"]["policy"]["digest"].to_string();
    let digest = digest.trim_matches('"');
    let uid = vendor.received()[1].header("ce-messageuid");
    for (filter, expected) in [
        (vec![], vec![&one, &two, &three, &taken]),
        (vec!["--route", "all", "--state", "delivered"], vec![&taken]),
        (vec!["--state", "delivered", "--state", "dead"], vec![&one, &two, &three, &taken]),
        (vec!["--route", "al"], vec![]),
        (vec!["--body", "/total=2"], vec![&two]),
        (vec!["--body", "/total=3"], vec![&three]),
        (vec!["--body", "/to/country"], vec![&one, &two, &three, &taken]),
        (vec!["--body", "/to/city"], vec![]),
        (vec!["--policy", &digest[..12]], vec![&one, &two, &three, &taken]),
        (vec!["--policy", "00000000"], vec![]),
        (vec!["--uid", &uid], vec![&two]),
        (vec!["--from", "1h"], vec![&one, &two, &three, &taken]),
        (vec!["--until", "1h"], vec![]),
        (vec!["--from", "2020-01-01T00:00:00Z", "--until", "2020-01-02T00:00:00Z"], vec![]),
        (vec!["--after", &two], vec![&three, &taken]),
        (vec!["--limit", "2"], vec![&one, &two]),
        (vec!["--limit", "1", "--after", &one], vec![&two]),
    ] {
        assert_eq!(found(&host, &filter).await.iter().collect::<Vec<_>>(), expected, "{filter:?}");
    }
    let table = host.cli(&["archive", "query", "--state", "dead", "--limit", "2"]).await;
    assert!(table.starts_with("ID ") && table.ends_with(&format!("newer ones: --after {two}\n")), "{table}");
}

#[tokio::test]
async fn event_pipeline_the_archive_is_taken_out_whole() {
    let vendor = Vendor::answering([]).await;
    let host = bus(&vendor, SQLITE).await;
    vendor.answers_by(|_| status(400));
    let request = host.request(Method::POST, "/r/all/orders?dry=1").body(r#"{"article": 7}"#);
    let accepted = answer_to(request.header("authorization", "Bearer of-secrets")).await;
    let id = accepted.json()["id"].as_str().expect("an id").to_owned();
    host.until(&id, "dead").await;
    let exported = lines(&host, &["export", "--state", "dead"]).await;
    let [line] = exported.as_slice() else { panic!("one line: {exported:?}") };
    assert_eq!((&line["id"], &line["message_uid"], &line["route"]), (&json!(id), &json!(id), &json!("all")));
    assert_eq!(line["request"]["path"], "/orders?dry=1");
    assert_eq!(line["request"]["body"], r#"{"article": 7}"#);
    assert_eq!(
        (&line["journal"][0]["outcome"]["status"], &line["journal"][0]["verdict"]),
        (&json!(400), &json!("dead_letter"))
    );
    assert!(!line.to_string().contains("of-secrets"), "{line}");
}

/// The archive is read a page at a time, and published at the rate that is asked for.
#[tokio::test]
async fn event_pipeline_many_are_published_again_page_by_page_and_no_faster_than_asked() {
    let vendor = Vendor::answering([]).await;
    let host = bus(&vendor, SQLITE).await;
    vendor.answers_by(|_| status(400));
    let many = 230;
    for number in 0..many {
        host.accept("/r/all", json!({ "number": number }).to_string()).await;
    }
    vendor.receives(many).await;
    eventually("all to end", async || {
        (found(&host, &["--state", "dead", "--limit", "1000"]).await.len() == many).then_some(())
    })
    .await;
    let only = ["--body", "/number=7", "--body", "/number"];
    assert_eq!(found(&host, &only).await.len(), 1);

    vendor.answers_by(|_| ok());
    let dry = host.cli(&["archive", "republish", "--all", "--dry-run"]).await;
    assert!(dry.ends_with("at most 230 would be published again\n"), "{dry}");
    assert_eq!(vendor.received().len(), many);
    let began = Stopwatch::start();
    let printed = host.cli(&["archive", "republish", "--all", "--rate", "200"]).await;
    assert!(printed.contains("230 published again"), "{printed}");
    assert!(began.elapsed() >= Duration::from_millis(5) * 229, "no faster than asked: {:?}", began.elapsed());
    assert_eq!(vendor.receives(2 * many).await.len(), 2 * many);
}

/// What a run makes fits its filter as well as what it was made of, while the vendor goes on refusing.
#[tokio::test]
async fn event_pipeline_a_run_that_is_gone_on_with_makes_nothing_of_what_it_made() {
    let vendor = Vendor::answering([]).await;
    let host = bus(&vendor, SQLITE).await;
    three_refused_and_one_taken(&host, &vendor).await;
    let run = ["archive", "republish", "--state", "dead", "--rate", "1000", "--run", "again"];
    assert!(host.cli(&run).await.contains("3 published again"));
    vendor.receives(7).await;
    eventually("the copies to be refused", async || {
        (found(&host, &["--state", "dead"]).await.len() == 6).then_some(())
    })
    .await;
    let gone_on = host.cli(&run).await;
    assert!(gone_on.contains("0 published again, as again\n6 were in this run before"), "{gone_on}");
    let other = host.cli(&["archive", "republish", "--state", "dead", "--rate", "1000"]).await;
    assert!(other.contains("6 published again"), "another run is another matter: {other}");
}

/// What one route does not take keeps those of the others from nothing.
#[tokio::test]
async fn event_pipeline_a_run_leaves_alone_what_its_route_would_not_take() {
    let vendor = Vendor::answering([]).await;
    vendor.answers_by(|_| status(400));
    let routes = format!(
        "
        gone: {{ destination: '{vendor}', match: type == \"t\" }}
        checked: {{ destination: '{vendor}', match: type == \"t\", schema: total.json }}
        served: {{ destination: '{vendor}', match: type == \"t\" }}
        "
    );
    let place = Setup::routes(&routes).place();
    place.write("total.json", r#"{"required": ["total"]}"#);
    let host = Host::start_in(place).await;
    publish(&host, "one", &json!({})).await;
    eventually("dead letters", async || (host.messages("dead").await.len() == 3).then_some(())).await;
    let file = host.place().path("backstop.yaml");
    let without: String = std::fs::read_to_string(&file)
        .expect("the configuration")
        .split_inclusive('\n')
        .filter(|line| !line.contains("gone:"))
        .collect();
    std::fs::write(&file, without).expect("to write the configuration");
    eventually("the reload", async || (!host.log_lines("configuration reloaded").is_empty()).then_some(())).await;
    let told = host.try_cli(&["archive", "republish", "--all", "--rate", "1000"]).await;
    let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert!(told.status.success() && out.contains("1 published again") && out.contains("2 left alone"), "{out}{err}");
    assert!(
        err.contains("no route is called gone any more") && err.contains("does not fit the route's schema"),
        "{err}"
    );
}

/// A new message would wait behind the dead letter that it repeats, and both for ever.
#[tokio::test]
async fn event_pipeline_a_dead_letter_that_holds_its_order_up_is_redriven_and_not_published_again() {
    let vendor = Vendor::answering([status(400), ok()]).await;
    let routes = format!("all: {{ destination: '{vendor}', match: true, order_by: 'json:/customer' }}");
    let host = Host::start(&routes).await;
    let id = publish(&host, "one", &json!({ "customer": 7 })).await;
    host.until(&id, "dead").await;
    let told = host.try_cli(&["archive", "republish", "--state", "dead"]).await;
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("redrive it instead"), "{told}");
    assert_eq!(vendor.received().len(), 1);
    host.cli(&["dead", "redrive", &id]).await;
    host.until(&id, "delivered").await;
}

#[tokio::test]
async fn event_pipeline_what_cannot_be_published_again_is_told() {
    let vendor = Vendor::answering([]).await;
    vendor.answers_by(|_| status(503));
    let host = bus(&vendor, SQLITE).await;
    let queued = publish(&host, "one", &json!({})).await;
    vendor.receives(1).await;
    let output = host.cli(&["archive", "republish", "--all"]).await;
    assert!(output.contains("0 published again") && output.contains("1 left alone"), "{output}");
    let told = host.try_cli(&["archive", "republish", "--all"]).await;
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains(&format!("{queued} left alone: it is queued, and has not ended")), "{told}");
    let refused = host.try_cli(&["archive", "republish"]).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("say which"), "{refused:?}");
    for (arguments, hint) in [
        (["--body", "total=7"], "each step begins with /"),
        (["--from", "yesterday"], "or how long ago, such as 2h"),
        (["--policy", "standard"], "hexadecimal"),
        (["--from", "2026"], "or how long ago, such as 2h"),
        (["--reason", ""], "value is required"),
        (["--state", "died"], "possible values"),
    ] {
        let refused = host.try_cli(&[&["archive", "query"], &arguments[..]].concat()).await;
        assert!(!refused.status.success());
        assert!(String::from_utf8_lossy(&refused.stderr).contains(hint), "{refused:?}");
    }
    let asked = host.admin("/v1/archive?stat=dead").await;
    assert_eq!(
        (&asked["status"], &asked["type"]),
        (&json!(400), &json!("urn:backstop:problem:bad-request")),
        "{asked}"
    );
    assert_eq!(host.message(&queued).await["state"], "queued");
}

/// A slip of the pen in a route's name finds nothing, which is no news; that nobody knows the route is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_pipeline_a_route_that_nobody_knows_is_told_of_beside_an_archive_that_has_none_of_it() {
    let vendor = Vendor::answering([]).await;
    let host = bus(&vendor, SQLITE).await;
    let said = async |route: &str| {
        let output = host.try_cli(&["archive", "query", "--json", "--route", route]).await;
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said("al").await.contains("did you mean `all`?"), "{}", said("al").await);
    assert_eq!(said("all").await, "", "it is configured");
}
