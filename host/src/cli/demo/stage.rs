//! Setting the stage: the checkout is found, and the policies that the demo's routes name are built where needed.

use std::fs::{self, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, bail};

use crate::policy::build;

/// Folders deep that sources are looked for.
const DEPTH: usize = 8;

/// A checkout of Backstop: the folder that holds `policies/*/Cargo.toml`.
#[derive(Clone, Debug)]
pub(super) struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// Finds it from `here` upwards.
    pub(super) fn find(here: &Path) -> anyhow::Result<Self> {
        let holds_policies = |folder: &&Path| {
            let policies = fs::read_dir(folder.join("policies")).into_iter().flatten().flatten();
            policies.map(|policy| policy.path()).any(|policy| policy.join("Cargo.toml").is_file())
        };
        match here.ancestors().find(holds_policies) {
            Some(root) => Ok(Self { root: root.to_owned() }),
            None => bail!(
                "the demo builds the stock policies, and neither {} nor any folder above it holds policies/*/Cargo.toml: \
                 run it from a checkout of Backstop, with `cargo run -- demo`",
                here.display()
            ),
        }
    }

    /// Where policies lie.
    pub(super) fn policies(&self) -> PathBuf {
        self.root.join("policies")
    }

    /// Those of the policies `names` that are missing, or older than what they are built from.
    pub(super) fn stale(&self, names: &[String]) -> anyhow::Result<Vec<String>> {
        let mut stale = Vec::new();
        for name in names {
            let file = self.policies().join(format!("{name}.wasm"));
            let built = fs::metadata(&file).and_then(|file| file.modified()).ok();
            if !self.policies().join(name).join("Cargo.toml").is_file() {
                if built.is_none() {
                    bail!("there is neither {} nor a crate beside it to build it from", file.display());
                }
                continue;
            }
            let newest = self.newest_source(name)?;
            if built.is_none_or(|built| newest.is_some_and(|newest| newest > built)) {
                stale.push(name.clone());
            }
        }
        Ok(stale)
    }

    /// Builds the policies `names`. Blocks for as long as cargo takes; `progress` is told what it says.
    pub(super) fn build(&self, names: &[String], progress: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
        let crates: Vec<PathBuf> = names.iter().map(|name| self.policies().join(name)).collect();
        let built = build::build(&crates, &self.policies(), progress)?;
        for (built, name) in built.iter().zip(names).filter(|(built, _)| !built.changed) {
            // What came out the same was not written again. It is marked as new as its sources all the same, or it
            // would be built again each time.
            if let Some(newest) = self.newest_source(name)? {
                let file = fs::File::options().append(true).open(&built.file);
                file.and_then(|file| file.set_times(FileTimes::new().set_modified(newest)))
                    .with_context(|| format!("failed to mark {} as new", built.file.display()))?;
            }
        }
        Ok(())
    }

    /// When the newest file was changed that policy `name` is built from: its crate, the SDK, the contract.
    fn newest_source(&self, name: &str) -> anyhow::Result<Option<SystemTime>> {
        let mut newest = None;
        for place in [&self.policies().join(name), &self.root.join("guest-sdk"), &self.root.join("wit")] {
            let found = newest_in(place, DEPTH).with_context(|| format!("failed to look at {}", place.display()))?;
            newest = newest.max(found);
        }
        Ok(newest)
    }
}

/// When the newest file in `place` was changed.
fn newest_in(place: &Path, depth: usize) -> io::Result<Option<SystemTime>> {
    let known = match fs::metadata(place) {
        Ok(known) => known,
        // An installed SDK has no sources here.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if known.is_file() {
        return known.modified().map(Some);
    }
    let mut newest = None;
    if depth > 0 && place.file_name().is_none_or(|name| name != "target") {
        for entry in fs::read_dir(place)? {
            newest = newest.max(newest_in(&entry?.path(), depth - 1)?);
        }
    }
    Ok(newest)
}
