//! Whom a route asks about a half message: from raw twin to resolved.

use std::time::Duration;

use url::Url;

use super::{DAY, MILLISECOND, Resolver};
use crate::config::check_back::CheckBack;
use crate::config::defaults;
use crate::config::problem::Place;
use crate::config::raw::{RawCheckBack, RawDestination};
use crate::config::reader::{Field, Shorthand};
use crate::config::resolved::Mode;
use crate::config::units::Written;

/// The shortest pause between two checks: a sender is asked, not besieged.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

impl Resolver<'_> {
    /// Resolves a check-back. `None` when there is none, or it has no URL; that was reported.
    pub(super) fn check_back(
        &self,
        place: &Place<'_>,
        raw: Field<Shorthand<Written<Url>, RawCheckBack>>,
        mode: Mode,
    ) -> Option<CheckBack> {
        if raw.is_present() && mode != Mode::Async {
            let message = format!(
                "only for `mode: async`: in mode {} a caller waits for the delivery, and a half message is delivered \
                 long after its sender has gone on; remove it, or write `mode: async`",
                mode.as_str()
            );
            self.complain(place, message);
        }
        let raw = match raw.given()? {
            Shorthand::Short(url) => RawCheckBack { url: Field::Given(url), ..RawCheckBack::default() },
            Shorthand::Full(raw) => raw,
        };
        let after = self.duration(&place.key("after"), raw.after, MILLISECOND..=DAY * 30, defaults::CHECK_BACK_AFTER);
        let every = self.duration(&place.key("every"), raw.every, SHORTEST_PAUSE..=DAY, defaults::CHECK_BACK_EVERY);
        let max_checks =
            self.count(&place.key("max_checks"), raw.max_checks, 1..=1_000_000, defaults::CHECK_BACK_MAX_CHECKS);
        // Whatever holds of a destination holds of whom is asked.
        let sender = RawDestination {
            url: raw.url.map(|Written(url)| Written(url.into())),
            timeout: raw.timeout,
            auth: raw.auth,
            headers: raw.headers,
            allow: raw.allow,
            ..RawDestination::default()
        };
        let sender = self.destination(place, Field::Given(Shorthand::Full(sender)))?;
        if sender.url.host_str().is_some_and(|host| host.contains(['{', '}'])) {
            self.complain_of(place, "{id} may stand in the path or the query: a sender's host does not go by it");
        }
        Some(CheckBack { sender, after, every, max_checks })
    }
}
