//! The last good files of each policy: the one that serves, and the one that served before it.
//!
//! A start whose file in `policies/` is missing or broken goes on with the first; a policy set aside because it fails
//! again and again is stood in for by the second. Both are what authors wrote, not compiled code.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::load::{MAX_FILE, digest};
use super::state_dir::write_whole;

/// The folder of last good files: `NAME.wasm`, and `NAME.before.wasm`; and, in `NAME.quarantined`, the digests of those
/// that were set aside. A policy's name holds no dot.
#[derive(Clone, Debug)]
pub(super) struct LastGood {
    folder: PathBuf,
}

/// Digests that are remembered of each policy.
const MOST_SET_ASIDE: usize = 16;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Which {
    /// The file that serves, or did when the host stopped.
    Serving,
    /// The one that served before it.
    Before,
}

impl LastGood {
    /// In a folder that nobody else can write to.
    pub(super) const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Writes down that `file` serves as the policy `name` now. What served until now is kept as the one before it,
    /// unless it was set aside, or never proved itself while another one waits there: then it is dropped.
    pub(super) fn serves(&self, name: &str, file: &[u8], proved_itself: bool) -> io::Result<()> {
        let (now, before) = (self.path(name, Which::Serving), self.path(name, Which::Before));
        if let Some(until_now) = self.read(name, Which::Serving) {
            if until_now == file {
                return Ok(());
            }
            if !self.was_set_aside(name, &digest(&until_now)) && (proved_itself || !before.exists()) {
                fs::rename(&now, before)?;
            }
        }
        write_whole(&now, &[file])
    }

    /// Writes down that the file with this digest was set aside, so that it is not taken for good later.
    pub(super) fn set_aside(&self, name: &str, digest: &str) -> io::Result<()> {
        let mut digests = self.quarantined(name);
        if digests.iter().any(|known| known == digest) {
            return Ok(());
        }
        digests.push(digest.to_owned());
        // Only two files are kept, so older ones need not be known.
        let from = digests.len().saturating_sub(MOST_SET_ASIDE);
        write_whole(&self.list(name), &[digests[from..].join("\n").as_bytes()])
    }

    /// Whether the file with this digest was set aside, on whatever route.
    pub(super) fn was_set_aside(&self, name: &str, digest: &str) -> bool {
        self.quarantined(name).iter().any(|known| known == digest)
    }

    fn quarantined(&self, name: &str) -> Vec<String> {
        let list = fs::read_to_string(self.list(name)).unwrap_or_default();
        list.lines().map(str::to_owned).collect()
    }

    fn list(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.quarantined"))
    }

    /// The file that serves or served; none when there is none, or none that can be read.
    pub(super) fn read(&self, name: &str, which: Which) -> Option<Vec<u8>> {
        let file = fs::read(self.path(name, which)).ok()?;
        (file.len() <= MAX_FILE).then_some(file)
    }

    /// The files whose digests are none of the `bad` ones, the newest first.
    pub(super) fn others_than(&self, name: &str, bad: &[String]) -> Vec<Vec<u8>> {
        let files = [Which::Serving, Which::Before].into_iter().filter_map(|which| self.read(name, which));
        files.filter(|file| !bad.contains(&digest(file))).collect()
    }

    fn path(&self, name: &str, which: Which) -> PathBuf {
        self.folder.join(match which {
            Which::Serving => format!("{name}.wasm"),
            Which::Before => format!("{name}.before.wasm"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(files: &LastGood) -> [Option<Vec<u8>>; 2] {
        [Which::Serving, Which::Before].map(|which| files.read("orders", which))
    }

    #[test]
    fn the_one_before_is_the_last_that_proved_itself() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = LastGood::new(dir.path().to_owned());
        assert_eq!(kept(&files), [None, None]);
        let file = |text: &str| Some(text.as_bytes().to_owned());
        for (serves, until_now_was_good, expected) in [
            ("a", true, [file("a"), None]),
            ("a", true, [file("a"), None]),
            ("b", false, [file("b"), file("a")]),
            ("c", false, [file("c"), file("a")]),
            ("d", true, [file("d"), file("c")]),
        ] {
            files.serves("orders", serves.as_bytes(), until_now_was_good).expect("written");
            assert_eq!(kept(&files), expected, "after {serves}");
        }
        assert_eq!(files.others_than("orders", &[digest(b"d")]), [b"c"]);
        assert_eq!(files.others_than("orders", &[digest(b"x")]), [b"d", b"c"]);
        assert!(files.others_than("orders", &[digest(b"d"), digest(b"c")]).is_empty());
        assert!(files.others_than("refunds", &[]).is_empty());

        files.set_aside("orders", &digest(b"d")).expect("written");
        files.serves("orders", b"e", true).expect("written");
        assert_eq!(kept(&files), [file("e"), file("c")], "what was set aside is not kept, whatever it did before");
    }
}
