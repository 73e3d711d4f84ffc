//! Credentials as destinations and token endpoints see them. The clock is moved by hand.

use std::time::Duration;

use super::super::vendor::{Act, HandClock, Vendor, destination, until};
use super::*;
use crate::config::Secret;

struct Stand {
    credentials: Credentials,
    clock: Arc<HandClock>,
    endpoint: Vendor,
    destination: Destination,
}

impl Stand {
    /// A destination whose token endpoint gives these answers, one after the other.
    async fn with(answers: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self::that(answers.into_iter().map(Act::Answer)).await
    }

    async fn that(acts: impl IntoIterator<Item = Act>) -> Self {
        let endpoint = Vendor::that(acts).await;
        let clock = HandClock::new();
        let credentials = Credentials::new(Arc::new(Clients::new().unwrap()), clock.clone(), TaskTracker::new());
        let destination = client(&endpoint.url("/token"), "secret");
        Self { credentials, clock, endpoint, destination }
    }

    async fn ask(&self) -> Result<(String, CredentialId), String> {
        match self.credentials.field(&self.destination).await {
            Ok((Some(field), id)) => {
                assert_eq!(field.name, "authorization");
                assert!(field.value.is_sensitive());
                Ok((field.value.to_str().unwrap().to_owned(), id))
            }
            Ok((None, _)) => panic!("a field was expected"),
            Err(silence) => {
                assert_eq!(silence.fault, Fault::Credentials);
                Err(silence.detail)
            }
        }
    }

    async fn token(&self) -> String {
        self.ask().await.unwrap().0
    }

    fn fetches(&self) -> usize {
        self.endpoint.requests().len()
    }
}

fn client(token_url: &str, secret: &str) -> Destination {
    let mut destination = destination("http://vendor.test/");
    destination.auth = Some(Auth::ClientCredentials {
        token_url: token_url.parse().unwrap(),
        client_id: "client id".to_owned(),
        client_secret: Secret::new(secret),
        scope: Some("read write".to_owned()),
        params: vec![("audience".to_owned(), "https://v.test/?a=b&c".to_owned())],
    });
    destination
}

fn json(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} S\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

fn token(token: &str, expires_in: u64) -> Vec<u8> {
    json(200, &format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{expires_in}}}"#))
}

