//! `reliable-message`: half messages. A message is stored before its sender runs its own operation, and delivered once
//! the sender says that it did, by itself or when it is asked. Whatever breaks when, sender and consumer agree in the
//! end: a message is delivered for every operation that happened, and for no other.

mod crashes;
mod hosts;
mod shop;
mod words;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use backstop_tests::host::{Answer, answer_to};
use backstop_tests::{Host, Reply, Setup, Vendor, eventually, json, ok};
use reqwest::Method;
use serde_json::Value;

/// A sender's operations, as its own database has them: what became of the transaction by this id.
#[derive(Clone, Default)]
struct Operations(Arc<Mutex<BTreeMap<String, &'static str>>>);

impl Operations {
    /// The sender's operation behind this transaction came to that: `committed`, `rolled_back`.
    fn came_to(&self, id: &str, state: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), state);
    }

    /// What it says when it is asked about this transaction.
    fn state(&self, id: &str) -> &'static str {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied().unwrap_or("unknown")
    }

    /// The transactions whose operations happened.
    fn committed(&self) -> Vec<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter(|(_, state)| **state == "committed").map(|(id, _)| id.clone()).collect()
    }
}

/// A sender that answers check-backs at `/transactions/{id}` by what its database says.
async fn sender(operations: &Operations) -> Vendor {
    let (sender, operations) = (Vendor::answering([]).await, operations.clone());
    sender.answers_by(move |request| {
        let id = request.path().trim_start_matches("/transactions/");
        json(200, &serde_json::json!({ "state": operations.state(id) }))
    });
    sender
}

/// A route `receipts` to the consumer, whose senders are asked as `check_back` says, beside the URL.
fn routes(consumer: &Vendor, sender: &Vendor, check_back: &str) -> String {
    format!(
        "
        receipts:
          destination: {consumer}
          retry: {{ max_attempts: 50, min_delay: 20ms, max_delay: 100ms }}
          check_back: {{ url: '{sender}/transactions/{{id}}', {check_back} }}
        "
    )
}

/// These routes with `keys` on the last one.
fn with_keys(routes: &str, keys: &str) -> String {
    let keys = keys.lines().map(|line| format!("          {line}\n"));
    format!("{}\n{}", routes.trim_end(), keys.collect::<String>())
}

/// Nobody is asked for as long as a test lasts.
const NEVER: &str = "after: 1h";
/// Everybody is asked at once, and often.
const AT_ONCE: &str = "after: 1ms, every: 20ms, max_checks: 1000000";

async fn host(consumer: &Vendor, sender: &Vendor, check_back: &str) -> Host {
    Setup::routes(&routes(consumer, sender, check_back)).start().await
}

fn preparation(host: &Host, body: &str) -> reqwest::RequestBuilder {
    let asked = serde_json::json!({ "route": "receipts", "message": { "path": "/in", "json": { "order": body } } });
    host.request(Method::POST, "/v1/transactions").header("content-type", "application/json").body(asked.to_string())
}

/// Prepares, and returns the transaction's id.
async fn prepare(host: &Host, body: &str) -> String {
    let answer = answer_to(preparation(host, body)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["id"].as_str().expect("an id").to_owned()
}

async fn say(host: &Host, id: &str, word: &str) -> Answer {
    host.post(&format!("/v1/transactions/{id}/{word}"), "").await
}

/// The transaction called `id`, as its sender sees it.
async fn transaction(host: &Host, id: &str) -> Value {
    host.send(Method::GET, &format!("/v1/transactions/{id}"), "").await.json()
}

/// Waits until the transaction called `id` is in this state.
async fn until(host: &Host, id: &str, state: &str) -> Value {
    eventually(&format!("{id} to be {state}"), async || {
        Some(transaction(host, id).await).filter(|transaction| transaction["state"] == state)
    })
    .await
}

/// The ids of the messages that the consumer received, each once.
fn received(consumer: &Vendor) -> Vec<String> {
    let mut ids: Vec<String> =
        consumer.received().iter().map(|request| request.header("backstop-message-id")).collect();
    ids.sort();
    ids.dedup();
    ids
}

/// The checks that a sender received about this transaction.
fn checks(sender: &Vendor, id: &str) -> usize {
    sender.received_at(&format!("/transactions/{id}")).len()
}

fn says(state: &str) -> Reply {
    json(200, &serde_json::json!({ "state": state }))
}

async fn consumer() -> Vendor {
    Vendor::answering([ok()]).await
}
