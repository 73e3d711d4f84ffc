//! Where an attempt goes: the destination's URL and the caller's path, joined as text.
//!
//! The caller's percent-encoding is carried as it is. What could leave the destination's base path, or its host, is
//! refused here rather than normalised: two servers rarely agree on what such a path means.

use url::{Position, Url};

/// Why a caller's path cannot be appended to a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadPath {
    /// It does not start with a slash, so it would run into the host's name: `@evil.example`, `.evil.example`, `:81`.
    #[error("the path must start with '/'")]
    NotRooted,
    /// It starts with two slashes, which some parsers take for a host.
    #[error("the path must not start with '//'")]
    Authority,
    /// A segment is `.` or `..`, plainly or in disguise: `%2e%2e`, `..%2f`, `..;`.
    #[error("the path must not contain the segments '.' or '..', encoded or not")]
    DotSegment,
    /// A backslash, which some parsers take for a slash.
    #[error("the path must not contain a backslash")]
    Backslash,
    /// A control character or a space.
    #[error("the path must not contain spaces or control characters")]
    Control,
    /// A fragment, which would not be sent.
    #[error("the path must not contain '#'")]
    Fragment,
    /// What comes of it is not a URL that can be sent: it is longer than 65,534 bytes, for example.
    #[error("the path and the destination's URL do not make a valid URL")]
    NotAUrl,
}

/// The URL of an attempt: `path_and_query` below `base`.
///
/// `path_and_query` is a [`crate::message::Request::path`]: empty, or `/…`, then perhaps `?query`. An empty path leaves
/// the base's own path; a trailing slash of the base and the leading one of the path become one. The base's own query
/// is kept and comes first. Characters that no URL may hold raw (`"`, `<`, `>`, `'` in a query, non-ASCII) leave
/// percent-encoded; everything else leaves byte for byte.
///
/// The result always has the base's scheme, host, port and user info, and a path at or below the base's.
///
/// # Errors
/// When the path could mean something outside of the base; see [`BadPath`].
pub fn joined(base: &Url, path_and_query: &str) -> Result<Url, BadPath> {
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    refuse_unsafe(path, query.unwrap_or_default())?;

    let up_to_path = &base[..Position::AfterPath];
    let mut text = String::with_capacity(base.as_str().len() + path_and_query.len() + 1);
    if path.is_empty() {
        text.push_str(up_to_path);
    } else {
        text.push_str(up_to_path.strip_suffix('/').unwrap_or(up_to_path));
        text.push_str(path);
    }
    match (base.query().filter(|own| !own.is_empty()), query) {
        (Some(own), Some(query)) if !query.is_empty() => text.extend(["?", own, "&", query]),
        (Some(own), _) => text.extend(["?", own]),
        (None, Some(query)) => text.extend(["?", query]),
        (None, None) => {}
    }

    if text == base.as_str() {
        return Ok(base.clone());
    }
    let url = Url::parse(&text).map_err(|_| BadPath::NotAUrl)?;
    // The refusals above already exclude this; it is the property itself, checked once more where it matters.
    if !stays_below(base, &url) {
        return Err(BadPath::NotAUrl);
    }
    match url.as_str().parse::<::http::Uri>() {
        Ok(_) => Ok(url),
        Err(_) => Err(BadPath::NotAUrl),
    }
}

fn refuse_unsafe(path: &str, query: &str) -> Result<(), BadPath> {
    let everything = || path.chars().chain(query.chars());
    if everything().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(BadPath::Control);
    }
    if everything().any(|c| c == '#') {
        return Err(BadPath::Fragment);
    }
    if path.is_empty() {
        return Ok(());
    }
    if !path.starts_with('/') {
        return Err(BadPath::NotRooted);
    }
    if path.starts_with("//") {
        return Err(BadPath::Authority);
    }
    if path.contains('\\') {
        return Err(BadPath::Backslash);
    }
    if has_dot_segment(path) { Err(BadPath::DotSegment) } else { Ok(()) }
}

