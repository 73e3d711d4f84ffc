//! Attempts over every protocol: each destination says which, and what a broker says of a publish becomes an
//! outcome like any other.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::nats::{self, Target};
use super::rabbitmq::{self, Exchange};
use super::{CredentialId, Delivery, HttpTransport, Sent, Transport};
use crate::amqp::Dialer;
use crate::clock::{Clock, Stopwatch};
use crate::config::{Destination, Protocol};
use crate::message::{Outcome, Response, Silence};

/// Sends over HTTP or to a broker, as the destination says.
pub struct Transports {
    http: HttpTransport,
    nats: nats::Publisher,
    rabbitmq: rabbitmq::Publisher,
}

impl Transports {
    /// What speaks HTTP is given; brokers are connected to when they are first needed.
    pub fn new(http: HttpTransport, dialer: Dialer, clock: &Arc<dyn Clock>) -> Self {
        let rabbitmq = rabbitmq::Publisher::new(dialer, Arc::clone(clock));
        Self { http, nats: nats::Publisher::new(Arc::clone(clock)), rabbitmq }
    }

    async fn to_stream(&self, target: &Target, delivery: &Delivery) -> Outcome {
        let (id, mut headers) = (delivery.message.to_string(), delivery.fields());
        delivery.say(&mut headers);
        let publication = nats::Publication {
            target,
            message_id: &id,
            headers: &headers,
            body: delivery.request.body.clone(),
            within: delivery.timeout,
        };
        match self.nats.publish(publication).await {
            nats::Published::Confirmed { .. } => answer(StatusCode::OK, String::new()),
            // It may be there in a moment: a cluster without a leader says the same.
            nats::Published::NoStream => {
                answer(StatusCode::SERVICE_UNAVAILABLE, "no stream keeps the subject".to_owned())
            }
            nats::Published::Refused { status, text, .. } => {
                answer(StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE), text)
            }
            nats::Published::Failed { fault, detail } => Outcome::Silence(Silence { fault, detail }),
        }
    }

    async fn to_exchange(&self, exchange: &Exchange, delivery: &Delivery) -> Outcome {
        let headers = delivery.fields();
        let publication = rabbitmq::Publication {
            message: delivery.message,
            attempt: delivery.attempt,
            idempotency_key: &delivery.idempotency_key,
            headers: &headers,
            body: delivery.request.body.clone(),
        };
        match self.rabbitmq.publish(exchange, &publication, delivery.timeout).await {
            rabbitmq::Published::Confirmed => answer(StatusCode::OK, String::new()),
            rabbitmq::Published::Nacked => {
                answer(StatusCode::SERVICE_UNAVAILABLE, "the broker did not take the message".to_owned())
            }
            rabbitmq::Published::Unroutable { text, .. } => answer(StatusCode::NOT_FOUND, text),
            rabbitmq::Published::Failed { fault, detail } => Outcome::Silence(Silence { fault, detail }),
        }
    }
}

#[async_trait]
impl Transport for Transports {
    async fn send(&self, delivery: Delivery) -> Sent {
        let watch = Stopwatch::start();
        let outcome = match &delivery.route.destination.protocol {
            Protocol::Http => return self.http.deliver(&delivery).await,
            Protocol::Nats(target) => self.to_stream(target, &delivery).await,
            Protocol::RabbitMq(exchange) => self.to_exchange(exchange, &delivery).await,
        };
        Sent { outcome, credentials: CredentialId::default(), latency: watch.elapsed() }
    }

    fn expire_credentials(&self, destination: &Destination, used: CredentialId) {
        self.http.expire_credentials(destination, used);
    }
}

/// What a policy is shown: a publish that was confirmed is a 200, one that was refused the status that says so.
fn answer(status: StatusCode, text: String) -> Outcome {
    Outcome::Response(Response { status, headers: HeaderMap::new(), body: Bytes::from(text), truncated: false })
}
