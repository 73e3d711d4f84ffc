//! Reading the `error` of a `WWW-Authenticate` field (RFC 6750 section 3). A field may hold several challenges; scheme
//! names and the other parameters do not matter here.

/// The first `error` parameter of the field, if it has one.
pub(crate) fn error(field: &str) -> Option<&str> {
    let mut rest = field;
    while let Some(at) = rest.find(['=', '"']) {
        let (before, from) = rest.split_at(at);
        let name = before.rsplit([' ', '\t', ',']).find(|word| !word.is_empty()).unwrap_or("");
        let (value, after) = value(from.strip_prefix('=').unwrap_or(from).trim_start());
        if name.eq_ignore_ascii_case("error") {
            return Some(value);
        }
        rest = after;
    }
    None
}

/// Splits a value off: a quoted string without its quotes, or a token. A backslash in a quoted string keeps a quote
/// from ending it, and stays: no error code of RFC 6750 has one.
fn value(text: &str) -> (&str, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        return text.split_once([',', ' ']).unwrap_or((text, ""));
    };
    let mut escaped = false;
    for (at, character) in quoted.char_indices() {
        match character {
            '"' if !escaped => return (quoted.get(..at).unwrap_or(quoted), quoted.get(at + 1..).unwrap_or("")),
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    (quoted, "")
}

#[cfg(test)]
mod tests {
    use super::error;

    #[test]
    fn the_error_is_found_among_other_parameters_and_challenges() {
        for field in [
            r#"Bearer error="invalid_token""#,
            r#"Bearer realm="a b, error=none", error="invalid_token", error_description="it \"expired\"""#,
            r#"Basic realm="x", Bearer ERROR = "invalid_token""#,
            "Bearer error=invalid_token, scope=a",
            r#"Bearer realm="say \"error=\" twice",error="invalid_token""#,
        ] {
            assert_eq!(error(field), Some("invalid_token"), "{field}");
        }
    }

    #[test]
    fn what_only_looks_like_one_is_not() {
        for field in
            ["", "Bearer", r#"Bearer realm="error=invalid_token""#, r#"Bearer xerror="invalid_token""#, "Negotiate a=="]
        {
            assert_eq!(error(field), None, "{field}");
        }
    }

    #[test]
    fn an_unfinished_field_does_no_harm() {
        assert_eq!(error(r#"Bearer error="inval"#), Some("inval"));
        assert_eq!(error("=\"=\"\\\"=é\"\\"), None);
    }
}
