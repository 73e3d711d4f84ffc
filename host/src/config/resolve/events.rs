//! What a route says of events, and the profile of `retry:` that goes with them.

use std::sync::Arc;
use std::time::Duration;

use super::route::LONGEST_ELAPSED;
use super::{DAY, MILLISECOND, Resolver, SECOND, WAIT};
use crate::backoff::{Backoff, Jitter};
use crate::config::events::{EventSchema, Events, SourceAndId, Taken};
use crate::config::problem::Place;
use crate::config::raw::{RawBackoff, RawDedupe, RawJitter, RawRetry};
use crate::config::reader::{Field, Shorthand};
use crate::config::resolved::Mode;
use crate::config::units::{Factor, Times, Written};
use crate::config::{default_envelope, defaults};
use crate::event::profile::{self, Asked};
use crate::event::schema::{MAX_SCHEMA, Schema};
use crate::message::Envelope;

impl Resolver<'_> {
    pub(super) fn events(
        &self,
        place: &Place<'_>,
        taken: Field<Written<Taken>>,
        schema: Field<String>,
        dedupe: Field<Shorthand<Written<SourceAndId>, RawDedupe>>,
        mode: Mode,
    ) -> Option<Events> {
        if taken.is_present() && mode != Mode::Async {
            let message = format!(
                "only for `mode: async`, because whoever publishes does not wait: remove it, or `mode: {}`",
                mode.as_str()
            );
            self.complain(&place.key("match"), message);
        }
        if matches!(taken, Field::Absent) {
            for (key, is_present) in [("schema", schema.is_present()), ("dedupe", dedupe.is_present())] {
                if is_present {
                    let message =
                        "means nothing without a match: write `match: true` or another expression, or remove it";
                    self.complain(&place.key(key), message);
                }
            }
        }
        let schema = self.event_schema(&place.key("schema"), schema);
        let dedupe = self.dedupe(&place.key("dedupe"), dedupe);
        let Written(taken) = taken.given()?;
        Some(Events { taken, schema, dedupe })
    }

    fn event_schema(&self, place: &Place<'_>, path: Field<String>) -> Option<EventSchema> {
        let path = path.given()?;
        let text = match self.surroundings.file(&self.base_dir.join(&path), MAX_SCHEMA + 1) {
            Ok(text) => text,
            Err(error) => {
                self.complain_of(place, format!("cannot be read: {error}"));
                return None;
            }
        };
        match Schema::parse(&text) {
            Ok(schema) => Some(EventSchema { path, text: text.into(), schema: Arc::new(schema) }),
            Err(bad) => {
                self.complain_of(place, bad.to_string());
                None
            }
        }
    }

    fn dedupe(&self, place: &Place<'_>, raw: Field<Shorthand<Written<SourceAndId>, RawDedupe>>) -> Option<Duration> {
        let raw = match raw.given()? {
            Shorthand::Short(by) => RawDedupe { by: Field::Given(by), ..RawDedupe::default() },
            Shorthand::Full(raw) => raw,
        };
        self.required(&place.key("by"), raw.by, "`by: source+id`")?;
        Some(self.duration(&place.key("window"), raw.window, SECOND..=DAY * 365, defaults::KEEP_IDEMPOTENCY))
    }

    /// The envelope under the profile `event-pipeline`.
    pub(super) fn event_pipeline(&self, place: &Place<'_>, raw: RawRetry) -> Envelope {
        let asked = Asked {
            max_attempts: raw.max_attempts.as_given().map(|times| match times {
                Times::Of(count) => *count,
                // The profile says what it thinks of that.
                Times::Unlimited => u64::MAX,
            }),
            min_delay: raw.min_delay.as_given().map(|Written(delay)| *delay),
            max_delay: raw.max_delay.as_given().map(|Written(delay)| *delay),
            factor: raw.factor.as_given().map(|Factor(factor)| *factor),
            is_constant: matches!(raw.backoff, Field::Given(RawBackoff::Constant)),
        };
        let jitter = match raw.jitter.given() {
            Some(RawJitter::None) | None => Jitter::None,
            Some(RawJitter::Full) => Jitter::Full,
            Some(RawJitter::Equal) => Jitter::Equal,
            Some(RawJitter::Decorrelated) => Jitter::Decorrelated,
        };
        let max_elapsed =
            self.duration(&place.key("max_elapsed"), raw.max_elapsed, MILLISECOND..=LONGEST_ELAPSED, LONGEST_ELAPSED);
        let retry_after_max =
            self.duration(&place.key("retry_after_max"), raw.retry_after_max, WAIT, defaults::RETRY_AFTER_MAX);
        match profile::schedule(&asked) {
            Ok(schedule) => Envelope {
                max_attempts: schedule.max_attempts,
                max_elapsed,
                min_delay: schedule.min_delay,
                max_delay: schedule.max_delay,
                backoff: Backoff { growth: schedule.growth, jitter },
                retry_after_max,
                renewable_credentials: false,
            },
            Err(refused) => {
                for refusal in refused {
                    self.complain(&place.key(refusal.key), refusal.message);
                }
                default_envelope()
            }
        }
    }
}
