//! New bindings for a catalog that serves: routes come, go, or are bound otherwise.
//!
//! [`Catalog::rebind`] tries everything that is new aside, and changes nothing; [`Catalog::adopt`] makes it serve. A
//! route whose binding is what it was keeps its judge, with its instances and its health. A policy in service is bound
//! as it is, without compiling it again. Where the folder holds another file than the one in service, that one is tried
//! first, with all routes: a file and the configuration that goes with it may come in either order.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;

use super::catalog::{Bindings, Catalog, FileState, Prepared, Rejection, Users, names_in, problem};
use super::judge::Judge;
use super::load::{LoadError, Policy, digest, read};
use super::problem::{PolicyProblem, PolicyProblems};
use crate::config::PolicyBinding;
use crate::follow::Stamp;
use crate::message::RouteName;

/// Bindings that were found good, to be adopted.
pub struct Rebinding {
    bindings: Bindings,
    rebound: Vec<Rebound>,
}

/// A policy's file changed between the trial and the adoption: what was tried is not what serves. Try again.
#[derive(Debug, thiserror::Error)]
#[error("a policy's file was changed meanwhile")]
pub struct Moved;

/// One policy, found good for those of its routes that are new or bound otherwise.
struct Rebound {
    name: String,
    /// What served when it was tried.
    served: Option<Arc<Policy>>,
    prepared: Prepared,
    /// The folder's file, if it is that one which was found good.
    file: Option<(Bytes, Option<Stamp>)>,
}

/// The folder's file of a policy, as it was read.
type Found = Option<(Result<Bytes, LoadError>, Option<Stamp>)>;

impl Catalog {
    /// Tries these routes, which are to be all there are from now on. Nothing is changed by that, and what is in service
    /// serves on meanwhile.
    ///
    /// # Errors
    /// Everything that the policies refuse of them, at once: files that are missing or refused, configurations that do
    /// not fit.
    pub async fn rebind(
        &self,
        routes: impl IntoIterator<Item = (RouteName, Option<PolicyBinding>)>,
    ) -> Result<Rebinding, PolicyProblems> {
        let bindings: Bindings = routes.into_iter().collect();
        let before = self.bindings.load_full();
        let tried = bindings.users.iter().filter_map(|(name, users)| {
            let known = before.of(name);
            let fresh: Users = users.iter().filter(|user| !known.contains(user)).cloned().collect();
            (!fresh.is_empty()).then(|| self.try_out(name, users, fresh))
        });
        let (mut rebound, mut problems) = (Vec::new(), Vec::new());
        for tried in join_all(tried).await {
            match tried {
                Ok(one) => rebound.push(one),
                Err(rejection) => problems.extend(rejection.problems()),
            }
        }
        if problems.is_empty() { Ok(Rebinding { bindings, rebound }) } else { Err(PolicyProblems(problems)) }
    }

    /// Makes these bindings serve, all at once. The judges of routes that are gone answer the attempts that are under
    /// way there, until the next time that bindings are adopted.
    ///
    /// # Errors
    /// [`Moved`]; nothing is then changed.
    pub async fn adopt(&self, rebinding: Rebinding) -> Result<(), Moved> {
        let Rebinding { bindings, rebound } = rebinding;
        for one in &rebound {
            if let Some((file, _)) = &one.file {
                self.keep_as_last_good(&one.name, file.clone()).await;
            }
        }
        let mut files = self.files();
        let before = self.bindings.load_full();
        let serves = |name: &str| files.get(name).and_then(|file| file.served.as_ref()).map(|(policy, _)| policy);
        for one in &rebound {
            if serves(&one.name).map(Arc::as_ptr) != one.served.as_ref().map(Arc::as_ptr) {
                return Err(Moved);
            }
        }
        let judges = self.judges_after(&before, &bindings, &rebound);
        self.judges.store(Arc::new(judges));
        for one in rebound {
            match one.file {
                Some((_, stamp)) => {
                    let served = Some((one.prepared.policy, self.clock.now()));
                    files.insert(one.name, FileState { stamp, served, ..FileState::default() });
                }
                None => {
                    // Bound otherwise, it has another chance where it was set aside.
                    let is_new = |route: &RouteName| one.prepared.judges.iter().any(|(new, _)| new == route);
                    files.entry(one.name).or_default().quarantines.retain(|one| !is_new(&one.route));
                }
            }
        }
        for (name, file) in files.iter_mut() {
            let users = bindings.of(name);
            file.quarantines.retain(|one| users.iter().any(|(route, _)| *route == one.route));
            if users.is_empty() {
                *file = FileState { stamp: file.stamp, ..FileState::default() };
            }
        }
        self.bindings.store(Arc::new(bindings));
        Ok(())
    }