/// Whether any server could read a segment as `.` or `..`: encoded dots count as dots, encoded slashes and
/// backslashes as slashes, and path parameters (`..;a=b`), which some servers cut off, do not count.
fn has_dot_segment(path: &str) -> bool {
    if !path.contains(['.', '%']) {
        return false;
    }
    let mut plain = path.to_ascii_lowercase();
    for (encoded, character) in [("%2e", "."), ("%2f", "/"), ("%5c", "/"), ("%3b", ";")] {
        if plain.contains(encoded) {
            plain = plain.replace(encoded, character);
        }
    }
    plain.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
}

fn stays_below(base: &Url, url: &Url) -> bool {
    let below = base.path().strip_suffix('/').unwrap_or(base.path());
    let path_stays =
        url.path() == base.path() || url.path().strip_prefix(below).is_some_and(|rest| rest.starts_with('/'));
    url[..Position::BeforePath] == base[..Position::BeforePath] && path_stays && url.fragment().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn join(base: &str, path: &str) -> Result<String, BadPath> {
        joined(&Url::parse(base).unwrap(), path).map(String::from)
    }

    #[test]
    fn a_path_is_appended_to_the_base() {
        for (base, path, whole) in [
            ("https://v.test/", "", "https://v.test/"),
            ("https://v.test", "/", "https://v.test/"),
            ("https://v.test/", "/orders/1", "https://v.test/orders/1"),
            ("https://v.test/api", "", "https://v.test/api"),
            ("https://v.test/api", "/", "https://v.test/api/"),
            ("https://v.test/api/", "", "https://v.test/api/"),
            ("https://v.test/api", "/orders", "https://v.test/api/orders"),
            ("https://v.test/api/", "/orders", "https://v.test/api/orders"),
            ("https://v.test:8443/api", "/a//b/", "https://v.test:8443/api/a//b/"),
            ("https://v.test/", "/users/@me", "https://v.test/users/@me"),
            ("https://v.test/", "/a:81", "https://v.test/a:81"),
        ] {
            assert_eq!(join(base, path).as_deref(), Ok(whole), "{base} + {path}");
        }
    }

    #[test]
    fn percent_encoding_is_left_as_the_caller_wrote_it() {
        for path in
            ["/a%20b", "/a%2Fb", "/a%2fb", "/%7Euser", "/~user", "/a%zz", "/100%", "/a;v=1", "/x?y=%2e%2E&z=a+b"]
        {
            assert_eq!(join("https://v.test/api", path), Ok(format!("https://v.test/api{path}")));
        }
    }

    #[test]
    fn both_queries_are_kept() {
        assert_eq!(join("https://v.test/?key=1", "/a?b=2").as_deref(), Ok("https://v.test/a?key=1&b=2"));
        assert_eq!(join("https://v.test/?key=1", "/a").as_deref(), Ok("https://v.test/a?key=1"));
        assert_eq!(join("https://v.test/hook?key=1", "?b=2").as_deref(), Ok("https://v.test/hook?key=1&b=2"));
        assert_eq!(join("https://v.test/", "/a?b=?&c=../d").as_deref(), Ok("https://v.test/a?b=?&c=../d"));
        assert_eq!(join("https://v.test/?key=1", "/a?").as_deref(), Ok("https://v.test/a?key=1"));
    }

    #[test]
    fn what_could_leave_the_base_is_refused() {
        for (path, why) in [
            ("@evil.test/", BadPath::NotRooted),
            (".evil.test/", BadPath::NotRooted),
            (":81/", BadPath::NotRooted),
            ("http://evil.test/", BadPath::NotRooted),
            ("//evil.test/", BadPath::Authority),
            ("/../admin", BadPath::DotSegment),
            ("/..", BadPath::DotSegment),
            ("/a/./b", BadPath::DotSegment),
            ("/a/%2e%2e/b", BadPath::DotSegment),
            ("/a/.%2E/b", BadPath::DotSegment),
            ("/a%2f..%2fb", BadPath::DotSegment),
            ("/a%5C..%5Cb", BadPath::DotSegment),
            ("/..;/admin", BadPath::DotSegment),
            ("/%2e%2e;x=1/admin", BadPath::DotSegment),
            ("/..%3b/admin", BadPath::DotSegment),
            ("/\\evil.test/", BadPath::Backslash),
            ("\\\\evil.test/", BadPath::NotRooted),
            ("/a\tb", BadPath::Control),
            ("/a\r\nHost: evil.test", BadPath::Control),
            ("/a ", BadPath::Control),
            ("/a?b=\u{0}", BadPath::Control),
            ("/a?b#c", BadPath::Fragment),
            ("/#", BadPath::Fragment),
        ] {
            assert_eq!(join("https://v.test/api/", path), Err(why), "{path:?}");
        }
    }

    #[test]
    fn a_url_too_long_to_be_sent_is_refused() {
        assert_eq!(join("https://v.test/", &format!("/{}", "a".repeat(70_000))), Err(BadPath::NotAUrl));
    }

    #[test]
    fn dots_inside_a_segment_are_ordinary() {
        for path in ["/a..b", "/...", "/.well-known/x", "/v1.2/", "/a%2e%2eb"] {
            assert!(join("https://v.test/", path).is_ok(), "{path}");
        }
    }

    fn nasty_path() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("/"),
            Just("//"),
            Just(".."),
            Just("."),
            Just("%2e"),
            Just("%2E"),
            Just("%2f"),
            Just("%5c"),
            Just("\\"),
            Just("@"),
            Just(":"),
            Just("evil.test"),
            Just("?"),
            Just("#"),
            Just("%"),
            Just(";"),
            Just("\t"),
            Just(" "),
            Just("%00"),
            Just("a"),
            Just("é"),
            Just("\u{ff0e}"),
            Just("\u{2028}"),
            Just("["),
            Just("|"),
            Just("\""),
        ];
        prop_oneof![
            proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat()),
            any::<String>(),
            any::<String>().prop_map(|text| format!("/{text}")),
        ]
    }

    proptest! {
        #[test]
        fn no_path_changes_the_origin_or_leaves_the_base(
            base in prop_oneof![
                Just("https://v.test/"), Just("https://v.test/api"), Just("http://v.test:81/api/v1/?key=s"),
                Just("http://[::1]:9/x"), Just("http://10.0.0.1/a//b/"),
            ],
            path in nasty_path(),
        ) {
            let base = Url::parse(base).unwrap();
            if let Ok(url) = joined(&base, &path) {
                prop_assert_eq!(url.origin(), base.origin());
                prop_assert_eq!(url.username(), "");
                prop_assert_eq!(url.fragment(), None);
                let prefix = base.path().trim_end_matches('/');
                prop_assert!(url.path().starts_with(prefix), "{} is not below {}", url, base);
                let own_query = base.query().unwrap_or_default();
                prop_assert!(url.query().unwrap_or_default().starts_with(own_query));
                // What is sent is what was checked: another parser reads the same host and path.
                let uri: ::http::Uri = url.as_str().parse().unwrap();
                prop_assert_eq!(uri.host(), base.host_str());
                prop_assert_eq!(uri.path(), url.path());
                prop_assert!(!uri.path().split('/').any(|segment| segment == ".."));
            }
        }

        #[test]
        fn an_ordinary_path_is_carried_byte_for_byte(
            path in "(/[A-Za-z0-9_~!$&()*+,=:@%-]{1,8}){1,4}(\\?[A-Za-z0-9_~!$&()*+,=:@%/.-]{1,16})?",
        ) {
            // Encoded dots may fall out of the percent signs by chance; they are refused above.
            if let Ok(url) = joined(&Url::parse("https://v.test/api").unwrap(), &path) {
                prop_assert_eq!(url.as_str(), format!("https://v.test/api{path}"));
            }
        }
    }
}
