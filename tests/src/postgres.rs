//! A private Postgres server: started from the installed binaries, on loopback, in a temporary folder of its own.
//!
//! It is as durable as a real one (`fsync` is on), since that is what is tested. It takes passwords, so that a URL's
//! user and password are tried as well. Postgres refuses to run as root: where the tests do, it runs as `nobody`.
//!
//! Whatever becomes of the process that started it, the server ends and its folder goes: a keeper, a small shell,
//! waits for that process's end and then tidies up. There is no other way in which it is tidied up, so the one there is
//! gets tried each time.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::disk::is_root;
use crate::setup::NOBODY;

/// Where Debian and its kin put each version's binaries.
const DEBIAN: &str = "/usr/lib/postgresql";
/// The one user, who may do everything.
const USER: &str = "backstop";
/// Nothing else of the machine's listens for it, so it need not be a secret.
const PASSWORD: &str = "a-password";
/// How often another port is tried, when somebody was quicker to take the free one.
const PORTS_TRIED: usize = 5;

/// What the keeper does: it waits for the end of its input, which is the end of whoever holds the other side.
const KEEPER: &str = r#"
trap '' HUP INT TERM
cat >/dev/null
"$1" stop --pgdata "$2/data" --mode immediate --silent >/dev/null 2>&1
rm -rf "$2"
"#;

/// A running server. It is stopped, and its folder removed, when this is dropped or this process ends in any way.
#[derive(Debug)]
pub struct Postgres {
    tools: PathBuf,
    folder: PathBuf,
    keeper: Child,
    port: u16,
}

/// How the server is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// In order: what is committed is written into the tables, and clients are cut off.
    Fast,
    /// As a crash would: at once, with the log to be replayed at the next start.
    Immediate,
}

impl Postgres {
    /// Starts a server.
    ///
    /// # Panics
    /// When it does not start; where Postgres is not installed, the message says how to install it.
    pub fn start() -> Self {
        Self::try_start().unwrap_or_else(|why| panic!("{why}"))
    }

    /// As [`Postgres::start`], with why it did not start in a sentence.
    ///
    /// # Errors
    /// When Postgres is not installed, or does not start.
    pub fn try_start() -> Result<Self, String> {
        let tools = installed().ok_or(
            "Postgres is not installed, and the tests need its server: install it (`apt-get install postgresql` on \
             Debian and Ubuntu), or put `initdb` and `postgres` on the PATH",
        )?;
        let folder = TempDir::with_prefix("backstop-postgres-").map_err(|error| format!("no folder: {error}"))?.keep();
        let mut server = Self { keeper: keeper(&tools, &folder)?, tools, folder, port: 0 };
        server.make_cluster()?;
        for _ in 0..PORTS_TRIED {
            server.port = free_port()?;
            if server.control(&["start"]).is_ok() {
                return Ok(server);
            }
        }
        Err(format!("the private Postgres server did not start:\n{}", server.log()))
    }

    /// Where its database is, for a client: `postgres://user:password@127.0.0.1:port/database`.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Makes an empty database of its own, and answers its URL.
    ///
    /// # Panics
    /// When the server does not.
    pub fn database(&self) -> String {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("scenario_{}", MADE.fetch_add(1, Ordering::Relaxed));
        self.query(&format!("CREATE DATABASE {name}"));
        self.url_of(&name)
    }

    /// Runs SQL in its first database, and answers what `psql` prints: a line for each row, columns parted by `|`.
    ///
    /// # Panics
    /// When it fails.
    pub fn query(&self, sql: &str) -> String {
        self.query_at(&self.url(), sql)
    }

    /// As [`Postgres::query`], in the database at `url`.
    ///
    /// # Panics
    /// When it fails.
    pub fn query_at(&self, url: &str, sql: &str) -> String {
        let mut psql = self.tool("psql");
        psql.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set", "ON_ERROR_STOP=1"]);
        let output = run(psql.args(["--dbname", url, "--command", sql]));
        output.map(|output| output.trim_end().to_owned()).unwrap_or_else(|why| panic!("{sql}: {why}"))
    }

