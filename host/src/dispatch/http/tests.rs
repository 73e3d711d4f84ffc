//! Attempts over real sockets, at vendors that misbehave in every way.

use std::io;
use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::super::guard::Names;
use super::super::vendor::{Act, HandClock, Vendor, route_to, until};
use super::super::{Read, Transport, fields};
use super::*;
use crate::config::Route;
use crate::message::{MessageId, Request};

const LIMIT: Duration = Duration::from_secs(10);

fn transport() -> HttpTransport {
    HttpTransport::new(Arc::new(Clients::new().unwrap()), HandClock::new(), TaskTracker::new())
}

fn get(path: &str) -> Request {
    Request { method: Method::GET, path: path.to_owned(), headers: HeaderMap::new(), body: Bytes::new() }
}

fn delivery(route: Route, request: Request, read: Read) -> Delivery {
    Delivery {
        route: Arc::new(route),
        request: Arc::new(request),
        message: MessageId::from_bytes([7; 16]),
        attempt: 3,
        idempotency_key: "key-1".to_owned(),
        timeout: LIMIT,
        read,
    }
}

/// One GET of all of `url`'s answer.
async fn fetch(url: &str) -> Outcome {
    transport().send(delivery(route_to(url), get(""), Read::Whole)).await.outcome
}

#[track_caller]
fn response(outcome: Outcome) -> Response {
    match outcome {
        Outcome::Response(response) => response,
        Outcome::Silence(silence) => panic!("an answer was expected, not {silence:?}"),
    }
}

#[track_caller]
fn fault_of(outcome: Outcome) -> (Fault, String) {
    match outcome {
        Outcome::Silence(silence) => (silence.fault, silence.detail),
        Outcome::Response(response) => panic!("a fault was expected, not {response:?}"),
    }
}

/// What vendors say for a connection that can be used again.
fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn a_request_is_carried_faithfully() {
    let vendor = Vendor::answering(ok("done")).await;
    let mut headers = HeaderMap::new();
    headers.append("x-twice", HeaderValue::from_static("one"));
    headers.append("x-twice", HeaderValue::from_static("two"));
    headers.insert("content-type", HeaderValue::from_static("text/plain"));
    headers.insert("connection", HeaderValue::from_static("x-hop"));
    headers.insert("x-hop", HeaderValue::from_static("1"));
    headers.insert("host", HeaderValue::from_static("caller.test"));
    headers.insert("expect", HeaderValue::from_static("100-continue"));
    headers.insert("backstop-attempt", HeaderValue::from_static("99"));
    headers.insert("backstop-forged", HeaderValue::from_static("1"));
    headers.insert("idempotency-key", HeaderValue::from_static("forged"));
    headers.insert("x-replaced", HeaderValue::from_static("caller's"));
    let request = Request { method: Method::PUT, path: "/a%2Fb?c=%20d".into(), headers, body: Bytes::from("hello") };
    let mut route = route_to(&vendor.url("/base/?key=1"));
    route.destination.headers = vec![("x-replaced".parse().unwrap(), HeaderValue::from_static("ours"))];

    let answer = response(transport().send(delivery(route, request, Read::Whole)).await.outcome);

    assert_eq!((answer.status, &answer.body[..], answer.truncated), (StatusCode::OK, &b"done"[..], false));
    let sent = vendor.request();
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("PUT /base/a%2Fb?key=1&c=%20d HTTP/1.1"));
    let mut fields: Vec<&str> = lines.collect();
    fields.sort_unstable();
    let host = format!("host: {}", vendor.address);
    let mut expected = [
        "accept: */*",
        "backstop-attempt: 3",
        "backstop-message-id: 07070707-0707-0707-0707-070707070707",
        "content-length: 5",
        "content-type: text/plain",
        &host,
        "idempotency-key: \"key-1\"",
        concat!("user-agent: backstop/", env!("CARGO_PKG_VERSION")),
        "x-replaced: ours",
        "x-twice: one",
        "x-twice: two",
    ];
    expected.sort_unstable();
    assert_eq!(fields, expected);
    assert_eq!(body, "hello");
}

