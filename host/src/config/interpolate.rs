//! `${env:NAME}` and `${file:PATH}`: values that do not stand in the file, most of them secrets.
//!
//! What is read here is never quoted in a problem; the text that asked for it may be.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The longest value of one variable or file: 64 KiB.
const MAX_VALUE: usize = 64 << 10;

/// The bytes that all values of one configuration may hold together: 4 MiB.
const MAX_TOTAL: usize = 4 << 20;

/// Where variables and files are looked up: the machine's own, or a test's.
pub trait Surroundings {
    /// The value of an environment variable, if it is set.
    ///
    /// # Errors
    /// When it is set, but is not UTF-8: the text says so and does not hold the value.
    fn variable(&self, name: &str) -> Result<Option<String>, String>;

    /// A file's content, of which no more than `limit` bytes are read.
    ///
    /// # Errors
    /// When it cannot be read.
    fn file(&self, path: &Path, limit: usize) -> std::io::Result<Vec<u8>>;
}

/// The machine's own environment and files.
#[derive(Clone, Copy, Default, Debug)]
pub struct Machine;

impl Surroundings for Machine {
    fn variable(&self, name: &str) -> Result<Option<String>, String> {
        match std::env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err("is not UTF-8".to_owned()),
        }
    }

    fn file(&self, path: &Path, limit: usize) -> std::io::Result<Vec<u8>> {
        // Reading a pipe or a device might never end.
        if !std::fs::metadata(path)?.is_file() {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut content = Vec::new();
        std::fs::File::open(path)?.take(limit as u64).read_to_end(&mut content)?;
        Ok(content)
    }
}

/// The machine's own, with a note of every file that is asked for.
#[derive(Default)]
pub(super) struct Noting {
    files: RefCell<BTreeSet<PathBuf>>,
}

impl Noting {
    /// The files that were asked for, whether they could be read or not.
    pub(super) fn into_files(self) -> BTreeSet<PathBuf> {
        self.files.into_inner()
    }
}

impl Surroundings for Noting {
    fn variable(&self, name: &str) -> Result<Option<String>, String> {
        Machine.variable(name)
    }

    fn file(&self, path: &Path, limit: usize) -> std::io::Result<Vec<u8>> {
        self.files.borrow_mut().insert(path.to_path_buf());
        Machine.file(path, limit)
    }
}

/// Replaces what `${…}` asks for.
pub(super) struct Interpolator<'s> {
    /// None: `${…}` stands for itself.
    surroundings: Option<&'s dyn Surroundings>,
    base_dir: PathBuf,
    left: usize,
}

/// A scalar after replacement.
#[derive(Debug, PartialEq)]
pub(super) struct Replaced<'t> {
    /// Its text.
    pub(super) text: Cow<'t, str>,
    /// Whether any of it came from a variable or a file.
    pub(super) secret: bool,
}

impl<'s> Interpolator<'s> {
    /// Files are looked up relative to `base_dir`.
    pub(super) fn new(surroundings: &'s dyn Surroundings, base_dir: &Path) -> Self {
        Self { surroundings: Some(surroundings), base_dir: base_dir.to_path_buf(), left: MAX_TOTAL }
    }

    /// One that replaces nothing and looks nothing up.
    pub(super) fn verbatim() -> Self {
        Self { surroundings: None, base_dir: PathBuf::new(), left: 0 }
    }

