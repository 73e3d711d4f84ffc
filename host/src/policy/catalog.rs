//! The catalog: which judge serves each route, and what became of each policy's file.
//!
//! Reading it takes no lock. It never serves what it has not seen working: a file is compiled aside, held against
//! every route that uses it (schema, configuration, a rehearsal), and only then swapped in, for all of them at once.
//! `watch` does that again whenever a file changes. Where the folder has nothing good to offer at a start, the last good
//! file does; where a policy fails again and again on a route, `quarantine` puts another one in its place there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::failure::Failure;
use super::guest::Guest;
use super::judge::Judge;
use super::last_good::{LastGood, Which};
use super::load::{LoadError, Policy, digest, is_name, read};
use super::problem::{PolicyProblem, PolicyProblems};
use super::sandbox::Sandbox;
use super::schema::Violation;
use super::state_dir::StateDir;
use crate::clock::{Clock, Timestamp};
use crate::config::{PolicyBinding, PolicyLimits};
use crate::follow::Stamp;
use crate::message::RouteName;

/// Files compiled at once.
pub(super) const COMPILING: usize = 2;

/// How often a policy is tried on a route that takes too long over it.
const REHEARSALS: usize = 3;

/// The routes' judges, and the folder that their policies come from.
pub struct Catalog {
    pub(super) dir: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) sandbox: Arc<Sandbox>,
    /// Where good files are kept, if anywhere.
    pub(super) last_good: Option<LastGood>,
    _state_lock: Option<Arc<std::fs::File>>,
    /// Which route uses which policy. Changed under the lock of `files`, which the judges are changed under as well.
    pub(super) bindings: ArcSwap<Bindings>,
    pub(super) judges: ArcSwap<HashMap<RouteName, Arc<Judge>>>,
    pub(super) standard: Arc<Judge>,
    files: Mutex<BTreeMap<String, FileState>>,
    pub(super) compiling: Semaphore,
    standing_in: Semaphore,
}

/// The routes of a policy, each with its binding.
pub(super) type Users = Vec<(RouteName, PolicyBinding)>;

/// Which route uses which policy.
#[derive(Default)]
pub(super) struct Bindings {
    /// The routes of each policy.
    pub(super) users: BTreeMap<String, Users>,
    /// The routes that have none: the standard rule judges there.
    pub(super) plain: BTreeSet<RouteName>,
}

impl FromIterator<(RouteName, Option<PolicyBinding>)> for Bindings {
    fn from_iter<I: IntoIterator<Item = (RouteName, Option<PolicyBinding>)>>(routes: I) -> Self {
        let mut bindings = Self::default();
        for (route, binding) in routes {
            match binding {
                None => drop(bindings.plain.insert(route)),
                Some(binding) => bindings.users.entry(binding.name.clone()).or_default().push((route, binding)),
            }
        }
        bindings
    }
}

impl Bindings {
    /// The routes of the policy called `name`; none when nobody uses it.
    pub(super) fn of(&self, name: &str) -> &[(RouteName, PolicyBinding)] {
        self.users.get(name).map_or(&[], Vec::as_slice)
    }
}

/// What became of one file.
#[derive(Default)]
pub(super) struct FileState {
    /// The file as it was when it was last considered; none when it was not there.
    pub(super) stamp: Option<Stamp>,
    pub(super) served: Option<(Arc<Policy>, Timestamp)>,
    pub(super) refusal: Option<Refusal>,
    pub(super) quarantines: Vec<Quarantine>,
}

/// A policy, for the admin API.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyStatus {
    /// Its name, as in `NAME.wasm`.
    pub name: String,
    /// The author's version of what serves; none when no route uses it.
    pub version: Option<String>,
    /// SHA-256 of the file that serves, in hexadecimal; none when no route uses it.
    pub digest: Option<String>,
    /// The routes that use it.
    pub routes: Vec<RouteName>,
    /// When what serves was loaded.
    pub loaded_at: Option<Timestamp>,
    /// Whether its file is there. What was loaded serves on without it.
    pub present: bool,
    /// Why the file that is there now does not serve, when it does not.
    pub refusal: Option<Refusal>,
    /// The routes on which what serves was set aside, and what stands in for it there. A new file lifts them all.
    pub quarantines: Vec<Quarantine>,
}

/// A policy that was set aside on one route, since it failed again and again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Quarantine {
    /// Where.
    pub route: RouteName,
    /// SHA-256 of the file that was set aside, in hexadecimal.
    pub digest: String,
    /// When.
    pub at: Timestamp,
    /// Its last failure.
    pub why: String,
    /// SHA-256 of the last good file, which judges instead; none when the route's `on_policy_failure` does.
    pub stands_in: Option<String>,
}