#[tokio::test]
async fn bytes_that_are_not_text_survive_in_fields() {
    let vendor = Vendor::answering(b"HTTP/1.1 200 OK\r\nX-Name: caf\xe9\r\nX-Two: 1\r\nX-Two: 2\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n\r\n").await;
    let mut request = get("");
    request.headers.insert("x-mine", HeaderValue::from_bytes(b"na\xefve").unwrap());
    let sent = transport().send(delivery(route_to(&vendor.url("/")), request, Read::Whole)).await;
    let answer = response(sent.outcome);
    assert_eq!(answer.headers["x-name"].as_bytes(), b"caf\xe9");
    assert_eq!(answer.headers.get_all("x-two").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert!(!answer.headers.contains_key("keep-alive"));
    assert!(vendor.requests()[0].windows(14).any(|window| window == b"x-mine: na\xefve\r"));
}

#[tokio::test]
async fn an_empty_post_says_that_it_is_empty_and_a_get_says_nothing() {
    let vendor = Vendor::answering(ok("")).await;
    let transport = transport();
    for method in [Method::POST, Method::GET] {
        let request = Request { method, ..get("") };
        response(transport.send(delivery(route_to(&vendor.url("/")), request, Read::Whole)).await.outcome);
    }
    let [post, get] = &vendor.requests()[..] else { panic!("two requests") };
    assert!(String::from_utf8_lossy(post).contains("content-length: 0\r\n"));
    assert!(!String::from_utf8_lossy(get).contains("content-length"));
}

#[tokio::test]
async fn a_redirect_is_an_answer_like_any_other() {
    let other = Vendor::answering(ok("")).await;
    for status in [301, 302, 303, 307, 308] {
        let vendor = Vendor::answering(format!(
            "HTTP/1.1 {status} R\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n",
            other.url("/")
        ))
        .await;
        let answer = response(fetch(&vendor.url("/")).await);
        assert_eq!(answer.status.as_u16(), status);
        assert!(answer.headers.contains_key("location"));
    }
    assert_eq!(other.connections(), 0);
    let vendor = Vendor::answering("HTTP/1.1 302 R\r\nLocation: http://1.2.3.4.5/\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(response(fetch(&vendor.url("/")).await).headers["location"], "http://1.2.3.4.5/", "a URL or not");
}

#[tokio::test]
async fn a_chunked_answer_is_read_to_its_end() {
    let vendor =
        Vendor::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            .await;
    let answer = response(fetch(&vendor.url("/")).await);
    assert_eq!((&answer.body[..], answer.truncated), (&b"abcde"[..], false));
    assert!(!answer.headers.contains_key("transfer-encoding"));
}

#[tokio::test]
async fn answers_without_a_body_are_whole() {
    let transport = transport();
    for (method, head) in [(Method::HEAD, "200 OK"), (Method::GET, "204 No Content"), (Method::GET, "304 Not Modified")]
    {
        let length = if head.starts_with("204") { "" } else { "Content-Length: 500\r\n" };
        let vendor = Vendor::answering(format!("HTTP/1.1 {head}\r\n{length}\r\n")).await;
        let request = Request { method, ..get("") };
        let sent = transport.send(delivery(route_to(&vendor.url("/")), request, Read::Whole)).await;
        let answer = response(sent.outcome);
        assert_eq!((answer.body.len(), answer.truncated), (0, false), "{head}");
    }
}

#[tokio::test]
async fn an_answer_ended_by_the_connection_is_whole() {
    let vendor = Vendor::that([Act::AnswerAndCut(b"HTTP/1.1 200 OK\r\n\r\nall of it".to_vec())]).await;
    assert_eq!(&response(fetch(&vendor.url("/")).await).body[..], b"all of it");
}

#[tokio::test]
async fn only_the_wanted_prefix_is_kept() {
    for (wanted, body, truncated) in [(0, "", true), (3, "abc", true), (5, "abcde", false), (9, "abcde", false)] {
        for vendor in [
            Vendor::answering(ok("abcde")).await,
            Vendor::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n").await,
        ] {
            let sent = transport().send(delivery(route_to(&vendor.url("/")), get(""), Read::Prefix(wanted))).await;
            let answer = response(sent.outcome);
            assert_eq!((&answer.body[..], answer.truncated), (body.as_bytes(), truncated), "first {wanted}");
        }
    }
}

#[tokio::test]
async fn a_prefix_is_never_longer_than_the_response_limit() {
    let vendor = Vendor::answering(ok("abcde")).await;
    let mut route = route_to(&vendor.url("/"));
    route.destination.response_limit = 2;
    let answer = response(transport().send(delivery(route, get(""), Read::Prefix(100))).await.outcome);
    assert_eq!((&answer.body[..], answer.truncated), (&b"ab"[..], true));
}

#[tokio::test]
async fn a_whole_answer_beyond_the_response_limit_is_a_protocol_fault() {
    for vendor in [
        Vendor::answering(ok("abcde")).await,
        Vendor::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n1\r\ne\r\n0\r\n\r\n")
            .await,
    ] {
        for (limit, fits) in [(5, true), (4, false)] {
            let mut route = route_to(&vendor.url("/"));
            route.destination.response_limit = limit;
            let outcome = transport().send(delivery(route, get(""), Read::Whole)).await.outcome;
            match fits {
                true => assert_eq!(&response(outcome).body[..], b"abcde"),
                false => {
                    let expected = "answer longer than response_limit (4 bytes)".to_owned();
                    assert_eq!(fault_of(outcome), (Fault::Protocol, expected));
                }
            }
        }
    }
}

#[tokio::test]
async fn of_a_hundred_megabytes_little_is_read() {
    const FLOOD: u64 = 100 << 20;
    for head in ["HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
        let vendor = Vendor::that([Act::AnswerAndFlood(head.into(), FLOOD)]).await;
        let sent = transport().send(delivery(route_to(&vendor.url("/")), get(""), Read::Prefix(1000))).await;
        let answer = response(sent.outcome);
        assert_eq!((answer.body.len(), answer.truncated), (1000, true));
        let (fault, detail) = fault_of(fetch(&vendor.url("/")).await);
        assert_eq!(fault, Fault::Protocol);
        assert!(detail.contains("response_limit"), "{detail}");
        // What the sockets' own buffers swallow counts as written.
        assert!(vendor.written() < FLOOD / 2, "{} bytes were taken", vendor.written());
    }
}

#[tokio::test]
async fn a_connection_is_used_again_after_small_remainders_and_not_after_large_ones() {
    let transport = transport();
    // The remainder is not there yet when the prefix is, or else hyper itself would throw it away.
    let in_two = |length: usize| {
        let mut first = ok(&"x".repeat(length));
        let second = first.split_off(first.len() - length + 10);
        Vendor::that([Act::AnswerInTwo(first, second)])
    };
    let (small, large) = (in_two(10_000).await, in_two(100_000).await);
    for _ in 0..3 {
        for vendor in [&small, &large] {
            let sent = transport.send(delivery(route_to(&vendor.url("/")), get(""), Read::Prefix(10))).await;
            assert!(response(sent.outcome).truncated);
        }
    }
    assert_eq!((small.connections(), large.connections()), (1, 3));
}

#[tokio::test]
async fn what_is_not_http_is_a_protocol_fault() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "HTTP/1.1 2oo OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "\0\u{1}\u{2}\r\n\r\n",
    ] {
        let vendor = Vendor::that([Act::AnswerAndHang(garbage.into())]).await;
        assert_eq!(fault_of(fetch(&vendor.url("/")).await).0, Fault::Protocol, "{garbage:?}");
    }
}

