//! What the caller sends is what the destination gets, and the other way round; and what each delivery carries besides.

use backstop_tests::{Host, Vendor, ok, status};

async fn route(vendor: &Vendor, mode: &str) -> Host {
    let routes = format!(
        "
        api:
          destination: {{ url: '{vendor}/base', headers: {{ x-tenant: ours }} }}
          mode: {mode}
          retry: {{ max_attempts: 3, min_delay: 10ms, max_delay: 10ms }}
        "
    );
    Host::start(&routes).await
}

/// A request with all the oddities that a caller may send, byte for byte.
const ODD: &[u8] = b"PUT /r/api/a%2Fb//c?x=1&y=%20&x=2 HTTP/1.1\r\n\
    Host: caller.example\r\n\
    X-Many: one\r\n\
    X-Many: two\r\n\
    X-Bytes: caf\xe9 \xff\r\n\
    X-Tenant: somebody's\r\n\
    Authorization: Bearer mine\r\n\
    Connection: close, X-Hop\r\n\
    X-Hop: 1\r\n\
    Keep-Alive: timeout=5\r\n\
    Proxy-Authorization: Basic eDp5\r\n\
    TE: trailers\r\n\
    Backstop-Message-Id: forged\r\n\
    Content-Type: application/x-odd\r\n\
    Content-Length: 6\r\n\r\n\
    \x00\x01\r\n\xfe\xff";

#[tokio::test]
async fn carriage_method_path_query_header_and_body_arrive_as_they_were_sent() {
    let vendor = Vendor::answering([ok()]).await;
    let host = route(&vendor, "sync").await;
    let answer = host.raw(ODD).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let received = &vendor.received()[0];
    assert_eq!((received.method.as_str(), received.target.as_str()), ("PUT", "/base/a%2Fb//c?x=1&y=%20&x=2"));
    assert_eq!(received.all("x-many"), ["one", "two"]);
    assert!(received.headers.contains(&("x-bytes".to_owned(), b"caf\xe9 \xff".to_vec())), "{received:?}");
    assert_eq!(received.header("authorization"), "Bearer mine");
    assert_eq!(received.header("content-type"), "application/x-odd");
    assert_eq!(received.body, b"\x00\x01\r\n\xfe\xff");
}

#[tokio::test]
async fn carriage_what_concerns_one_connection_only_is_not_carried_on() {
    let vendor = Vendor::answering([ok()]).await;
    let host = route(&vendor, "sync").await;
    host.raw(ODD).await;
    let received = &vendor.received()[0];
    for name in ["x-hop", "keep-alive", "te", "proxy-authorization", "connection", "transfer-encoding"] {
        assert_eq!(received.all(name), [""; 0], "{name} in {received:?}");
    }
    assert_eq!(format!("http://{}", received.header("host")), vendor.to_string());
    assert_eq!(received.header("x-tenant"), "ours", "the destination's own field takes the caller's place");
    assert_ne!(received.header("backstop-message-id"), "forged");
}

#[tokio::test]
async fn carriage_every_delivery_names_its_message_its_attempt_and_its_idempotency_key() {
    let vendor = Vendor::answering([status(503), status(503), ok()]).await;
    let host = route(&vendor, "async").await;
    let id = host.accept("/r/api", "{}").await;
    host.until(&id, "delivered").await;
    let of = |name: &str| vendor.received().iter().map(|request| request.header(name)).collect::<Vec<_>>();
    assert_eq!(of("backstop-message-id"), [&*id; 3]);
    assert_eq!(of("backstop-attempt"), ["1", "2", "3"]);
    assert_eq!(of("idempotency-key"), vec![format!("\"{id}\""); 3]);
}

#[tokio::test]
async fn carriage_the_callers_own_idempotency_key_goes_along() {
    let vendor = Vendor::answering([ok()]).await;
    let host = route(&vendor, "async").await;
    let request = host.request(reqwest::Method::POST, "/r/api").header("idempotency-key", "order-7");
    assert_eq!(backstop_tests::host::answer_to(request).await.status, 202);
    assert_eq!(vendor.receives(1).await[0].header("idempotency-key"), "\"order-7\"");
}

#[tokio::test]
async fn carriage_the_destinations_answer_reaches_a_caller_who_waits() {
    let reply = status(201).header("set-cookie", "a=1").header("set-cookie", "b=2").header("keep-alive", "timeout=9");
    let vendor = Vendor::answering([reply.header("location", "/orders/7").body(b"\x00\xff\r\n".to_vec())]).await;
    let host = route(&vendor, "sync").await;
    let answer = host.post("/r/api/orders", "{}").await;
    assert_eq!((answer.status, answer.header("location").as_str()), (201, "/orders/7"));
    assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
    assert_eq!(answer.header("keep-alive"), "");
    assert_eq!(answer.body, b"\x00\xff\r\n");
}

#[tokio::test]
async fn carriage_a_failure_without_fallback_reaches_the_caller_as_it_is() {
    let vendor = Vendor::answering([status(422).body("no such account")]).await;
    let host = route(&vendor, "sync").await;
    let answer = host.post("/r/api", "{}").await;
    assert_eq!((answer.status, answer.text().as_str()), (422, "no such account"));
    assert_eq!(answer.header("backstop-state"), "dead");
}

#[tokio::test]
async fn carriage_an_answer_to_head_says_the_length_it_would_have() {
    let vendor = Vendor::answering([ok().body("x".repeat(1234))]).await;
    let host = route(&vendor, "sync").await;
    let answer = host.raw("HEAD /r/api HTTP/1.1\r\nHost: caller.example\r\nConnection: close\r\n\r\n").await;
    assert!(answer.to_lowercase().contains("content-length: 1234"), "{answer}");
}
