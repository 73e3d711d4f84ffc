use std::fs;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::clock::SystemClock;
use crate::message::Verdict;
use crate::policy::tests::{answered, attempt, binding, configuring, guest, message, module};

/// A guest that puts every message aside from the second attempt on.
pub(in crate::policy) const STRICT: &str = "(i32.store8 (i32.const 6144) (i32.const 3))";

/// Asks for a number.
const SCHEMA: &str = r#"{"properties": {"most": {"type": "integer"}}, "required": ["most"]}"#;

pub(in crate::policy) fn route(name: &str) -> RouteName {
    RouteName::new(name).expect("a good name")
}

pub(in crate::policy) fn bound(name: &str, config: Value) -> (RouteName, Option<PolicyBinding>) {
    (route(name), Some(PolicyBinding { config, ..binding() }))
}

async fn open(dir: &Path, routes: Vec<(RouteName, Option<PolicyBinding>)>) -> Result<Catalog, PolicyProblems> {
    Catalog::open(dir, None, routes, Arc::new(SystemClock)).await
}

/// A catalog that follows a folder in which `rough.wasm` accepts everything, unless it is replaced.
pub(in crate::policy) struct Followed {
    dir: tempfile::TempDir,
    state: tempfile::TempDir,
    pub(in crate::policy) catalog: Arc<Catalog>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Followed {
    pub(in crate::policy) async fn start(routes: Vec<(RouteName, Option<PolicyBinding>)>) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let state = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("rough.wasm"), guest("")).expect("written");
        Self::start_in(dir, state, routes).await.expect("it opens")
    }

    /// Starts with what is in these folders.
    pub(in crate::policy) async fn start_in(
        dir: tempfile::TempDir,
        state: tempfile::TempDir,
        routes: Vec<(RouteName, Option<PolicyBinding>)>,
    ) -> Result<Self, PolicyProblems> {
        let kept = StateDir::open(state.path()).expect("a folder of its own");
        let catalog = Arc::new(Catalog::open(dir.path(), Some(kept), routes, Arc::new(SystemClock)).await?);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (following, until) = (Arc::clone(&catalog), stop.clone());
        tasks.spawn(async move { following.run(until).await });
        tasks.close();
        Ok(Self { dir, state, catalog, stop, tasks })
    }

    /// Puts a file in the place of the policy's, as `backstop policy build` does.
    pub(in crate::policy) fn replace(&self, file: &[u8]) {
        let beside = self.dir.path().join("rough.tmp");
        fs::write(&beside, file).expect("written");
        fs::rename(beside, self.file()).expect("renamed");
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("rough.wasm")
    }

    fn verdict(&self) -> Verdict {
        self.catalog.judge(&route("orders")).judge(&message(), attempt(2), &answered(200)).answer.verdict
    }

    pub(in crate::policy) fn status(&self) -> PolicyStatus {
        self.catalog.list().into_iter().find(|policy| policy.name == "rough").expect("it is listed")
    }

    pub(in crate::policy) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let look = async {
            while !holds(self) {
                SystemClock.sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), look).await;
        assert!(waited.is_ok(), "waited in vain until {what}: {:?}", self.status());
    }

    pub(in crate::policy) async fn end(self) -> (tempfile::TempDir, tempfile::TempDir) {
        self.stop.cancel();
        self.tasks.wait().await;
        (self.dir, self.state)
    }
}

#[tokio::test]
async fn every_route_has_its_judge() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("rough.wasm"), guest(STRICT)).expect("written");
    fs::write(dir.path().join("unused.wasm"), "not looked into").expect("written");
    let catalog = open(dir.path(), vec![bound("orders", json!(null)), (route("plain"), None)]).await.expect("it opens");
    let verdict = |name| catalog.judge(&route(name)).judge(&message(), attempt(2), &answered(200)).answer.verdict;
    assert_eq!(verdict("orders"), Verdict::DeadLetter);
    assert_eq!((verdict("plain"), verdict("removed-since")), (Verdict::Accept, Verdict::Accept));
    let listed: Vec<_> =
        catalog.list().into_iter().map(|policy| (policy.name, policy.version, policy.routes)).collect();
    assert_eq!(
        listed,
        [("rough".to_owned(), Some("1".to_owned()), vec![route("orders")]), ("unused".to_owned(), None, vec![])]
    );
}

