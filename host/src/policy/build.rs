//! Makes policies from guest crates: compile for `wasm32-unknown-unknown`, make a component, hold it against the
//! contract, write `NAME.wasm`.
//!
//! It is for people who have never built WebAssembly: it fetches the target if it is missing, and its errors say what
//! to write where. A file is written whole or not at all, so that a running host never reads half a policy.

mod compile;
mod crates;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::load::{Description, LoadError, Policy, make_component, read};
use super::sandbox::Sandbox;

pub use crates::find_crates;

/// A policy that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// Where it was written.
    pub file: PathBuf,
    /// What it is.
    pub description: Description,
    /// Whether the file is new or differs from what was there.
    pub changed: bool,
}

/// Why a guest crate did not become a policy.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is nothing to build.
    #[error(
        "there is no guest crate here: neither {0} nor any folder in {0}/policies holds a Cargo.toml with a `cdylib` \
         that depends on `backstop-sdk`; name its folder"
    )]
    NothingToBuild(String),
    /// The folder holds no crate.
    #[error("there is no Cargo.toml in {0}: name the folder of a guest crate (`backstop policy new NAME` makes one)")]
    NoCrate(String),
    /// The folder's `Cargo.toml` is only a workspace's.
    #[error("the Cargo.toml in {0} describes no package: name the folder of a guest crate in that workspace")]
    NoPackage(String),
    /// The crate would become no file.
    #[error(
        "{package} is no `cdylib`, so cargo would make no .wasm file of it. Add to {manifest}:\n\n    \
         [lib]\n    crate-type = [\"cdylib\", \"rlib\"]\n"
    )]
    NoCdylib {
        /// The crate's name.
        package: String,
        /// Its `Cargo.toml`.
        manifest: String,
    },
    /// The crate does not use the SDK.
    #[error("{package} does not depend on `backstop-sdk`. Add it under [dependencies] in {manifest}")]
    NoSdk {
        /// The crate's name.
        package: String,
        /// Its `Cargo.toml`.
        manifest: String,
    },
    /// A tool is missing.
    #[error("failed to run `{tool}`: {hint}")]
    Tool {
        /// Its name.
        tool: &'static str,
        /// What to do.
        hint: &'static str,
        /// Why it did not run.
        #[source]
        source: io::Error,
    },
    /// The compiler's target could not be fetched.
    #[error(
        "failed to fetch the compiler's target for WebAssembly: run `rustup target add wasm32-unknown-unknown`, or \
         install it as your distribution has it"
    )]
    Target,
    /// Cargo could not make sense of the crate; it said why.
    #[error("cargo cannot read {manifest}:\n{said}")]
    Metadata {
        /// The crate's `Cargo.toml`.
        manifest: String,
        /// What cargo said.
        said: String,
    },
    /// The crate does not compile; the compiler said why.
    #[error("{packages} did not compile for WebAssembly; the compiler's words are above{hint}")]
    Compile {
        /// What was compiled.
        packages: String,
        /// A likely cause, if one is known.
        hint: &'static str,
    },
    /// Cargo said it was done, but there is no file.
    #[error("cargo made no .wasm file of {0}")]
    NoArtefact(String),
    /// What came out keeps not to the contract.
    #[error("{package} compiled, but is no policy{hint}")]
    NoPolicy {
        /// The crate's name.
        package: String,
        /// A likely cause, if one is known.
        hint: &'static str,
        /// What is wrong with it.
        #[source]
        source: LoadError,
    },
    /// The file could not be written.
    #[error("failed to write {0}")]
    Write(String, #[source] io::Error),
}

/// Builds the guest crates in `dirs` and writes a `NAME.wasm` for each into `out`. `progress` is told what cargo and
/// the compiler say, line by line. Blocks for as long as cargo takes.
///
/// # Errors
/// With the first crate that does not become a policy; those before it have been written.
pub fn build(dirs: &[PathBuf], out: &Path, progress: &mut dyn FnMut(&str)) -> Result<Vec<Built>, BuildError> {
    let crates = dirs.iter().map(|dir| crates::inspect_crate(dir)).collect::<Result<Vec<_>, _>>()?;
    let sandbox = Sandbox::new(None).map_err(|error| {
        let hint = "";
        BuildError::NoPolicy { package: "the sandbox".to_owned(), hint, source: LoadError::Sandbox(error) }
    })?;
    let sandbox = Arc::new(sandbox);
    let mut built = Vec::new();
    for artefact in compile::compile(&crates, progress)? {
        built.push(finish(&sandbox, &artefact, out)?);
        if let Some(Built { file, description, .. }) = built.last() {
            progress(&format!("{} {} → {}", description.name, description.version, file.display()));
        }
    }
    Ok(built)
}

/// Makes what cargo built a component, checks it and writes it.
fn finish(sandbox: &Arc<Sandbox>, artefact: &compile::Artefact, out: &Path) -> Result<Built, BuildError> {
    let checked = read(&artefact.file)
        .and_then(|module| make_component(&module))
        .and_then(|component| Ok((Policy::from_bytes(sandbox, &component)?.describe(), component)));
    let (description, component) = checked.map_err(|source| {
        let hint = match source {
            LoadError::OtherWorld(_) => ": does its src/lib.rs call `export_policy!(YourPolicy);`, once?",
            _ => "",
        };
        BuildError::NoPolicy { package: artefact.package.clone(), hint, source }
    })?;
    let file = out.join(format!("{}.wasm", description.name));
    let changed = fs::read(&file).map_or(true, |before| before != component);
    if changed {
        fs::create_dir_all(out).map_err(|error| BuildError::Write(out.display().to_string(), error))?;
        write_whole(&file, &component).map_err(|error| BuildError::Write(file.display().to_string(), error))?;
    }
    Ok(Built { file, description, changed })
}

/// Writes beside `file` and renames: whoever reads it sees the old bytes or the new ones.
fn write_whole(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = file.with_extension(format!("{}.tmp", std::process::id()));
    let written = fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, file));
    if written.is_err() {
        // The error that matters is the one above.
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests;
