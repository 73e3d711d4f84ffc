//! What became of what was published.

use std::sync::Arc;
use std::time::Duration;

use backstop::clock::SystemClock;
use backstop::dispatch::rabbitmq::{Exchange, Publication, Published, Publisher};
use backstop::message::{Fault, MessageId};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue};
use lapin::types::AMQPValue;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpListener;

use super::stage::{BROKER, dialer, dialer_trusting, fresh};
use backstop_tests::rabbitmq::PASSWORD;
use backstop_tests::rabbitmq::desk::{Desk, text};

fn publisher() -> Publisher {
    Publisher::new(dialer(), Arc::new(SystemClock))
}

fn to(query: &str) -> Exchange {
    Exchange::parse(&format!("{}?{query}", BROKER.url()).parse().expect("a URL")).expect("an exchange")
}

async fn publish(publisher: &Publisher, to: &Exchange, headers: &HeaderMap) -> Published {
    let message = MessageId::from_bytes([7; 16]);
    let body = Bytes::from_static(b"{}");
    let publication = Publication { message, attempt: 3, idempotency_key: "order-1", headers, body };
    publisher.publish(to, &publication, Duration::from_secs(30)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_a_confirmed_message_is_in_its_queue_with_what_it_came_with() {
    let (desk, queue, exchange) = (Desk::at(&BROKER.url()).await, fresh("out"), fresh("exchange"));
    desk.quorum_queue(&queue, &[]).await;
    desk.exchange(&exchange, &queue, "created").await;
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("correlation-id", HeaderValue::from_static("c-1"));
    headers.append("x-tag", HeaderValue::from_static("a"));
    headers.append("x-tag", HeaderValue::from_static("b"));
    headers.insert("x-death", HeaderValue::from_static("[]"));
    let to = to(&format!("exchange={exchange}&routing_key=created"));
    assert_eq!(publish(&publisher(), &to, &headers).await, Published::Confirmed);

    let taken = desk.take(&queue).await.expect("the message");
    let own = taken.properties.headers().clone().unwrap_or_default();
    let short = |property: &Option<lapin::types::ShortString>| property.as_ref().map(ToString::to_string);
    assert_eq!(taken.data, b"{}");
    assert_eq!(short(taken.properties.message_id()).as_deref(), Some("07070707-0707-0707-0707-070707070707"));
    assert_eq!(short(taken.properties.content_type()).as_deref(), Some("application/json"));
    assert_eq!(short(taken.properties.correlation_id()).as_deref(), Some("c-1"));
    assert_eq!(*taken.properties.delivery_mode(), Some(2));
    assert_eq!(own.inner().get("x-tag"), Some(&text("a, b")));
    assert_eq!(own.inner().get("backstop-attempt"), Some(&AMQPValue::LongLongInt(3)));
    assert_eq!(own.inner().get("idempotency-key"), Some(&text("order-1")));
    assert_eq!(own.inner().get("x-death"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_a_message_that_no_queue_takes_is_told_from_one_that_was_taken() {
    let (desk, exchange, queue) = (Desk::at(&BROKER.url()).await, fresh("exchange"), fresh("out"));
    desk.quorum_queue(&queue, &[]).await;
    desk.exchange(&exchange, &queue, "here").await;
    let publisher = publisher();
    let (here, nowhere) =
        (to(&format!("exchange={exchange}&routing_key=here")), to(&format!("exchange={exchange}&routing_key=nowhere")));
    // Many at once over the same connection: none is told what became of another.
    let none = HeaderMap::new();
    let outcomes =
        join_all((0..200).map(|number| publish(&publisher, if number % 2 == 0 { &here } else { &nowhere }, &none)))
            .await;
    let unroutable = Published::Unroutable { code: 312, text: "NO_ROUTE".to_owned() };
    for (number, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(outcome, if number % 2 == 0 { Published::Confirmed } else { unroutable.clone() }, "{number}");
    }
    assert_eq!(desk.ready(&queue).await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_an_exchange_that_is_not_there_is_named_and_costs_the_others_nothing() {
    let (desk, queue) = (Desk::at(&BROKER.url()).await, fresh("out"));
    desk.quorum_queue(&queue, &[]).await;
    let publisher = publisher();
    let outcome = publish(&publisher, &to("exchange=no-such-exchange"), &HeaderMap::new()).await;
    assert!(
        matches!(&outcome, Published::Unroutable { code: 404, text } if text.contains("no-such-exchange")),
        "{outcome:?}"
    );
    let outcome = publish(&publisher, &to(&format!("routing_key={queue}")), &HeaderMap::new()).await;
    assert_eq!(outcome, Published::Confirmed);
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_a_full_queue_takes_nothing_and_says_so() {
    let (desk, queue) = (Desk::at(&BROKER.url()).await, fresh("full"));
    let arguments = [("x-max-length", AMQPValue::LongInt(1)), ("x-overflow", text("reject-publish"))];
    desk.quorum_queue(&queue, &arguments).await;
    let (publisher, to) = (publisher(), to(&format!("routing_key={queue}")));
    let mut outcomes = Vec::new();
    // A quorum queue may take a few more than its limit before it knows.
    for _ in 0..50 {
        outcomes.push(publish(&publisher, &to, &HeaderMap::new()).await);
    }
    assert_eq!(outcomes.first(), Some(&Published::Confirmed));
    assert_eq!(outcomes.last(), Some(&Published::Nacked));
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_more_headers_than_the_broker_bears_are_left_out_and_counted() {
    let (desk, queue) = (Desk::at(&BROKER.url()).await, fresh("out"));
    desk.quorum_queue(&queue, &[]).await;
    let mut headers = HeaderMap::new();
    for number in 0..300 {
        let name: http::HeaderName = format!("x-{number}").parse().expect("a name");
        headers.insert(name, HeaderValue::from_bytes(&[b'v'; 1000]).expect("a value"));
    }
    headers.insert("correlation-id", HeaderValue::from_bytes(&[b'c'; 300]).expect("a value"));
    let to = to(&format!("routing_key={queue}"));
    assert_eq!(publish(&publisher(), &to, &headers).await, Published::Confirmed);
    let taken = desk.take(&queue).await.expect("the message");
    let own = taken.properties.headers().clone().unwrap_or_default();
    let dropped = match own.inner().get("backstop-headers-dropped") {
        Some(AMQPValue::LongLongInt(dropped)) => usize::try_from(*dropped).expect("a count"),
        other => panic!("{other:?}"),
    };
    let kept = own.inner().values().filter(|value| matches!(value, AMQPValue::LongString(text) if text.len() >= 300));
    assert_eq!(kept.count() + dropped, 301);
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_a_login_that_is_refused_is_a_fault_of_the_credentials() {
    let url = BROKER.url().replace(PASSWORD, "wr0ng-one");
    let to = Exchange::parse(&format!("{url}?routing_key=q").parse().expect("a URL")).expect("an exchange");
    let outcome = publish(&publisher(), &to, &HeaderMap::new()).await;
    let Published::Failed { fault: Fault::Credentials, detail } = outcome else { panic!("{outcome:?}") };
    assert!(!detail.contains("wr0ng-one"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_a_broker_that_never_says_a_word_is_a_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let to = Exchange::parse(&format!("amqp://bob:s3cret@127.0.0.1:{port}/?routing_key=q").parse().expect("a URL"));
    let headers = HeaderMap::new();
    let body = Bytes::new();
    let publication = Publication {
        message: MessageId::from_bytes([1; 16]),
        attempt: 1,
        idempotency_key: "k",
        headers: &headers,
        body,
    };
    let outcome = publisher().publish(&to.expect("an exchange"), &publication, Duration::from_millis(200)).await;
    let Published::Failed { fault: Fault::Timeout, detail } = outcome else { panic!("{outcome:?}") };
    assert!(detail.contains(&port.to_string()) && !detail.contains("s3cret"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_tls_is_spoken_with_a_broker_that_is_trusted_and_with_no_other() {
    let (desk, queue) = (Desk::at(&BROKER.url()).await, fresh("tls"));
    desk.quorum_queue(&queue, &[]).await;
    let url = format!("{}?routing_key={queue}", BROKER.tls_url());
    let to = Exchange::parse(&url.parse().expect("a URL")).expect("an exchange");
    let outcome = publish(&publisher(), &to, &HeaderMap::new()).await;
    assert!(matches!(outcome, Published::Failed { fault: Fault::Tls, .. }), "{outcome:?}");

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(BROKER.certificate()).expect("a certificate")).expect("a root");
    let trusting = Publisher::new(dialer_trusting(roots), Arc::new(SystemClock));
    assert_eq!(publish(&trusting, &to, &HeaderMap::new()).await, Published::Confirmed);
    assert_eq!(desk.ready(&queue).await, 1);
}
