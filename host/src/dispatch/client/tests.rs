//! The command line's client, at hosts that answer well, badly and not at all.

use serde::Deserialize;

use super::super::vendor::{Act, Vendor};
use super::*;

#[derive(Deserialize, PartialEq, Debug)]
struct Page {
    total: u32,
}

fn client(base: &str) -> HostClient {
    HostClient::new(base.parse().unwrap(), Some(&Secret::new("hush"))).unwrap()
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn it_gets_json_with_its_token_and_an_encoded_query() {
    let host = Vendor::answering(answer("200 OK", r#"{"total":3}"#)).await;
    let page: Page = client(&host.url("")).get("/v1/dead", &[("route", "a b"), ("q", "x&y")]).await.unwrap();
    assert_eq!(page, Page { total: 3 });
    let request = host.request();
    assert!(request.starts_with("GET /v1/dead?route=a+b&q=x%26y HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: Bearer hush\r\n"), "{request}");
}

#[tokio::test]
async fn it_posts_json_and_takes_an_empty_answer() {
    let host = Vendor::answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    client(&host.url("")).post::<_, ()>("/v1/redrive", &serde_json::json!({ "all": true })).await.unwrap();
    assert!(host.request().ends_with(r#"{"all":true}"#));
}

#[tokio::test]
async fn a_problem_is_told_in_its_own_words() {
    let body = r#"{"type":"about:blank","title":"Not found","status":404,"detail":"no message 7"}"#;
    for (answer, expected) in [
        (answer("404 Not Found", body), "no message 7 (404 Not Found)"),
        (answer("404 Not Found", r#"{"title":"Not found"}"#), "Not found (404 Not Found)"),
        (answer("500 Oops", "<html>"), "Internal Server Error (500 Internal Server Error)"),
    ] {
        let host = Vendor::answering(answer).await;
        let error = client(&host.url("")).get::<Page>("/v1/messages/7", &[]).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test]
async fn where_nothing_listens_it_asks_whether_the_host_runs() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = client(&format!("http://{free}")).get::<Page>("/v1/dead", &[]).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("nothing answers at http://{free}: is `backstop serve` running there?")),
        "{text}"
    );
}

#[tokio::test]
async fn a_wrong_token_is_told_and_not_repeated() {
    let host = Vendor::answering(answer("401 Unauthorized", "")).await;
    let error = client(&host.url("")).get::<Page>("/v1/dead", &[]).await.unwrap_err();
    assert!(matches!(error, ClientError::Unauthorized { .. }));
    assert!(!format!("{error} {error:?} {:?}", client(&host.url(""))).contains("hush"));
}

#[tokio::test]
async fn what_is_not_the_admin_api_is_told_as_that() {
    let html = Vendor::answering(answer("200 OK", "<html>")).await;
    let error = client(&html.url("")).get::<Page>("/", &[]).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreadable(_)), "{error}");
    let cut = Vendor::that([Act::AnswerAndCut(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec())]).await;
    let error = client(&cut.url("")).get::<Page>("/", &[]).await.unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error}");
    let flood = Vendor::that([Act::AnswerAndFlood(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), 100 << 20)]).await;
    let error = client(&flood.url("")).get::<Page>("/", &[]).await.unwrap_err();
    assert!(matches!(error, ClientError::TooLong(_)), "{error}");
}

#[tokio::test]
async fn any_request_can_be_sent_and_any_status_comes_back() {
    let host = Vendor::answering(answer("503 Busy", "later")).await;
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
    let answer = client(&host.url("")).send(Method::PUT, "/r/orders/1", headers, Bytes::from("hi")).await.unwrap();
    assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::SERVICE_UNAVAILABLE, &b"later"[..]));
    assert!(host.request().ends_with("\r\n\r\nhi"));
}
