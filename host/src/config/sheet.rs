//! A document other than the configuration, read as strictly and by the same machinery: a policy's case file.
//!
//! Nothing is looked up: `${…}` stands for itself, so that a document says the same on every machine.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::interpolate::{Interpolator, Machine};
use super::problem::{Findings, Place, Problems};
use super::raw::RawPolicyLimits;
use super::reader::{Field, Reader};
use super::resolve::Resolver;
use super::resolved::PolicyLimits;
use super::tree::{self, Node};
use super::units::{Count, Written};
use super::{MAX_FILE, TOO_LONG, read};

/// A document being read, and what was found wrong with it so far.
pub(crate) struct Sheet<'f> {
    file: &'f Path,
    root: Arc<Node>,
    findings: Findings,
}

impl<'f> Sheet<'f> {
    /// Reads the text of the file at `path`. Blocks on it.
    ///
    /// # Errors
    /// When it is no regular file of UTF-8 within 1 MiB.
    pub(crate) fn text_of(path: &Path) -> Result<String, Problems> {
        read(path).map_err(|message| Problems::of_file(path, message))
    }

    /// Takes `text`, which came from `file`; an empty one is told what it `needs`.
    ///
    /// # Errors
    /// When it is no YAML.
    pub(crate) fn open(text: &str, file: &'f Path, needs: &str) -> Result<Self, Problems> {
        if text.len() > MAX_FILE {
            return Err(Problems::of_file(file, TOO_LONG));
        }
        let findings = Findings::default();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match tree::grow(text, needs, &mut Interpolator::verbatim(), &findings) {
            Some(root) => Ok(Self { file, root, findings }),
            None => Err(findings.into_problems(file).unwrap_or_else(|| Problems::of_file(file, "is no YAML"))),
        }
    }

    /// Reads it as a raw twin. `None` when it cannot be; why was reported.
    pub(crate) fn read<T: for<'de> Deserialize<'de>>(&self) -> Option<T> {
        Reader { node: &self.root, line: self.root.line, place: &Place::ROOT, findings: &self.findings }.read()
    }

    /// The line, from 1, of what stands at `place`, or of what should hold it.
    pub(crate) fn line(&self, place: &Place<'_>) -> usize {
        self.root.descend(&place.steps()).1
    }

    /// Reports a problem at `place`.
    pub(crate) fn complain(&self, place: &Place<'_>, message: impl Into<String>) {
        self.resolver().complain(place, message);
    }

    /// Reports a problem with what is written at `place`, quoting it.
    pub(crate) fn complain_of(&self, place: &Place<'_>, message: impl AsRef<str>) {
        self.resolver().complain_of(place, message);
    }

    /// The number given, if it is within `least..=most`; else it is reported, and `default` serves.
    pub(crate) fn count<N: TryFrom<u64>>(
        &self,
        place: &Place<'_>,
        raw: Field<Count>,
        range: std::ops::RangeInclusive<u64>,
        default: N,
    ) -> N {
        self.resolver().count(place, raw, range, default)
    }

    /// The duration given, if it is within `range`; else it is reported, and `default` serves.
    pub(crate) fn duration(
        &self,
        place: &Place<'_>,
        raw: Field<Written<Duration>>,
        range: std::ops::RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        self.resolver().duration(place, raw, range, default)
    }

    /// What one question may cost, as a route's `policy_limits` say it.
    pub(crate) fn policy_limits(&self, place: &Place<'_>, raw: RawPolicyLimits) -> PolicyLimits {
        self.resolver().policy_limits(place, raw)
    }

    /// What was made of it, unless something was found wrong.
    ///
    /// # Errors
    /// Every mistake in it, in order of line.
    pub(crate) fn finish<T>(self, made: Option<T>) -> Result<T, Problems> {
        match (self.findings.into_problems(self.file), made) {
            (Some(problems), _) => Err(problems),
            (None, Some(made)) => Ok(made),
            (None, None) => Err(Problems::of_file(self.file, "cannot be read")),
        }
    }

    fn resolver(&self) -> Resolver<'_> {
        Resolver {
            root: &self.root,
            findings: &self.findings,
            base_dir: Path::new(""),
            file: self.file,
            surroundings: &Machine,
        }
    }
}