/// Why a file was not swapped in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Refusal {
    /// When.
    pub at: Timestamp,
    /// Why, in words, one line for each thing wrong.
    pub why: Vec<String>,
}

/// A policy that was found good for routes that use it, and its judges.
pub(super) struct Prepared {
    pub(super) policy: Arc<Policy>,
    /// What it was held against.
    pub(super) routes: Users,
    pub(super) judges: Vec<(RouteName, Arc<Judge>)>,
}

/// Why a policy was not found good.
pub(super) enum Rejection {
    /// Its file is missing or broken, or the policy fails: no configuration would help.
    File(Vec<PolicyProblem>),
    /// A route's configuration does not fit it.
    Configuration(Vec<PolicyProblem>),
}

impl Rejection {
    pub(super) fn problems(self) -> Vec<PolicyProblem> {
        match self {
            Self::File(problems) | Self::Configuration(problems) => problems,
        }
    }
}

impl Catalog {
    /// Loads every policy that `routes` use from the files in `dir`. With a `state`, compiled code is kept there, and a
    /// last good file serves in the place of one that is missing or broken.
    ///
    /// # Errors
    /// Everything that is wrong, at once: files that are missing or refused, configurations that do not fit.
    pub async fn open(
        dir: &Path,
        state: Option<StateDir>,
        routes: impl IntoIterator<Item = (RouteName, Option<PolicyBinding>)>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PolicyProblems> {
        let standard = Arc::new(Judge::standard());
        let bindings: Bindings = routes.into_iter().collect();
        let judges = bindings.plain.iter().map(|route| (route.clone(), Arc::clone(&standard))).collect();
        let state_lock = state.as_ref().map(|state| Arc::clone(&state.lock));
        let (compiled, last_good) = state.map(|state| (state.compiled, state.last_good)).unzip();
        let sandbox = Sandbox::new(compiled).map_err(|error| {
            let routes = bindings.users.values().flatten().map(|(route, _)| route.clone()).collect();
            let message = chain(&LoadError::Sandbox(error));
            PolicyProblems(vec![PolicyProblem { policy: "*".to_owned(), routes, pointer: String::new(), message }])
        })?;
        let catalog = Self {
            dir: dir.to_owned(),
            clock,
            sandbox: Arc::new(sandbox),
            last_good,
            _state_lock: state_lock,
            bindings: ArcSwap::from_pointee(bindings),
            judges: ArcSwap::from_pointee(judges),
            standard,
            files: Mutex::default(),
            compiling: Semaphore::new(COMPILING),
            standing_in: Semaphore::new(1),
        };
        catalog.load_all().await?;
        Ok(catalog)
    }

    /// Who judges on `route`. A route that the catalog does not know has the standard rule.
    pub fn judge(&self, route: &RouteName) -> Arc<Judge> {
        Arc::clone(self.judges.load().get(route).unwrap_or(&self.standard))
    }

    /// Every policy in the folder or in use, by name.
    pub fn list(&self) -> Vec<PolicyStatus> {
        let files = self.files();
        let bindings = self.bindings.load();
        let one = |(name, file): (&String, &FileState)| {
            let users = bindings.of(name);
            PolicyStatus {
                name: name.clone(),
                version: file.served.as_ref().map(|(policy, _)| policy.reference.version.clone()),
                digest: file.served.as_ref().map(|(policy, _)| policy.reference.digest.clone()),
                routes: users.iter().map(|(route, _)| route.clone()).collect(),
                loaded_at: file.served.as_ref().map(|(_, at)| *at),
                present: file.stamp.is_some(),
                refusal: file.refusal.clone(),
                quarantines: file.quarantines.clone(),
            }
        };
        files.iter().map(one).collect()
    }

    /// What the policy called `name`, which some route must use, refuses of `config`: first by its schema, then by its
    /// own word.
    pub fn check_config(&self, name: &str, config: &Value) -> Vec<Violation> {
        let whole = |message| vec![Violation { pointer: String::new(), message }];
        let served = self.files().get(name).and_then(|file| file.served.as_ref().map(|(policy, _)| Arc::clone(policy)));
        let Some(policy) = served else {
            return whole(format!("no policy called `{name}` is loaded"));
        };
        let violations = policy.violations(config);
        if !violations.is_empty() {
            return violations;
        }
        let configured =
            Guest::configured(&self.sandbox, &policy.contract, &PolicyLimits::default(), &config.to_string());
        configured.map_or_else(|failure| whole(refused_by_policy(&failure)), |_| Vec::new())
    }

    pub(super) fn files(&self) -> MutexGuard<'_, BTreeMap<String, FileState>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `prepared` serve, on all its routes at once. That lifts every quarantine of the policy before it. False,
    /// and nothing is done, when the policy's routes are not those any more that it was held against.
    pub(super) fn swap_in(
        &self,
        name: &str,
        stamp: Option<Stamp>,
        refusal: Option<Refusal>,
        prepared: Prepared,
    ) -> bool {
        // Whoever lists the files meanwhile waits, and sees what serves.
        let mut files = self.files();
        if self.bindings.load().of(name) != prepared.routes {
            return false;
        }
        self.put_in_place(&prepared);
        let served = Some((prepared.policy, self.clock.now()));
        files.insert(name.to_owned(), FileState { stamp, served, refusal, quarantines: Vec::new() });
        true
    }

    /// Makes the prepared judges those of their routes.
    pub(super) fn put_in_place(&self, prepared: &Prepared) {
        self.judges.rcu(|judges| {
            let mut judges = HashMap::clone(judges);
            judges.extend(prepared.judges.iter().cloned());
            judges
        });
    }

    /// Compiles `file`, which stands in the folder, and holds it against every route that uses it. If it is good it is
    /// kept as the last good one.
    pub(super) async fn prepare(&self, name: &str, file: Vec<u8>) -> Result<Prepared, Rejection> {
        let file = Bytes::from(file);
        let routes = self.bindings.load().of(name).to_vec();
        let prepared = self.prepare_aside(&self.compiling, name, file.clone(), routes).await?;
        self.keep_as_last_good(name, file).await;
        Ok(prepared)
    }

    /// Writes down that `file` is about to serve, and what of the files before it was set aside.
    pub(super) async fn keep_as_last_good(&self, name: &str, file: Bytes) {
        let Some(last_good) = self.last_good.clone() else { return };
        let proved_itself = self.proved_itself(name);
        let judges = self.judges_of(name).into_iter().filter(|judge| judge.quarantined().is_some());
        let set_aside: Vec<_> = judges.filter_map(|judge| judge.policy().map(|policy| policy.digest.clone())).collect();
        let policy = name.to_owned();
        let kept = tokio::task::spawn_blocking(move || {
            set_aside.iter().try_for_each(|digest| last_good.set_aside(&policy, digest))?;
            last_good.serves(&policy, &file, proved_itself)
        });
        if let Ok(Err(error)) = kept.await {
            tracing::warn!(policy = name, %error, "failed to keep the policy's file as the last good one");
        }
    }

    /// Who judges on the routes of this policy, as far as somebody does already.
    fn judges_of(&self, name: &str) -> Vec<Arc<Judge>> {
        let (judges, bindings) = (self.judges.load(), self.bindings.load());
        bindings.of(name).iter().filter_map(|(route, _)| judges.get(route).cloned()).collect()
    }

    /// Whether what serves as this policy does so well on some route, and was not set aside there. At a start nothing
    /// serves yet, and what served when the host stopped is taken at its word.
    fn proved_itself(&self, name: &str) -> bool {
        let serving = self.judges_of(name);
        serving.is_empty() || serving.iter().any(|judge| judge.proved_itself() && judge.quarantined().is_none())
    }

    /// Compiles a file that was good once, and holds it against these routes. It waits for no file of the folder's: a
    /// policy that fails is not to be stood in for later because another one takes long to compile.
    pub(super) async fn prepare_again(&self, name: &str, file: Vec<u8>, routes: Users) -> Result<Prepared, Rejection> {
        self.prepare_aside(&self.standing_in, name, file.into(), routes).await
    }

    pub(super) async fn prepare_aside(
        &self,
        permits: &Semaphore,
        name: &str,
        file: Bytes,
        routes: Users,
    ) -> Result<Prepared, Rejection> {
        let policy = name.to_owned();
        self.aside(permits, name, move |sandbox| {
            let compiled = Policy::named(sandbox, &policy, &file)
                .map_err(|error| Rejection::File(vec![problem(&policy, &routes, &error)]))?;
            bind(sandbox, &policy, &Arc::new(compiled), routes)
        })
        .await
    }

    /// Holds a policy that is compiled already against these routes.
    pub(super) async fn bind_aside(
        &self,
        name: &str,
        compiled: Arc<Policy>,
        routes: Users,
    ) -> Result<Prepared, Rejection> {
        let policy = name.to_owned();
        self.aside(&self.compiling, name, move |sandbox| bind(sandbox, &policy, &compiled, routes)).await
    }

    /// Does what blocks off the async threads, and no more of it at once than `permits` allow.
    async fn aside(
        &self,
        permits: &Semaphore,
        name: &str,
        work: impl FnOnce(&Arc<Sandbox>) -> Result<Prepared, Rejection> + Send + 'static,
    ) -> Result<Prepared, Rejection> {
        // The semaphore is never closed, so waiting on it cannot fail.
        let _permit = permits.acquire().await.ok();
        let sandbox = Arc::clone(&self.sandbox);
        let prepared = tokio::task::spawn_blocking(move || work(&sandbox)).await;
        prepared.unwrap_or_else(|panic| {
            Err(Rejection::File(vec![self.problem(name, &LoadError::Compile(panic.to_string()))]))
        })
    }

    /// A problem with a file, which concerns all its routes.
    pub(super) fn problem(&self, name: &str, error: &LoadError) -> PolicyProblem {
        problem(name, self.bindings.load().of(name), error)
    }

    async fn load_all(&self) -> Result<(), PolicyProblems> {
        let dir = self.dir.clone();
        let present = tokio::task::spawn_blocking(move || names_in(&dir)).await.unwrap_or_default();
        {
            let mut files = self.files();
            for (name, stamp) in &present {
                files.insert(name.clone(), FileState { stamp: Some(*stamp), ..FileState::default() });
            }
        }
        let bindings = self.bindings.load_full();
        let problems = join_all(bindings.users.keys().map(|name| self.load_first(name, &present))).await;
        let problems: Vec<_> = problems.into_iter().flatten().collect();
        if problems.is_empty() { Ok(()) } else { Err(PolicyProblems(problems)) }
    }

    /// Loads one policy for the first time, and returns what is wrong with it.
    async fn load_first(&self, name: &str, present: &BTreeMap<String, Stamp>) -> Vec<PolicyProblem> {
        let stamp = present.get(name).copied();
        let problems = match self.load_from_folder(name, present).await {
            Ok(prepared) => {
                self.say_another_chance(name, &prepared);
                self.swap_in(name, stamp, None, prepared);
                return Vec::new();
            }
            Err(Rejection::Configuration(problems)) => return problems,
            Err(Rejection::File(problems)) => problems,
        };
        let Some(prepared) = self.load_last_good(name).await else { return problems };
        let why: Vec<_> = problems.iter().map(ToString::to_string).collect();
        tracing::error!(
            target: "backstop::alarm", policy = %name, digest = prepared.policy.reference.digest, why = %why.join("; "),
            "the policy's file does not serve; its last good one goes on"
        );
        self.swap_in(name, stamp, Some(Refusal { at: self.clock.now(), why }), prepared);
        Vec::new()
    }

    /// A start asks a policy again that was set aside before it: the operator may have raised its limits.
    fn say_another_chance(&self, name: &str, prepared: &Prepared) {
        let digest = &prepared.policy.reference.digest;
        if self.last_good.as_ref().is_some_and(|files| files.was_set_aside(name, digest)) {
            tracing::warn!(
                target: "backstop::alarm", policy = %name, %digest,
                "policy was quarantined before this start, and has another chance now"
            );
        }
    }

    async fn load_from_folder(&self, name: &str, present: &BTreeMap<String, Stamp>) -> Result<Prepared, Rejection> {
        let rejected = |error: &LoadError| Rejection::File(vec![self.problem(name, error)]);
        if !present.contains_key(name) {
            let message = self.nothing_called(name, present);
            let problem = PolicyProblem { message, ..self.problem(name, &LoadError::FileName) };
            return Err(Rejection::File(vec![problem]));
        }
        let path = self.path(name);
        let file = tokio::task::spawn_blocking(move || read(&path)).await;
        let file = file.unwrap_or_else(|panic| Err(LoadError::Compile(panic.to_string())));
        self.prepare(name, file.map_err(|error| rejected(&error))?).await
    }

    /// The newest of the last good files that is still good; one that was set aside only if there is no other.
    async fn load_last_good(&self, name: &str) -> Option<Prepared> {
        let last_good = self.last_good.clone()?;
        let routes = self.bindings.load().of(name).to_vec();
        let policy = name.to_owned();
        let files = tokio::task::spawn_blocking(move || {
            let files = [Which::Serving, Which::Before].into_iter().filter_map(|which| last_good.read(&policy, which));
            let mut files: Vec<_> =
                files.map(|file| (last_good.was_set_aside(&policy, &digest(&file)), file)).collect();
            files.sort_by_key(|(was_set_aside, _)| *was_set_aside);
            files
        });
        for (_, file) in files.await.unwrap_or_default() {
            if let Ok(prepared) = self.prepare_again(name, file, routes.clone()).await {
                return Some(prepared);
            }
        }
        None
    }

    /// Where the file of the policy called `name` lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.wasm"))
    }

