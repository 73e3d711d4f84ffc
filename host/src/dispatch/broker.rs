//! Attempts over every protocol: each destination's scheme says which, and what a broker says of a publish becomes an
//! outcome like any other.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::nats::{Publication, Published, Publisher, Target};
use super::{CredentialId, Delivery, HttpTransport, Sent, Transport, fields};
use crate::clock::{Clock, Stopwatch};
use crate::config::Destination;
use crate::message::{Fault, Outcome, Response, Silence};

/// Sends over HTTP or to a broker, as the destination's URL says.
pub struct Transports {
    http: HttpTransport,
    nats: Publisher,
}

impl Transports {
    /// What speaks HTTP is given; brokers are connected to when they are first needed.
    pub fn new(http: HttpTransport, clock: &Arc<dyn Clock>) -> Self {
        Self { http, nats: Publisher::new(Arc::clone(clock)) }
    }

    async fn publish(&self, delivery: Delivery) -> Sent {
        let watch = Stopwatch::start();
        let outcome = match Target::parse(delivery.route.destination.url.as_str()) {
            Ok(target) => {
                let id = delivery.message.to_string();
                let headers = headers(&delivery);
                let publication = Publication {
                    target: &target,
                    message_id: &id,
                    headers: &headers,
                    body: delivery.request.body.clone(),
                    within: delivery.timeout,
                };
                outcome(self.nats.publish(publication).await)
            }
            // The configuration was checked: it is one.
            Err(bad) => Outcome::Silence(Silence { fault: Fault::Protocol, detail: bad.to_string() }),
        };
        Sent { outcome, credentials: CredentialId::default(), latency: watch.elapsed() }
    }
}

#[async_trait]
impl Transport for Transports {
    async fn send(&self, delivery: Delivery) -> Sent {
        match delivery.route.destination.url.scheme() {
            "nats" | "tls" => self.publish(delivery).await,
            _ => self.http.send(delivery).await,
        }
    }

    fn expire_credentials(&self, destination: &Destination, used: CredentialId) {
        self.http.expire_credentials(destination, used);
    }
}

/// The caller's end-to-end fields, over them the destination's, and over those what the host itself says.
fn headers(delivery: &Delivery) -> HeaderMap {
    let mut headers = fields::without_own(fields::end_to_end(delivery.request.headers.clone()));
    for (name, _) in &delivery.route.destination.headers {
        headers.remove(name);
    }
    for (name, value) in &delivery.route.destination.headers {
        headers.append(name, value.clone());
    }
    if let Ok(id) = HeaderValue::try_from(delivery.message.to_string()) {
        headers.insert(fields::MESSAGE_ID, id);
    }
    headers.insert(fields::ATTEMPT, delivery.attempt.into());
    if let Some(key) = fields::key_value(&delivery.idempotency_key) {
        headers.insert(fields::IDEMPOTENCY_KEY, key);
    }
    headers
}

/// What a policy is shown: a publish that was confirmed is a 200, one that was refused the status that says so.
fn outcome(published: Published) -> Outcome {
    let answer = |status: StatusCode, text: String| {
        Outcome::Response(Response { status, headers: HeaderMap::new(), body: Bytes::from(text), truncated: false })
    };
    match published {
        Published::Confirmed { .. } => answer(StatusCode::OK, String::new()),
        // It may be there in a moment: a cluster without a leader says the same.
        Published::NoStream => answer(StatusCode::SERVICE_UNAVAILABLE, "no stream keeps the subject".to_owned()),
        Published::Refused { status, text, .. } => {
            answer(StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE), text)
        }
        Published::Failed { fault, detail } => Outcome::Silence(Silence { fault, detail }),
    }
}