#[tokio::test]
async fn a_status_that_is_no_final_one_is_a_protocol_fault() {
    for status in [101, 600, 999] {
        for read in [Read::Whole, Read::Prefix(9)] {
            let vendor = Vendor::answering(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n")).await;
            let outcome = transport().send(delivery(route_to(&vendor.url("/")), get(""), read)).await.outcome;
            let detail = format!("{} answered with status {status}", vendor.address);
            assert_eq!(fault_of(outcome), (Fault::Protocol, detail));
        }
    }
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let vendor = Vendor::answering(early).await;
    assert_eq!(&response(fetch(&vendor.url("/")).await).body[..], b"ok", "what comes before the final one is none");
}

#[tokio::test]
async fn a_vendor_cannot_say_what_only_the_host_may() {
    let vendor = Vendor::answering(
        "HTTP/1.1 200 OK\r\nBackstop-Message-Id: forged\r\nBACKSTOP-Attempts: 9\r\nX-Backstop: mine\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let headers = response(fetch(&vendor.url("/")).await).headers;
    assert!(!headers.keys().any(|name| name.as_str().starts_with(fields::OWN_PREFIX)), "{headers:?}");
    assert_eq!(headers["x-backstop"], "mine");
}

#[tokio::test]
async fn a_broken_chunk_is_a_protocol_fault() {
    let vendor = Vendor::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n").await;
    assert_eq!(fault_of(fetch(&vendor.url("/")).await).0, Fault::Protocol);
}

#[tokio::test]
async fn a_head_without_bound_is_a_protocol_fault() {
    let many = "X-Field: 1\r\n".repeat(200);
    let vendor = Vendor::answering(format!("HTTP/1.1 200 OK\r\n{many}\r\n")).await;
    assert_eq!(fault_of(fetch(&vendor.url("/")).await).0, Fault::Protocol);
    let vendor = Vendor::that([Act::AnswerAndFlood("HTTP/1.1 200 OK\r\nX-Field: ".into(), 10 << 20)]).await;
    assert_eq!(fault_of(fetch(&vendor.url("/")).await).0, Fault::Protocol);
}

#[tokio::test]
async fn a_cut_connection_is_a_reset() {
    for half in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ] {
        let vendor = Vendor::that([Act::AnswerAndCut(half.into())]).await;
        assert_eq!(fault_of(fetch(&vendor.url("/")).await).0, Fault::Reset, "{half:?}");
    }
}

#[tokio::test]
async fn a_connection_cut_before_the_request_is_a_reset() {
    let vendor = Vendor::that([Act::Refuse]).await;
    assert_eq!(fault_of(fetch(&vendor.url("/")).await).0, Fault::Reset);
}

#[tokio::test]
async fn a_body_that_breaks_off_after_the_prefix_is_an_answer() {
    let vendor =
        Vendor::that([Act::AnswerAndCut(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nenough".to_vec())]).await;
    let sent = transport().send(delivery(route_to(&vendor.url("/")), get(""), Read::Prefix(6))).await;
    let answer = response(sent.outcome);
    assert_eq!((&answer.body[..], answer.truncated), (&b"enough"[..], true));
}

#[tokio::test]
async fn silence_and_dripping_end_with_the_timeout() {
    for act in [
        Act::AnswerAndHang(Vec::new()),
        Act::AnswerAndHang(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_vec()),
        Act::AnswerAndDrip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".to_vec()),
        Act::AnswerAndDrip(b"HTTP/1.1 200 OK\r\nX-Field: ".to_vec()),
    ] {
        let vendor = Vendor::that([act.clone()]).await;
        let mut delivery = delivery(route_to(&vendor.url("/")), get(""), Read::Whole);
        delivery.timeout = Duration::from_millis(120);
        let sent = transport().send(delivery).await;
        let expected = (Fault::Timeout, "no complete answer within 120ms".to_owned());
        assert_eq!(fault_of(sent.outcome), expected, "{act:?}");
        assert!(sent.latency >= Duration::from_millis(120));
    }
}

#[tokio::test]
async fn a_dripping_remainder_is_not_waited_for() {
    let vendor = Vendor::that([Act::AnswerAndDrip(b"HTTP/1.1 200 OK\r\n\r\n12345".to_vec())]).await;
    let sent = transport().send(delivery(route_to(&vendor.url("/")), get(""), Read::Prefix(5))).await;
    assert!(response(sent.outcome).truncated);
    assert!(sent.latency < LIMIT / 2, "{:?}", sent.latency);
}

#[tokio::test]
async fn a_dead_port_is_a_connect_fault() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (fault, detail) = fault_of(fetch(&format!("http://{free}/secret?key=1")).await);
    assert_eq!(fault, Fault::Connect);
    assert!(detail.contains(&free.to_string()) && detail.contains("refused"), "{detail}");
    assert!(!detail.contains("secret") && !detail.contains("key"), "{detail}");
}

#[tokio::test]
async fn a_name_without_an_address_is_a_resolve_fault() {
    let (fault, detail) = fault_of(fetch("http://vendor.invalid/secret").await);
    assert_eq!(fault, Fault::Resolve);
    assert!(detail.starts_with("vendor.invalid could not be resolved: "), "{detail}");
}

#[tokio::test]
async fn tls_with_who_does_not_speak_it_is_a_tls_fault() {
    for act in [Act::Blurt(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), Act::Refuse] {
        let vendor = Vendor::that([act]).await;
        let (fault, detail) = fault_of(fetch(&format!("https://{}/", vendor.address)).await);
        assert_eq!(fault, Fault::Tls, "{detail}");
    }
}

#[tokio::test]
async fn a_path_that_leaves_the_base_is_not_sent() {
    let vendor = Vendor::answering(ok("")).await;
    let sent = transport().send(delivery(route_to(&vendor.url("/base")), get("/%2e%2e/admin"), Read::Whole)).await;
    assert_eq!(fault_of(sent.outcome).0, Fault::Protocol);
    let request = Request { method: Method::CONNECT, ..get("") };
    let sent = transport().send(delivery(route_to(&vendor.url("/base")), request, Read::Whole)).await;
    assert_eq!(fault_of(sent.outcome).0, Fault::Protocol);
    assert_eq!(vendor.connections(), 0);
}

#[tokio::test]
async fn a_body_is_sent_while_many_share_the_pool() {
    let vendor = Vendor::answering(ok("ok")).await;
    let transport = transport();
    let all = (0..50).map(|n| {
        let request = Request { method: Method::POST, body: format!("{n:03}").into(), ..get("") };
        transport.send(delivery(route_to(&vendor.url("/")), request, Read::Whole))
    });
    for sent in futures_util::future::join_all(all).await {
        assert_eq!(&response(sent.outcome).body[..], b"ok");
    }
    let mut bodies: Vec<_> = vendor.requests().iter().map(|request| request[request.len() - 3..].to_vec()).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, (0..50).map(|n| format!("{n:03}").into_bytes()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_pooled_connection_that_the_vendor_closed_costs_no_attempt() {
    let vendor = Vendor::that([Act::AnswerAndCut(ok("one")), Act::Answer(ok("two"))]).await;
    let transport = transport();
    let send = || transport.send(delivery(route_to(&vendor.url("/")), get(""), Read::Whole));
    assert_eq!(&response(send().await.outcome).body[..], b"one");
    assert_eq!(&response(send().await.outcome).body[..], b"two");
    until("a second connection", || vendor.connections() == 2).await;
}

#[tokio::test]
async fn fixed_credentials_replace_the_callers() {
    let vendor = Vendor::answering(ok("")).await;
    let transport = transport();
    for auth in [
        crate::config::Auth::Header { name: http::header::AUTHORIZATION, value: HeaderValue::from_static("Key k") },
        crate::config::Auth::Basic { username: "Aladdin".into(), password: crate::config::Secret::new("open sesame") },
    ] {
        let mut route = route_to(&vendor.url("/"));
        route.destination.auth = Some(auth);
        let mut request = get("");
        request.headers.insert("authorization", HeaderValue::from_static("Bearer caller"));
        response(transport.send(delivery(route, request, Read::Whole)).await.outcome);
    }
    let sent: Vec<String> = vendor.requests().into_iter().map(|request| String::from_utf8(request).unwrap()).collect();
    assert!(sent[0].contains("authorization: Key k\r\n") && !sent[0].contains("Bearer"));
    assert!(sent[1].contains("authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n") && !sent[1].contains("Bearer"));
}

/// Leads every name to one address.
struct Everywhere(IpAddr);

#[async_trait]
impl Names for Everywhere {
    async fn addresses(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec![self.0])
    }
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_unless_the_operator_allows_it() {
    let vendor = Vendor::answering(ok("inside")).await;
    let clients = Clients::with_names(Arc::new(Everywhere("127.0.0.1".parse().unwrap()))).unwrap();
    let transport = HttpTransport::new(Arc::new(clients), HandClock::new(), TaskTracker::new());
    let url = format!("http://vendor.test:{}/", vendor.address.port());
    let route = |allow: &[&str]| {
        let mut route = route_to(&url);
        route.destination.allow = allow.iter().map(|net| net.parse().unwrap()).collect();
        route
    };

    let allowed = transport.send(delivery(route(&["127.0.0.0/8"]), get(""), Read::Whole)).await;
    assert_eq!(&response(allowed.outcome).body[..], b"inside");
    // The connection that is now open to that name is of no use to a destination without the permission.
    for allow in [&[][..], &["10.0.0.0/8"]] {
        let (fault, detail) = fault_of(transport.send(delivery(route(allow), get(""), Read::Whole)).await.outcome);
        assert_eq!(fault, Fault::Resolve);
        assert!(
            detail.starts_with("vendor.test resolved to 127.0.0.1, which destination.allow does not list"),
            "{detail}"
        );
        assert!(detail.contains("127.0.0.0/8"), "{detail}");
    }
    assert_eq!(vendor.connections(), 1);
}

#[tokio::test]
async fn localhost_needs_no_permission() {
    let vendor = Vendor::answering(ok("home")).await;
    assert_eq!(&response(fetch(&format!("http://localhost:{}/", vendor.address.port())).await).body[..], b"home");
}
