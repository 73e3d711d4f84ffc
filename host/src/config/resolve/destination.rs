//! Where a route's messages go, and how attempts identify themselves there.

use http::{HeaderName, HeaderValue, header};

use super::route::MAX_BODY;
use super::{Resolver, WAIT};
use crate::config::defaults;
use crate::config::endpoint::{Endpoint, Protocol};
use crate::config::problem::Place;
use crate::config::raw::{RawAuth, RawBasicAuth, RawDestination, RawHeaderAuth, RawOauth2};
use crate::config::reader::{Field, Named, Shorthand};
use crate::config::resolved::{Auth, Destination};
use crate::config::units::Written;

/// Fields that describe the connection or the framing: whoever sends the message makes them.
const FRAMING: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// Fields that every delivery carries with values of the host's own.
const OURS: [&str; 3] = ["backstop-message-id", "backstop-attempt", "idempotency-key"];

/// Header fields of one section; what holds them in the end takes no more than 32,768.
const MAX_HEADERS: usize = 100;

impl Resolver<'_> {
    /// Resolves a destination. `None` when it has no URL; that was reported.
    pub(super) fn destination(
        &self,
        place: &Place<'_>,
        raw: Field<Shorthand<Written<Endpoint>, RawDestination>>,
    ) -> Option<Destination> {
        let raw = match self.required(place, raw, "`destination: https://…`")? {
            Shorthand::Short(url) => RawDestination { url: Field::Given(url), ..RawDestination::default() },
            Shorthand::Full(raw) => raw,
        };
        let timeout = self.duration(&place.key("timeout"), raw.timeout, WAIT, defaults::TIMEOUT);
        let response_limit =
            self.size(&place.key("response_limit"), raw.response_limit, 0..=MAX_BODY, defaults::RESPONSE_LIMIT);
        let auth = raw.auth.given().and_then(|auth| self.auth(&place.key("auth"), auth));
        let headers_place = place.key("headers");
        let headers = self.headers(&headers_place, raw.headers, &OURS);
        let taken = match &auth {
            Some(Auth::Header { name, .. }) => Some(name),
            Some(Auth::Basic { .. } | Auth::ClientCredentials { .. }) => Some(&header::AUTHORIZATION),
            None => None,
        };
        if let Some(taken) = taken
            && headers.iter().any(|(name, _)| name == taken)
        {
            self.complain(&headers_place, format!("`auth` sets {taken} already: remove it from here"));
        }
        let allow = raw.allow.given().unwrap_or_default();
        let has_networks = !allow.is_empty();
        let allow = allow.into_iter().filter_map(Field::given).map(|Written(net)| net).collect();
        let Written(Endpoint { url, protocol }) = self.required(&place.key("url"), raw.url, "`url: https://…`")?;
        if protocol != Protocol::Http {
            for (key, is_present) in [("auth", auth.is_some()), ("allow", has_networks)] {
                if is_present {
                    let message = "only for http and https: a broker's credentials stand in its URL, and its name may \
                                   resolve to any address; remove it";
                    self.complain(&place.key(key), message);
                }
            }
        }
        Some(Destination { url, protocol, timeout, response_limit, auth, headers, allow })
    }

    fn auth(&self, place: &Place<'_>, raw: RawAuth) -> Option<Auth> {
        let kinds = [raw.header.is_present(), raw.basic.is_present(), raw.oauth2.is_present()];
        if kinds.into_iter().filter(|is_present| *is_present).count() != 1 {
            self.complain(place, "write exactly one of header, basic and oauth2");
            return None;
        }
        if let Some(header) = raw.header.given() {
            return self.header_auth(&place.key("header"), header);
        }
        if let Some(basic) = raw.basic.given() {
            return self.basic_auth(&place.key("basic"), basic);
        }
        raw.oauth2.given().and_then(|oauth2| self.client_credentials(&place.key("oauth2"), oauth2))
    }

    fn header_auth(&self, place: &Place<'_>, raw: RawHeaderAuth) -> Option<Auth> {
        let name_place = place.key("name");
        let name = self.required(&name_place, raw.name, "`name: authorization`");
        let name = name.and_then(|name| self.header_name(&name_place, &name, &OURS));
        let value_place = place.key("value");
        let value = self.required(&value_place, raw.value, "`value: ${env:NAME}`");
        let value = value.and_then(|Written(value)| self.header_value(&value_place, value.expose()));
        Some(Auth::Header { name: name?, value: value? })
    }

    fn basic_auth(&self, place: &Place<'_>, raw: RawBasicAuth) -> Option<Auth> {
        let username_place = place.key("username");
        let username = self.required(&username_place, raw.username, "`username: NAME`");
        if username.as_ref().is_some_and(|name| name.contains(':')) {
            self.complain(&username_place, "holds a colon, which RFC 7617 leaves no way to send");
        }
        let password = self.required(&place.key("password"), raw.password, "`password: ${env:NAME}`");
        let Written(password) = password?;
        Some(Auth::Basic { username: username?, password })
    }

    fn client_credentials(&self, place: &Place<'_>, raw: RawOauth2) -> Option<Auth> {
        let token_url = self.required(&place.key("token_url"), raw.token_url, "`token_url: https://…`");
        let client_id = self.required(&place.key("client_id"), raw.client_id, "`client_id: ID`");
        let client_secret =
            self.required(&place.key("client_secret"), raw.client_secret, "`client_secret: ${env:NAME}`");
        let params_place = place.key("params");
        let mut params = Vec::new();
        for (name, value) in raw.params.given().map(|Named(entries)| entries).unwrap_or_default() {
            if matches!(name.as_str(), "grant_type" | "scope" | "client_id" | "client_secret") {
                self.complain(&params_place.key(&name), "the host sets this parameter itself: remove it from here");
            }
            if let Some(value) = value.given() {
                params.push((name, value));
            }
        }
        let (Written(token_url), Written(client_secret)) = (token_url?, client_secret?);
        Some(Auth::ClientCredentials {
            token_url,
            client_id: client_id?,
            client_secret,
            scope: raw.scope.given(),
            params,
        })
    }

    /// Header fields, but for those of `reserved` names. Their values count as secret.
    pub(super) fn headers(
        &self,
        place: &Place<'_>,
        raw: Field<Named<String>>,
        reserved: &[&str],
    ) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
        let entries = raw.given().map(|Named(entries)| entries).unwrap_or_default();
        if entries.len() > MAX_HEADERS {
            self.complain(place, format!("{} header fields: write at most {MAX_HEADERS}", entries.len()));
            return headers;
        }
        for (name, value) in entries {
            let place = place.key(&name);
            let value = value.given().and_then(|value| self.header_value(&place, &value));
            let Some(name) = self.header_name(&place, &name, reserved) else { continue };
            if headers.iter().any(|(other, _)| *other == name) {
                self.complain(&place, "given twice, since case does not matter here: remove one of the two");
                continue;
            }
            headers.extend(value.map(|value| (name, value)));
        }
        headers
    }

    fn header_name(&self, place: &Place<'_>, name: &str, reserved: &[&str]) -> Option<HeaderName> {
        let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
            self.complain(place, "not the name of a header field: write letters, digits and -");
            return None;
        };
        if FRAMING.contains(&parsed.as_str()) || reserved.contains(&parsed.as_str()) {
            self.complain(place, "the host sets this header field itself: remove it from here");
            return None;
        }
        Some(parsed)
    }

    fn header_value(&self, place: &Place<'_>, value: &str) -> Option<HeaderValue> {
        let Ok(mut parsed) = HeaderValue::from_str(value) else {
            self.complain(place, "holds a character that no header field can: write visible ASCII");
            return None;
        };
        parsed.set_sensitive(true);
        Some(parsed)
    }
}
