//! Routes that come, go and are bound otherwise, under a catalog that serves.

use serde_json::json;

use super::*;
use crate::message::Verdict;
use crate::policy::catalog::tests::{Followed, STRICT, bound, route};
use crate::policy::tests::{answered, attempt, binding, guest, message, module};

/// Asks for a number.
const SCHEMA: &str = r#"{"properties": {"most": {"type": "integer"}}, "required": ["most"]}"#;

type Routes = Vec<(RouteName, Option<PolicyBinding>)>;

/// Accepts any configuration, and every outcome.
async fn lenient(routes: Routes) -> Followed {
    Followed::start(routes).await
}

async fn rebind(host: &Followed, routes: Routes) -> Result<(), PolicyProblems> {
    let rebinding = host.catalog.rebind(routes).await?;
    host.catalog.adopt(rebinding).await.expect("no file changed meanwhile");
    Ok(())
}

fn judge(host: &Followed, name: &str) -> Arc<Judge> {
    host.catalog.judge(&route(name))
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_new_or_bound_otherwise_has_a_new_judge() {
    let routes = vec![bound("same", json!(1)), bound("other", json!(1)), (route("plain"), None)];
    let host = lenient(routes).await;
    let (same, other) = (judge(&host, "same"), judge(&host, "other"));
    let next =
        vec![bound("same", json!(1)), bound("other", json!(2)), bound("plain", json!(3)), bound("new", json!(4))];
    rebind(&host, next).await.expect("all of it is good");
    assert!(Arc::ptr_eq(&judge(&host, "same"), &same), "its instances and its health go on");
    assert!(!Arc::ptr_eq(&judge(&host, "other"), &other));
    for name in ["plain", "new"] {
        assert_eq!(judge(&host, name).policy().map(|policy| policy.name.as_str()), Some("rough"), "{name}");
    }
    let users = host.status().routes;
    assert_eq!(users, ["same", "other", "plain", "new"].map(route));
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_on_a_route_that_is_gone_has_its_judge_until_the_next_change() {
    let host = lenient(vec![bound("stays", json!(null)), bound("goes", json!(null))]).await;
    let goes = judge(&host, "goes");
    rebind(&host, vec![bound("stays", json!(null))]).await.expect("it is good");
    assert!(Arc::ptr_eq(&judge(&host, "goes"), &goes));
    assert_eq!(host.status().routes, [route("stays")]);
    rebind(&host, vec![(route("stays"), None)]).await.expect("it is good");
    assert!(judge(&host, "goes").policy().is_none());
    assert_eq!((host.status().routes, host.status().digest), (vec![], None), "nobody uses the policy any more");
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_refused_is_said_at_once_and_nothing_is_changed() {
    let (dir, state) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    std::fs::write(dir.path().join("rough.wasm"), module("", "", SCHEMA)).expect("written");
    let host = Followed::start_in(dir, state, vec![bound("orders", json!({"most": 1}))]).await.expect("it starts");
    let (before, digest) = (judge(&host, "orders"), host.status().digest);
    let missing = PolicyBinding { name: "nowhere".to_owned(), ..binding() };
    let next = vec![
        bound("orders", json!({"most": 2})),
        bound("misfit", json!({"most": "many"})),
        (route("lost"), Some(missing)),
    ];
    let problems = rebind(&host, next).await.expect_err("two of them are wrong").to_string();
    for words in ["route `misfit`: policy `rough`: policy_config/most: is text", "there is no nowhere.wasm in"] {
        assert!(problems.contains(words), "{problems}\nlacks {words}");
    }
    assert!(Arc::ptr_eq(&judge(&host, "orders"), &before));
    assert_eq!((host.status().routes, host.status().digest), (vec![route("orders")], digest));
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_and_the_configuration_that_goes_with_it_may_come_in_either_order() {
    let host = lenient(vec![bound("orders", json!({}))]).await;
    let first = host.status().digest;
    // The file is first: the configuration in effect does not fit it.
    host.replace(&module("", "", SCHEMA));
    host.until("it is refused", |host| host.status().refusal.is_some()).await;
    rebind(&host, vec![bound("orders", json!({"most": 1}))]).await.expect("they fit each other");
    assert!(host.status().digest != first && host.status().refusal.is_none());

    // The configuration is first: what serves refuses it, and says so in terms of what it asks for.
    let second = host.status().digest;
    let without = || vec![bound("orders", json!({"least": 1}))];
    let problems = rebind(&host, without()).await.expect_err("the file for it is not there yet").to_string();
    assert!(problems.contains("lacks `most`"), "{problems}");
    host.replace(&guest(STRICT));
    host.until("the file serves", |host| host.status().digest != second).await;
    rebind(&host, without()).await.expect("they fit each other");
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_swapped_in_between_is_not_overlooked() {
    let host = lenient(vec![bound("orders", json!(1))]).await;
    let first = host.status().digest;
    let tried = host.catalog.rebind(vec![bound("orders", json!(2))]).await.expect("it is good");
    host.replace(&guest(STRICT));
    host.until("the new file serves", |host| host.status().digest != first).await;
    assert!(host.catalog.adopt(tried).await.is_err(), "it was tried with a file that does not serve any more");
    rebind(&host, vec![bound("orders", json!(2))]).await.expect("it is good");
    let verdict = judge(&host, "orders").judge(&message(), attempt(2), &answered(200)).answer.verdict;
    assert_eq!(verdict, Verdict::DeadLetter, "the new file judges");
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_prepared_for_routes_that_have_changed_since_is_prepared_again() {
    let host = lenient(vec![bound("orders", json!(1))]).await;
    let strict = guest(STRICT);
    let Ok(prepared) = host.catalog.prepare("rough", strict).await else { panic!("it is good") };
    rebind(&host, vec![bound("orders", json!(2))]).await.expect("it is good");
    let before = judge(&host, "orders");
    assert!(!host.catalog.swap_in("rough", None, None, prepared), "it was held against another configuration");
    assert!(Arc::ptr_eq(&judge(&host, "orders"), &before));
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_was_set_aside_has_another_chance_where_it_is_bound_otherwise() {
    let (dir, state) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    std::fs::write(dir.path().join("rough.wasm"), guest("unreachable")).expect("written");
    let routes = || vec![bound("orders", json!(1)), bound("other", json!(1))];
    let host = Followed::start_in(dir, state, routes()).await.expect("it starts");
    for name in ["orders", "other"] {
        while judge(&host, name).quarantined().is_none() {
            judge(&host, name).judge(&message(), attempt(2), &answered(503));
        }
    }
    host.until("both are dealt with", |host| host.status().quarantines.len() == 2).await;
    rebind(&host, vec![bound("orders", json!(2)), bound("other", json!(1))]).await.expect("it is good");
    let set_aside: Vec<_> = host.status().quarantines.into_iter().map(|one| one.route).collect();
    assert_eq!(set_aside, [route("other")]);
    assert!(judge(&host, "orders").quarantined().is_none() && judge(&host, "other").quarantined().is_some());
    host.end().await;
}
