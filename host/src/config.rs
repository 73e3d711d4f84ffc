//! The configuration: YAML → tree with lines → raw twin → [`Config`], a type that cannot be wrong.
//!
//! Only this module reads the environment (`${env:NAME}`) and the files that secrets live in (`${file:PATH}`). Every
//! mistake is reported in one go, with its line and what to write instead ([`Problems`]): the tree finds
//! duplicate keys, the reader unknown keys and wrong types, the resolver limits that cannot be and names that lead
//! nowhere. Refused: files beyond 1 MiB, and whatever the file does not say in so many words. A value that came from
//! the environment or from a file is never quoted.

mod check_back;
mod defaults;
mod describe;
mod endpoint;
mod events;
mod interpolate;
mod limits;
mod problem;
mod raw;
mod reader;
mod resolve;
mod resolved;
mod sheet;
mod sources;
mod tapped;
mod tree;
mod units;

#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::{Path, PathBuf};

pub use check_back::CheckBack;
pub(crate) use defaults::{default_envelope, default_response_limit};
pub use endpoint::Protocol;
pub use events::{EventSchema, Events, Taken};
use interpolate::Noting;
pub use interpolate::{Machine, Surroundings};
pub use limits::{Breaker, OnFailure, Order, OrderKey, Rate, RetryBudget};
pub(crate) use problem::{Place, nearest};
pub use problem::{Problem, Problems};
pub(crate) use raw::RawPolicyLimits;
pub(crate) use reader::{Field, Named, Shorthand};
pub use resolved::{
    Admin, Alarm, Auth, Config, Destination, Idempotency, Isolation, Mode, OnPolicyFailure, PolicyBinding,
    PolicyLimits, Route, Secret, SecretHeader, StoreUrl,
};
pub(crate) use sheet::Sheet;
pub use sources::Sources;
pub use tapped::{Tap, Tapped};
pub(crate) use units::{Count, Unit, Written, read_duration, read_size, show_duration};

use interpolate::Interpolator;
use problem::Findings;
use raw::RawConfig;
use reader::Reader;
use resolve::Resolver;

/// The longest configuration: 1 MiB.
const MAX_FILE: usize = 1 << 20;

impl Config {
    /// Reads the configuration at `path`; paths in it are relative to its folder. Blocks on files.
    ///
    /// # Errors
    /// Every mistake in it, in order of line.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let base_dir = path.parent().unwrap_or(Path::new(""));
        let text = read(path).map_err(|message| Problems::of_file(path, message))?;
        Self::parse(&text, path, base_dir)
    }

    /// As [`Config::load`], and says which files it was read from: the file itself, and those that `${file:…}` names in
    /// it, whether it is good or not. Blocks on files.
    pub fn load_with_files(path: &Path) -> (Result<Self, Problems>, Vec<PathBuf>) {
        let base_dir = path.parent().unwrap_or(Path::new(""));
        let noting = Noting::default();
        let config = match read(path) {
            Ok(text) => Self::parse_in(&text, path, base_dir, &noting),
            Err(message) => Err(Problems::of_file(path, message)),
        };
        let files = std::iter::once(path.to_path_buf()).chain(noting.into_files()).collect();
        (config, files)
    }

    /// Reads the configuration `text`, which came from `file`, in the machine's own surroundings; paths in it are
    /// relative to `base_dir`.
    ///
    /// # Errors
    /// Every mistake in it, in order of line.
    pub fn parse(text: &str, file: &Path, base_dir: &Path) -> Result<Self, Problems> {
        Self::parse_in(text, file, base_dir, &Machine)
    }

    /// The same in the surroundings given.
    ///
    /// # Errors
    /// Every mistake in it, in order of line.
    pub fn parse_in(
        text: &str,
        file: &Path,
        base_dir: &Path,
        surroundings: &dyn Surroundings,
    ) -> Result<Self, Problems> {
        let findings = Findings::default();
        let config = Self::build(text, file, base_dir, surroundings, &findings);
        match (findings.into_problems(file), config) {
            (None, Some(config)) => Ok(config),
            (Some(problems), _) => Err(problems),
            // Nothing is given up without a reason reported; should it ever be, that is no configuration either.
            (None, None) => Err(Problems::of_file(file, "cannot be read")),
        }
    }

    /// The JSON Schema of the file, for editors. Looser than [`Config::load`], which also knows what must fit
    /// together.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(RawConfig).to_value()
    }

    fn build(
        text: &str,
        file: &Path,
        base_dir: &Path,
        surroundings: &dyn Surroundings,
        findings: &Findings,
    ) -> Option<Self> {
        if text.len() > MAX_FILE {
            findings.report_file(None, TOO_LONG);
            return None;
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut interpolator = Interpolator::new(surroundings, base_dir);
        let root = tree::grow(text, "`routes`", &mut interpolator, findings)?;
        let reader = Reader { node: &root, line: root.line, place: &Place::ROOT, findings };
        let raw: RawConfig = reader.read()?;
        Resolver { root: &root, findings, base_dir, file, surroundings }.config(raw)
    }
}

const TOO_LONG: &str = "is longer than 1 MiB, the most that such a file may be";

/// The file's text.
fn read(path: &Path) -> Result<String, String> {
    // Opening a pipe would wait for whoever writes to it.
    let metadata = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?;
    if !metadata.is_file() {
        return Err("is not a regular file: name the file itself, not a folder or a pipe".to_owned());
    }
    let open = || -> std::io::Result<Vec<u8>> {
        let mut content = Vec::new();
        std::fs::File::open(path)?.take(MAX_FILE as u64 + 1).read_to_end(&mut content)?;
        Ok(content)
    };
    let content = open().map_err(|error| format!("cannot be read: {error}"))?;
    if content.len() > MAX_FILE {
        return Err(TOO_LONG.to_owned());
    }
    String::from_utf8(content).map_err(|_| "is not UTF-8: save it as such".to_owned())
}