    /// Stops the server, and returns once it has gone.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn stop(&self, how: Stop) {
        let mode = if how == Stop::Fast { "fast" } else { "immediate" };
        self.control(&["stop", "--mode", mode]).unwrap_or_else(|why| panic!("{why}"));
    }

    /// Starts it again, at the same port with the same data, and returns once it answers.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&self) {
        self.control(&["start"]).unwrap_or_else(|why| panic!("{why}\n{}", self.log()));
    }

    /// Cuts every client's connection; answers how many there were.
    ///
    /// # Panics
    /// When the server does not.
    pub fn cut_connections(&self) -> usize {
        let cut = self.query(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
        );
        cut.parse().unwrap_or_default()
    }

    /// What the server has to say.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes the files of an empty server.
    fn make_cluster(&self) -> Result<(), String> {
        let password = self.folder.join("password");
        std::fs::write(&password, PASSWORD)
            .and_then(|()| std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o444)))
            .map_err(|error| format!("failed to write {}: {error}", password.display()))?;
        let mut initdb = self.tool("initdb");
        initdb.args(["--username", USER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"]);
        // Only the making is not made durable: from the start on, everything is.
        initdb.arg("--no-sync").arg("--pgdata").arg(self.data()).arg("--pwfile").arg(&password);
        run(&mut initdb).map(drop)
    }

    /// Has `pg_ctl` start or stop the server, and waits until it has.
    fn control(&self, arguments: &[&str]) -> Result<(), String> {
        let settings = format!(
            "-c port={} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200 \
             -c shared_buffers=32MB",
            self.port
        );
        let mut pg_ctl = self.tool("pg_ctl");
        pg_ctl.args(arguments).args(["--wait", "--timeout", "120", "--silent", "--pgdata"]).arg(self.data());
        if arguments.first() == Some(&"start") {
            pg_ctl.arg("--log").arg(self.folder.join("log")).args(["--options", &settings]);
        }
        // The server inherits what it is started with, and would hold a pipe open for as long as it runs.
        pg_ctl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match pg_ctl.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{pg_ctl:?} failed with {status}")),
            Err(error) => Err(format!("failed to run {pg_ctl:?}: {error}")),
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn tool(&self, name: &str) -> Command {
        unprivileged(self.tools.join(name), &self.folder)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // What it waits for.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// The folder of the newest binaries that are installed.
fn installed() -> Option<PathBuf> {
    let versions = std::fs::read_dir(DEBIAN).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let version = |path: &Path| path.file_name().and_then(OsStr::to_str).and_then(|name| name.parse::<u32>().ok());
    let mut versions: Vec<(u32, PathBuf)> = versions.filter_map(|path| Some((version(&path)?, path))).collect();
    versions.sort();
    let debian = versions.into_iter().rev().map(|(_, path)| path.join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    debian.chain(std::env::split_paths(&path)).find(|bin| bin.join("initdb").is_file())
}

/// Starts the keeper of `folder`, which is given to whom it runs as.
fn keeper(tools: &Path, folder: &Path) -> Result<Child, String> {
    if is_root() {
        chown(folder, Some(NOBODY), Some(NOBODY))
            .map_err(|error| format!("failed to give the folder away: {error}"))?;
    }
    let mut keeper = unprivileged("/bin/sh", Path::new("/"));
    keeper.args(["-c", KEEPER, "keeper"]).arg(tools.join("pg_ctl")).arg(folder);
    // In a group of its own: what ends a whole group of processes leaves it to do its work.
    keeper.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    keeper.spawn().map_err(|error| format!("failed to run /bin/sh: {error}"))
}

/// A command that runs as whoever runs the tests, or as `nobody` where that is root.
fn unprivileged(program: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn free_port() -> Result<u16, String> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.map(|address| address.port()).map_err(|error| format!("no free port: {error}"))
}

/// Runs a command to its end, and answers what it printed.
fn run(command: &mut Command) -> Result<String, String> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().map_err(|error| format!("failed to run {command:?}: {error}"))?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    Err(format!("{command:?} failed with {status}:\n{}", String::from_utf8_lossy(&stderr)))
}
