//! How long fifty policies take to be ready to serve: compiled, and found compiled by an earlier start.
//!
//! ```text
//! cargo bench -p backstop --bench start --profile dev
//! ```
//!
//! They are fifty copies of the stock policy `risk-control`, each under a name of its own, so that each is another file.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use backstop::clock::{Stopwatch, SystemClock};
use backstop::config::{Isolation, OnPolicyFailure, PolicyBinding, PolicyLimits};
use backstop::message::RouteName;
use backstop::policy::build::build;
use backstop::policy::{Catalog, StateDir};
use serde_json::json;

const POLICIES: usize = 50;

/// The name written into the copied file, and replaced by others of its length.
const NAME: &str = "risk-control";

fn main() -> anyhow::Result<()> {
    let place = tempfile::TempDir::new()?;
    let (policies, state) = (place.path().join("policies"), place.path().join("state"));
    let names = copies(&policies)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!("{POLICIES} policies ready to serve");
    println!("{:>10.1?}  nothing kept", runtime.block_on(open(&policies, None, &names))?);
    println!(
        "{:>10.1?}  compiled, and kept for the next start",
        runtime.block_on(open(&policies, Some(&state), &names))?
    );
    let mut best = Duration::MAX;
    for _ in 0..5 {
        best = best.min(runtime.block_on(open(&policies, Some(&state), &names))?);
    }
    println!("{best:>10.1?}  found compiled (the best of five)");
    Ok(())
}

/// Writes the copies, and says what they are called.
fn copies(policies: &Path) -> anyhow::Result<Vec<String>> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = build(&[repository.join("policies").join(NAME)], policies, &mut |line| eprintln!("{line}"))?;
    let original = fs::read(&built.first().context("nothing was built")?.file)?;
    fs::remove_file(policies.join(format!("{NAME}.wasm")))?;
    let places: Vec<_> = (0..original.len()).filter(|at| original[*at..].starts_with(NAME.as_bytes())).collect();
    let names: Vec<_> = (0..POLICIES).map(|n| format!("{n:0>width$}", width = NAME.len())).collect();
    for name in &names {
        let mut copy = original.clone();
        for at in &places {
            copy[*at..at + NAME.len()].copy_from_slice(name.as_bytes());
        }
        fs::write(policies.join(format!("{name}.wasm")), copy)?;
    }
    Ok(names)
}

/// Opens the catalog with a route for each policy, and says how long that took.
async fn open(policies: &Path, state: Option<&Path>, names: &[String]) -> anyhow::Result<Duration> {
    let routes = names.iter().map(|name| {
        let binding = PolicyBinding {
            name: name.clone(),
            config: json!({}),
            holds_secret: false,
            on_failure: OnPolicyFailure::Standard,
            limits: PolicyLimits::default(),
            isolation: Isolation::Reuse,
        };
        Ok((RouteName::new(name)?, Some(binding)))
    });
    let routes = routes.collect::<anyhow::Result<Vec<_>>>()?;
    let watch = Stopwatch::start();
    let state = state.map(StateDir::open).transpose()?;
    let catalog = Catalog::open(policies, state, routes, Arc::new(SystemClock)).await?;
    let took = watch.elapsed();
    anyhow::ensure!(catalog.list().len() == names.len(), "every policy serves");
    Ok(took)
}
