//! Where the database is: `postgres://USER:PASSWORD@HOST:PORT/DATABASE?schema=NAME`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// The schema that holds the tables when the URL names none.
pub const SCHEMA: &str = "backstop";

/// The time a TCP connection may take to be made, unless the URL sets `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// After how long unacknowledged data, and a silent peer that does not answer probes, end a connection.
const PEER_TIMEOUT: Duration = Duration::from_secs(10);

/// A database and a schema in it. Cheap to clone. Shows neither in [`fmt::Debug`] nor in [`fmt::Display`] its password.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresTarget {
    config: Arc<Config>,
    schema: String,
}

/// A URL that names no database.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct InvalidTarget(&'static str);

impl PostgresTarget {
    /// Parses a URL, with the parameters that libpq knows (`sslmode`, `connect_timeout`, several hosts, …) and `schema`.
    /// TLS is always verified, whatever `sslmode` says beside `disable`.
    ///
    /// # Errors
    /// [`InvalidTarget`], which never quotes the URL: a password may stand anywhere in one that is malformed.
    pub fn parse(url: &str) -> Result<Self, InvalidTarget> {
        // What stands behind the first of two would be taken for a host's name, and be shown.
        if url.matches('@').count() > 1 {
            return Err(InvalidTarget("has more than one @: write those in a user's name or a password as %40"));
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut schema = None;
        let mut rest = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("schema", _)) if schema.is_some() => {
                    return Err(InvalidTarget("names a schema more than once: one of them would go unheeded"));
                }
                Some(("schema", name)) => schema = Some(name),
                Some(("sslmode", "verify-full" | "verify-ca")) => rest.push("sslmode=require"),
                _ => rest.push(parameter),
            }
        }
        let schema = schema.unwrap_or(SCHEMA);
        if !is_schema(schema) {
            return Err(InvalidTarget(
                "the schema's name is 1 to 63 of a-z, 0-9 and '_', starts with a letter or '_', and is none of the \
                 database's own (pg_…, information_schema)",
            ));
        }
        let mut config: Config = format!("{base}?{}", rest.join("&")).parse().map_err(|_| {
            InvalidTarget(
                "cannot be read: write postgres://USER:PASSWORD@HOST:PORT/DATABASE?schema=NAME, with @ : / ? # % in a \
                 password as %40 %3A %2F %3F %23 %25",
            )
        })?;
        if config.get_hosts().iter().all(|host| *host == Host::Tcp(String::new())) {
            return Err(InvalidTarget("names no host: write postgres://USER:PASSWORD@HOST:PORT/DATABASE"));
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("backstop");
        }
        config.tcp_user_timeout(PEER_TIMEOUT).keepalives_idle(PEER_TIMEOUT);
        config.keepalives_interval(Duration::from_secs(3)).keepalives_retries(3);
        Ok(Self { config: Arc::new(config), schema: schema.to_owned() })
    }

    /// The schema that holds the tables.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// As it is shown, without the schema: for who names tables in full.
    pub(crate) fn without_schema(&self) -> String {
        let mut shown = String::new();
        // Writing to a string does not fail.
        let _ = self.show_database(&mut shown);
        if let Some(mode) = self.shown_sslmode() {
            shown.push_str("?sslmode=");
            shown.push_str(mode);
        }
        shown
    }

    /// User, hosts and database.
    fn show_database(&self, out: &mut impl fmt::Write) -> fmt::Result {
        out.write_str("postgres://")?;
        if let Some(user) = self.config.get_user() {
            let password = if self.config.get_password().is_some() { ":***" } else { "" };
            write!(out, "{}{password}@", escaped(user))?;
        }
        for (index, host) in self.config.get_hosts().iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            match host {
                Host::Tcp(name) if name.contains(':') => write!(out, "{comma}[{name}]")?,
                Host::Tcp(name) => write!(out, "{comma}{name}")?,
                #[cfg(unix)]
                Host::Unix(path) => write!(out, "{comma}{}", escaped(&path.display().to_string()))?,
            }
            let ports = self.config.get_ports();
            if let Some(port) = ports.get(index).or(ports.first()) {
                write!(out, ":{port}")?;
            }
        }
        if let Some(database) = self.config.get_dbname() {
            write!(out, "/{}", escaped(database))?;
        }
        Ok(())
    }

    /// Whether TLS is spoken, where that is not left to the server.
    fn shown_sslmode(&self) -> Option<&'static str> {
        match self.config.get_ssl_mode() {
            SslMode::Disable => Some("disable"),
            SslMode::Require => Some("require"),
            _ => None,
        }
    }

    /// Whether TLS may be spoken.
    pub(super) fn may_encrypt(&self) -> bool {
        self.config.get_ssl_mode() != SslMode::Disable
    }
}

