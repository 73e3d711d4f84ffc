//! A running host: the real binary, on free ports, in a folder of its own.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::process::{ExitStatus, Output};
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Child;

use crate::eventually;
use crate::eventually::eventually_within;
use crate::setup::{Place, Setup};

/// How long a host may take to listen: policies that bring an interpreter along take long to compile, and on a busy
/// machine longer. One that ends instead of listening is noticed at once.
const START: Duration = Duration::from_secs(300);

/// A running host. It is killed when this is dropped; its log is shown if the test failed.
pub struct Host {
    place: Place,
    child: Child,
    listen: SocketAddr,
    admin: SocketAddr,
    client: reqwest::Client,
    /// Where the present run's log begins.
    log_from: u64,
}

/// What the host answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The header fields.
    pub headers: reqwest::header::HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Host {
    /// Starts a host with these routes (see [`Setup::routes`]).
    pub async fn start(routes: &str) -> Self {
        Setup::routes(routes).start().await
    }

    /// Starts a host in `place`.
    ///
    /// # Panics
    /// When it does not come to listen.
    pub async fn start_in(place: Place) -> Self {
        // Refused when it is there already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
        let client = client.build().expect("an HTTP client");
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let child = spawn(&place);
        let mut host = Self { place, child, listen: nowhere, admin: nowhere, client, log_from: 0 };
        host.listens().await;
        host
    }

    /// Starts it again, in the same folder, after [`Host::kill`] or [`Host::exited`].
    pub async fn restart(&mut self) {
        self.launch();
        self.listens().await;
    }

    /// As [`Host::restart`], without waiting for it to listen.
    pub fn launch(&mut self) {
        self.log_from = std::fs::metadata(self.place.path("log")).map_or(0, |log| log.len());
        self.child = spawn(&self.place);
    }

    /// Waits until it listens, after [`Host::launch`].
    ///
    /// # Panics
    /// When it does not come to that.
    pub async fn listens(&mut self) {
        let (listen, admin) = eventually_within(START, "the host to listen", async || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the host did not start: {status}");
            }
            let log = self.log_of_this_run();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let line = lines.into_iter().find(|line| line["message"] == "backstop is listening")?;
            Some((line["listen"].as_str()?.parse().ok()?, line["admin"].as_str()?.parse().ok()?))
        })
        .await;
        (self.listen, self.admin) = (listen, admin);
    }

    /// Where its files are.
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// Where its ingress is, as a URL without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// A request to the ingress, to be completed.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.listen))
    }

    /// Sends a request and waits for the answer.
    pub async fn send(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        Answer::to(self.request(method, path).body(body)).await
    }

    /// POSTs `body` and waits for the answer.
    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.send(Method::POST, path, body).await
    }

    /// POSTs `body` on an asynchronous route, and returns the message's id.
    ///
    /// # Panics
    /// When the answer is not 202.
    pub async fn accept(&self, path: &str, body: impl Into<reqwest::Body>) -> String {
        let answer = self.post(path, body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    /// As [`Host::accept`], but none when the host does not answer 202, or not at all.
    pub async fn try_accept(&self, path: &str, body: impl Into<reqwest::Body>) -> Option<String> {
        let response = self.request(Method::POST, path).body(body).send().await.ok()?;
        let accepted = response.status() == 202;
        let answer: Value = serde_json::from_slice(&response.bytes().await.ok()?).ok()?;
        answer["id"].as_str().filter(|_| accepted).map(str::to_owned)
    }

    /// Sends these bytes to the ingress on a connection of their own, and returns all that comes back.
    ///
    /// # Panics
    /// When the connection breaks.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        exchange(self.listen, bytes.as_ref()).await
    }

    /// As [`Host::raw`], to the admin API.
    pub async fn raw_admin(&self, bytes: impl AsRef<[u8]>) -> String {
        exchange(self.admin, bytes.as_ref()).await
    }

    /// What the admin API says at `path`.
    pub async fn admin(&self, path: &str) -> Value {
        Answer::to(self.client.get(format!("http://{}{path}", self.admin))).await.json()
    }

    /// As [`Host::admin`], but none when there is no answer, or none that is JSON.
    pub async fn try_admin(&self, path: &str) -> Option<Value> {
        let answer = Answer::try_to(self.client.get(format!("http://{}{path}", self.admin))).await?;
        serde_json::from_slice(&answer.body).ok()
    }

    /// The message called `id` as the admin API shows it, with its `journal`.
    pub async fn message(&self, id: &str) -> Value {
        self.admin(&format!("/v1/messages/{id}")).await
    }

    /// Waits until the message called `id` is in this state, and returns it.
    pub async fn until(&self, id: &str, state: &str) -> Value {
        eventually(&format!("{id} to be {state}"), async || {
            Some(self.message(id).await).filter(|message| message["state"] == state)
        })
        .await
    }

    /// Waits until the first of its sources stands so (`connected`, `away`, `gave_up`), and returns it.
    pub async fn source_until(&self, state: &str) -> Value {
        eventually(&format!("the source to be {state}"), async || {
            Some(self.admin("/v1/sources").await["sources"][0].clone()).filter(|source| source["state"] == state)
        })
        .await
    }

    /// The messages in this state.
    pub async fn messages(&self, state: &str) -> Vec<Value> {
        let listed = self.admin(&format!("/v1/messages?limit=1000&state={state}")).await;
        listed["messages"].as_array().cloned().unwrap_or_default()
    }

    /// Runs a command of the command line against this host, which must succeed, and returns what it prints.
    ///
    /// # Panics
    /// When the command fails.
    pub async fn cli(&self, arguments: &[&str]) -> String {
        let output = self.try_cli(arguments).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?} failed with {}:\n{out}{err}", output.status);
        out.into_owned()
    }

    /// Runs a command of the command line against this host.
    pub async fn try_cli(&self, arguments: &[&str]) -> Output {
        let (option, address) =
            if arguments.first() == Some(&"send") { ("--listen", self.listen) } else { ("--admin", self.admin) };
        self.place.run(&[arguments, &[option, &address.to_string()]].concat()).await
    }

    /// All it has written so far, in every run.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.place.path("log")).unwrap_or_default()
    }

    /// What it has written since it was started last.
    pub fn log_of_this_run(&self) -> String {
        let mut text = Vec::new();
        let read = File::open(self.place.path("log")).and_then(|mut log| {
            log.seek(SeekFrom::Start(self.log_from))?;
            log.read_to_end(&mut text)
        });
        read.map(|_| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    /// The lines of the log that contain `text`.
    pub fn log_lines(&self, text: &str) -> Vec<String> {
        self.log().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// Waits until so many lines of the log hold `text`, and returns all that do: the log is written by a thread of its
    /// own, which may be a moment behind.
    pub async fn says(&self, text: &str, lines: usize) -> Vec<String> {
        let said = async || Some(self.log_lines(text)).filter(|said| said.len() >= lines);
        eventually(&format!("{lines} lines of the log to hold {text:?}"), said).await
    }

    /// The most memory it has held, in KiB.
    ///
    /// # Panics
    /// Where the system does not tell (it is Linux that does).
    pub fn peak_memory_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    /// The memory it holds now, in KiB.
    ///
    /// # Panics
    /// Where the system does not tell (it is Linux that does).
    pub fn memory_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    fn status_kib(&self, key: &str) -> u64 {
        let pid = self.child.id().expect("a running host");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the system tells");
        let value = status.lines().find_map(|line| line.strip_prefix(key)).expect("it tells that");
        value.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Sends it a signal: `TERM`, `INT`, `KILL`.
    ///
    /// # Panics
    /// When it has exited already.
    pub async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("a running host").to_string();
        let status = tokio::process::Command::new("kill").args(["-s", name, &pid]).status().await;
        assert!(status.is_ok_and(|status| status.success()), "failed to send SIG{name}");
    }

    /// Kills it, as the power cord would.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("a running host");
    }

    /// Waits until it has exited.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub async fn exited(&mut self) -> ExitStatus {
        self.child.wait().await.expect("a host that was started")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the host's log\n{}---", self.log());
        }
    }
}

impl Answer {
    async fn to(request: RequestBuilder) -> Self {
        let response = request.send().await.expect("the host answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, body: response.bytes().await.expect("a whole answer").to_vec() }
    }

    /// None when the host does not answer, or breaks off.
    pub(crate) async fn try_to(request: RequestBuilder) -> Option<Self> {
        let response = request.send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Some(Self { status, headers, body: response.bytes().await.ok()?.to_vec() })
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The field called `name` as text; empty when it is absent.
    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
    }
}

/// Sends a request that was completed by hand, and waits for the answer.
pub async fn answer_to(request: RequestBuilder) -> Answer {
    Answer::to(request).await
}

async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the host listens");
    stream.write_all(bytes).await.expect("the host reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("the host answers");
    String::from_utf8_lossy(&answer).into_owned()
}

fn spawn(place: &Place) -> Child {
    let log = || File::options().create(true).append(true).open(place.path("log")).expect("a log file");
    let mut command = place.command();
    command.args(["serve", "-c", "backstop.yaml", "--log", "json"]).kill_on_drop(true);
    command.stdin(std::process::Stdio::null()).stdout(log()).stderr(log());
    command.spawn().expect("the binary runs")
}
