//! `backstop policy build`: guest crates become policies.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use crate::policy::build;

#[derive(clap::Args, Debug)]
pub(super) struct Build {
    /// The folders of the guest crates. Default: this folder if it is one, else every one in `./policies`.
    dirs: Vec<PathBuf>,
    /// Where the `.wasm` files go. Default: `./policies`, or the folder above when this is a guest crate in one of
    /// that name.
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Build {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let dirs = if self.dirs.is_empty() { build::find_crates(Path::new("."))? } else { self.dirs };
        let out = match self.out {
            Some(out) => out,
            None => default_out(&dirs)?,
        };
        let built = build::build(&dirs, &out, &mut |line| {
            let _ = writeln!(std::io::stderr(), "{line}");
        })?;
        for policy in built {
            let described = &policy.description;
            out!(
                "{}  {} {}  {} bytes  sha256 {:.12}{}",
                policy.file.display(),
                described.name,
                described.version,
                described.size,
                described.digest,
                if policy.changed { "" } else { "  (unchanged)" }
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Where policies go when nobody says: beside the crate, if that is where it lives.
fn default_out(dirs: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir().context("failed to find the current folder")?;
    let builds_this = dirs == [PathBuf::from(".")] || dirs == [here.clone()];
    match here.parent() {
        Some(above) if builds_this && above.file_name().is_some_and(|name| name == "policies") => Ok(above.to_owned()),
        _ => Ok(PathBuf::from("policies")),
    }
}
