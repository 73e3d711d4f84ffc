//! Reading an answer: no more of it than was asked for, and none of it without bound.
//!
//! It refuses a status that is no final one (RFC 9110 §15), since whoever waits for the answer could do nothing with
//! it, and it drops what only the host may say.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use url::Url;

use super::fault::{self, silence};
use super::{Read, fields};
use crate::message::{Fault, Response, Silence};

/// The largest remainder of a body, in bytes, that is read and thrown away so that the connection can be used again.
const DRAIN_LIMIT: usize = 16 << 10;

/// How long such a remainder is waited for.
const DRAIN_TIME: Duration = Duration::from_millis(50);

/// The most memory set aside before a byte has arrived.
const FIRST_ALLOCATION: usize = 64 << 10;

/// What is left of an answer after as much as was wanted has been read.
pub(super) struct Remainder {
    response: reqwest::Response,
    /// How much is left, if the answer said how long it is.
    left: Option<u64>,
    /// Whether the end was seen: then there is none.
    ended: bool,
}

impl Remainder {
    /// Reads a small remainder, so that the connection is used again; anything else is cut off.
    pub(super) async fn drain(mut self) {
        if self.ended || self.left.is_some_and(|left| left > DRAIN_LIMIT as u64) {
            return;
        }
        let to_the_end = async {
            let mut seen = 0;
            while let Ok(Some(chunk)) = self.response.chunk().await {
                seen += chunk.len();
                if seen > DRAIN_LIMIT {
                    return;
                }
            }
        };
        // Whether it ended in time makes no difference to anybody: the answer is already known.
        let _ = tokio::time::timeout(DRAIN_TIME, to_the_end).await;
    }
}

/// Reads what `read` wants of an answer from `url`, at most `limit` bytes of body.
pub(super) async fn read(
    mut response: reqwest::Response,
    read: Read,
    limit: usize,
    url: &Url,
) -> Result<(Response, Remainder), Silence> {
    let status = response.status();
    // No upgrade was asked for, so `101` answers nothing either.
    if !(200..=599).contains(&status.as_u16()) {
        let place = fault::place(url);
        return Err(silence(Fault::Protocol, format!("{place} answered with status {}", status.as_u16())));
    }
    let headers = fields::without_own(fields::end_to_end(std::mem::take(response.headers_mut())));
    let announced = response.content_length();
    let (wanted, whole) = match read {
        Read::Prefix(wanted) => (wanted.min(limit), false),
        Read::Whole => (limit, true),
    };
    let too_long = || silence(Fault::Protocol, format!("answer longer than response_limit ({limit} bytes)"));
    if whole && announced.is_some_and(|length| length > limit as u64) {
        return Err(too_long());
    }

    let expected = announced.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let mut body = BytesMut::with_capacity(expected.min(wanted).min(FIRST_ALLOCATION));
    let mut truncated = false;
    let mut ended = false;
    while !ended && body.len() < wanted {
        match response.chunk().await.map_err(|error| fault::of(&error, url))? {
            Some(chunk) => {
                let room = wanted - body.len();
                truncated = chunk.len() > room;
                body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
            }
            None => ended = true,
        }
    }
    let left = announced.map(|length| length.saturating_sub(body.len() as u64));
    if !ended && !truncated {
        truncated = match left {
            Some(left) => left > 0,
            // The answer has not said how long it is. A caller who waits for all of it waits to learn that; others
            // only for as long as the remainder is waited for anyway.
            None if whole => more(&mut response).await.map_err(|error| fault::of(&error, url))?,
            None => match tokio::time::timeout(DRAIN_TIME, more(&mut response)).await {
                Ok(Ok(more)) => more,
                Ok(Err(_)) | Err(_) => true,
            },
        };
    }
    if whole && truncated {
        return Err(too_long());
    }
    let body: Bytes = body.freeze();
    Ok((Response { status, headers, body, truncated }, Remainder { response, left, ended }))
}

/// Whether there is more of the body.
async fn more(response: &mut reqwest::Response) -> reqwest::Result<bool> {
    while let Some(chunk) = response.chunk().await? {
        if !chunk.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}
