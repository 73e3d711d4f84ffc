//! Asking a token endpoint (RFC 6749 §4.4, client credentials).

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use ipnet::IpNet;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::{Url, form_urlencoded};

use super::super::clients::Clients;
use super::super::fault::{self, silence};
use super::super::{Read, answer};
use crate::backoff::RetryAfter;
use crate::clock::Timestamp;
use crate::config::{Auth, Destination, Secret};
use crate::message::{Fault, Response, Silence};

/// The time a token may take to be fetched, whatever the attempts that wait for it allow.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer of a token endpoint, in bytes.
const ANSWER_LIMIT: usize = 64 << 10;

/// The life of a token whose endpoint does not tell it.
const UNTOLD_LIFETIME: Duration = Duration::from_secs(3600);

/// Whom to ask for a token, as whom, for what.
#[derive(Clone)]
pub(super) struct TokenEndpoint {
    url: Url,
    client_id: String,
    client_secret: Secret,
    scope: Option<String>,
    params: Vec<(String, String)>,
    allow: Vec<IpNet>,
}

/// A token as it came.
pub(super) struct Fetched {
    /// `Bearer …`, marked sensitive.
    pub(super) value: HeaderValue,
    /// How long it lives, from now.
    pub(super) lifetime: Duration,
}

/// No token came.
pub(super) struct Refusal {
    /// Why, without a secret.
    pub(super) silence: Silence,
    /// How long the endpoint asked to be left alone; zero if it did not.
    pub(super) retry_after: Duration,
}

impl Refusal {
    fn new(why: impl fmt::Display) -> Self {
        let silence = silence(Fault::Credentials, format!("token endpoint {why}"));
        Self { silence, retry_after: Duration::ZERO }
    }
}

impl TokenEndpoint {
    /// The endpoint of a destination that uses client credentials.
    pub(super) fn of(destination: &Destination) -> Option<Self> {
        match &destination.auth {
            Some(Auth::ClientCredentials { token_url, client_id, client_secret, scope, params }) => Some(Self {
                url: token_url.clone(),
                client_id: client_id.clone(),
                client_secret: client_secret.clone(),
                scope: scope.clone(),
                params: params.clone(),
                allow: destination.allow.clone(),
            }),
            _ => None,
        }
    }

    /// A digest of everything that tells two accounts apart.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let mut part = |text: &str| {
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(text);
        };
        part(self.url.as_str());
        part(&self.client_id);
        part(self.client_secret.expose());
        part(if self.scope.is_some() { "scope" } else { "" });
        part(self.scope.as_deref().unwrap_or_default());
        for (name, value) in &self.params {
            part("param");
            part(name);
            part(value);
        }
        for network in &self.allow {
            part("allow");
            part(&network.to_string());
        }
        digest.finalize().into()
    }

    fn form(&self) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        form.extend_pairs(&self.params);
        form.finish()
    }

    /// `client_secret_basic`: id and secret are form-urlencoded before they are joined (RFC 6749 §2.3.1).
    fn authorization(&self) -> Option<HeaderValue> {
        let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = format!("{}:{}", encode(&self.client_id), encode(self.client_secret.expose()));
        sensitive(format!("Basic {}", BASE64_STANDARD.encode(pair)))
    }
}

fn sensitive(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Asks for a token, once.
pub(super) async fn fetch(clients: &Clients, endpoint: &TokenEndpoint, now: Timestamp) -> Result<Fetched, Refusal> {
    match tokio::time::timeout(FETCH_TIMEOUT, ask(clients, endpoint)).await {
        Ok(Ok(response)) => read(&response, now),
        Ok(Err(silence)) => Err(Refusal::new(format_args!("failed: {}", silence.detail))),
        Err(_) => Err(Refusal::new(format_args!("gave no answer within {FETCH_TIMEOUT:?}"))),
    }
}

async fn ask(clients: &Clients, endpoint: &TokenEndpoint) -> Result<Response, Silence> {
    let failed = |why: String| silence(Fault::Credentials, why);
    let client = clients.allowing(&endpoint.allow).map_err(|error| failed(error.to_string()))?;
    let authorization =
        endpoint.authorization().ok_or_else(|| failed("the client's id cannot be written in a field".to_owned()))?;
    let request = client
        .post(endpoint.url.clone())
        .header(header::AUTHORIZATION, authorization)
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(endpoint.form());
    let response = request.send().await.map_err(|error| fault::of(&error, &endpoint.url))?;
    let (response, remainder) = answer::read(response, Read::Whole, ANSWER_LIMIT, &endpoint.url).await?;
    remainder.drain().await;
    Ok(response)
}

/// RFC 6749 §5.1, read with the tolerance that real endpoints need.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: Option<String>,
    /// Seconds; some endpoints write the number as text.
    expires_in: Option<serde_json::Value>,
}

/// RFC 6749 §5.2. The description is left out: nobody vouches that it holds no secret.
#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
}

fn read(response: &Response, now: Timestamp) -> Result<Fetched, Refusal> {
    let status = response.status;
    if status != StatusCode::OK {
        let code = serde_json::from_slice::<ErrorAnswer>(&response.body).ok().map(|answer| answer.error);
        let mut refusal = match code.filter(|code| is_error_code(code)) {
            Some(code) => Refusal::new(format_args!("answered {} {code}", status.as_u16())),
            None => Refusal::new(format_args!("answered {}", status.as_u16())),
        };
        refusal.retry_after = retry_after(&response.headers, now);
        return Err(refusal);
    }
    // Neither serde's words nor the body are repeated: both may hold the token.
    let Ok(answer) = serde_json::from_slice::<Answer>(&response.body) else {
        return Err(Refusal::new("answered 200 without a JSON object that has an access_token"));
    };
    if answer.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(Refusal::new("answered with a token that is not of type bearer"));
    }
    let value = Some(answer.access_token).filter(|token| !token.is_empty());
    match value.and_then(|token| sensitive(format!("Bearer {token}"))) {
        Some(value) => Ok(Fetched { value, lifetime: lifetime(answer.expires_in.as_ref()) }),
        None => Err(Refusal::new("answered with a token that no header field can hold")),
    }
}

/// Whether `code` looks like the codes that RFC 6749 and its extensions define, and like nothing else.
fn is_error_code(code: &str) -> bool {
    (1..=40).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn lifetime(told: Option<&serde_json::Value>) -> Duration {
    let seconds = told.and_then(|told| match told {
        serde_json::Value::String(text) => text.trim().parse().ok(),
        number => number.as_f64(),
    });
    seconds.and_then(|seconds: f64| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(UNTOLD_LIFETIME)
}

fn retry_after(headers: &HeaderMap, now: Timestamp) -> Duration {
    match RetryAfter::of(headers, now) {
        RetryAfter::After(delay) => delay,
        RetryAfter::Absent | RetryAfter::Malformed => Duration::ZERO,
    }
}
