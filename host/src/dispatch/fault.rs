//! Why there was no answer: the errors of the layers below, sorted into faults with a word for people.
//!
//! The word never holds a URL's path or query, nor a header field: those may be secret.

use std::error::Error;
use std::io;
use std::iter;

use url::Url;

use super::clients::CONNECT_TIMEOUT;
use super::guard::{Refused, Unresolved};
use crate::message::{Fault, Silence};

/// The longest piece of a lower layer's text that is shown, in characters.
const LONGEST_TEXT: usize = 200;

/// Makes a silence.
pub(super) fn silence(fault: Fault, detail: impl Into<String>) -> Silence {
    Silence { fault, detail: detail.into() }
}

/// What `error`, met on the way to `url`, means.
pub(super) fn of(error: &reqwest::Error, url: &Url) -> Silence {
    let place = place(url);
    if let Some(refused) = find::<Refused>(error) {
        return silence(Fault::Resolve, refused.to_string());
    }
    if let Some(unresolved) = find::<Unresolved>(error) {
        return silence(Fault::Resolve, format!("{unresolved}: {}", innermost(unresolved)));
    }
    // The deepest one: the layers above wrap theirs in errors of no particular kind.
    let io = chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).last().map(io::Error::kind);
    if let Some(tls) = find::<rustls::Error>(error) {
        return silence(Fault::Tls, format!("the TLS handshake with {place} failed: {}", short(tls)));
    }
    if error.is_connect() {
        return match io {
            // The TCP connection was made and then cut, which can only be while TLS was agreed upon.
            Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
                if url.scheme() == "https" =>
            {
                silence(Fault::Tls, format!("{place} cut the connection during the TLS handshake"))
            }
            None if error.is_timeout() => {
                silence(Fault::Connect, format!("no connection to {place} within {CONNECT_TIMEOUT:?}"))
            }
            _ => silence(Fault::Connect, format!("could not connect to {place}: {}", innermost(error))),
        };
    }
    if error.is_timeout() {
        return silence(Fault::Timeout, format!("{place} fell silent: {}", innermost(error)));
    }
    if let Some(hyper) = find::<hyper::Error>(error) {
        if hyper.is_parse_too_large() {
            return silence(Fault::Protocol, format!("{place} answered with too large a head"));
        }
        if hyper.is_parse() {
            return silence(Fault::Protocol, format!("what {place} answered is not HTTP: {}", short(hyper)));
        }
        if hyper.is_incomplete_message() || hyper.is_closed() || hyper.is_canceled() {
            return silence(Fault::Reset, format!("{place} cut the connection before the answer was complete"));
        }
    }
    match io {
        Some(
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof,
        ) => silence(Fault::Reset, format!("{place} cut the connection before the answer was complete")),
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => {
            silence(Fault::Protocol, format!("what {place} answered is not HTTP: {}", innermost(error)))
        }
        _ => silence(Fault::Protocol, format!("the exchange with {place} failed: {}", innermost(error))),
    }
}

/// `host:port`: all of a URL that is ever shown.
pub(super) fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// `error` and its causes. An [`io::Error`] hides what it wraps from `source`, so it is asked for it.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
        None => error.source(),
    })
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

/// What the deepest cause says. The outer layers would name the URL.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let cause = chain(error).last().filter(|cause| !cause.is::<reqwest::Error>());
    cause.map_or_else(|| "no cause is known".to_owned(), short)
}

fn short(error: &dyn Error) -> String {
    error.to_string().chars().take(LONGEST_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::clients::{plain, tls};
    use super::super::vendor::{Act, Vendor};
    use super::*;

    #[tokio::test]
    async fn a_handshake_that_takes_too_long_is_a_connect_fault() {
        let vendor = Vendor::that([Act::AnswerAndHang(Vec::new())]).await;
        let client = plain(tls().unwrap()).connect_timeout(Duration::from_millis(50)).build().unwrap();
        let url: Url = format!("https://{}/secret?key=1", vendor.address).parse().unwrap();
        let silence = of(&client.get(url.clone()).send().await.unwrap_err(), &url);
        let detail = format!("no connection to {} within 5s", vendor.address);
        assert_eq!(silence, Silence { fault: Fault::Connect, detail });
    }
}
