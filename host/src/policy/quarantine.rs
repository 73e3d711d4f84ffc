//! What happens to a policy that fails again and again on a route: it is set aside there, and the last good file of the
//! same policy judges in its place; where there is none, the route's `on_policy_failure` decides, without asking.
//!
//! One route's quarantine leaves the policy's other routes alone: it may be this route's traffic that it cannot bear. A
//! new file lifts it. A restart gives the same file another chance, since the route's limits may have been raised, and says
//! so; but a file that was set aside is not taken for a good one any more.

use std::sync::Arc;

use super::catalog::{Catalog, Prepared, Quarantine};
use super::judge::Judge;
use crate::config::PolicyBinding;
use crate::message::RouteName;

impl Catalog {
    /// Deals with every policy that was set aside since this was last called.
    pub(super) async fn stand_in(&self) {
        let bindings = self.bindings.load_full();
        for (name, routes) in &bindings.users {
            for (route, binding) in routes {
                let judge = self.judge(route);
                if let Some(why) = judge.quarantined() {
                    self.stand_in_for(name, route, binding, &judge, why).await;
                }
            }
        }
    }

    async fn stand_in_for(
        &self,
        name: &str,
        route: &RouteName,
        binding: &PolicyBinding,
        judge: &Arc<Judge>,
        why: &str,
    ) {
        let Some(policy) = judge.policy() else { return };
        let mut bad: Vec<_> = match self.files().get(name) {
            Some(file) => {
                file.quarantines.iter().filter(|one| one.route == *route).map(|one| one.digest.clone()).collect()
            }
            None => Vec::new(),
        };
        if bad.contains(&policy.digest) {
            // Dealt with, and nothing stands in.
            return;
        }
        bad.push(policy.digest.clone());
        let stand_in = self.last_good_but(name, route, binding, bad).await;
        let stands_in = stand_in.as_ref().map(|prepared| prepared.policy.reference.digest.clone());
        {
            let mut files = self.files();
            if !Arc::ptr_eq(&self.judge(route), judge) {
                // A new file was swapped in meanwhile.
                return;
            }
            if let Some(prepared) = &stand_in {
                self.put_in_place(prepared);
            }
            let quarantine = Quarantine {
                route: route.clone(),
                digest: policy.digest.clone(),
                at: self.clock.now(),
                why: why.to_owned(),
                stands_in: stands_in.clone(),
            };
            files.entry(name.to_owned()).or_default().quarantines.push(quarantine);
        }
        tracing::error!(
            target: "backstop::alarm", policy = %name, %route, digest = policy.digest, version = policy.version, why,
            stands_in = stands_in.as_deref().unwrap_or("none"),
            "policy quarantined on route {route} after {} failures in a row: {} until a new file comes",
            binding.limits.failures,
            if stands_in.is_some() { "its last good version judges" } else { "`on_policy_failure` decides" },
        );
    }

