//! A private RabbitMQ broker: started from the installed scripts, on loopback, in a temporary folder of its own.
//!
//! It has its own name, cookie, ports and name service (`epmd`), and none of its plugins, so that it meets no other
//! broker of the machine. It runs as `nobody` where the tests run as root.
//!
//! Whatever becomes of the process that started it, the broker ends and its folder goes: a keeper, a small shell, waits
//! for that process's end and then tidies up. There is no other way in which it is tidied up, so the one there is gets
//! tried each time.

pub mod desk;
pub mod rough;

use std::ffi::OsStr;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Where Debian puts the broker's own scripts: those on the PATH insist on its service's user.
const DEBIAN: &str = "/usr/lib/rabbitmq/bin";
/// Who runs it where root does not want to.
const NOBODY: u32 = 65_534;
/// The one user, who may do everything.
pub const USER: &str = "backstop";
/// Its password: long enough to be looked for in a log.
pub const PASSWORD: &str = "a-password-of-no-secret";
/// How long starting or stopping may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often other ports are tried, when somebody was quicker to take the free ones.
const PORTS_TRIED: usize = 5;

/// What the keeper does: it waits for the end of its input, which is the end of whoever holds the other side.
const KEEPER: &str = r#"
trap '' HUP INT TERM
cat >/dev/null
while read -r group; do kill -s KILL -- "-$group" 2>/dev/null; done <"$1/groups"
rm -rf "$1"
"#;

/// A running broker. It is stopped, and its folder removed, when this is dropped or this process ends in any way.
#[derive(Debug)]
pub struct RabbitMq {
    folder: PathBuf,
    scripts: PathBuf,
    keeper: Child,
    ports: Ports,
    processes: Mutex<Vec<Child>>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    amqp: u16,
    amqps: u16,
    names: u16,
    distribution: u16,
}

/// How the broker is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// In order: clients are told.
    InOrder,
    /// As a crash would: at once.
    AtOnce,
}

impl RabbitMq {
    /// Starts a broker.
    ///
    /// # Panics
    /// When it does not start; where RabbitMQ is not installed, the message says how to install it.
    pub fn start() -> Self {
        Self::try_start().unwrap_or_else(|why| panic!("{why}"))
    }

    /// As [`RabbitMq::start`], with why it did not start in a sentence.
    ///
    /// # Errors
    /// When RabbitMQ is not installed, or does not start.
    pub fn try_start() -> Result<Self, String> {
        let scripts = installed().ok_or(
            "RabbitMQ is not installed, and the tests need its broker: install it (`apt-get install rabbitmq-server` on \
             Debian and Ubuntu), or put `rabbitmq-server` on the PATH",
        )?;
        let folder = TempDir::with_prefix("backstop-rabbitmq-").map_err(|error| format!("no folder: {error}"))?.keep();
        let mut broker = Self {
            keeper: keeper(&folder)?,
            folder,
            scripts,
            ports: Ports { amqp: 0, amqps: 0, names: 0, distribution: 0 },
            processes: Mutex::default(),
        };
        broker.make_certificate()?;
        let mut why = String::new();
        for _ in 0..PORTS_TRIED {
            broker.ports =
                Ports { amqp: free_port()?, amqps: free_port()?, names: free_port()?, distribution: free_port()? };
            broker.settle_in().map_err(|error| format!("failed to write the broker's settings: {error}"))?;
            match broker.begin_names().and_then(|()| broker.begin()) {
                Ok(()) => return Ok(broker),
                Err(error) => why = error,
            }
        }
        Err(format!("the private RabbitMQ broker did not start: {why}\n{}", broker.log()))
    }

    /// Where it is, for a client: `amqp://user:password@127.0.0.1:port/%2F`.
    pub fn url(&self) -> String {
        format!("amqp://{USER}:{PASSWORD}@127.0.0.1:{}/%2F", self.ports.amqp)
    }

    /// The same over TLS, with a certificate that vouches for itself: [`RabbitMq::certificate`].
    pub fn tls_url(&self) -> String {
        self.url().replace("amqp://", "amqps://").replace(&self.ports.amqp.to_string(), &self.ports.amqps.to_string())
    }

