//! Finds guest crates and what cargo knows of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::BuildError;

/// A guest crate, as cargo sees it.
pub(super) struct GuestCrate {
    /// Its name.
    pub(super) name: String,
    /// What cargo calls it where names alone are ambiguous.
    pub(super) id: String,
    /// Its folder.
    pub(super) dir: PathBuf,
    /// Where its workspace begins: crates of one workspace are built in one go.
    pub(super) workspace: PathBuf,
    /// The workspace's own target folder.
    pub(super) target: PathBuf,
}

/// What `cargo metadata` says, as far as it matters.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    id: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
}

/// The guest crates that someone in the folder `here` means: this one, or else every one in its `policies`.
///
/// # Errors
/// When there are none.
pub fn find_crates(here: &Path) -> Result<Vec<PathBuf>, BuildError> {
    if here.join("Cargo.toml").is_file() && inspect_crate(here).is_ok() {
        return Ok(vec![here.to_owned()]);
    }
    let mut found: Vec<PathBuf> = fs::read_dir(here.join("policies"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|dir| dir.join("Cargo.toml").is_file())
        .collect();
    found.sort();
    if found.is_empty() { Err(BuildError::NothingToBuild(here.display().to_string())) } else { Ok(found) }
}

/// Asks cargo about the crate in `dir`, and whether it can become a policy.
pub(super) fn inspect_crate(dir: &Path) -> Result<GuestCrate, BuildError> {
    let no_crate = || BuildError::NoCrate(dir.display().to_string());
    let dir = dir.canonicalize().map_err(|_| no_crate())?;
    let manifest = dir.join("Cargo.toml");
    if !manifest.is_file() {
        return Err(no_crate());
    }
    let metadata = metadata(&manifest)?;
    let package = metadata.packages.into_iter().find(|package| package.manifest_path == manifest);
    let package = package.ok_or_else(|| BuildError::NoPackage(dir.display().to_string()))?;
    let manifest = manifest.display().to_string();
    if !package.targets.iter().any(|target| target.crate_types.iter().any(|kind| kind == "cdylib")) {
        return Err(BuildError::NoCdylib { package: package.name, manifest });
    }
    if !package.dependencies.iter().any(|dependency| dependency.name == "backstop-sdk") {
        return Err(BuildError::NoSdk { package: package.name, manifest });
    }
    Ok(GuestCrate {
        name: package.name,
        id: package.id,
        dir,
        workspace: metadata.workspace_root,
        target: metadata.target_directory,
    })
}

fn metadata(manifest: &Path) -> Result<Metadata, BuildError> {
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
        .arg(manifest)
        .output()
        .map_err(super::compile::no_cargo)?;
    let failed = |said: String| BuildError::Metadata { manifest: manifest.display().to_string(), said };
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}
