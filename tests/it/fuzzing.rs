//! A bounded run of the fuzzers: over the corpus in `host/fuzz`, and over what random changes make of it. The changes
//! come from a fixed seed, so that a failure is found again.

use std::path::PathBuf;

use backstop_tests::fuzzing;

/// What changes make of each file of a corpus.
const CHANGED: usize = 40;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = backstop_tests::artefacts::workspace().join("host/fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let bytes = std::fs::read(&path).expect("a file of the corpus");
            (path, bytes)
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

/// Changes some bytes, cuts some out, or writes some twice.
fn changed(bytes: &[u8], chance: &mut fastrand::Rng) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    for _ in 0..chance.usize(1..=4) {
        if changed.is_empty() {
            break;
        }
        let from = chance.usize(0..changed.len());
        let until = (from + chance.usize(1..=16)).min(changed.len());
        match chance.u8(0..5) {
            0 => drop(changed.drain(from..until)),
            1 => {
                let again = changed[from..until].to_vec();
                changed.splice(from..from, again);
            }
            2 => changed[from] = [0, 1, 0x7f, 0x80, 0xff][chance.usize(0..5)],
            3 => changed[from] ^= 1 << chance.u8(0..8),
            _ => changed[from] = chance.u8(..),
        }
    }
    changed
}

fn holds_for(target: &str, try_it: fn(&[u8])) {
    let mut chance = fastrand::Rng::with_seed(17);
    for (path, bytes) in corpus(target) {
        try_it(&bytes);
        for n in 0..CHANGED {
            let bytes = changed(&bytes, &mut chance);
            let tried = std::panic::catch_unwind(|| try_it(&bytes));
            assert!(tried.is_ok(), "change {n} of {}: {bytes:02x?}", path.display());
        }
    }
}

#[test]
fn fuzzing_any_file_is_loaded_or_refused() {
    holds_for("load", fuzzing::load);
}

#[test]
fn fuzzing_starts_from_policies_of_today_s_contract() {
    for (path, bytes) in
        corpus("load").iter().filter(|(path, _)| path.ends_with("module") || path.ends_with("component"))
    {
        let anew = "cargo run -p backstop-tests --example fuzz_corpus";
        assert!(fuzzing::is_policy(bytes), "{} is of another contract: `{anew}`", path.display());
    }
}

#[test]
fn fuzzing_any_answer_is_read_or_refused() {
    holds_for("answer", fuzzing::answer);
}

#[test]
fn fuzzing_any_manifest_is_read_or_refused() {
    holds_for("manifest", fuzzing::manifest);
}
