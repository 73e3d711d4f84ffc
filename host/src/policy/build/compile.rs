//! Runs cargo, once for each workspace, and gathers the modules it made.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde::Deserialize;

use super::BuildError;
use super::crates::GuestCrate;

/// What policies are compiled for: no operating system at all, hence nothing to import.
const TARGET: &str = "wasm32-unknown-unknown";

/// How policies are compiled, whatever profile their workspace has for its own binaries.
const PROFILE: [&str; 6] = [
    "profile.release.opt-level=3",
    "profile.release.lto=true",
    "profile.release.codegen-units=1",
    "profile.release.panic=\"abort\"",
    "profile.release.debug=false",
    "profile.release.strip=true",
];

/// A policy's stack lies in its linear memory, of which every instance has its own: 64 KiB instead of a megabyte. Vector
/// instructions, which any host runs, read a body several times faster.
const FLAGS: &str = "-C\u{1f}link-arg=-zstack-size=65536\u{1f}-C\u{1f}target-feature=+simd128";

/// A module that cargo made.
pub(super) struct Artefact {
    /// Of which crate.
    pub(super) package: String,
    /// Where.
    pub(super) file: PathBuf,
}

/// One line of cargo's report, as far as it matters.
#[derive(Deserialize)]
struct Report {
    package_id: Option<String>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// Compiles the crates, in the order given.
pub(super) fn compile(crates: &[GuestCrate], progress: &mut dyn FnMut(&str)) -> Result<Vec<Artefact>, BuildError> {
    let mut workspaces: BTreeMap<&Path, Vec<&GuestCrate>> = BTreeMap::new();
    for guest in crates {
        workspaces.entry(&guest.workspace).or_default().push(guest);
    }
    let mut made = BTreeMap::new();
    for guests in workspaces.values() {
        made.extend(compile_workspace(guests, progress)?);
    }
    let artefact = |guest: &GuestCrate| {
        let file = made.get(&guest.id).cloned().ok_or_else(|| BuildError::NoArtefact(guest.name.clone()))?;
        Ok(Artefact { package: guest.name.clone(), file })
    };
    crates.iter().map(artefact).collect()
}

pub(super) fn no_cargo(source: io::Error) -> BuildError {
    BuildError::Tool {
        tool: "cargo",
        hint: "policies are Rust crates, and cargo builds them; rustup installs it",
        source,
    }
}

/// Compiles crates of one workspace and returns their modules by package id.
fn compile_workspace(
    guests: &[&GuestCrate],
    progress: &mut dyn FnMut(&str),
) -> Result<BTreeMap<String, PathBuf>, BuildError> {
    let Some(first) = guests.first() else { return Ok(BTreeMap::new()) };
    ensure_target(&first.dir, progress)?;
    let mut cargo = Command::new("cargo");
    // A target folder of its own: other flags in the workspace's would throw away what is built there.
    cargo.args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    cargo.arg("--target-dir").arg(first.target.join("policies"));
    cargo.args(guests.iter().flat_map(|guest| ["--package", &guest.id]));
    cargo.args(PROFILE.iter().flat_map(|setting| ["--config", setting]));
    // This variable outranks whatever flags the environment and configuration files hold for native code.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS).current_dir(&first.dir);
    let (succeeded, report, said) = run(&mut cargo, progress).map_err(no_cargo)?;
    if !succeeded {
        let packages = guests.iter().map(|guest| guest.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(BuildError::Compile { packages, hint: hint(&said) });
    }
    let modules = report.lines().filter_map(|line| serde_json::from_str::<Report>(line).ok()).filter_map(|report| {
        let module = report.filenames.into_iter().find(|file| file.extension().is_some_and(|kind| kind == "wasm"))?;
        Some((report.package_id?, module))
    });
    Ok(modules.collect())
}

/// Fetches the compiler's target unless it is there. It may be there without rustup.
fn ensure_target(dir: &Path, progress: &mut dyn FnMut(&str)) -> Result<(), BuildError> {
    let libraries =
        Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).current_dir(dir).output();
    let libraries = libraries.map_err(|source| BuildError::Tool {
        tool: "rustc",
        hint: "policies are Rust crates, and rustc compiles them; rustup installs it",
        source,
    })?;
    if Path::new(String::from_utf8_lossy(&libraries.stdout).trim()).is_dir() {
        return Ok(());
    }
    progress(&format!("fetching the compiler's target {TARGET}"));
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", TARGET]).current_dir(dir);
    match run(&mut rustup, progress) {
        Ok((true, ..)) => Ok(()),
        Ok(_) | Err(_) => Err(BuildError::Target),
    }
}

/// Runs a command, tells `progress` what it says on its standard error, and returns whether it succeeded and what it
/// said on either stream.
fn run(command: &mut Command, progress: &mut dyn FnMut(&str)) -> io::Result<(bool, String, String)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (report, said) = thread::scope(|scope| {
        // Both streams are read at once, or the one not read would fill up and halt the command.
        let report = scope.spawn(move || {
            let mut report = String::new();
            stdout.map(|mut stdout| stdout.read_to_string(&mut report)).transpose().map(|_| report)
        });
        let mut said = String::new();
        for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines().map_while(Result::ok)) {
            progress(&line);
            said.push_str(&line);
            said.push('\n');
        }
        (report.join(), said)
    });
    let report = report.unwrap_or_else(|_| Err(io::Error::other("the reader of its output panicked")))?;
    Ok((child.wait()?.success(), report, said))
}

/// What people run into who have never built WebAssembly.
fn hint(said: &str) -> &'static str {
    if said.contains("getrandom") {
        ".\nA policy has no randomness, and `getrandom` needs some: `cargo tree -i getrandom --target \
         wasm32-unknown-unknown` shows which dependency wants it; switch that feature off"
    } else if said.contains("failed to find tool") || said.contains("clang") {
        ".\nA policy cannot hold C code: look for a dependency in pure Rust, or switch off its feature that brings C"
    } else if said.contains("tokio") && said.contains("not supported") || said.contains("mio") {
        ".\nA policy has no network and no threads, so runtimes like tokio do not compile for it: they are not needed, \
         since a policy only answers questions"
    } else {
        ""
    }
}