    /// The file of its certificate, for `127.0.0.1`, in PEM.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("certificate.pem")
    }

    /// Its port for clients.
    pub fn port(&self) -> u16 {
        self.ports.amqp
    }

    /// Stops the broker, and returns once it has gone.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn stop(&self, how: Stop) {
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut broker) = processes.pop() else { return };
        match how {
            Stop::AtOnce => signal("KILL", &format!("-{}", broker.id())),
            // The runtime's own process: the script around it would start another one to stop it.
            Stop::InOrder => {
                let process = std::fs::read_to_string(self.folder.join("pid")).expect("the broker writes its pid");
                signal("TERM", process.trim());
            }
        }
        let ended = until(|| broker.try_wait().is_ok_and(|ended| ended.is_some()) && !self.is_listening());
        assert!(ended, "the broker does not stop:\n{}", self.log());
    }

    /// Starts it again, at the same port with the same queues, and returns once it takes connections.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&self) {
        self.begin().unwrap_or_else(|why| panic!("{why}\n{}", self.log()));
    }

    /// What the broker has to say since it was last started.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("output")).unwrap_or_default()
    }

    /// Makes a key and a certificate. A week is enough for a test.
    fn make_certificate(&self) -> Result<(), String> {
        let mut openssl = unprivileged("openssl", &self.folder);
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "7",
        ]);
        openssl.args(["-subj", "/CN=backstop-test", "-addext", "subjectAltName=IP:127.0.0.1"]);
        openssl.args([
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            "key.pem",
            "-out",
            "certificate.pem",
        ]);
        let made =
            openssl.stdin(Stdio::null()).output().map_err(|error| format!("failed to run {openssl:?}: {error}"))?;
        if made.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&made.stderr).into_owned()) }
    }

    /// Writes what it reads at its start.
    fn settle_in(&self) -> std::io::Result<()> {
        let Ports { amqp, amqps, .. } = self.ports;
        let folder = self.folder.display();
        let settings = format!(
            "listeners.ssl.1 = 127.0.0.1:{amqps}\nssl_options.certfile = {folder}/certificate.pem\n\
             ssl_options.cacertfile = {folder}/certificate.pem\nssl_options.keyfile = {folder}/key.pem\n\
             listeners.tcp.1 = 127.0.0.1:{amqp}\ndefault_user = {USER}\ndefault_pass = {PASSWORD}\n\
             loopback_users = none\nlog.console = true\nlog.console.level = info\nlog.file = false\n\
             vm_memory_high_watermark.absolute = 1GB\ndisk_free_limit.absolute = 1MB\n"
        );
        let files = [("settings.conf", settings.as_str()), ("plugins", "[].\n"), (".erlang.cookie", "PRIVATE")];
        for (name, text) in files {
            let path = self.folder.join(name);
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, text)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400))?;
            if is_root() {
                chown(&path, Some(NOBODY), Some(NOBODY))?;
            }
        }
        std::fs::write(self.folder.join("groups"), "")
    }

    /// Starts the name service, without which Erlang starts nothing: one of the machine's own would outlive us.
    fn begin_names(&self) -> Result<(), String> {
        let names = self.ports.names.to_string();
        let mut epmd = self.command("epmd");
        epmd.args(["-address", "127.0.0.1", "-port", &names]).stdout(Stdio::null()).stderr(Stdio::null());
        self.keep(epmd)
    }

    /// Starts the broker, and waits until it takes connections.
    fn begin(&self) -> Result<(), String> {
        let output = File::create(self.folder.join("output")).map_err(|error| error.to_string())?;
        let again = output.try_clone().map_err(|error| error.to_string())?;
        let mut server = self.command(self.scripts.join("rabbitmq-server"));
        server.stdout(output).stderr(again);
        self.keep(server)?;
        let is_over = || {
            let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
            processes.last_mut().is_none_or(|server| server.try_wait().is_ok_and(|ended| ended.is_some()))
        };
        let is_up = || self.log().contains("Server startup complete") && self.is_listening();
        until(|| is_up() || is_over());
        if is_up() { Ok(()) } else { Err("it ended, or took no connections".to_owned()) }
    }

    /// Starts a process in a group of its own, which the keeper ends at the end.
    fn keep(&self, mut command: Command) -> Result<(), String> {
        let process = command.spawn().map_err(|error| format!("failed to run {command:?}: {error}"))?;
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        let groups = self.folder.join("groups");
        let known = std::fs::read_to_string(&groups).unwrap_or_default();
        std::fs::write(&groups, format!("{known}{}\n", process.id())).map_err(|error| error.to_string())?;
        processes.push(process);
        Ok(())
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = unprivileged(program, &self.folder);
        let Ports { amqp, names, distribution, .. } = self.ports;
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.folder)
            .env("LANG", "C.UTF-8")
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", names.to_string())
            .env("RABBITMQ_NODENAME", format!("backstop-{amqp}@localhost"))
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", amqp.to_string())
            .env("RABBITMQ_DIST_PORT", distribution.to_string())
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
            .env("RABBITMQ_MNESIA_BASE", self.folder.join("data"))
            .env("RABBITMQ_LOG_BASE", self.folder.join("logs"))
            .env("RABBITMQ_PID_FILE", self.folder.join("pid"))
            .env("RABBITMQ_CONFIG_FILE", self.folder.join("settings.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", self.folder.join("no-more-settings.config"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", self.folder.join("plugins"));
        command.process_group(0).stdin(Stdio::null());
        command
    }

    fn is_listening(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.ports.amqp)).is_ok()
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        // What it waits for.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
        for process in self.processes.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let _ = process.wait();
        }
    }
}

/// The folder of the scripts that are installed.
fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::iter::once(PathBuf::from(DEBIAN));
    debian.chain(std::env::split_paths(&path)).find(|folder| folder.join("rabbitmq-server").is_file())
}

/// Starts the keeper of `folder`, which is given to whom it runs as.
fn keeper(folder: &Path) -> Result<Child, String> {
    if is_root() {
        chown(folder, Some(NOBODY), Some(NOBODY))
            .map_err(|error| format!("failed to give the folder away: {error}"))?;
    }
    let mut keeper = unprivileged("/bin/sh", Path::new("/"));
    keeper.args(["-c", KEEPER, "keeper"]).arg(folder);
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

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn signal(signal: &str, target: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), "--", target]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{signal} -- {target}");
}

fn free_port() -> Result<u16, String> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.map(|address| address.port()).map_err(|error| format!("no free port: {error}"))
}

/// Waits until `done` holds; answers whether it does.
#[expect(clippy::disallowed_methods, reason = "a process is waited for, by looking")]
fn until(mut done: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !done() {
        if begun.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}
