//! Reading a configuration, together with the state that its files were in: so that no change of theirs is missed, and
//! none is taken for one that was read already.

use std::path::{Path, PathBuf};

use crate::config::{Config, Problems};
use crate::follow::Stamp;

/// Times a configuration is read before it is taken as it is, when its files do not hold still.
const TRIES: usize = 3;

/// Files, and the state that each of them was in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files(Vec<(PathBuf, Option<Stamp>)>);

/// A configuration as it was read.
pub struct Reading {
    /// What it came to.
    pub config: Result<Config, Problems>,
    /// The files it was read from (the file itself, and those that `${file:…}` names), in the state they were in then,
    /// or in one before: never in a later one.
    pub files: Files,
}

impl Reading {
    /// Reads the configuration at `path`. Blocks on files.
    pub fn of(path: &Path) -> Self {
        let mut files = Files::of([path.to_path_buf()]);
        let mut tries = 0;
        loop {
            let (config, read) = Config::load_with_files(path);
            let held_still = files.are(&read) && files == files.now();
            tries += 1;
            if held_still || tries == TRIES {
                return Self { config, files };
            }
            files = Files::of(read);
        }
    }
}

impl Files {
    /// These files, as they are now. Blocks.
    pub fn of(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let one = |path: PathBuf| {
            let stamp = Stamp::of(&path);
            (path, stamp)
        };
        Self(paths.into_iter().map(one).collect())
    }

    /// The same files, as they are now. Blocks.
    pub(super) fn now(&self) -> Self {
        Self::of(self.paths())
    }

    /// The same files and these. Blocks.
    pub(super) fn and(mut self, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        self.0.extend(Self::of(paths).0);
        self
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.0.iter().map(|(path, _)| path.clone())
    }

    fn are(&self, paths: &[PathBuf]) -> bool {
        self.0.iter().map(|(path, _)| path).eq(paths)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(secret: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let auth = "auth: { header: { name: x-key, value: '${file:secret}' } }";
        let text = format!("routes: {{ orders: {{ destination: {{ url: http://vendor.test, {auth} }} }} }}");
        fs::write(folder.path().join("backstop.yaml"), text).expect("written");
        fs::write(folder.path().join("secret"), secret).expect("written");
        folder
    }

    #[test]
    fn a_file_that_holds_a_secret_belongs_to_the_configuration() {
        let folder = folder("one");
        let path = folder.path().join("backstop.yaml");
        let reading = Reading::of(&path);
        assert!(reading.config.is_ok());
        assert_eq!(reading.files, reading.files.now());
        fs::write(folder.path().join("secret"), "another").expect("written");
        assert_ne!(reading.files, reading.files.now());
        assert_eq!(Reading::of(&path).files, reading.files.now());
    }

    #[test]
    fn what_could_not_be_read_is_looked_for_again() {
        let folder = folder("one");
        let path = folder.path().join("backstop.yaml");
        fs::remove_file(folder.path().join("secret")).expect("removed");
        let reading = Reading::of(&path);
        assert!(reading.config.is_err());
        fs::write(folder.path().join("secret"), "two").expect("written");
        assert_ne!(reading.files, reading.files.now());

        fs::remove_file(&path).expect("removed");
        let reading = Reading::of(&path);
        assert!(reading.config.is_err_and(|problems| problems.to_string().contains("cannot be read")));
    }
}
