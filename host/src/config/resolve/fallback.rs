//! What is answered when attempts are exhausted: a default answer, or another route.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::Resolver;
use crate::config::defaults;
use crate::config::problem::{Place, nearest};
use crate::config::raw::{RawFallback, RawRoute};
use crate::config::reader::Field;
use crate::message::{Answer, Fallback, MAX_HOPS, RouteName};

impl Resolver<'_> {
    /// Resolves a fallback. Whether the route it names exists is [`Resolver::fallback_routes`]'s to say.
    pub(super) fn fallback(&self, place: &Place<'_>, raw: RawFallback) -> Option<Fallback> {
        let answers =
            raw.status.is_present() || raw.headers.is_present() || raw.json.is_present() || raw.body.is_present();
        if raw.route.is_present() {
            if answers {
                self.complain(place, "write either `route: NAME` or an answer (status, headers, json, body), not both");
            }
            return RouteName::new(&raw.route.given()?).ok().map(Fallback::Route);
        }
        if !answers {
            self.complain(
                place,
                "is empty: write an answer such as `{ status: 200, json: {…} }`, or `{ route: NAME }`",
            );
            return None;
        }
        if raw.json.is_present() && raw.body.is_present() {
            self.complain(place, "write either json or body, not both");
        }
        let status = self.count(&place.key("status"), raw.status, 200..=599, defaults::FALLBACK_STATUS);
        let mut headers: HeaderMap = self.headers(&place.key("headers"), raw.headers, &[]).into_iter().collect();
        let body = match raw.json.given() {
            Some(json) => {
                headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
                Bytes::from(json.to_string())
            }
            None => Bytes::from(raw.body.given().unwrap_or_default()),
        };
        if matches!(status, 204 | 205 | 304) && !body.is_empty() {
            self.complain(
                place,
                format!("an answer with status {status} has no body: write another status, or no body"),
            );
        }
        Some(Fallback::Answer(Answer { status: StatusCode::from_u16(status).unwrap_or(StatusCode::OK), headers, body }))
    }

    /// Checks that every fallback route exists, and that none leads in a circle or further than a message may go.
    pub(super) fn fallback_routes(&self, place: &Place<'_>, routes: &[(String, Field<RawRoute>)]) {
        let next: BTreeMap<&str, &str> = routes
            .iter()
            .filter_map(|(name, raw)| {
                let target = raw.as_given()?.fallback.as_given()?.route.as_given()?;
                Some((name.as_str(), target.as_str()))
            })
            .collect();
        let names: BTreeSet<&str> = routes.iter().map(|(name, _)| name.as_str()).collect();
        for (name, target) in &next {
            let route = place.key(name);
            let fallback = route.key("fallback");
            let here = fallback.key("route");
            if self.findings.is_full() {
                return;
            }
            if name == target {
                self.complain_of(&here, "a route cannot fall back to itself: name another");
            } else if !names.contains(target) {
                self.complain_of(
                    &here,
                    match nearest(target, names.iter().copied().filter(|other| other != name)) {
                        Some(meant) => format!("no such route: did you mean `{meant}`?"),
                        None => "no such route: name one of this file".to_owned(),
                    },
                );
            } else {
                self.follow(&here, name, &next);
            }
        }
    }

    fn follow(&self, place: &Place<'_>, start: &str, next: &BTreeMap<&str, &str>) {
        let mut way = vec![start];
        while let Some(following) = way.last().and_then(|here| next.get(here)) {
            if *following == start {
                // Every route of the circle comes by here; it is reported once, of the first by name.
                if way.iter().all(|name| start <= *name) {
                    way.push(start);
                    self.complain(place, format!("leads in a circle ({}): leave one out", way.join(" → ")));
                }
                return;
            }
            if way.contains(following) {
                // A circle further down, which is reported there.
                return;
            }
            way.push(following);
            if way.len() > usize::from(MAX_HOPS) + 1 {
                self.complain(place, format!("leads through more than {MAX_HOPS} further routes: shorten the chain"));
                return;
            }
        }
    }
}
