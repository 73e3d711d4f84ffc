//! `backstop policy new`: a crate that builds as it is, to be changed into what is needed.

use std::fmt;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail, ensure};

/// What `--help` shows.
pub(super) const EXAMPLES: &str = "\
Examples:
  backstop policy new maintenance
  backstop policy new maintenance --dir policies
  backstop policy new maintenance --sdk ../backstop/guest-sdk";

/// The files of a new crate, and what they are called there.
const FILES: [(&str, &str); 4] = [
    ("Cargo.toml", include_str!("new/Cargo.toml.template")),
    ("src/lib.rs", include_str!("new/lib.rs.template")),
    ("cases.yaml", include_str!("new/cases.yaml.template")),
    ("README.md", include_str!("new/README.md.template")),
];

/// Words that Rust keeps for itself, as of edition 2024, and names that a crate beside the standard library's or the
/// policy's own dependencies cannot have.
const TAKEN: [&str; 61] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "schemars",
    "self",
    "serde",
    "serde-json",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "wit-bindgen",
    "yield",
    "build",
];

#[derive(clap::Args, Debug)]
pub(super) struct New {
    /// The policy's name, and its folder's: a-z, 0-9 and '-', from a letter.
    #[arg(value_parser = name)]
    name: String,
    /// Where its folder goes.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// The crate `backstop-sdk`: the folder `guest-sdk` of a checkout of Backstop, or the URL of its git repository.
    /// Default: the checkout around DIR, else the one that this `backstop` was built from.
    #[arg(long, value_name = "PATH|URL")]
    sdk: Option<String>,
}

/// How the new crate depends on the SDK.
enum Sdk {
    /// A folder, as seen from the new crate.
    Path(PathBuf),
    Git(String),
}

impl fmt::Display for Sdk {
    /// As it stands in `Cargo.toml`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{{ path = {} }}", quoted(&path.display().to_string())),
            Self::Git(url) => write!(f, "{{ git = {} }}", quoted(url)),
        }
    }
}

impl New {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let folder = if self.dir == Path::new(".") { PathBuf::from(&self.name) } else { self.dir.join(&self.name) };
        ensure!(
            fs::symlink_metadata(&folder).is_err(),
            "{} exists already: choose another name, or another place with --dir",
            folder.display()
        );
        fs::create_dir_all(folder.join("src")).with_context(|| format!("failed to make {}", folder.display()))?;
        let written = self.write(&folder);
        if written.is_err() {
            // It is the folder made above, and the error that matters is why it could not be filled.
            let _ = fs::remove_dir_all(&folder);
        }
        let sdk = written?;
        self.tell(&folder, &sdk);
        Ok(ExitCode::SUCCESS)
    }

    /// Fills the folder. Says how the crate depends on the SDK.
    fn write(&self, folder: &Path) -> anyhow::Result<String> {
        let place = folder.canonicalize().with_context(|| format!("failed to find {}", folder.display()))?;
        let sdk = self.sdk(&place)?.to_string();
        for (file, template) in FILES {
            let text = template
                .replace("{{name}}", &self.name)
                .replace("{{type}}", &type_name(&self.name))
                .replace("{{sdk}}", &sdk);
            write(&place.join(file), &text)?;
        }
        if stands_alone(&place)? {
            let manifest = place.join("Cargo.toml");
            let text = fs::read_to_string(&manifest).context("failed to read the manifest just written")?;
            write(
                &manifest,
                &format!("{text}\n# It belongs to no workspace, whatever lies in the folders above.\n[workspace]\n"),
            )?;
            write(&place.join(".gitignore"), "/target\n")?;
        }
        Ok(sdk)
    }

    /// Where the SDK is: it is in no registry.
    fn sdk(&self, place: &Path) -> anyhow::Result<Sdk> {
        match &self.sdk {
            Some(url) if url.contains("://") || url.starts_with("git@") => Ok(Sdk::Git(url.clone())),
            Some(path) => {
                let given = Path::new(path);
                let folder = [given.to_owned(), given.join("guest-sdk")].into_iter().find(|folder| is_sdk(folder));
                let Some(folder) = folder else {
                    bail!(
                        "there is no crate `backstop-sdk` in {path}: give the folder `guest-sdk` of a checkout of Backstop"
                    );
                };
                let folder = folder.canonicalize().with_context(|| format!("failed to find {path}"))?;
                // As it was given: a way that holds on other machines, or one that holds on this.
                Ok(Sdk::Path(if given.is_absolute() { folder } else { relative(place, &folder) }))
            }
            None => {
                let around = place.ancestors().skip(1).map(|above| above.join("guest-sdk")).find(|sdk| is_sdk(sdk));
                if let Some(sdk) = around {
                    return Ok(Sdk::Path(relative(place, &sdk)));
                }
                let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-sdk");
                match built_from.canonicalize() {
                    Ok(sdk) if is_sdk(&sdk) => Ok(Sdk::Path(sdk)),
                    _ => bail!(
                        "failed to find the crate `backstop-sdk`, which is in no registry: add `--sdk PATH` with the \
                         folder `guest-sdk` of a checkout of Backstop, or `--sdk URL` with its git repository"
                    ),
                }
            }
        }
    }

    /// What was made, and what to do next.
    fn tell(&self, folder: &Path, sdk: &str) {
        let (name, shown) = (&self.name, folder.display());
        // Where `policy build` puts it when nobody says.
        let wasm = format!("policies/{name}.wasm");
        out!("{shown}: a policy that waits out a vendor's maintenance; change it into yours");
        out!("  Cargo.toml   depends on the SDK, {sdk}; `--sdk` names another place");
        out!("  src/lib.rs   the rule, its configuration, and a unit test");
        out!("  cases.yaml   what it must answer in the sandbox");
        out!();
        out!("Next:");
        out!("  (cd {shown} && cargo test)");
        out!("  backstop policy build {shown}");
        out!("  backstop policy test {wasm} {shown}/cases.yaml");
    }
}