#[tokio::test]
async fn everything_wrong_is_said_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("rough.wasm"), module("", "", SCHEMA)).expect("written");
    let missing = PolicyBinding { name: "ruogh".to_owned(), ..binding() };
    let routes = vec![
        bound("good", json!({"most": 3})),
        bound("bad", json!({"most": "a secret"})),
        bound("empty", json!({})),
        (route("lost"), Some(missing)),
    ];
    let problems = open(dir.path(), routes).await.expect_err("three routes are wrong");
    let text = problems.to_string();
    assert_eq!(problems.0.len(), 3, "{text}");
    for words in [
        "route `bad`: policy `rough`: policy_config/most: is text, and must be of type integer",
        "route `empty`: policy `rough`: lacks `most`",
        "route `lost`: policy `ruogh`: there is no ruogh.wasm in ",
        "there are: rough",
    ] {
        assert!(text.contains(words), "{text}\nlacks {words}");
    }
    assert!(!text.contains("a secret"), "{text}");
}

/// Bodies of `configure` that quote what they are given: as the reason to refuse it, and as a panic's last words.
const QUOTING: [(&str, &str); 2] = [
    (
        "(i32.store8 (i32.const 6144) (i32.const 1))
         (i32.store (i32.const 6148) (local.get 0))
         (i32.store (i32.const 6152) (local.get 1))",
        "the policy refuses its configuration: ",
    ),
    (
        "(memory.copy (i32.const 4106) (local.get 0) (local.get 1))
         (call $log (i32.const 3) (i32.const 4096) (i32.add (i32.const 10) (local.get 1)))
         unreachable",
        "the policy fails under this configuration: panicked",
    ),
];