    /// Replaces every `${env:NAME}` and `${file:PATH}` in `text`; `$${` stands for `${`.
    ///
    /// # Errors
    /// What is wrong and what to write instead, without any value.
    pub(super) fn replace<'t>(&mut self, text: &'t str) -> Result<Replaced<'t>, String> {
        let Some(surroundings) = self.surroundings.filter(|_| text.contains("${")) else {
            return Ok(Replaced { text: Cow::Borrowed(text), secret: false });
        };
        let (mut done, mut rest, mut secret) = (String::with_capacity(text.len()), text, false);
        while let Some((before, from_dollar)) = rest.split_once('$').map(|(before, _)| rest.split_at(before.len())) {
            done.push_str(before);
            if let Some(after) = from_dollar.strip_prefix("$${") {
                done.push_str("${");
                rest = after;
            } else if let Some(after) = from_dollar.strip_prefix("${") {
                let (name, after) = after
                    .split_once('}')
                    .ok_or("`${` is never closed: write ${env:NAME} or ${file:PATH}, or $${ for the two characters")?;
                let value = self.look_up(surroundings, name)?;
                self.left = self.left.checked_sub(value.len()).ok_or("all variables and files hold more than 4 MiB")?;
                done.push_str(&value);
                secret = true;
                rest = after;
            } else {
                done.push('$');
                rest = from_dollar.strip_prefix('$').unwrap_or_default();
            }
        }
        done.push_str(rest);
        Ok(Replaced { text: Cow::Owned(done), secret })
    }

    fn look_up(&self, surroundings: &dyn Surroundings, asked: &str) -> Result<String, String> {
        let shown = super::problem::cut(asked);
        match asked.split_once(':') {
            Some(("env", name)) if is_variable_name(name) => match surroundings.variable(name) {
                Ok(Some(value)) if value.len() > MAX_VALUE => Err(format!("`${{{shown}}}` holds more than 64 KiB")),
                Ok(Some(value)) => Ok(value),
                Ok(None) => Err(format!("the environment variable {name} is not set: set it before starting")),
                Err(why) => Err(format!("the environment variable {name} {why}")),
            },
            Some(("env", _)) => {
                Err(format!("`${{{shown}}}` names no variable: write ${{env:NAME}} with letters, digits and _"))
            }
            Some(("file", path)) if !path.trim().is_empty() => self.read(surroundings, path.trim()),
            Some(("file", _)) => Err("`${file:}` names no file: write ${file:PATH}".to_owned()),
            _ if is_variable_name(asked) => {
                Err(format!("`${{{shown}}}`: write ${{env:{shown}}}, or $${{{shown}}} for these very characters"))
            }
            _ => Err(format!(
                "`${{{shown}}}`: write ${{env:NAME}} or ${{file:PATH}}, or $${{{shown}}} for these very characters"
            )),
        }
    }

    /// The file's text without the newline that editors leave at its end.
    fn read(&self, surroundings: &dyn Surroundings, path: &str) -> Result<String, String> {
        let shown = super::problem::cut(path);
        let content = surroundings
            .file(&self.base_dir.join(path), MAX_VALUE + 1)
            .map_err(|error| format!("the file {shown} cannot be read: {error}"))?;
        if content.len() > MAX_VALUE {
            return Err(format!("the file {shown} holds more than 64 KiB"));
        }
        let mut text = String::from_utf8(content).map_err(|_| format!("the file {shown} is not UTF-8"))?;
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
        Ok(text)
    }
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 256 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Surroundings for Nothing {
        fn variable(&self, name: &str) -> Result<Option<String>, String> {
            Ok((name == "WHO").then(|| "world".to_owned()))
        }

        fn file(&self, path: &Path, _limit: usize) -> std::io::Result<Vec<u8>> {
            if path == Path::new("/etc/backstop/who") {
                Ok(b"file\n".to_vec())
            } else {
                Err(std::io::ErrorKind::NotFound.into())
            }
        }
    }

    fn replace(text: &str) -> Result<(String, bool), String> {
        Interpolator::new(&Nothing, Path::new("/etc/backstop"))
            .replace(text)
            .map(|replaced| (replaced.text.into_owned(), replaced.secret))
    }

    #[test]
    fn variables_and_files_are_filled_in_and_dollars_left_alone() {
        for (text, expected, secret) in [
            ("plain", "plain", false),
            ("costs $5, ${env:WHO}!", "costs $5, world!", true),
            ("${env:WHO}${file:who}", "worldfile", true),
            ("$${env:WHO}", "${env:WHO}", false),
            ("$$", "$$", false),
            ("ends with $", "ends with $", false),
            ("ünï ${env:WHO} $ö", "ünï world $ö", true),
        ] {
            assert_eq!(replace(text), Ok((expected.to_owned(), secret)), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_filled_in_is_said_with_a_remedy() {
        for (text, expected) in [
            ("${env:NOBODY}", "NOBODY is not set"),
            ("${env:}", "write ${env:NAME}"),
            ("${file:nowhere}", "nowhere cannot be read"),
            ("${file:}", "write ${file:PATH}"),
            ("${HOME}", "write ${env:HOME}"),
            ("${a b}", "$${a b}"),
            ("${env:WHO", "never closed"),
        ] {
            let error = replace(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
