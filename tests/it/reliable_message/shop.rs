//! The example for senders, `host/examples/backstop-client.rs`, as a process of its own that crashes at each point of
//! its flow. It stands for any sender that does as it does.

use std::net::SocketAddr;
use std::path::PathBuf;

use backstop_tests::artefacts::example;
use backstop_tests::setup::Place;
use backstop_tests::{Host, Setup, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::received;

/// The shop: it is killed when this is dropped.
struct Shop {
    address: SocketAddr,
    process: Child,
    client: reqwest::Client,
}

impl Shop {
    /// Starts it; `at` port 0 is a free one.
    async fn start(place: &Place, host: &str, at: SocketAddr, more: &[&str]) -> Self {
        let binary: PathBuf = example("backstop-client");
        let mut command = Command::new(binary);
        command.current_dir(place.path(".")).args(["--host", host, "--listen", &at.to_string()]).args(more);
        let mut process = command.kill_on_drop(true).stdout(std::process::Stdio::piped()).spawn().expect("it runs");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let line = lines.next_line().await.expect("its output").expect("a line");
        let address = line.rsplit(' ').next().and_then(|address| address.parse().ok()).expect("where it listens");
        Self { address, process, client: reqwest::Client::new() }
    }

    /// Has it take an order; none when it dies over it.
    async fn take(&self, order: &str) -> Option<Value> {
        let answer = self.client.post(format!("http://{}/orders/{order}", self.address)).send().await.ok()?;
        serde_json::from_slice(&answer.bytes().await.ok()?).ok()
    }

    async fn killed(mut self) -> SocketAddr {
        let _ = self.process.kill().await;
        self.address
    }
}

/// A host, a consumer, and the shop with these options; the host knows where the shop is.
async fn opened(more: &[&str]) -> (Host, backstop_tests::Vendor, Shop) {
    let consumer = super::consumer().await;
    // Where the shop will be: somewhere that was free a moment ago.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.and_then(|free| free.local_addr()).expect("a port");
    let routes = format!(
        "
        receipts:
          destination: {consumer}
          check_back: {{ url: 'http://{free}/transactions/{{id}}', after: 300ms, every: 50ms, max_checks: 1000000 }}
        "
    );
    let host = Setup::routes(&routes).start().await;
    let shop = Shop::start(host.place(), &host.url(), free, more).await;
    (host, consumer, shop)
}

/// The transactions of the orders in the shop's books.
fn books(place: &Place) -> Vec<String> {
    let ledger = std::fs::read_to_string(place.path("orders.txt")).unwrap_or_default();
    let mut taken: Vec<String> = ledger.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect();
    taken.sort();
    taken
}

/// Waits until every transaction has ended, and every message was delivered; then both must agree.
async fn agree(host: &Host, consumer: &backstop_tests::Vendor, orders: usize) {
    eventually("everything to be settled and delivered", async || {
        let open = host.admin("/v1/transactions?state=prepared,parked").await;
        let waiting = host.messages("queued,in_flight").await;
        (open["transactions"].as_array()?.is_empty() && waiting.is_empty()).then_some(())
    })
    .await;
    let taken = books(host.place());
    assert_eq!(taken.len(), orders);
    assert_eq!(received(consumer), taken, "the consumer knows of the orders that were taken, and of no others");
}

#[tokio::test]
async fn reliable_message_sender_takes_and_refuses_orders() {
    let (host, consumer, shop) = opened(&[]).await;
    assert_eq!(shop.take("7").await, Some(json!({ "order": "7", "said": "taken" })));
    assert_eq!(shop.take("x8").await, Some(json!({ "order": "x8", "said": "refused" })));
    assert_eq!(shop.take("7").await, Some(json!({ "order": "7", "said": "it was taken before" })));
    assert_eq!(shop.take("x8").await, Some(json!({ "order": "x8", "said": "refused" })), "anew, and again refused");
    agree(&host, &consumer, 1).await;
    let cancelled = host.admin("/v1/transactions?state=cancelled").await;
    assert_eq!(cancelled["transactions"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn reliable_message_sender_crash_before_its_operation_nothing_is_delivered() {
    let (host, consumer, shop) = opened(&["--crash-at", "before-operation"]).await;
    assert_eq!(shop.take("7").await, None);
    let at = shop.killed().await;
    let shop = Shop::start(host.place(), &host.url(), at, &[]).await;
    agree(&host, &consumer, 0).await;
    // The customer tries again: that is another message.
    assert_eq!(shop.take("7").await, Some(json!({ "order": "7", "said": "taken" })));
    agree(&host, &consumer, 1).await;
}

#[tokio::test]
async fn reliable_message_sender_crash_after_its_operation_the_message_is_delivered() {
    let (host, consumer, shop) = opened(&["--crash-at", "after-operation"]).await;
    assert_eq!(shop.take("7").await, None);
    let at = shop.killed().await;
    assert_eq!(books(host.place()).len(), 1, "the order was taken");
    let _shop = Shop::start(host.place(), &host.url(), at, &[]).await;
    agree(&host, &consumer, 1).await;
}

#[tokio::test]
async fn reliable_message_sender_crash_after_its_word_the_message_is_delivered() {
    let (host, consumer, shop) = opened(&["--crash-at", "after-word"]).await;
    assert_eq!(shop.take("7").await, None);
    agree(&host, &consumer, 1).await;
    let at = shop.killed().await;
    let shop = Shop::start(host.place(), &host.url(), at, &[]).await;
    assert_eq!(shop.take("7").await, Some(json!({ "order": "7", "said": "it was taken before" })));
    agree(&host, &consumer, 1).await;
}

/// The host is gone when the word is to be said: the sender gives up, and is asked later.
#[tokio::test]
async fn reliable_message_sender_and_host_killed_one_after_the_other_agree_in_the_end() {
    let (mut host, consumer, shop) = opened(&[]).await;
    let mut shop = Some(shop);
    for order in 0..12 {
        let at_work = shop.take().expect("it is open");
        // Cut somewhere in the flow, wherever that is.
        let (name, moment) = (order.to_string(), std::time::Duration::from_millis(order * 2));
        let _ = tokio::time::timeout(moment, at_work.take(&name)).await;
        let at = at_work.killed().await;
        if order % 4 == 1 {
            host.kill().await;
            host.restart().await;
        }
        // The host may listen elsewhere now.
        shop = Some(Shop::start(host.place(), &host.url(), at, &[]).await);
    }
    let taken = books(host.place()).len();
    agree(&host, &consumer, taken).await;
}
