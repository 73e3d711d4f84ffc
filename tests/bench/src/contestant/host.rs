//! Backstop, as its own release build, with a stock policy on every route.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::free_address;

/// What is built before anything is measured.
pub(crate) struct Artefacts {
    /// The binary `backstop`.
    pub(crate) binary: PathBuf,
    /// The policy `vendor-codes`.
    pub(crate) policy: PathBuf,
}

impl Artefacts {
    /// Builds them, the binary in release. Cargo knows what is stale.
    ///
    /// # Errors
    /// When they do not build.
    pub(crate) fn build() -> anyhow::Result<Self> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        run(cargo.current_dir(&workspace).args(["build", "--release", "--package", "backstop"]))?;
        // The bench itself lies beside it.
        let binary = std::env::current_exe()?.with_file_name("backstop");
        run(Command::new(&binary).current_dir(&workspace).args(["policy", "build"]))?;
        Ok(Self { binary, policy: workspace.join("policies/vendor-codes.wasm") })
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("failed to run {command:?}"))?;
    anyhow::ensure!(status.success(), "{command:?} failed with {status}");
    Ok(())
}

/// How a host is set up: a route for each of `destinations`, called `route-0`, `route-1` and so on.
pub(crate) struct HostSetup {
    destinations: Vec<SocketAddr>,
    /// Whether callers wait for the destination's answer.
    pub(crate) sync: bool,
    /// The store, as its configuration names it.
    pub(crate) store: String,
}

impl HostSetup {
    /// `async`, on SQLite.
    pub(crate) fn new(destinations: Vec<SocketAddr>) -> Self {
        Self { destinations, sync: false, store: "sqlite:backstop.db".to_owned() }
    }

    /// The command that serves it from `folder`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) fn command(&self, folder: &Path, listen: SocketAddr, artefacts: &Artefacts) -> anyhow::Result<Command> {
        let policies = folder.join("policies");
        fs::create_dir_all(&policies)?;
        fs::copy(&artefacts.policy, policies.join("vendor-codes.wasm"))?;
        fs::write(folder.join("backstop.yaml"), self.yaml(listen, free_address()?)?)?;
        let mut command = Command::new(&artefacts.binary);
        command.current_dir(folder).args(["serve", "--config", "backstop.yaml"]);
        Ok(command)
    }

    fn yaml(&self, listen: SocketAddr, admin: SocketAddr) -> anyhow::Result<String> {
        let mut yaml = format!("listen: {listen}\nadmin: {admin}\nstore: {}\nroutes:\n", self.store);
        let mode = if self.sync { "sync" } else { "async" };
        for (index, destination) in self.destinations.iter().enumerate() {
            write!(
                yaml,
                "  route-{index}:
    destination: http://{destination}/
    mode: {mode}
    max_queued: 2000000
    policy: vendor-codes
    policy_config:
      rules:
        - {{ status: 503, verdict: retry, after: 20h, scope: message }}
        - {{ status: 5xx, verdict: retry, after: 2s }}
        - {{ status: 429, verdict: retry, after: 1m }}
        - {{ status: 400, body_contains: maintenance, verdict: retry, after: 10m }}
        - {{ status: 4xx, verdict: dead_letter }}
    retry: {{ max_attempts: 10, max_delay: 24h, max_elapsed: 7d }}
"
            )?;
        }
        Ok(yaml)
    }
}