    pub(super) fn nothing_called(&self, name: &str, present: &BTreeMap<String, Stamp>) -> String {
        let there: Vec<_> = present.keys().map(String::as_str).collect();
        let there = match there.as_slice() {
            [] => "there are no policies; `backstop policy build` makes them from their crates".to_owned(),
            names => format!("there are: {}", names.join(", ")),
        };
        format!("there is no {name}.wasm in {}; {there}", self.dir.display())
    }
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").field("dir", &self.dir).field("policies", &self.list()).finish_non_exhaustive()
    }
}

/// A problem with a file, which concerns all these routes of it.
pub(super) fn problem(name: &str, routes: &[(RouteName, PolicyBinding)], error: &LoadError) -> PolicyProblem {
    PolicyProblem {
        policy: name.to_owned(),
        routes: routes.iter().map(|(route, _)| route.clone()).collect(),
        pointer: String::new(),
        message: chain(error),
    }
}

/// Holds a policy against every one of its routes. Blocks for every rehearsal.
fn bind(sandbox: &Arc<Sandbox>, name: &str, policy: &Arc<Policy>, routes: Users) -> Result<Prepared, Rejection> {
    let problem = |routes, pointer, message| PolicyProblem { policy: name.to_owned(), routes, pointer, message };
    let (mut failing, mut misfits) = (Vec::new(), Vec::new());
    let mut judges = Vec::new();
    for (route, binding) in &routes {
        let one = || vec![route.clone()];
        // Neither names a value that came from a variable or a file: the schema's violations are without the value
        // in any case, and `bind` withholds the policy's own words.
        let violations = policy.violations(&binding.config);
        if !violations.is_empty() {
            misfits.extend(violations.into_iter().map(|wrong| problem(one(), wrong.pointer, wrong.message)));
            continue;
        }
        match rehearse(|| Judge::bind(sandbox, policy, binding)) {
            Ok(judge) => judges.push((route.clone(), Arc::new(judge))),
            Err(failure @ Failure::Refused(_)) => {
                misfits.push(problem(one(), String::new(), refused_by_policy(&failure)));
            }
            Err(failure) => failing.push(problem(one(), String::new(), refused_by_policy(&failure))),
        }
    }
    match (misfits.is_empty(), failing.is_empty()) {
        (true, true) => Ok(Prepared { policy: Arc::clone(policy), routes, judges }),
        (true, false) => Err(Rejection::File(failing)),
        (false, _) => {
            misfits.extend(failing);
            Err(Rejection::Configuration(misfits))
        }
    }
}

