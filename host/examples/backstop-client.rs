//! A shop that tells a consumer of every order it took: of each one, and of no other, whatever is killed when.
//!
//! It shows what a sender of half messages has to do, and how little that is:
//!
//! 1. **prepare** the message, under an `Idempotency-Key`, so that it may be sent again when the answer was lost;
//! 2. run its own operation, which writes the transaction's id down *in the same commit*;
//! 3. **confirm**, or **cancel** when the operation failed; again and again until that is answered, or never: then
//! 4. it is asked, and says what it finds written down: `committed`, or `rolled_back`, and then the operation may not run
//!    any more. (A shop that cannot promise that says `unknown` while it is at it.)
//!
//! [`Client`] is what other senders may copy. The rest is a shop whose database is a file of lines, so that there is
//! something to kill:
//!
//! ```text
//! cargo run -q -p backstop -- serve -c host/examples/reliable-message.yaml
//! cargo run -q -p backstop --example backstop-client -- --ledger orders.txt
//! curl -X POST http://127.0.0.1:8090/orders/7
//! ```
//!
//! `--crash-at after-operation` ends it there, as a crash would. Start it again without, and see the order arrive.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use backstop::clock::{Clock as _, SystemClock};
use clap::Parser as _;
use serde_json::{Value, json};

/// How often a call is made that gets no usable answer, and how long after the last one.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// Talks to a Backstop host on behalf of a sender of half messages.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    host: String,
}

/// A half message that was prepared.
#[derive(Clone, Debug)]
pub struct Half {
    /// Its id, to be written down with the operation. The consumer sees it as `Backstop-Message-Id`.
    pub id: String,
    /// `prepared`; or, where the preparation was a repeat, what became of it: `confirmed`, `cancelled`, `parked`.
    pub state: String,
}

/// Why a call came to nothing.
#[derive(Debug)]
pub enum Failure {
    /// The host says no: nothing is gained by asking again. The problem's detail.
    Refused(String),
    /// No usable answer, however often it was tried: what was asked for may or may not have been done.
    Unanswered(String),
}

impl Client {
    /// A client of the host at `host`, such as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// When no HTTP client can be set up.
    pub fn new(host: &str) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build()?;
        Ok(Self { http, host: host.trim_end_matches('/').to_owned() })
    }

    /// Prepares `message` for `route`, under `key`: the same key again is the same half message.
    ///
    /// # Errors
    /// [`Failure`]; when it was not answered, a half message may be there all the same. It is asked about, and
    /// forgotten, if the operation is not run.
    pub async fn prepare(&self, route: &str, key: &str, message: &Value) -> Result<Half, Failure> {
        let body = json!({ "route": route, "message": message }).to_string();
        let prepared = self.call("/v1/transactions", Some(key), body).await?;
        let text = |name: &str| prepared[name].as_str().unwrap_or_default().to_owned();
        Ok(Half { id: text("id"), state: text("state") })
    }

    /// Says that the operation happened. May be said again.
    ///
    /// # Errors
    /// [`Failure`]; when it was not answered, the host will ask.
    pub async fn confirm(&self, half: &Half) -> Result<(), Failure> {
        self.call(&format!("/v1/transactions/{}/confirm", half.id), None, String::new()).await.map(drop)
    }

    /// Says that the operation did not happen, and will not. May be said again.
    ///
    /// # Errors
    /// As [`Client::confirm`].
    pub async fn cancel(&self, half: &Half) -> Result<(), Failure> {
        self.call(&format!("/v1/transactions/{}/cancel", half.id), None, String::new()).await.map(drop)
    }

    /// POSTs until there is an answer that is one: 2xx, or 4xx (but 409 for a key that is being served).
    async fn call(&self, path: &str, key: Option<&str>, body: String) -> Result<Value, Failure> {
        let mut last = String::new();
        for tried in 0..TRIES {
            if tried > 0 {
                SystemClock.sleep(PAUSE * 2_u32.pow(tried - 1)).await;
            }
            let mut request = self.http.post(format!("{}{path}", self.host)).body(body.clone());
            request = request.header("content-type", "application/json");
            if let Some(key) = key {
                request = request.header("idempotency-key", key);
            }
            let answer = match request.send().await {
                Ok(answer) => answer,
                Err(error) => {
                    last = error.to_string();
                    continue;
                }
            };
            let status = answer.status();
            let answer: Value = match answer.bytes().await {
                Ok(body) => serde_json::from_slice(&body).unwrap_or_default(),
                Err(error) => {
                    last = error.to_string();
                    continue;
                }
            };
            let detail = answer["detail"].as_str().unwrap_or_default().to_owned();
            let is_in_flight = answer["type"] == "urn:backstop:problem:idempotency-key-in-flight";
            if status.is_success() {
                return Ok(answer);
            } else if status.is_client_error() && !is_in_flight {
                return Err(Failure::Refused(format!("{status}: {detail}")));
            }
            last = format!("{status}: {detail}");
        }
        Err(Failure::Unanswered(last))
    }
}

/// The shop's options.
#[derive(clap::Parser, Debug)]
struct Options {
    /// The host that keeps half messages.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    host: String,
    /// The route to the consumer.
    #[arg(long, default_value = "receipts")]
    route: String,
    /// Where the shop takes orders, and is asked about them.
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// The shop's database: a line `ORDER TRANSACTION` for each order that it took.
    #[arg(long, default_value = "orders.txt")]
    ledger: PathBuf,
    /// Ends the process there, as a crash would.
    #[arg(long)]
    crash_at: Option<Point>,
}

