//! Whom a route asks about a half message whose sender has not said what became of it. Resolved.

use std::time::Duration;

use url::Url;

use super::resolved::Destination;
use crate::message::MessageId;

/// What stands for the transaction's id in a check-back's URL: as it is written, and as a path holds it once it is read.
const PLACES: [&str; 2] = ["{id}", "%7Bid%7D"];

/// How a route's senders are asked what became of their operations.
#[derive(Clone, PartialEq)]
pub struct CheckBack {
    /// Where they are asked, and how checks identify themselves there. Its URL holds `{id}` where the transaction's id
    /// is to stand, if anywhere: see [`CheckBack::destination`].
    pub sender: Destination,
    /// How long after it was prepared a transaction is asked about first.
    pub after: Duration,
    /// How long after a check that settled nothing the next one is made.
    pub every: Duration,
    /// Checks that settle nothing before a transaction is parked. Default 15.
    pub max_checks: u32,
}

impl CheckBack {
    /// Where the sender of the transaction called `id` is asked.
    pub fn destination(&self, id: MessageId) -> Destination {
        // Hex digits and dashes in place of something: what was a URL of that host stays one.
        let url = Url::parse(&filled(self.sender.url.as_str(), &id.to_string()));
        Destination { url: url.unwrap_or_else(|_| self.sender.url.clone()), ..self.sender.clone() }
    }

    /// Its URL as a person writes it.
    pub(super) fn written(&self) -> String {
        filled(self.sender.url.as_str(), PLACES[0])
    }
}

fn filled(url: &str, with: &str) -> String {
    PLACES.into_iter().fold(url.to_owned(), |url, place| url.replace(place, with))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::vendor::destination;

    #[test]
    fn the_id_stands_wherever_the_url_has_a_place_for_it() {
        let id: MessageId = "01a200ce-7d98-708d-a5f1-1a63b4590abb".parse().unwrap();
        let asked = |url: &str| {
            let second = Duration::from_secs(1);
            let back = CheckBack { sender: destination(url), after: second, every: second, max_checks: 1 };
            (back.destination(id).url.to_string(), back.written())
        };
        for url in ["http://shop.test/tx/{id}", "http://shop.test/tx/{id}/state?id={id}", "http://shop.test/check"] {
            assert_eq!(asked(url), (url.replace("{id}", &id.to_string()), url.to_owned()));
        }
    }
}
