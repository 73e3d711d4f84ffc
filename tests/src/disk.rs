//! A small disk that can be filled: a file system in memory, which only the processes started on it see.
//!
//! It is mounted in a mount namespace of its own (as root, or in a user namespace), so that nothing of it is left once
//! the process that holds it has ended, in whatever way this one ends.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What holds the namespace: it mounts, says so, and waits for the end of its input.
const HOLDER: &str = r#"mount -t tmpfs -o "size=$2k,mode=0777" backstop-test "$1" && echo mounted && cat >/dev/null"#;
/// What fills the disk.
const FILLER: &str = "filler";

/// A small disk, mounted on a folder for those who are started on it.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    holder: Child,
}

impl Disk {
    /// Mounts a disk of so many KiB on `folder`.
    ///
    /// # Panics
    /// When that cannot be done here: the message says what it takes.
    pub(crate) fn mounted_on(folder: &Path, kib: u32) -> Self {
        let mut unshare = Command::new("unshare");
        if !is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        unshare.args(["--mount", "sh", "-c", HOLDER, "holder"]).arg(folder).arg(kib.to_string());
        let mut holder =
            unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare (util-linux) runs");
        let mut said = String::new();
        let out = holder.stdout.take().expect("its output");
        BufReader::new(out).read_line(&mut said).expect("its output");
        assert_eq!(
            said, "mounted\n",
            "a small disk takes root, or user namespaces (sysctl kernel.unprivileged_userns_clone=1)"
        );
        Self { folder: folder.to_owned(), holder }
    }

    /// What a command is preceded by to run in `folder` and see the disk.
    pub(crate) fn entrance(&self, folder: &Path) -> Vec<OsString> {
        let pid = self.holder.id().to_string();
        let user: &[&str] = if is_root() { &[] } else { &["--user", "--preserve-credentials"] };
        let enter = ["nsenter", "--target", &pid, "--mount"];
        let go_there = ["--", "sh", "-c", r#"cd "$0" && exec "$@""#];
        let words = enter.iter().chain(user).chain(&go_there);
        words.map(OsString::from).chain([folder.as_os_str().to_owned()]).collect()
    }

    /// The file called `name` on it, as this process sees it.
    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.folder.strip_prefix("/").unwrap_or(&self.folder)).join(name.as_ref())
    }

    /// Fills it to the last byte.
    ///
    /// # Panics
    /// When it cannot be written to.
    pub fn fill(&self) {
        let options = std::fs::File::options().create(true).append(true).open(self.path(FILLER));
        let mut filler = options.expect("a file on the disk");
        // To the last page, and then to its last byte.
        for chunk in [&[0; 4096][..], &[0; 1]] {
            while filler.write_all(chunk).is_ok() {}
        }
    }

    /// Takes away what filled it.
    ///
    /// # Panics
    /// When it was not filled.
    pub fn free(&self) {
        std::fs::remove_file(self.path(FILLER)).expect("the file that fills the disk");
    }

    /// Makes it read-only, for whoever comes from now on.
    ///
    /// # Panics
    /// When something on it is open for writing.
    pub fn write_protect(&self) {
        let mut remount = self.entrance(Path::new("/"));
        remount.extend(["mount", "-o", "remount,ro"].map(OsString::from));
        remount.push(self.folder.clone().into_os_string());
        let status = Command::new(&remount[0]).args(&remount[1..]).status().expect("mount runs");
        assert!(status.success(), "failed to make {} read-only", self.folder.display());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// Whether this process is root's.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