/// Where the shop may crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Point {
    /// The half message is stored, and its answer has come; the order was not taken.
    BeforeOperation,
    /// The order was taken; no word was said.
    AfterOperation,
    /// The word was said, and answered.
    AfterWord,
}

struct Shop {
    client: Client,
    options: Options,
    /// What is at hand of the ledger.
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    /// The transaction of each order that was taken.
    taken: BTreeMap<String, String>,
    /// Transactions that the host was told did not happen: they must not happen any more.
    given_up: BTreeSet<String>,
    /// What the consumer was told: the receipts by message id, so that a repeat is recognised.
    received: BTreeMap<String, Value>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Refused when somebody was quicker, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = Options::parse();
    let mut books = Books::default();
    for line in std::fs::read_to_string(&options.ledger).unwrap_or_default().lines() {
        if let Some((order, transaction)) = line.split_once(' ') {
            books.taken.insert(order.to_owned(), transaction.to_owned());
        }
    }
    let listener = tokio::net::TcpListener::bind(options.listen).await?;
    println!("the shop listens on {}", listener.local_addr()?);
    let shop = Arc::new(Shop { client: Client::new(&options.host)?, options, books: Mutex::new(books) });
    let paths = Router::new()
        .route("/orders/{order}", post(take_order))
        .route("/transactions/{id}", get(what_became_of))
        .route("/receipts", post(receive).get(received))
        .with_state(shop);
    Ok(axum::serve(listener, paths).await?)
}

/// Takes an order: all of the flow.
async fn take_order(State(shop): State<Arc<Shop>>, Path(order): Path<String>) -> (StatusCode, Json<Value>) {
    match shop.take(&order).await {
        Ok(said) => (StatusCode::OK, Json(json!({ "order": order, "said": said }))),
        Err(failure) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "order": order, "failure": format!("{failure:?}") })))
        }
    }
}

impl Shop {
    async fn take(&self, order: &str) -> Result<&'static str, Failure> {
        if self.books().taken.contains_key(order) {
            return Ok("it was taken before");
        }
        let message = json!({ "path": "/receipts", "json": { "order": order } });
        // The same order is the same message, unless an earlier try ended: then it begins anew, under another key.
        let mut half = self.client.prepare(&self.options.route, &format!("order-{order}"), &message).await?;
        if half.state != "prepared" {
            let key = format!("order-{order}-after-{}", half.id);
            half = self.client.prepare(&self.options.route, &key, &message).await?;
        }
        self.crash_at(Point::BeforeOperation);
        let happened = self.operate(order, &half);
        self.crash_at(Point::AfterOperation);
        // Whether the host hears of it or not: if not, it asks.
        let (word, said) = if happened {
            (self.client.confirm(&half).await, "taken")
        } else {
            (self.client.cancel(&half).await, "refused")
        };
        if let Err(failure) = word {
            println!("order {order} is {said}, and the host, which does not answer, will ask: {failure:?}");
        }
        self.crash_at(Point::AfterWord);
        Ok(said)
    }

    /// The shop's own operation: the order and the transaction are written down in one step. Orders that begin with an
    /// x are refused.
    fn operate(&self, order: &str, half: &Half) -> bool {
        let mut books = self.books();
        if order.starts_with('x') || books.given_up.contains(&half.id) {
            return false;
        }
        let line = format!("{order} {}\n", half.id);
        let ledger = std::fs::OpenOptions::new().create(true).append(true).open(&self.options.ledger);
        let written = ledger.and_then(|mut ledger| {
            ledger.write_all(line.as_bytes())?;
            ledger.sync_all()
        });
        match written {
            Ok(()) => {
                books.taken.insert(order.to_owned(), half.id.clone());
                true
            }
            // Nobody knows what is on disk: no word is said, and the next start reads it.
            Err(error) => {
                eprintln!("the ledger cannot be written: {error}");
                std::process::abort();
            }
        }
    }

    fn crash_at(&self, point: Point) {
        if self.options.crash_at == Some(point) {
            std::process::abort();
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The check-back: what the ledger says. What it does not hold was rolled back, and from now on stays so.
async fn what_became_of(State(shop): State<Arc<Shop>>, Path(id): Path<String>) -> Json<Value> {
    let mut books = shop.books();
    let state = if books.taken.values().any(|transaction| *transaction == id) {
        "committed"
    } else {
        books.given_up.insert(id);
        "rolled_back"
    };
    Json(json!({ "state": state }))
}

/// The consumer, which in this example lives in the same process: it recognises a repeat by the message's id.
async fn receive(State(shop): State<Arc<Shop>>, headers: HeaderMap, Json(receipt): Json<Value>) -> StatusCode {
    let id = headers.get("backstop-message-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    if shop.books().received.insert(id.to_owned(), receipt.clone()).is_none() {
        println!("a receipt: {receipt} (message {id})");
    }
    StatusCode::NO_CONTENT
}

async fn received(State(shop): State<Arc<Shop>>) -> Json<Value> {
    Json(json!(shop.books().received.values().collect::<Vec<_>>()))
}