/// Rehearses, again where it was cut off for time: on a busy machine that may have been others'. A policy that does take
/// too long is refused all the same.
fn rehearse<T>(mut rehearsal: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    for _ in 1..REHEARSALS {
        match rehearsal() {
            Err(Failure::OutOfTime(_)) => {}
            done => return done,
        }
    }
    rehearsal()
}

fn refused_by_policy(failure: &Failure) -> String {
    match failure {
        Failure::Refused(text) => format!("the policy refuses its configuration: {text}"),
        other => {
            let remedy =
                other.limit().map(|key| format!("; if it needs more, raise the route's `policy_limits.{key}`"));
            format!("the policy fails under this configuration: {other}{}", remedy.unwrap_or_default())
        }
    }
}

/// The policies' files in a folder. One that cannot be read has none.
pub(super) fn names_in(dir: &Path) -> BTreeMap<String, Stamp> {
    let Ok(entries) = std::fs::read_dir(dir) else { return BTreeMap::new() };
    let one = |entry: std::fs::DirEntry| {
        let path = entry.path();
        let name = path.file_stem()?.to_str().filter(|stem| is_name(stem))?.to_owned();
        (path.extension()? == "wasm").then_some(())?;
        Some((name, Stamp::of(&path)?))
    };
    entries.filter_map(Result::ok).filter_map(one).collect()
}

/// An error and its sources in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
pub(super) mod tests;
