//! A storm of reloads: fifty policies are written again and again under load. No decision fails, none is taken by a
//! half-loaded policy, and the host's memory stays flat.
//!
//! Every policy gives its own version as its reason, and the attempt's record says which version was asked: the two
//! must always agree, never go back, and never lag behind a reload that the host has reported.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use backstop_tests::hand_made::HandMade;
use backstop_tests::{Host, Setup, Vendor, eventually, ok};
use futures_util::future::join_all;

/// Policies, each with a route of its own.
const POLICIES: usize = 50;

/// How often all of them are written anew: a thousand reloads.
const ROUNDS: u64 = 20;

/// Rounds after which everything that is kept has been made once: pools, caches, the allocator's arenas.
const WARM_UP: u64 = 5;

/// By how much memory may differ between the end of the warm-up and the end. 750 reloads lie between them, so even 64
/// KiB lost in each, which is less than one policy's compiled code and its instance take, would be 47 MiB.
const MARGIN_KIB: u64 = 24 << 10;

fn name(n: usize) -> String {
    format!("storm-{n}")
}

fn write(host: &Host, n: usize, version: u64) {
    host.place().place_policy(&name(n), &HandMade::named(&name(n)).version(version).file());
}

/// Sends one message after the other on the route of policy `n` until `over`, and returns how many were judged.
async fn load(host: &Host, n: usize, reported: &AtomicU64, over: &AtomicBool) -> usize {
    let (mut latest, mut judged) = (0, 0);
    while !over.load(Ordering::SeqCst) {
        let at_least = reported.load(Ordering::SeqCst);
        let id = host.accept(&format!("/r/{}", name(n)), "{}").await;
        let message = host.until(&id, "delivered").await;
        let attempt = &message["journal"][0];
        let provenance = &attempt["provenance"];
        assert_eq!(provenance.get("failure"), None, "{message}");
        assert_eq!(provenance["policy"]["name"], name(n), "{message}");
        assert_eq!(provenance["policy"]["version"], attempt["reason"], "one policy answers for another: {message}");
        let version: u64 = attempt["reason"].as_str().and_then(|text| text.parse().ok()).expect("its version");
        assert!(version >= latest && version >= at_least, "{version} after {latest}, {at_least} reported: {message}");
        (latest, judged) = (version, judged + 1);
    }
    judged
}

/// Waits until every policy serves in this version, as the host says.
async fn all_serve(host: &Host, version: u64) {
    eventually(&format!("all policies in version {version}"), async || {
        let listed = host.admin("/v1/policies").await;
        let policies = listed["policies"].as_array()?;
        assert!(policies.iter().all(|policy| policy["refusal"].is_null()), "{listed}");
        let version = version.to_string();
        policies.iter().all(|policy| policy["version"] == *version).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reload_storm_a_thousand_reloads_under_load_fail_no_decision_and_leak_nothing() {
    let vendor = Vendor::answering([ok()]).await;
    let route = |n| format!("{0}:\n  destination: {vendor}\n  policy: {0}\n", name(n));
    let place = Setup::routes(&(0..POLICIES).map(route).collect::<String>()).place();
    for n in 0..POLICIES {
        place.place_policy(&name(n), &HandMade::named(&name(n)).version(0).file());
    }
    let host = Host::start_in(place).await;
    let (reported, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));

    let storm = async {
        let mut warm = 0;
        for version in 1..=ROUNDS {
            (0..POLICIES).for_each(|n| write(&host, n, version));
            all_serve(&host, version).await;
            reported.store(version, Ordering::SeqCst);
            if version == WARM_UP {
                warm = host.memory_kib();
            }
        }
        let end = host.memory_kib();
        over.store(true, Ordering::SeqCst);
        (warm, end)
    };
    // A few routes at a time are enough to keep the host busy while it reloads.
    let loads = join_all((0..POLICIES).step_by(6).map(|n| load(&host, n, &reported, &over)));
    let ((warm, end), judged) = tokio::join!(storm, loads);

    let reloads = ROUNDS as usize * POLICIES;
    assert_eq!(host.says("policy reloaded", reloads).await.len(), reloads);
    assert!(judged.iter().all(|judged| *judged as u64 > ROUNDS), "there was hardly any load: {judged:?}");
    eprintln!("{} decisions; memory {warm} KiB after warm-up, {end} KiB at the end", judged.iter().sum::<usize>());
    assert!(end < warm + MARGIN_KIB, "memory grew from {warm} KiB to {end} KiB");
}
