use super::*;

/// A folder for one crate, outside any workspace.
fn folder(manifest: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir(dir.path().join("src")).expect("a folder");
    fs::write(dir.path().join("src/lib.rs"), "").expect("a file");
    fs::write(dir.path().join("Cargo.toml"), manifest).expect("a file");
    dir
}

fn refused(dir: &Path) -> String {
    let out = dir.join("out");
    let error = build(&[dir.to_owned()], &out, &mut |_| {}).expect_err("it must be refused");
    assert!(!out.exists(), "nothing is written");
    error.to_string()
}

#[test]
fn a_folder_without_a_crate_is_named() {
    let empty = tempfile::tempdir().expect("a folder");
    assert!(refused(empty.path()).starts_with("there is no Cargo.toml in "));
    assert!(matches!(find_crates(empty.path()), Err(BuildError::NothingToBuild(_))));
}

#[test]
fn a_crate_that_makes_no_wasm_is_told_which_lines_to_add() {
    let dir = folder("[package]\nname = 'mine'\nedition = '2024'\n[workspace]\n");
    let text = refused(dir.path());
    assert!(text.contains("mine is no `cdylib`") && text.contains("crate-type = [\"cdylib\", \"rlib\"]"), "{text}");
}

#[test]
fn a_crate_without_the_sdk_is_told_so() {
    let dir = folder("[package]\nname = 'mine'\nedition = '2024'\n[lib]\ncrate-type = ['cdylib']\n[workspace]\n");
    assert!(refused(dir.path()).starts_with("mine does not depend on `backstop-sdk`"));
}

#[test]
fn a_broken_manifest_is_shown_as_cargo_shows_it() {
    let dir = folder("[package\n");
    let text = refused(dir.path());
    assert!(text.starts_with("cargo cannot read ") && text.contains("[package"), "{text}");
}

#[test]
fn a_workspace_is_no_crate() {
    let dir = folder("[workspace]\n");
    assert!(refused(dir.path()).contains("describes no package"));
}
