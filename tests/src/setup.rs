//! A folder for one host: its configuration, its policies, and later its database and its log.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use tempfile::TempDir;

use crate::artefacts::{binary, is_stock, stock_policy};
use crate::disk::Disk;
use crate::host::Host;

/// The user and group `nobody`, who owns nothing.
pub(crate) const NOBODY: u32 = 65534;

/// What a host is started with.
pub struct Setup {
    routes: String,
    settings: BTreeMap<String, String>,
    env: Vec<(String, String)>,
    policies: Vec<(String, PathBuf)>,
}

/// The folder, and how commands are run in it.
pub struct Place {
    folder: TempDir,
    env: Vec<(String, String)>,
    /// Whom the binary is run as, if not by whoever runs the tests.
    user: Option<u32>,
    /// The small disk it has as its folder `disk`.
    disk: Option<Disk>,
}

impl Setup {
    /// Routes, as they stand in YAML below `routes:`. Stock policies that they name are put in place.
    pub fn routes(yaml: &str) -> Self {
        let named = yaml.lines().filter_map(|line| line.trim().strip_prefix("policy: "));
        let stock = named.filter(|name| is_stock(name)).map(|name| (name.to_owned(), PathBuf::new())).collect();
        let settings = [("listen", "127.0.0.1:0"), ("admin", "127.0.0.1:0"), ("store", "sqlite:backstop.db")];
        let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Self { routes: indented(yaml), settings, env: Vec::new(), policies: stock }
    }

    /// And this key at the top of the configuration.
    #[must_use]
    pub fn setting(mut self, key: &str, value: &str) -> Self {
        self.settings.insert(key.to_owned(), value.to_owned());
        self
    }

    /// And this in the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this file as the policy called `name`.
    #[must_use]
    pub fn policy(mut self, name: &str, file: PathBuf) -> Self {
        self.policies.retain(|(known, _)| known != name);
        self.policies.push((name.to_owned(), file));
        self
    }

    /// Starts the host, and returns once it listens.
    pub async fn start(self) -> Host {
        Host::start_in(self.place()).await
    }

    /// Runs a command that ends by itself in the host's folder: `check`, or a `serve` that is refused.
    pub async fn run(self, arguments: &[&str]) -> Output {
        self.place().run(arguments).await
    }

    /// Makes the folder.
    ///
    /// # Panics
    /// When it cannot be made, or a policy does not build.
    pub fn place(self) -> Place {
        let place =
            Place { folder: TempDir::new().expect("a temporary folder"), env: self.env, user: None, disk: None };
        let settings: String = self.settings.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
        place.write("backstop.yaml", format!("{settings}routes:\n{}", self.routes));
        for (name, file) in self.policies {
            let file = if file.as_os_str().is_empty() { stock_policy(&name) } else { file };
            place.drop_policy(&name, &file);
        }
        place
    }
}

impl Place {
    /// The file or folder called `name` in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    ///
    /// # Panics
    /// When that fails.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("a file in the temporary folder");
    }

    /// Puts `file` into the folder of policies as `name`, as a person would with `cp`; in one step, with `mv`.
    ///
    /// # Panics
    /// When that fails.
    pub fn drop_policy(&self, name: &str, file: &Path) {
        std::fs::create_dir_all(self.path("policies")).expect("a folder in the temporary folder");
        let (aside, target) = (self.path("policies/.aside"), self.path(&format!("policies/{name}.wasm")));
        let copied = std::fs::copy(file, &aside).and_then(|_| std::fs::rename(&aside, target));
        copied.unwrap_or_else(|error| panic!("failed to copy {}: {error}", file.display()));
    }

    /// Puts these bytes into the folder of policies as `name`, in one step.
    ///
    /// # Panics
    /// When that fails.
    pub fn place_policy(&self, name: &str, file: &[u8]) {
        self.write("aside.wasm", file);
        self.drop_policy(name, &self.path("aside.wasm"));
    }

    /// With a binary that may read only what its user may. Root may read everything, so where the tests run as root,
    /// it is run as `nobody`, who is given this folder and a copy of the binary in it.
    ///
    /// # Panics
    /// When that cannot be arranged.
    #[must_use]
    pub fn without_privileges(mut self) -> Self {
        let sealed = self.path("sealed");
        self.write("sealed", "");
        std::fs::set_permissions(&sealed, std::fs::Permissions::from_mode(0o000))
            .expect("the file's owner may do that");
        if std::fs::File::open(&sealed).is_ok() {
            std::fs::copy(binary(), self.path("backstop")).expect("a copy of the binary");
            std::os::unix::fs::chown(self.folder.path(), Some(NOBODY), Some(NOBODY)).expect("root may do that");
            self.user = Some(NOBODY);
        }
        self
    }

    /// With a disk of so many KiB as its folder `disk`.
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn with_disk(mut self, kib: u32) -> Self {
        let folder = self.path("disk");
        std::fs::create_dir(&folder).expect("a folder in the temporary folder");
        self.disk = Some(Disk::mounted_on(&folder, kib));
        self
    }

    /// With a wall clock that [`Place::set_clock`] sets, for the binary alone. (It is libfaketime that does it; clocks
    /// that measure how long things take are left as they are.)
    ///
    /// # Panics
    /// When libfaketime is not installed.
    #[must_use]
    pub fn with_a_clock_of_its_own(mut self) -> Self {
        self.set_clock(0);
        let library = faketime().expect("libfaketime: install it (`apt-get install libfaketime`)");
        let clock = self.path("clock").display().to_string();
        let settings = [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", clock),
            // Read anew whenever the time is asked for.
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ];
        self.env.extend(settings.map(|(name, value)| (name.to_owned(), value)));
        self
    }

    /// Sets the binary's own clock so many seconds ahead of the machine's.
    ///
    /// # Panics
    /// When the file cannot be written that says so.
    pub fn set_clock(&self, seconds_ahead: i64) {
        self.write("clock.aside", format!("{seconds_ahead:+}"));
        std::fs::rename(self.path("clock.aside"), self.path("clock")).expect("a file in the temporary folder");
    }

    /// The small disk.
    ///
    /// # Panics
    /// When it has none.
    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("a place with a disk")
    }

    /// The binary, to be run here.
    pub(crate) fn command(&self) -> tokio::process::Command {
        let own = self.user.map(|_| self.path("backstop"));
        let binary = own.as_deref().unwrap_or(binary());
        let mut words = self.disk.iter().flat_map(|disk| disk.entrance(self.folder.path())).collect::<Vec<_>>();
        words.push(binary.as_os_str().to_owned());
        let mut command = tokio::process::Command::new(&words[0]);
        command.args(&words[1..]);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.current_dir(self.folder.path()).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// When it cannot be run.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).kill_on_drop(true).output().await.expect("the binary runs")
    }
}

/// Where Debian and its kin put libfaketime for programs of many threads.
fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.is_file())
}

/// `yaml` moved to stand below a key.
fn indented(yaml: &str) -> String {
    let lines = || yaml.lines().filter(|line| !line.trim().is_empty());
    let margin = lines().map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    lines().map(|line| format!("  {}\n", &line[margin..])).collect()
}
