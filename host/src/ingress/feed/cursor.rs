//! A cursor's value, as a number that sorts as the column does.
//!
//! Whole numbers are themselves; a time is the microseconds since 2000-01-01, which is what the server itself keeps and
//! sends (PostgreSQL documentation, "Date/Time Types"; both infinities are the ends of the range). So hosts and the
//! store compare cursors exactly, without knowing the column's type.

use std::error::Error;

use bytes::BytesMut;
use serde_json::Value;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// Between the Unix epoch and that of Postgres, in seconds.
const EPOCHS_APART: i64 = 946_684_800;

/// What a cursor's column holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CursorKind {
    /// `smallint`, `integer` or `bigint`.
    Number,
    /// `timestamp with time zone`.
    Time,
}

impl CursorKind {
    /// The kind of a column of this type; none: it does not sort exactly, or cannot be written down.
    pub(super) fn of(type_name: &str) -> Option<Self> {
        match type_name {
            "smallint" | "integer" | "bigint" => Some(Self::Number),
            "timestamp with time zone" => Some(Self::Time),
            _ => None,
        }
    }

    /// A cursor, for people.
    pub(super) fn shown(self, cursor: Cursor) -> Value {
        match self {
            Self::Number => cursor.0.into(),
            Self::Time => match cursor.as_unix_micros().and_then(|us| jiff::Timestamp::from_microsecond(us).ok()) {
                Some(moment) => moment.to_string().into(),
                None => (if cursor.0 < 0 { "-infinity" } else { "infinity" }).into(),
            },
        }
    }
}

/// A cursor's value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Cursor(pub(super) i64);

impl Cursor {
    fn as_unix_micros(self) -> Option<i64> {
        self.0.checked_add(EPOCHS_APART * 1_000_000)
    }
}

impl<'a> FromSql<'a> for Cursor {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(i64::from_be_bytes(raw.try_into()?)))
    }

    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::INT8 | Type::TIMESTAMPTZ)
    }
}

impl ToSql for Cursor {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        <Self as FromSql<'_>>::accepts(ty)
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_shown_as_its_column_is() {
        assert_eq!(CursorKind::Number.shown(Cursor(-3)), -3);
        assert_eq!(CursorKind::Time.shown(Cursor(0)), "2000-01-01T00:00:00Z");
        assert_eq!(CursorKind::Time.shown(Cursor(1_500_000)), "2000-01-01T00:00:01.5Z");
        assert_eq!(CursorKind::Time.shown(Cursor(i64::MIN)), "-infinity");
        assert_eq!(CursorKind::Time.shown(Cursor(i64::MAX)), "infinity");
    }

    #[test]
    fn what_does_not_sort_exactly_is_no_cursor() {
        for name in ["double precision", "numeric", "text", "timestamp without time zone", "date", "uuid"] {
            assert_eq!(CursorKind::of(name), None, "{name}");
        }
    }
}