    /// The judges once `next` has taken the place of `before`.
    fn judges_after(&self, before: &Bindings, next: &Bindings, rebound: &[Rebound]) -> HashMap<RouteName, Arc<Judge>> {
        let serving = self.judges.load();
        let of_before = before.plain.iter().chain(before.users.values().flatten().map(|(route, _)| route));
        let kept: BTreeSet<_> = of_before.collect();
        let mut judges: HashMap<_, _> = serving.iter().filter(|(route, _)| kept.contains(route)).collect();
        let standard = next.plain.iter().map(|route| (route, &self.standard));
        judges.extend(standard);
        judges.extend(rebound.iter().flat_map(|one| one.prepared.judges.iter().map(|(route, judge)| (route, judge))));
        judges.into_iter().map(|(route, judge)| (route.clone(), Arc::clone(judge))).collect()
    }

    /// Tries one policy with its routes, of which `fresh` are new or bound otherwise.
    async fn try_out(&self, name: &str, users: &Users, fresh: Users) -> Result<Rebound, Rejection> {
        let served = self.files().get(name).and_then(|file| file.served.as_ref().map(|(policy, _)| Arc::clone(policy)));
        let found = self.find(name).await;
        let rebound = |prepared, file| Rebound { name: name.to_owned(), served: served.clone(), prepared, file };
        let is_other = |file: &Bytes| served.as_ref().is_none_or(|policy| policy.reference.digest != digest(file));
        let of_folder = match found {
            Some((Ok(file), stamp)) if is_other(&file) => {
                let prepared = self.prepare_aside(&self.compiling, name, file.clone(), users.clone()).await;
                prepared.map(|prepared| rebound(prepared, Some((file, stamp))))
            }
            Some((Ok(_), _)) => Err(Rejection::File(Vec::new())),
            Some((Err(error), _)) => Err(Rejection::File(vec![problem(name, users, &error)])),
            None => Err(Rejection::File(vec![self.missing(name, users).await])),
        };
        match (of_folder, &served) {
            (Ok(rebound), _) => Ok(rebound),
            (Err(rejection), None) => Err(rejection),
            (Err(of_folder), Some(policy)) => match self.bind_aside(name, Arc::clone(policy), fresh).await {
                Ok(prepared) => Ok(rebound(prepared, None)),
                // The newer file is what the configuration was most likely written for.
                Err(_) if matches!(of_folder, Rejection::Configuration(_)) => Err(of_folder),
                Err(of_served) => Err(of_served),
            },
        }
    }

    /// Reads the folder's file of this policy; none when there is none.
    async fn find(&self, name: &str) -> Found {
        let path = self.path(name);
        let found = tokio::task::spawn_blocking(move || {
            let stamp = Stamp::of(&path);
            stamp.map(|stamp| (read(&path).map(Bytes::from), Some(stamp)))
        });
        found.await.unwrap_or_else(|panic| Some((Err(LoadError::Compile(panic.to_string())), None)))
    }

    async fn missing(&self, name: &str, users: &Users) -> PolicyProblem {
        let dir = self.dir.clone();
        let present = tokio::task::spawn_blocking(move || names_in(&dir)).await.unwrap_or_default();
        let message = self.nothing_called(name, &present);
        PolicyProblem { message, ..problem(name, users, &LoadError::FileName) }
    }
}

#[cfg(test)]
mod tests;