/// Reads a policy's name that a Rust crate can have, too.
fn name(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let first_fits = text.starts_with(|first: char| first.is_ascii_lowercase());
    if !first_fits || !text.bytes().all(fits) || text.ends_with('-') || text.len() > 64 {
        let close: String = text.to_ascii_lowercase().replace(['_', ' ', '.'], "-");
        let hint = if close != text && name(&close).is_ok() { format!(", such as `{close}`") } else { String::new() };
        return Err(format!("a policy's name is 1 to 64 of a-z, 0-9 and single '-' between them, from a letter{hint}"));
    }
    if text == "backstop" || text.starts_with("backstop-") {
        return Err("Backstop's own crates are called so: write a name without `backstop`".to_owned());
    }
    if TAKEN.contains(&text) {
        return Err(format!("Rust or a crate that policies are built with is called so: write `{text}-policy`, say"));
    }
    Ok(text.to_owned())
}

/// `my-rule` → `MyRule`
fn type_name(name: &str) -> String {
    let word = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        format!("{}{rest}", first.to_ascii_uppercase())
    };
    name.split('-').map(word).collect()
}

/// Whether `folder` holds the crate `backstop-sdk`.
fn is_sdk(folder: &Path) -> bool {
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
    manifest.lines().any(|line| line.split_whitespace().collect::<String>() == "name=\"backstop-sdk\"")
}

/// The way from one folder to another, both absolute.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(to.components().skip(shared)).collect()
}

/// Whether no workspace takes the crate in. Cargo is asked, since only it knows what a workspace's `members` mean.
fn stands_alone(place: &Path) -> anyhow::Result<bool> {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]).current_dir(place);
    let Ok(output) = cargo.output() else {
        bail!("failed to run `cargo`: policies are Rust crates, and cargo builds them; rustup installs it");
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            said.contains("believes it's in a workspace"),
            "cargo refuses the new crate, so it was not made:\n{}",
            said.trim()
        );
        return Ok(true);
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("failed to read cargo's answer")?;
    let root = metadata.get("workspace_root").and_then(serde_json::Value::as_str).map(Path::new);
    Ok(root.is_none_or(|root| root.canonicalize().is_ok_and(|root| root == place)))
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text).with_context(|| format!("failed to write {}", file.display()))
}

/// A string of TOML. Debug's escapes for quotes and backslashes are TOML's, too.
fn quoted(text: &str) -> String {
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_crate_can_have_is_refused_with_one_that_it_can() {
        for (given, said) in [
            ("My_Rule", "such as `my-rule`"),
            ("7up", "from a letter"),
            ("rule-", "a-z, 0-9"),
            ("", "1 to 64"),
            ("../x", "a-z, 0-9"),
            ("match", "`match-policy`"),
            ("std", "`std-policy`"),
            ("backstop-sdk", "without `backstop`"),
        ] {
            let refused = name(given).expect_err(given);
            assert!(refused.contains(said), "{given}: {refused}");
        }
        assert_eq!(name("my-rule-2"), Ok("my-rule-2".to_owned()));
    }

    #[test]
    fn a_type_is_called_as_its_policy_is() {
        assert_eq!(type_name("my-2nd--rule"), "My2ndRule");
    }

    #[test]
    fn the_sdk_is_found_from_the_new_crate() {
        assert_eq!(relative(Path::new("/a/b/policies/x"), Path::new("/a/b/guest-sdk")), Path::new("../../guest-sdk"));
        assert_eq!(relative(Path::new("/a/x"), Path::new("/a/x/guest-sdk")), Path::new("guest-sdk"));
    }
}
