//! A Postgres server of the bench's own, from the installed binaries, with the settings it comes with: every commit is
//! synced. It runs as its own user where the bench runs as root, which Postgres refuses.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;

use super::{free_address, text};
use crate::clock;

/// Where distributions put the versions.
const INSTALLED: &str = "/usr/lib/postgresql";
/// How long it may take to start, and to stop.
const WITHIN: Duration = Duration::from_secs(30);
/// The user and group that own nothing.
const NOBODY: u32 = 65534;

/// A running server; it stops, and its data goes, when this is dropped.
pub(crate) struct Server {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Server {
    /// Starts one on a port of its own; none when Postgres is not installed.
    ///
    /// # Errors
    /// When it does not come up.
    pub(super) fn start(place: &Path) -> anyhow::Result<Option<Self>> {
        let Some(binaries) = newest() else { return Ok(None) };
        // Beside the bench's own folder, which nobody else may enter.
        let folder = TempDir::new_in(place.parent().unwrap_or(place))?;
        let root = fs::metadata("/proc/self")?.uid() == 0;
        let user = root.then(|| (id_of("-u"), id_of("-g")));
        if let Some((user, group)) = user {
            chown(folder.path(), Some(user), Some(group))?;
        }
        let log = File::create(folder.path().join("log"))?;
        let run = |program: &str| -> anyhow::Result<Command> {
            let mut command = Command::new(binaries.join(program));
            command.current_dir(folder.path()).stdin(Stdio::null());
            command.stdout(log.try_clone()?).stderr(log.try_clone()?);
            if let Some((user, group)) = user {
                command.uid(user).gid(group);
            }
            Ok(command)
        };
        let made =
            run("initdb")?.args(["-D", "data", "-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C"]).status()?;
        anyhow::ensure!(made.success(), "initdb failed: {}", fs::read_to_string(folder.path().join("log"))?);
        let address = free_address()?;
        let port = address.port();
        let process = run("postgres")?
            .args(["-D", "data", "-k", &text(folder.path()), "-p", &port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .spawn()
            .context("failed to start postgres")?;
        let server = Self { process, port, _folder: folder };
        anyhow::ensure!(clock::wait_until(WITHIN, || TcpStream::connect(address).is_ok()), "postgres does not listen");
        Ok(Some(server))
    }

    /// The database, as a host's configuration names it.
    pub(super) fn url(&self) -> String {
        format!("postgres://bench@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // At once, whoever is still connected.
        let _ = Command::new("kill").args(["-QUIT", &self.process.id().to_string()]).status();
        if !clock::wait_until(WITHIN, || matches!(self.process.try_wait(), Ok(Some(_)))) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// The binaries of the newest version there is.
fn newest() -> Option<PathBuf> {
    let versions = fs::read_dir(INSTALLED).ok()?.flatten();
    let newest = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max()?;
    Some(Path::new(INSTALLED).join(newest.to_string()).join("bin")).filter(|binaries| binaries.join("initdb").is_file())
}

/// The number of the user `postgres`, or of `nobody`.
fn id_of(which: &str) -> u32 {
    let output = Command::new("id").args([which, "postgres"]).output();
    let number = output.ok().and_then(|output| String::from_utf8_lossy(&output.stdout).trim().parse().ok());
    number.unwrap_or(NOBODY)
}
