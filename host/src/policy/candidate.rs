//! A policy that serves no route: loaded from a file to be looked at, tried and measured, in the very sandbox and on
//! the very path of the policies that serve.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::failure::Failure;
use super::judge::Judge;
use super::load::{Description, LoadError, Policy, read};
use super::sandbox::Sandbox;
use super::schema::Violation;
use crate::config::{Isolation, OnPolicyFailure, PolicyBinding, PolicyLimits};

/// The wall-clock limit of a question where a policy is tried. Fuel bounds it, the same on every machine; time is left to
/// be a backstop, so that a busy machine changes no finding.
pub const TRIAL_TIME: Duration = Duration::from_secs(60);

/// Loads candidates. One of these serves many, since it holds the sandbox's engine.
#[derive(Clone, Debug)]
pub struct Workbench {
    sandbox: Arc<Sandbox>,
}

/// A policy that serves no route.
pub struct Candidate {
    sandbox: Arc<Sandbox>,
    policy: Arc<Policy>,
}

/// Why a candidate does not judge under a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Its schema refuses the configuration. Never empty.
    #[error("its schema refuses the configuration: {}", said(.0))]
    Schema(Vec<Violation>),
    /// It refuses the configuration in its own words, or fails at it or at the rehearsal.
    #[error("it does not serve under this configuration")]
    Failed(#[source] Failure),
}

fn said(violations: &[Violation]) -> String {
    let one = |wrong: &Violation| format!("policy_config{}: {}", wrong.pointer, wrong.message);
    violations.iter().map(one).collect::<Vec<_>>().join("; ")
}

impl Workbench {
    /// Sets a sandbox up.
    ///
    /// # Errors
    /// When the machine does not offer what a sandbox needs.
    pub fn new() -> Result<Self, LoadError> {
        Ok(Self { sandbox: Arc::new(Sandbox::new(None).map_err(LoadError::Sandbox)?) })
    }

    /// Loads the file at `path`, whatever it is called. Blocks while it compiles.
    ///
    /// # Errors
    /// When the file would be refused as a policy.
    pub fn open(&self, path: &Path) -> Result<Candidate, LoadError> {
        self.load(&read(path)?)
    }

    /// Loads a policy from the bytes of a file. Blocks while it compiles.
    ///
    /// # Errors
    /// When such a file would be refused as a policy.
    pub fn load(&self, file: &[u8]) -> Result<Candidate, LoadError> {
        let policy = Arc::new(Policy::from_bytes(&self.sandbox, file)?);
        Ok(Candidate { sandbox: Arc::clone(&self.sandbox), policy })
    }
}

impl Candidate {
    /// What it says of itself, and what the host found out about it.
    pub fn describe(&self) -> Description {
        self.policy.describe()
    }

    /// A judge under this configuration and these limits, as a route would have it. Where the policy fails, the
    /// standard rule answers, and the answer's provenance says so.
    ///
    /// # Errors
    /// Why no route could use it so.
    pub fn judge(&self, config: &Value, limits: PolicyLimits, isolation: Isolation) -> Result<Judge, Unfit> {
        let violations = self.policy.violations(config);
        if !violations.is_empty() {
            return Err(Unfit::Schema(violations));
        }
        let binding = PolicyBinding {
            name: self.policy.reference.name.clone(),
            config: config.clone(),
            holds_secret: false,
            on_failure: OnPolicyFailure::Standard,
            // Whoever tries a policy wants to know how it fails, each time.
            limits: PolicyLimits { failures: u32::MAX, ..limits },
            isolation,
        };
        Judge::bind(&self.sandbox, &self.policy, &binding).map_err(Unfit::Failed)
    }
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Candidate").field(&self.policy.reference).finish()
    }
}
