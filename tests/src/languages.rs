//! The policies of `guest-sdk/javascript` and `guest-sdk/python`, built as their guides say.
//!
//! Their tools come from npm and PyPI, in the versions that the folders pin, into `target/guests/`. Both that and what
//! they make is kept for the next run, until a file that it depends on changes: cold, each takes about half a minute.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::artefacts::{guests, succeed, workspace};

/// The policy written in JavaScript, as a file.
///
/// # Panics
/// When it does not build.
pub fn javascript_policy() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("javascript", javascript)).clone()
}

/// The policy written in Python, as a file.
///
/// # Panics
/// When it does not build.
pub fn python_policy() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("python", python)).clone()
}

/// Node looks for modules above the file that wants them, so all of the folder is copied to where they are.
fn javascript(source: &Path, room: &Path) -> PathBuf {
    for name in ["package.json", "package-lock.json", ".npmrc", "build.mjs", "vendor-busy-js.js"] {
        fs::copy(source.join(name), room.join(name)).expect("a copy in the target folder");
    }
    once(room, "tools", &[&source.join("package-lock.json")], || {
        run("npm", "install Node.js 20 or newer, with npm", room, &["ci", "--no-progress"]);
    });
    let contract = workspace().join("wit");
    let contract = contract.to_str().expect("a path in UTF-8");
    run("node", "install Node.js 20 or newer", room, &["build.mjs", "vendor-busy-js.js", "--wit", contract]);
    room.join("vendor-busy-js.wasm")
}

fn python(source: &Path, room: &Path) -> PathBuf {
    let hint = "install Python 3.10 or newer, with its modules venv and pip (on Debian: python3-venv)";
    let requirements = source.join("requirements.txt");
    once(room, "tools", &[&requirements], || {
        run("python3", hint, room, &["-m", "venv", "--clear", "venv"]);
        let requirements = requirements.to_str().expect("a path in UTF-8");
        run("venv/bin/python", hint, room, &["-m", "pip", "install", "--quiet", "--requirement", requirements]);
    });
    // The tool leaves compiled modules beside the source.
    fs::copy(source.join("vendor_busy_py.py"), room.join("vendor_busy_py.py")).expect("a copy in the target folder");
    let builder = source.join("build.py");
    let builder = builder.to_str().expect("a path in UTF-8");
    run("venv/bin/python", hint, room, &[builder, "vendor_busy_py.py"]);
    room.join("vendor-busy-py.wasm")
}

/// Builds the policy of `guest-sdk/{language}` unless it is there. One process does so at a time.
fn build(language: &str, how: impl Fn(&Path, &Path) -> PathBuf) -> PathBuf {
    let source = workspace().join("guest-sdk").join(language).canonicalize().expect("the guide's folder");
    let room = guests().join(language);
    fs::create_dir_all(&room).expect("a folder in the target folder");
    let lock = File::create(room.join("lock")).and_then(|lock| lock.lock().map(|()| lock));
    let _held_until_the_end = lock.expect("a lock in the target folder");
    let mut inputs: Vec<PathBuf> = files(&source).into_iter().chain(files(&workspace().join("wit"))).collect();
    inputs.sort();
    let inputs: Vec<&Path> = inputs.iter().map(PathBuf::as_path).collect();
    once(&room, "policy", &inputs, || {
        let built = how(&source, &room);
        fs::rename(built, room.join("policy.wasm")).expect("the policy just built");
    });
    room.join("policy.wasm")
}

/// Does `what` unless it was done before with the same `inputs`: their content is kept beside what it made.
fn once(room: &Path, name: &str, inputs: &[&Path], what: impl FnOnce()) {
    let read =
        |path: &&Path| fs::read(path).unwrap_or_else(|error| panic!("failed to read {}: {error}", path.display()));
    let content: Vec<u8> = inputs.iter().flat_map(read).collect();
    let done = room.join(format!("{name}.made-from"));
    if fs::read(&done).is_ok_and(|before| before == content) {
        return;
    }
    // Whatever fails half-way is begun anew.
    let _ = fs::remove_file(&done);
    what();
    fs::write(done, content).expect("a file in the target folder");
}

/// The files in `folder` that are not hidden.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of the repository");
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.is_file() && path.extension().is_none_or(|kind| kind != "wasm")).collect()
}

/// Runs a tool in `room`; says what to install where there is none.
fn run(tool: &str, hint: &str, room: &Path, arguments: &[&str]) {
    // A path to a program is taken from where the tests run, not from where it will.
    let program = if tool.contains('/') { room.join(tool) } else { tool.into() };
    let mut command = Command::new(&program);
    let version = Command::new(&program).arg("--version").output();
    assert!(version.is_ok(), "the tests of policies in other languages need `{tool}`: {hint}");
    succeed(command.args(arguments).current_dir(room));
}
