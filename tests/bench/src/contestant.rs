//! The contestants: each a process of its own, started with everything it keeps in a folder that goes with it.

mod host;
mod postgres;
mod proxies;

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::clock;
use crate::process::{self, Usage};

pub(crate) use host::{Artefacts, HostSetup};
use postgres::Server;

/// How long a contestant may take to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// Who takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// (a)
    BareRelay,
    /// (b)
    DurableRelay,
    /// (c)
    AsyncOnSqlite,
    /// (d)
    AsyncOnPostgres,
    /// (e)
    Direct,
    Sync,
    Nginx,
    HaProxy,
}

impl Kind {
    /// All, in the table's order.
    pub(crate) const ALL: [Self; 8] = [
        Self::BareRelay,
        Self::DurableRelay,
        Self::AsyncOnSqlite,
        Self::AsyncOnPostgres,
        Self::Direct,
        Self::Sync,
        Self::Nginx,
        Self::HaProxy,
    ];

    /// The letter it has in `--only`.
    pub(crate) const fn letter(self) -> char {
        match self {
            Self::BareRelay => 'a',
            Self::DurableRelay => 'b',
            Self::AsyncOnSqlite => 'c',
            Self::AsyncOnPostgres => 'd',
            Self::Direct | Self::Sync | Self::Nginx | Self::HaProxy => 'e',
        }
    }

    /// Its name in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::BareRelay => "(a) bare relay",
            Self::DurableRelay => "(b) minimal durable relay",
            Self::AsyncOnSqlite => "(c) Backstop async, SQLite",
            Self::AsyncOnPostgres => "(d) Backstop async, Postgres",
            Self::Direct => "(e) direct call",
            Self::Sync => "(e) Backstop sync",
            Self::Nginx => "(e) nginx with retries",
            Self::HaProxy => "(e) HAProxy with retries",
        }
    }

    /// Whether it answers before it delivers.
    pub(crate) const fn is_async(self) -> bool {
        matches!(self, Self::BareRelay | Self::DurableRelay | Self::AsyncOnSqlite | Self::AsyncOnPostgres)
    }
}

/// A contestant that runs.
pub(crate) struct Contestant {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The path that leads to the sink.
    pub(crate) path: String,
    process: Option<Child>,
    /// The database it keeps its messages in, stopped after it.
    server: Option<Server>,
    /// What it keeps; goes when it goes.
    _folder: Option<TempDir>,
}

impl Contestant {
    /// Starts one that delivers to `sink`, with what it keeps in a new folder in `place`. None when what it needs is not
    /// on this machine, with what that is.
    ///
    /// # Errors
    /// When it does not come up.
    pub(crate) fn start(
        kind: Kind,
        sink: SocketAddr,
        place: &Path,
        artefacts: &Artefacts,
    ) -> anyhow::Result<Result<Self, String>> {
        let folder = TempDir::new_in(place)?;
        let listen = free_address()?;
        let relay = |journal: &[&str]| {
            let mut command = Command::new(std::env::current_exe()?);
            let to = format!("http://{sink}/");
            command.args(["relay", "--listen", &listen.to_string(), "--to", &to]).args(journal);
            anyhow::Ok(command)
        };
        let (command, path) = match kind {
            Kind::Direct => {
                return Ok(Ok(Self {
                    address: sink,
                    path: "/".to_owned(),
                    process: None,
                    server: None,
                    _folder: None,
                }));
            }
            Kind::BareRelay => (relay(&[])?, "/".to_owned()),
            Kind::DurableRelay => (relay(&["--journal", &text(&folder.path().join("journal.db"))])?, "/".to_owned()),
            Kind::AsyncOnSqlite | Kind::Sync => {
                let mut setup = HostSetup::new(vec![sink]);
                setup.sync = kind == Kind::Sync;
                (setup.command(folder.path(), listen, artefacts)?, "/r/route-0/".to_owned())
            }
            Kind::AsyncOnPostgres => {
                let Some(server) = Server::start(place)? else {
                    return Ok(Err("Postgres is not installed".to_owned()));
                };
                let mut setup = HostSetup::new(vec![sink]);
                setup.store = server.url();
                let command = setup.command(folder.path(), listen, artefacts)?;
                let mut contestant = Self::launch(command, listen, "/r/route-0/".to_owned(), Some(folder))?;
                contestant.server = Some(server);
                return Ok(Ok(contestant));
            }
            Kind::Nginx | Kind::HaProxy => {
                let Some(command) = proxies::command(kind, folder.path(), listen, sink)? else {
                    return Ok(Err("not installed on this machine".to_owned()));
                };
                (command, "/".to_owned())
            }
        };
        Self::launch(command, listen, path, Some(folder)).map(Ok)
    }

    /// Starts `command` and returns once it listens at `address`.
    ///
    /// # Errors
    /// When it ends before, or takes too long.
    pub(crate) fn launch(
        mut command: Command,
        address: SocketAddr,
        path: String,
        folder: Option<TempDir>,
    ) -> anyhow::Result<Self> {
        let log = match &folder {
            Some(folder) => File::create(folder.path().join("log"))?.into(),
            None => Stdio::null(),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut process = command.spawn().with_context(|| format!("failed to start {command:?}"))?;
        let mut ended = false;
        let listens = clock::wait_until(LISTENS_WITHIN, || {
            ended = !matches!(process.try_wait(), Ok(None));
            ended || TcpStream::connect(address).is_ok()
        });
        let contestant = Self { address, path, process: Some(process), server: None, _folder: folder };
        if ended || !listens {
            let log = contestant._folder.as_ref().map(|folder| folder.path().join("log"));
            let said = log.and_then(|log| std::fs::read_to_string(log).ok()).unwrap_or_default();
            anyhow::bail!("{command:?} does not listen at {address}:\n{said}");
        }
        Ok(contestant)
    }

    /// What it used so far; nothing for a direct call.
    pub(crate) fn usage(&self) -> Usage {
        self.process.as_ref().map_or_else(Usage::default, |process| process::usage(process.id()))
    }

    /// Asks it to stop, and waits for that.
    pub(crate) fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let asked = Command::new("kill").arg(process.id().to_string()).status().is_ok();
        if !asked || !clock::wait_until(STOPS_WITHIN, || matches!(process.try_wait(), Ok(Some(_)))) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Contestant {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An address on this machine that nobody listens at just now.
///
/// # Errors
/// When there is none.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The program called `name`, where administrators' programs are kept too.
fn installed(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&paths).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}