#[tokio::test]
async fn a_token_is_asked_for_as_the_standard_says() {
    let mut stand = Stand::with([token("t1", 3600)]).await;
    stand.destination = client(&stand.endpoint.url("/token"), "se:cr et/é");
    assert_eq!(stand.token().await, "Bearer t1");
    let request = stand.endpoint.request();
    assert!(request.starts_with("POST /token HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("content-type: application/x-www-form-urlencoded\r\n"), "{request}");
    let basic = BASE64_STANDARD.encode("client+id:se%3Acr+et%2F%C3%A9");
    assert!(request.contains(&format!("authorization: Basic {basic}\r\n")), "{request}");
    let body = "grant_type=client_credentials&scope=read+write&audience=https%3A%2F%2Fv.test%2F%3Fa%3Db%26c";
    assert!(request.ends_with(body), "{request}");
}

#[tokio::test]
async fn however_many_ask_at_once_a_token_is_fetched_once() {
    let stand = Stand::with([token("t1", 3600)]).await;
    let asked = futures_util::future::join_all((0..100).map(|_| stand.ask())).await;
    assert!(asked.iter().all(|answer| *answer == Ok(("Bearer t1".to_owned(), CredentialId(1)))));
    assert_eq!(stand.fetches(), 1);
}

#[tokio::test]
async fn a_token_is_renewed_a_little_before_it_expires() {
    let stand = Stand::with([token("t1", 3600), token("t2", 3600)]).await;
    assert_eq!(stand.token().await, "Bearer t1");
    stand.clock.advance(Duration::from_secs(3569));
    assert_eq!(stand.token().await, "Bearer t1");
    stand.clock.advance(Duration::from_secs(1));
    assert_eq!(stand.token().await, "Bearer t2");
}

#[tokio::test]
async fn a_late_complaint_about_an_older_token_leaves_the_newer_one() {
    let stand = Stand::with([token("t1", 3600), token("t2", 3600), token("t3", 3600)]).await;
    let (_, first) = stand.ask().await.unwrap();
    stand.credentials.expire(&stand.destination, first);
    let (second, id) = stand.ask().await.unwrap();
    assert_eq!(second, "Bearer t2");
    stand.credentials.expire(&stand.destination, first);
    assert_eq!(stand.token().await, "Bearer t2");
    assert_eq!(stand.fetches(), 2);
    stand.credentials.expire(&stand.destination, id);
    assert_eq!(stand.token().await, "Bearer t3");
}

#[tokio::test]
async fn destinations_with_the_same_account_share_its_token() {
    let stand = Stand::with([token("t1", 3600), token("t2", 3600)]).await;
    let mut twin = stand.destination.clone();
    twin.url = "http://other.test/".parse().unwrap();
    let stranger = client(&stand.endpoint.url("/token"), "another secret");
    for (destination, expected) in [(&stand.destination, "Bearer t1"), (&twin, "Bearer t1"), (&stranger, "Bearer t2")] {
        let (field, _) = stand.credentials.field(destination).await.unwrap();
        assert_eq!(field.unwrap().value, expected);
    }
    assert_eq!(stand.fetches(), 2);
}

#[tokio::test]
async fn a_failing_endpoint_is_left_alone_for_longer_and_longer() {
    let stand = Stand::with([json(400, r#"{"error":"invalid_client","error_description":"secret"}"#)]).await;
    let error = stand.ask().await.unwrap_err();
    assert_eq!(error, "token endpoint answered 400 invalid_client");
    let mut fetches = 1;
    for pause in [1, 2, 4, 8, 16, 30, 30, 30] {
        stand.clock.advance(Duration::from_millis(pause * 1000 - 1));
        let error = stand.ask().await.unwrap_err();
        assert_eq!(error, "token endpoint answered 400 invalid_client (not asked again for 1ms)");
        assert_eq!(stand.fetches(), fetches, "within {pause} s");
        stand.clock.advance(Duration::from_millis(1));
        stand.ask().await.unwrap_err();
        fetches += 1;
        assert_eq!(stand.fetches(), fetches, "after {pause} s");
    }
}

#[tokio::test]
async fn an_endpoint_that_asks_for_a_pause_gets_it() {
    let busy = b"HTTP/1.1 429 S\r\nRetry-After: 20\r\nContent-Length: 0\r\n\r\n".to_vec();
    let stand = Stand::with([busy, token("t1", 3600)]).await;
    assert_eq!(stand.ask().await.unwrap_err(), "token endpoint answered 429");
    stand.clock.advance(Duration::from_secs(19));
    stand.ask().await.unwrap_err();
    stand.clock.advance(Duration::from_secs(1));
    assert_eq!(stand.token().await, "Bearer t1");
}

#[tokio::test]
async fn while_renewal_fails_the_old_token_serves_until_it_expires() {
    let stand = Stand::with([token("t1", 3600), json(503, "")]).await;
    stand.token().await;
    stand.clock.advance(Duration::from_secs(3580));
    assert_eq!(stand.token().await, "Bearer t1");
    assert_eq!(stand.token().await, "Bearer t1");
    assert_eq!(stand.fetches(), 2, "the second of them fell into the pause");
    stand.clock.advance(Duration::from_secs(20));
    assert_eq!(stand.ask().await.unwrap_err(), "token endpoint answered 503");
}

#[tokio::test]
async fn a_fetch_goes_on_when_nobody_waits_for_it_any_more() {
    let stand = Stand::with([token("t1", 3600)]).await;
    assert!(stand.ask().now_or_never().is_none(), "asked, and gave up at once");
    let at_rest = || stand.credentials.accounts().values().all(|account| account.state().fetching.is_none());
    assert!(!at_rest());
    until("the fetch to end", at_rest).await;
    assert_eq!(stand.token().await, "Bearer t1");
    assert_eq!(stand.fetches(), 1);
}

#[tokio::test]
async fn an_endpoint_that_hangs_holds_up_no_other_account() {
    let hanging = Vendor::that([Act::AnswerAndHang(Vec::new())]).await;
    let stand = Stand::with([token("t1", 3600)]).await;
    let waiting = client(&hanging.url("/token"), "secret");
    for _ in 0..3 {
        let waited = tokio::time::timeout(Duration::from_millis(20), stand.credentials.field(&waiting)).await;
        assert!(waited.is_err());
    }
    until("its one request", || hanging.requests().len() == 1).await;
    assert_eq!(stand.token().await, "Bearer t1");
}

#[tokio::test]
async fn odd_but_honest_answers_are_understood() {
    for (body, renewed) in [
        (r#"{"access_token":"t"}"#, 3570),
        (r#"{"access_token":"t","token_type":"bearer","expires_in":"60"}"#, 54),
        (r#"{"access_token":"t","token_type":"BEARER","expires_in":60.0,"scope":"x"}"#, 54),
        (r#"{"access_token":"t","expires_in":-5}"#, 3570),
        (r#"{"access_token":"t","expires_in":1e300}"#, 3570),
    ] {
        let stand = Stand::with([json(200, body), token("next", 3600)]).await;
        assert_eq!(stand.token().await, "Bearer t", "{body}");
        stand.clock.advance(Duration::from_secs(renewed - 1));
        assert_eq!(stand.token().await, "Bearer t", "{body}");
        stand.clock.advance(Duration::from_secs(1));
        assert_eq!(stand.token().await, "Bearer next", "{body}");
    }
}

#[tokio::test]
async fn answers_that_are_no_token_are_refused_without_a_word_of_them() {
    for (answer, expected) in [
        (json(200, "<html>hush</html>"), "answered 200 without a JSON object that has an access_token"),
        (json(200, r#"{"token":"hush"}"#), "answered 200 without a JSON object that has an access_token"),
        (json(200, r#"{"access_token":""}"#), "answered with a token that no header field can hold"),
        (json(200, r#"{"access_token":"hush\r\nx: y"}"#), "answered with a token that no header field can hold"),
        (
            json(200, r#"{"access_token":"hush","token_type":"mac"}"#),
            "answered with a token that is not of type bearer",
        ),
        (json(401, r#"{"error":"Hush! secret"}"#), "answered 401"),
        (json(302, ""), "answered 302"),
        (json(200, &"x".repeat(70_000)), "failed: answer longer than response_limit (65536 bytes)"),
    ] {
        let stand = Stand::with([answer]).await;
        assert_eq!(stand.ask().await.unwrap_err(), format!("token endpoint {expected}"));
    }
}

#[tokio::test]
async fn a_token_endpoint_is_held_to_the_address_rule() {
    let stand = Stand::with([token("t1", 3600)]).await;
    let inside = client("http://tokens.invalid/", "secret");
    let silence = stand.credentials.field(&inside).await.unwrap_err();
    assert_eq!(silence.fault, Fault::Credentials);
    assert!(silence.detail.starts_with("token endpoint failed: tokens.invalid could not be resolved"));
}

#[test]
fn basic_credentials_are_utf8() {
    assert_eq!(basic("test", "123\u{a3}").unwrap(), "Basic dGVzdDoxMjPCow==");
    assert!(basic("test", "x").unwrap().is_sensitive());
}