#[tokio::test]
async fn a_policy_s_own_words_about_secrets_are_withheld() {
    for (configure, words) in QUOTING {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("rough.wasm"), configuring(configure, "", "", "")).expect("written");
        let said = async |holds_secret| {
            let binding = PolicyBinding { config: json!({"key": "hunter2"}), holds_secret, ..binding() };
            let problems = open(dir.path(), vec![(route("orders"), Some(binding))]).await;
            problems.expect_err("the policy does not take it").to_string()
        };
        let (plain, withheld) = (said(false).await, said(true).await);
        assert!(plain.contains(words) && plain.contains("hunter2"), "{plain}");
        assert!(withheld.contains(words) && withheld.contains("its words are withheld because"), "{withheld}");
        assert!(!withheld.contains("hunter2"), "{withheld}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_a_reload_or_the_admin_api_say_them() {
    let binding = PolicyBinding { config: json!({"key": "hunter2"}), holds_secret: true, ..binding() };
    let host = Followed::start(vec![(route("orders"), Some(binding))]).await;
    let (refusing, _) = QUOTING[0];
    host.replace(&configuring(refusing, "", "", ""));
    host.until("the file is refused", |host| host.status().refusal.is_some()).await;
    let why = host.status().refusal.expect("just seen").why.concat();
    assert!(why.contains("withheld") && !why.contains("hunter2"), "{why}");
    host.end().await;
}

#[tokio::test]
async fn a_configuration_can_be_checked_on_its_own() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("rough.wasm"), module("", "", SCHEMA)).expect("written");
    let catalog = open(dir.path(), vec![bound("orders", json!({"most": 3}))]).await.expect("it opens");
    assert_eq!(catalog.check_config("rough", &json!({"most": 9})), []);
    let violations = catalog.check_config("rough", &json!({"most": null}));
    assert_eq!(violations.iter().map(|wrong| wrong.pointer.as_str()).collect::<Vec<_>>(), ["/most"]);
    assert_eq!(catalog.check_config("other", &json!({})).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_takes_effect_without_a_restart() {
    let host = Followed::start(vec![bound("orders", json!(null))]).await;
    assert_eq!(host.verdict(), Verdict::Accept);
    let before = host.status().digest;
    host.replace(&guest(STRICT));
    host.until("the new policy judges", |host| host.verdict() == Verdict::DeadLetter).await;
    assert_ne!(host.status().digest, before);
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_leaves_the_old_one_serving_until_a_good_one_comes() {
    let host = Followed::start(vec![bound("orders", json!(null))]).await;
    host.replace(b"not a policy");
    host.until("the file is refused", |host| host.status().refusal.is_some()).await;
    let why = host.status().refusal.expect("just seen").why;
    assert_eq!(why.len(), 1);
    assert!(why[0].contains("this is not WebAssembly"), "{why:?}");
    assert_eq!((host.verdict(), host.status().version.as_deref()), (Verdict::Accept, Some("1")));
    host.replace(&guest(STRICT));
    host.until("the good file judges", |host| host.verdict() == Verdict::DeadLetter).await;
    assert_eq!(host.status().refusal, None);
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_suits_one_route_and_not_another_is_swapped_in_for_neither() {
    let host = Followed::start(vec![bound("orders", json!({"most": 1})), bound("other", json!({}))]).await;
    host.replace(&module(STRICT, "", SCHEMA));
    host.until("the file is refused", |host| host.status().refusal.is_some()).await;
    assert_eq!(host.verdict(), Verdict::Accept, "the old one still judges where the new one would have suited");
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_file_changes_nothing_but_the_status() {
    let host = Followed::start(vec![bound("orders", json!(null))]).await;
    fs::remove_file(host.file()).expect("removed");
    host.until("its absence is noticed", |host| !host.status().present).await;
    assert_eq!(host.verdict(), Verdict::Accept);
    host.replace(&guest(""));
    host.until("it is back", |host| host.status().present).await;
    assert_eq!(host.status().refusal, None);
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_written_slowly_ends_up_serving() {
    let host = Followed::start(vec![bound("orders", json!(null))]).await;
    let whole = guest(STRICT);
    let (first, rest) = whole.split_at(whole.len() / 2);
    fs::write(host.file(), first).expect("written");
    host.until("half a file is refused", |host| host.status().refusal.is_some()).await;
    assert_eq!(host.verdict(), Verdict::Accept);
    let mut file = fs::OpenOptions::new().append(true).open(host.file()).expect("opened");
    std::io::Write::write_all(&mut file, rest).expect("written");
    host.until("the whole file judges", |host| host.verdict() == Verdict::DeadLetter).await;
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_goes_on_with_the_last_good_file_where_the_folder_has_none() {
    let routes = || vec![bound("orders", json!(null))];
    let host = Followed::start(routes()).await;
    host.replace(&guest(STRICT));
    host.until("the strict one judges", |host| host.verdict() == Verdict::DeadLetter).await;
    let good = host.status().digest;
    let (mut dir, mut state) = host.end().await;
    let in_its_place: [Option<&[u8]>; 2] = [Some(b"not a policy"), None];
    for file in in_its_place {
        match file {
            Some(broken) => fs::write(dir.path().join("rough.wasm"), broken).expect("written"),
            None => fs::remove_file(dir.path().join("rough.wasm")).expect("removed"),
        }
        let host = Followed::start_in(dir, state, routes()).await.expect("it goes on");
        let status = host.status();
        assert_eq!((host.verdict(), status.digest), (Verdict::DeadLetter, good.clone()));
        assert_eq!((status.present, status.refusal.is_some()), (file.is_some(), true), "and it says why");
        (dir, state) = host.end().await;
    }
    fs::write(dir.path().join("rough.wasm"), guest("")).expect("written");
    let host = Followed::start_in(dir, state, routes()).await.expect("it is mended");
    assert_eq!((host.verdict(), host.status().refusal), (Verdict::Accept, None));
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_does_not_go_on_with_a_configuration_that_the_policy_refuses() {
    let host = Followed::start(vec![bound("orders", json!({"most": "many"}))]).await;
    let (dir, state) = host.end().await;
    // The last good file would take any configuration; the one in the folder does not take this one.
    fs::write(dir.path().join("rough.wasm"), module("", "", SCHEMA)).expect("written");
    let refused = Followed::start_in(dir, state, vec![bound("orders", json!({"most": "many"}))]).await;
    let problems = refused.map(|_| ()).expect_err("the operator has to mend it").to_string();
    assert!(problems.contains("policy_config/most"), "{problems}");
}

#[test]
fn what_was_cut_off_for_time_is_tried_again_and_nothing_else_is() {
    let late = || Err(Failure::OutOfTime(Duration::from_millis(100)));
    let tried = |answers: Vec<Result<u32, Failure>>| {
        let mut answers = answers.into_iter();
        let came = super::rehearse(|| answers.next().expect("an answer"));
        (came.map_err(|failure| failure.to_string()), answers.len())
    };
    assert_eq!(tried(vec![late(), late(), Ok(1)]), (Ok(1), 0));
    let refusal = || Err(Failure::Refused("no".to_owned()));
    assert_eq!(tried(vec![refusal(), Ok(1)]), (Err(Failure::Refused("no".to_owned()).to_string()), 1));
    let too_late = "out of time: it was cut off after 100ms".to_owned();
    assert_eq!(
        tried(vec![late(), late(), late(), Ok(1)]),
        (Err(too_late), 1),
        "a policy that takes too long is refused"
    );
}
