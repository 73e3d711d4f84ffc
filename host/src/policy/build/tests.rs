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

/// The repository's own guest crates.
fn stock() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

#[test]
fn a_stock_policy_is_built_and_found_good() {
    let out = tempfile::tempdir().expect("a folder");
    // What cargo says is shown when the test fails.
    let build = || build(&[stock().join("standard")], out.path(), &mut |line| println!("{line}"));
    let built = build().unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
    let [Built { file, description, changed: true }] = built.as_slice() else { panic!("{built:?}") };
    assert_eq!(file, &out.path().join("standard.wasm"));
    let inspected = super::super::inspect(file).expect("what was built loads");
    assert_eq!(inspected.digest, description.digest);
    assert!(inspected.hooks.judge && !inspected.hooks.admit);
    let mut imports = description.imports.iter();
    assert!(imports.all(|import| ["log", "attribute"].contains(&import.as_str())), "{:?}", description.imports);
    let again = build().expect("it builds again");
    assert!(!again.iter().any(|built| built.changed), "the same crate gives the same bytes, which are left alone");
}