    /// The newest of the policy's last good files that is none of the `bad` ones and suits the route.
    async fn last_good_but(
        &self,
        name: &str,
        route: &RouteName,
        binding: &PolicyBinding,
        bad: Vec<String>,
    ) -> Option<Prepared> {
        let (last_good, policy) = (self.last_good.clone()?, name.to_owned());
        let files = tokio::task::spawn_blocking(move || {
            if let Some(Err(error)) = bad.last().map(|latest| last_good.set_aside(&policy, latest)) {
                tracing::warn!(%policy, %error, "failed to write down that a policy was quarantined");
            }
            last_good.others_than(&policy, &bad)
        });
        for file in files.await.unwrap_or_default() {
            match self.prepare_again(name, file, vec![(route.clone(), binding.clone())]).await {
                Ok(prepared) => return Some(prepared),
                Err(rejection) => {
                    let why: Vec<_> = rejection.problems().iter().map(ToString::to_string).collect();
                    tracing::warn!(policy = name, %route, why = %why.join("; "), "a last good file does not serve any more");
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::message::{RouteName, Scope, Verdict};
    use crate::policy::Asked;
    use crate::policy::catalog::tests::{Followed, STRICT, bound, route};
    use crate::policy::tests::{answered, attempt, guest, message};

    /// What `route` is told of an answer that the guest in the folder accepts at first, and the standard rule does not.
    fn ask(host: &Followed, route: &RouteName) -> Asked<Verdict> {
        let Asked { answer, provenance } = host.catalog.judge(route).judge(&message(), attempt(2), &answered(503));
        Asked { answer: answer.verdict, provenance }
    }

    const STANDARD: Verdict = Verdict::Retry { after: None, scope: Scope::Standard };

    /// Has the policy fail on `route` until it is set aside.
    async fn fail_until_quarantined(host: &Followed, route: &RouteName) {
        let mut failures = 0;
        while host.catalog.judge(route).quarantined().is_none() {
            assert!(failures < 10, "ten failures are enough");
            assert_eq!(ask(host, route).answer, STANDARD, "the standard rule answers meanwhile");
            failures += 1;
        }
        host.until("it is dealt with", |host| !host.status().quarantines.is_empty()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_last_good_file_stands_in_until_a_new_one_comes() {
        let host = Followed::start(vec![bound("orders", json!(null)), bound("other", json!(null))]).await;
        let (orders, other) = (route("orders"), route("other"));
        let good = host.status().digest;
        assert_eq!(ask(&host, &orders).answer, Verdict::Accept);
        host.replace(&guest("unreachable"));
        host.until("the new file serves", |host| host.status().digest != good).await;
        let bad = host.status().digest;
        fail_until_quarantined(&host, &orders).await;

        let asked = ask(&host, &orders);
        assert_eq!((asked.answer, asked.provenance.failure), (Verdict::Accept, None));
        assert_eq!(asked.provenance.policy.map(|policy| policy.digest.clone()), good);
        let [quarantine] = host.status().quarantines.try_into().expect("one route's");
        assert_eq!((&quarantine.route, Some(quarantine.digest), quarantine.stands_in), (&orders, bad.clone(), good));
        assert!(quarantine.why.starts_with("trapped"), "{}", quarantine.why);
        let elsewhere = ask(&host, &other).provenance;
        assert_eq!(elsewhere.policy.map(|policy| policy.digest.clone()), bad, "the other route was not concerned");

        host.replace(&guest(STRICT));
        host.until("a new file lifts it", |host| ask(host, &orders).answer == Verdict::DeadLetter).await;
        assert_eq!(host.status().quarantines, []);
        host.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_set_aside_is_not_taken_for_good_after_a_restart() {
        let routes = || vec![bound("orders", json!(null))];
        let host = Followed::start(routes()).await;
        let (orders, good) = (route("orders"), host.status().digest);
        host.replace(&guest("unreachable"));
        host.until("the new file serves", |host| host.status().digest != good).await;
        fail_until_quarantined(&host, &orders).await;
        let (dir, state) = host.end().await;

        // Broken while the host is down: the one that was set aside does not come back.
        std::fs::write(dir.path().join("rough.wasm"), "not a policy").expect("written");
        let host = Followed::start_in(dir, state, routes()).await.expect("it goes on");
        assert_eq!((host.status().digest, ask(&host, &orders).answer), (good.clone(), Verdict::Accept));
        let (dir, state) = host.end().await;

        // Another bad one, found at a start: the good one stands in for it.
        std::fs::write(dir.path().join("rough.wasm"), guest("(loop (br 0))")).expect("written");
        let host = Followed::start_in(dir, state, routes()).await.expect("it starts");
        fail_until_quarantined(&host, &orders).await;
        assert_eq!(host.status().quarantines[0].stands_in, good);
        host.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn with_nothing_to_stand_in_the_policy_is_just_not_asked() {
        let (dir, state) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        std::fs::write(dir.path().join("rough.wasm"), guest("unreachable")).expect("written");
        let host = Followed::start_in(dir, state, vec![bound("orders", json!(null))]).await.expect("it starts");
        fail_until_quarantined(&host, &route("orders")).await;
        let Asked { answer, provenance } = ask(&host, &route("orders"));
        assert_eq!((answer, provenance.fuel), (STANDARD, 0));
        let failure = provenance.failure.expect("it says why");
        assert!(failure.starts_with("quarantined: not asked, since it failed 10 times in a row"), "{failure}");
        assert_eq!(host.status().quarantines[0].stands_in, None);
        host.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stand_in_that_fails_as_well_is_set_aside_too() {
        let host = Followed::start(vec![bound("orders", json!(null))]).await;
        let orders = route("orders");
        for failing in ["unreachable", "(loop (br 0))"] {
            // The first of them did well once, so it is kept as the one before the second.
            let asked = host.catalog.judge(&orders).judge(&message(), attempt(1), &answered(503));
            assert_eq!(asked.provenance.failure, None);
            let until_now = host.status().digest;
            host.replace(&guest(failing));
            host.until("the new file serves", |host| host.status().digest != until_now).await;
        }
        for quarantines in 1..=2 {
            for _ in 0..10 {
                ask(&host, &orders);
            }
            host.until("it is dealt with", |host| host.status().quarantines.len() == quarantines).await;
        }
        let quarantines = host.status().quarantines;
        assert_eq!(quarantines[0].stands_in.as_ref(), Some(&quarantines[1].digest));
        assert_eq!((quarantines[1].stands_in.as_ref(), ask(&host, &orders).answer), (None, STANDARD));
        host.end().await;
    }
}
