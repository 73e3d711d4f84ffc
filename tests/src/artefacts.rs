//! What is under test, built once per process: the binary, the stock policies, and the guests of `tests/guests`.
//!
//! Cargo knows what is stale, so it is asked every time; when nothing is, that takes a moment.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

use serde_json::Value;

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The binary `backstop`, as `cargo run` would run it.
///
/// # Panics
/// When it does not build.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let mut cargo = in_workspace(env!("CARGO"));
        let built =
            succeed(cargo.args(["build", "--package", "backstop", "--message-format", "json-render-diagnostics"]));
        let executable = |line: &str| {
            let message: Value = serde_json::from_str(line).ok()?;
            Some(PathBuf::from(message["executable"].as_str()?))
        };
        let found = String::from_utf8_lossy(&built.stdout).lines().find_map(executable);
        found.expect("cargo names the executable it built")
    })
}

/// The example called `name` of the host's crate, as a program.
///
/// # Panics
/// When it does not build.
pub fn example(name: &str) -> PathBuf {
    static BUILT: LazyLock<Mutex<HashMap<String, PathBuf>>> = LazyLock::new(Mutex::default);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let build = || {
        // The host's own binary first: cargo does one thing after the other.
        binary();
        let mut cargo = in_workspace(env!("CARGO"));
        cargo.args([
            "build",
            "--package",
            "backstop",
            "--example",
            name,
            "--message-format",
            "json-render-diagnostics",
        ]);
        let built = succeed(&mut cargo);
        let executable = |line: &str| {
            let message: Value = serde_json::from_str(line).ok()?;
            let kinds = message["target"]["kind"].as_array()?;
            Some(PathBuf::from(message["executable"].as_str().filter(|_| kinds.iter().any(|kind| kind == "example"))?))
        };
        let found = String::from_utf8_lossy(&built.stdout).lines().find_map(executable);
        found.expect("cargo names the executable it built")
    };
    built.entry(name.to_owned()).or_insert_with(build).clone()
}

/// Whether there is a stock policy called `name`.
pub fn is_stock(name: &str) -> bool {
    workspace().join("policies").join(name).join("Cargo.toml").is_file()
}

/// The stock policy called `name`, as a file.
///
/// # Panics
/// When the policies do not build.
pub fn stock_policy(name: &str) -> PathBuf {
    static POLICIES: OnceLock<PathBuf> = OnceLock::new();
    let folder = POLICIES.get_or_init(|| {
        succeed(in_workspace(binary()).args(["policy", "build"]));
        workspace().join("policies")
    });
    folder.join(format!("{name}.wasm"))
}

/// The policy that the crate in `tests/guests/{folder}` becomes.
///
/// # Panics
/// When it does not build.
pub fn guest(folder: &str) -> PathBuf {
    static BUILT: LazyLock<Mutex<HashMap<String, PathBuf>>> = LazyLock::new(Mutex::default);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.entry(folder.to_owned()).or_insert_with(|| build_guest(folder)).clone()
}

/// The folder that cargo builds into.
fn target() -> &'static Path {
    binary().ancestors().nth(2).expect("the binary lies in target/debug")
}

/// Where guests are built into, each in a folder of its own.
pub(crate) fn guests() -> PathBuf {
    target().join("guests")
}

fn build_guest(folder: &str) -> PathBuf {
    let source = workspace().join("tests/guests").join(folder);
    let out = guests().join(folder);
    // It stands outside of the workspace, as an author's crate does, but is built from the same dependencies.
    std::fs::copy(workspace().join("Cargo.lock"), source.join("Cargo.lock")).expect("the guest's lock file");
    let mut build = in_workspace(binary());
    build.args(["policy", "build", "--out"]).arg(&out).arg(&source);
    succeed(build.env("CARGO_TARGET_DIR", target()));
    let files = std::fs::read_dir(&out).expect("the folder of the policy just built");
    let wasm = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "wasm");
    files.filter_map(|entry| Some(entry.ok()?.path())).find(wasm).expect("the policy just built")
}

/// A command as a person would give it in the workspace's folder. What cargo tells the tests of themselves is taken out
/// of its environment: some build scripts look at it, and would be run anew each time.
fn in_workspace(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace());
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "OUT_DIR"].iter().any(|own| name.to_string_lossy().starts_with(own)) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end.
pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("failed to run {command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed with {}:\n{said}", output.status);
    output
}