/// A name that needs no quotes and no escapes.
fn is_schema(name: &str) -> bool {
    let first_fits = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    let all_fit = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let is_own = !name.starts_with("pg_") && name != "information_schema";
    first_fits && all_fit && is_own && name.len() <= 63
}

impl fmt::Display for PostgresTarget {
    /// As a URL that loads again, with `***` in the password's place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.show_database(f)?;
        write!(f, "?schema={}", self.schema)?;
        match self.shown_sslmode() {
            Some(mode) => write!(f, "&sslmode={mode}"),
            None => Ok(()),
        }
    }
}

/// What has a meaning of its own in a URL, escaped.
fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

impl fmt::Debug for PostgresTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresTarget({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password_and_loads_again() {
        for (url, shown) in [
            ("postgres://bob:s3cret@db.internal/app", "postgres://bob:***@db.internal:5432/app?schema=backstop"),
            ("postgresql://bob@db:6432/app?schema=two", "postgres://bob@db:6432/app?schema=two"),
            (
                "postgres://b%40b:s%2Fcret@db/app?sslmode=disable",
                "postgres://b%40b:***@db:5432/app?schema=backstop&sslmode=disable",
            ),
            ("postgres://bob:s3?cret@db/app", "postgres://bob:***@db:5432/app?schema=backstop"),
            ("postgres://bob@%2Frun%2Fpg/app", "postgres://bob@%2Frun%2Fpg:5432/app?schema=backstop"),
            (
                "postgres://bob:s3cret@a:1,b:2/app?sslmode=verify-full",
                "postgres://bob:***@a:1,b:2/app?schema=backstop&sslmode=require",
            ),
        ] {
            let target = PostgresTarget::parse(url).unwrap();
            assert_eq!(target.to_string(), shown);
            assert!(!format!("{target:?}").contains("cret"));
            assert_eq!(PostgresTarget::parse(shown).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_url_may_be_shown_without_its_schema() {
        for (url, shown) in [
            ("postgres://bob:s3cret@db/app?schema=two", "postgres://bob:***@db:5432/app"),
            ("postgres://db/app?sslmode=disable", "postgres://db:5432/app?sslmode=disable"),
        ] {
            assert_eq!(PostgresTarget::parse(url).unwrap().without_schema(), shown);
        }
    }

    #[test]
    fn what_names_no_database_is_refused_and_not_quoted() {
        for (url, why) in [
            ("postgres:///app", "no host"),
            ("postgres://bob:s3cret@db:port/app", "cannot be read"),
            ("postgres://bob:s3cret@db/app?colour=red", "cannot be read"),
            ("postgres://bob:p@s3cret@db/app", "more than one @"),
            ("postgres://bob:p@x?user=s3cret@db/app", "more than one @"),
            ("postgres://bob:s3cret@db/app?schema=pg_temp", "schema's name"),
            ("postgres://bob:s3cret@db/app?schema=", "schema's name"),
            ("postgres://bob:s3cret@db/app?schema=one&sslmode=disable&schema=two", "more than once"),
            ("postgres://bob:s3cret@db/app?schema=a\"b", "schema's name"),
        ] {
            let refused = PostgresTarget::parse(url).expect_err(url).to_string();
            assert!(refused.contains(why) && !refused.contains("s3"), "{url}: {refused}");
        }
    }
}
