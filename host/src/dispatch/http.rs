//! One attempt over HTTP.
//!
//! It carries the caller's request faithfully and adds what the host must say. It knows nothing of policies or retries:
//! whatever happens is an outcome.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::{CONTENT_LENGTH, EXPECT, HOST};
use http::{HeaderMap, Method};
use tokio_util::task::TaskTracker;
use url::Url;

use super::answer::Remainder;
use super::clients::Clients;
use super::credentials::{Credentials, Field};
use super::fault::silence;
use super::{CredentialId, Delivery, Sent, Transport, answer, fault, joined};
use crate::clock::{Clock, Stopwatch};
use crate::config::Destination;
use crate::message::{Fault, Outcome, Response, Silence};

#[cfg(test)]
mod tests;

/// Makes attempts over pooled HTTP/1.1 connections; see [`Clients`] for their limits.
#[derive(Debug)]
pub struct HttpTransport {
    clients: Arc<Clients>,
    credentials: Credentials,
}

impl HttpTransport {
    /// A transport that sends through `clients`; the clock tells when tokens expire.
    ///
    /// Fetches of tokens run on `tasks`, for 10 s at the most.
    pub fn new(clients: Arc<Clients>, clock: Arc<dyn Clock>, tasks: TaskTracker) -> Self {
        Self { credentials: Credentials::new(Arc::clone(&clients), clock, tasks), clients }
    }

    async fn exchange(&self, delivery: &Delivery, auth: Option<Field>) -> Result<(Response, Remainder), Silence> {
        let destination = &delivery.route.destination;
        let request = request(delivery, auth)?;
        let url = request.url().clone();
        let client =
            self.clients.allowing(&destination.allow).map_err(|error| silence(Fault::Connect, error.to_string()))?;
        let response = client.execute(request).await.map_err(|error| fault::of(&error, &url))?;
        answer::read(response, delivery.read, destination.response_limit, &url).await
    }

    /// Makes one attempt, as [`Transport::send`] does.
    pub(super) async fn deliver(&self, delivery: &Delivery) -> Sent {
        let watch = Stopwatch::start();
        let mut credentials = CredentialId::default();
        // Counted on the monotonic clock: a wall clock that is set back must not stretch an attempt.
        let token = tokio::time::timeout(delivery.timeout, self.credentials.field(&delivery.route.destination)).await;
        let answer = match token {
            Ok(Ok((auth, used))) => {
                credentials = used;
                let left = delivery.timeout.saturating_sub(watch.elapsed());
                // Pinned, so that what is large is not moved into the timeout.
                let exchange = pin!(self.exchange(delivery, auth));
                tokio::time::timeout(left, exchange)
                    .await
                    .unwrap_or_else(|_| Err(silence(Fault::Timeout, late("complete answer", delivery.timeout))))
            }
            Ok(Err(silence)) => Err(silence),
            Err(_) => Err(silence(Fault::Credentials, late("access token", delivery.timeout))),
        };
        let latency = watch.elapsed();
        let outcome = match answer {
            Ok((response, remainder)) => {
                remainder.drain().await;
                Outcome::Response(response)
            }
            Err(silence) => Outcome::Silence(silence),
        };
        Sent { outcome, credentials, latency }
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn send(&self, delivery: Delivery) -> Sent {
        self.deliver(&delivery).await
    }

    fn expire_credentials(&self, destination: &Destination, used: CredentialId) {
        self.credentials.expire(destination, used);
    }
}

fn late(what: &str, timeout: Duration) -> String {
    format!("no {what} within {timeout:?}")
}

/// The request as it goes out.
fn request(delivery: &Delivery, auth: Option<Field>) -> Result<reqwest::Request, Silence> {
    let refuse = |why: String| silence(Fault::Protocol, why);
    let sent = &delivery.request;
    if sent.method == Method::CONNECT {
        return Err(refuse("CONNECT asks for a tunnel, which is not dispatched".to_owned()));
    }
    let url: Url = joined(&delivery.route.destination.url, &sent.path).map_err(|error| refuse(error.to_string()))?;
    let mut request = reqwest::Request::new(sent.method.clone(), url);
    *request.headers_mut() = headers(delivery, auth);
    if !sent.body.is_empty() {
        *request.body_mut() = Some(sent.body.clone().into());
    }
    Ok(request)
}

/// The caller's end-to-end fields; over them the destination's; over those what the host itself says.
fn headers(delivery: &Delivery, auth: Option<Field>) -> HeaderMap {
    let mut headers = delivery.fields();
    // The body is at hand, so nobody need be asked whether to send it.
    for name in [HOST, CONTENT_LENGTH, EXPECT] {
        headers.remove(name);
    }
    if let Some(Field { name, value }) = auth {
        headers.insert(name, value);
    }

    let length = delivery.request.body.len();
    if length > 0 || matches!(delivery.request.method, Method::POST | Method::PUT | Method::PATCH) {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    delivery.say(&mut headers);
    headers
}
