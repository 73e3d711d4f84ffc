//! A small client for the command line: it calls the admin API, and the ingress, of a running host.
//!
//! The operator names the address, so no address is refused. Nothing is retried: a person is waiting.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::clients::{ClientsError, plain, tls};
use super::target::{BadPath, joined};
use super::{fault, fields};
use crate::config::Secret;

#[cfg(test)]
mod tests;

/// The longest answer that is read, in bytes.
pub const ANSWER_LIMIT: usize = 16 << 20;

/// The time a call may take: a little longer than the longest a caller of a synchronous route waits by default.
pub const TIMEOUT: Duration = Duration::from_secs(40);

/// A call to a running host failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No client could be built.
    #[error("failed to set up the HTTP client")]
    Setup(#[from] ClientsError),
    /// The path cannot be asked for.
    #[error("failed to make a URL of the path")]
    Path(#[from] BadPath),
    /// The body cannot be written as JSON.
    #[error("failed to write the request as JSON")]
    Unwritable(#[source] serde_json::Error),
    /// Nothing listens there.
    #[error("nothing answers at {address}: is `backstop serve` running there? ({detail})")]
    Unreachable {
        /// Scheme, host and port.
        address: String,
        /// What exactly happened.
        detail: String,
    },
    /// Something broke on the way.
    #[error("the call to {address} failed: {detail}")]
    Broken {
        /// Scheme, host and port.
        address: String,
        /// What exactly happened.
        detail: String,
    },
    /// The token is missing or wrong.
    #[error("{address} asks for another token: give the one that its `admin.token` holds")]
    Unauthorized {
        /// Scheme, host and port.
        address: String,
    },
    /// It said no.
    #[error("{detail} ({status})")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The problem's detail, or its title, or what the status says.
        detail: String,
        /// The problem's type, if the answer was one: `urn:backstop:problem:…`.
        kind: Option<String>,
    },
    /// The answer is longer than is read, in bytes: [`ANSWER_LIMIT`], or what was asked for.
    #[error("the answer is longer than {0} bytes: ask for less of it")]
    TooLong(usize),
    /// The answer is not the JSON that was expected.
    #[error("failed to read the answer: is that address a Backstop host of the same version?")]
    Unreadable(#[source] serde_json::Error),
}

impl ClientError {
    /// Whether the host said no with this problem, such as `unknown-route`.
    pub fn is_problem(&self, name: &str) -> bool {
        let Self::Refused { kind: Some(kind), .. } = self else { return false };
        kind.strip_prefix("urn:backstop:problem:") == Some(name)
    }
}

/// Calls one host.
#[derive(Debug)]
pub struct HostClient {
    base: Url,
    authorization: Option<HeaderValue>,
    client: reqwest::Client,
    /// The longest answer that is read, in bytes.
    longest: usize,
}

impl HostClient {
    /// A client of the host at `base`, such as `http://127.0.0.1:8081`, that identifies itself with `token`.
    ///
    /// # Errors
    /// When TLS or the client cannot be set up.
    pub fn new(base: Url, token: Option<&Secret>) -> Result<Self, ClientError> {
        let client = plain(tls()?).build().map_err(ClientsError::Client)?;
        let authorization = token.and_then(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose())).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Ok(Self { base, authorization, client, longest: ANSWER_LIMIT })
    }

    /// The same, reading answers of up to `longest` bytes.
    #[must_use]
    pub fn reading_up_to(self, longest: usize) -> Self {
        Self { longest, ..self }
    }

    /// `GET path`, with `query` (names and values as they are: they are encoded here).
    ///
    /// # Errors
    /// When the host cannot be reached, says no, or answers with something else.
    pub async fn get<A: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<A, ClientError> {
        let mut path = path.to_owned();
        if !query.is_empty() {
            path.push('?');
            path.push_str(&url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish());
        }
        self.read(self.send(Method::GET, &path, HeaderMap::new(), Bytes::new()).await?)
    }

    /// `POST path` with `body` as JSON.
    ///
    /// # Errors
    /// As [`HostClient::get`].
    pub async fn post<B: Serialize + Sync, A: DeserializeOwned>(&self, path: &str, body: &B) -> Result<A, ClientError> {
        let body = serde_json::to_vec(body).map_err(ClientError::Unwritable)?;
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        self.read(self.send(Method::POST, path, headers, body.into()).await?)
    }

    /// Any request, and whatever answer comes, without a redirect being followed.
    ///
    /// # Errors
    /// When the host cannot be reached, or the answer is cut off or too long. A status is no error here.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<http::Response<Bytes>, ClientError> {
        let mut request = reqwest::Request::new(method, joined(&self.base, path)?);
        *request.headers_mut() = headers;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        request.headers_mut().entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        if !body.is_empty() {
            *request.body_mut() = Some(body.into());
        }
        let late = |_| {
            Err(ClientError::Broken {
                address: self.address(),
                detail: format!("no complete answer within {TIMEOUT:?}"),
            })
        };
        tokio::time::timeout(TIMEOUT, self.exchange(request)).await.unwrap_or_else(late)
    }

    async fn exchange(&self, request: reqwest::Request) -> Result<http::Response<Bytes>, ClientError> {
        let failed = |error: reqwest::Error| {
            let (address, detail) = (self.address(), fault::of(&error, &self.base).detail);
            if error.is_connect() {
                ClientError::Unreachable { address, detail }
            } else {
                ClientError::Broken { address, detail }
            }
        };
        let mut answer = self.client.execute(request).await.map_err(failed)?;
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len().saturating_add(chunk.len()) > self.longest {
                return Err(ClientError::TooLong(self.longest));
            }
            body.extend_from_slice(&chunk);
        }
        let mut whole = http::Response::new(body.freeze());
        *whole.status_mut() = answer.status();
        *whole.headers_mut() = fields::end_to_end(std::mem::take(answer.headers_mut()));
        Ok(whole)
    }

    fn read<A: DeserializeOwned>(&self, answer: http::Response<Bytes>) -> Result<A, ClientError> {
        let status = answer.status();
        if status.is_success() {
            // An answer without a body is JSON's null, so that `()` can be asked for.
            let body: &[u8] = if answer.body().is_empty() { b"null" } else { answer.body() };
            return serde_json::from_slice(body).map_err(ClientError::Unreadable);
        }
        if status == StatusCode::UNAUTHORIZED {
            return Err(ClientError::Unauthorized { address: self.address() });
        }
        let problem = serde_json::from_slice::<Problem>(answer.body()).ok();
        let kind = problem.as_ref().and_then(|problem| problem.kind.clone());
        let detail = problem
            .and_then(|problem| problem.detail.or(problem.title))
            .unwrap_or_else(|| status.canonical_reason().unwrap_or("the host said no").to_owned());
        Err(ClientError::Refused { status, detail, kind })
    }

    fn address(&self) -> String {
        format!("{}://{}", self.base.scheme(), fault::place(&self.base))
    }
}

/// RFC 9457, as much of it as is shown.
#[derive(serde::Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: Option<String>,
    title: Option<String>,
    detail: Option<String>,
}
