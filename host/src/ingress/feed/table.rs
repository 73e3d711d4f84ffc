//! The table that a feed reads: its name, and what is checked of it at connecting.
//!
//! Names are quoted as identifiers, never taken for SQL.

use std::fmt;

use super::cursor::CursorKind;
use super::failure::FeedFailure;
use super::line::Line;
use super::settings::Settings;

/// The longest name, in bytes (PostgreSQL documentation, "Identifiers and Key Words": `NAMEDATALEN` less one).
const LONGEST_NAME: usize = 63;

/// The types of keys: those that sort, and come back from their text as they were.
const KEY_TYPES: [&str; 7] = ["smallint", "integer", "bigint", "numeric", "uuid", "text", "character varying"];

/// How far a time lies back, at least, before rows are read up to it: a transaction's time is read a moment before the
/// transaction can be seen to run.
const SETTLED: &str = "interval '1 second'";

/// A table's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableName {
    schema: String,
    table: String,
}

/// What is wrong with a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidName {
    /// It has more than a schema and a table.
    #[error("write SCHEMA.TABLE, such as public.scans, or TABLE for one in the schema public")]
    Parts,
    /// It is not a name.
    #[error(
        "a name has 1 to 63 bytes, and is written as the catalogue spells it: without quotes, in its own upper and \
         lower case"
    )]
    Name,
}

impl TableName {
    /// Reads `SCHEMA.TABLE`, or `TABLE`, which is in `public`.
    ///
    /// # Errors
    /// [`InvalidName`]
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let mut parts = text.split('.');
        let (schema, table) = match (parts.next(), parts.next(), parts.next()) {
            (Some(table), None, _) => ("public", table),
            (Some(schema), Some(table), None) => (schema, table),
            _ => return Err(InvalidName::Parts),
        };
        check_name(schema)?;
        check_name(table)?;
        Ok(Self { schema: schema.to_owned(), table: table.to_owned() })
    }

    fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.table))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// Checks the name of a column, or of a part of a table's name.
///
/// # Errors
/// [`InvalidName`]
pub(crate) fn check_name(name: &str) -> Result<(), InvalidName> {
    let fits = (1..=LONGEST_NAME).contains(&name.len()) && !name.contains(['"', '\0']);
    if fits { Ok(()) } else { Err(InvalidName::Name) }
}

/// A name as an identifier (PostgreSQL documentation, "Identifiers and Key Words").
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table that was found fit, and how it is read.
#[derive(Debug)]
pub(super) struct Table {
    /// What its cursor holds.
    pub(super) kind: CursorKind,
    /// Its cursor's type, by name.
    pub(super) cursor_type: String,
    /// Whether an index begins with the cursor.
    pub(super) cursor_is_indexed: bool,
    /// Whether rows may have the same cursor that must not: two moments may be the same, numbers not.
    pub(super) cursor_may_repeat: bool,
    /// The largest cursor up to which rows may be read once the fence has passed.
    pub(super) newest: String,
    /// Its name, its cursor's and its key's, quoted.
    pub(super) name: String,
    pub(super) cursor: String,
    pub(super) key: String,
    /// Its key's type, by name.
    pub(super) key_type: String,
    /// How many parts it is split into, and rows of one that are read at once.
    pub(super) partitions: u32,
    pub(super) batch: u16,
}

impl Table {
    /// Looks the table up, and checks that it can be fed from.
    ///
    /// # Errors
    /// [`FeedFailure::Unfit`] says what is wrong with it, in a sentence.
    pub(super) async fn look_up(line: &Line, settings: &Settings) -> Result<Self, FeedFailure> {
        const FIND: &str = "SELECT c.oid, c.relkind::text, c.relhassubclass
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = $1 AND c.relname = $2";
        const INDEXES: &str = "SELECT
                coalesce(bool_or(i.indisunique AND i.indexprs IS NULL AND NOT EXISTS (
                    SELECT FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) AS n (attnum)
                    WHERE n.attnum <> ALL (ARRAY[$2, $3]::int2[]))), false),
                coalesce(bool_or(i.indkey[0] = $2), false),
                coalesce(bool_or(i.indkey[0] = $2 AND i.indisunique AND i.indnkeyatts = 1), false)
            FROM pg_catalog.pg_index i WHERE i.indrelid = $1 AND i.indisvalid AND i.indpred IS NULL";
        let Settings { table, cursor, key, .. } = settings;
        let unfit = |why: String| Err(FeedFailure::Unfit(why));
        let standby = line.query_opt("SELECT pg_catalog.pg_is_in_recovery()", &[]).await?;
        if standby.map_or(Ok(false), |row| row.try_get(0))? {
            return unfit("this server is a standby, which does not tell who is writing: name the primary".to_owned());
        }
        let Some(found) = line.query_opt(FIND, &[&table.schema, &table.table]).await? else {
            return unfit(format!("there is no table {table}"));
        };
        let (oid, kind): (u32, String) = (found.try_get(0)?, found.try_get(1)?);
        match (kind.as_str(), found.try_get(2)?) {
            ("r", false) | ("p", _) => {}
            ("r", true) => {
                return unfit(format!("other tables inherit from {table}, and their rows have keys of their own"));
            }
            _ => return unfit(format!("{table} is no table, so its rows are not written where it can be seen")),
        }
        let (cursor_number, cursor_type) = column(line, settings, oid, cursor).await?;
        let (key_number, key_type) = column(line, settings, oid, key).await?;
        let Some(kind) = CursorKind::of(&cursor_type) else {
            return unfit(format!(
                "the cursor {cursor} is a {cursor_type}, and has to be a smallint, integer, bigint or timestamp with time \
                 zone: they sort exactly"
            ));
        };
        if !KEY_TYPES.contains(&key_type.as_str()) {
            return unfit(format!("the key {key} is a {key_type}, and has to be one of {}", KEY_TYPES.join(", ")));
        }
        check_sequences(line, oid, cursor_number, cursor).await?;
        let indexes = line.query_opt(INDEXES, &[&oid, &cursor_number, &key_number]).await?;
        let (tells_apart, cursor_is_indexed, cursor_is_unique) = match indexes {
            Some(row) => (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?),
            None => (false, false, false),
        };
        if !tells_apart {
            return unfit(format!(
                "nothing keeps two rows of {table} from having the same {cursor} and {key}, and they could not be told \
                 apart: make a unique index on {key}, or on both"
            ));
        }
        let (name, quoted_cursor) = (table.quoted(), quoted(cursor));
        let newest = match kind {
            CursorKind::Number => format!("SELECT max({quoted_cursor})::bigint FROM {name}"),
            CursorKind::Time => format!(
                "SELECT max({quoted_cursor}) FROM {name} WHERE {quoted_cursor} <= statement_timestamp() - {SETTLED}"
            ),
        };
        Ok(Self {
            kind,
            cursor_type,
            cursor_is_indexed,
            cursor_may_repeat: matches!(kind, CursorKind::Number) && !cursor_is_unique,
            newest,
            name,
            cursor: quoted_cursor,
            key: quoted(key),
            key_type,
            partitions: settings.partitions,
            batch: settings.batch,
        })
    }
}

/// A column's number and type.
async fn column(line: &Line, settings: &Settings, table: u32, name: &str) -> Result<(i16, String), FeedFailure> {
    const FIND: &str = "SELECT attnum, attnotnull, pg_catalog.format_type(atttypid, NULL)
        FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attname = $2 AND attnum > 0 AND NOT attisdropped";
    let of = &settings.table;
    let Some(found) = line.query_opt(FIND, &[&table, &name]).await? else {
        return Err(FeedFailure::Unfit(format!("{of} has no column {name}")));
    };
    if !found.try_get::<_, bool>(1)? {
        return Err(FeedFailure::Unfit(format!(
            "{of}'s column {name} may be null, and such a row has no place in the feed: make it NOT NULL"
        )));
    }
    Ok((found.try_get(0)?, found.try_get(2)?))
}

/// Checks the sequences that the cursor's default draws from.
async fn check_sequences(line: &Line, table: u32, number: i16, cursor: &str) -> Result<(), FeedFailure> {
    const FIND: &str = "SELECT s.seqrelid::regclass::text, s.seqcache = 1, s.seqincrement > 0 AND NOT s.seqcycle
        FROM pg_catalog.pg_sequence s
        WHERE EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attrdef f ON f.oid = d.objid
                      WHERE d.classid = 'pg_catalog.pg_attrdef'::regclass AND f.adrelid = $1 AND f.adnum = $2
                          AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = s.seqrelid)
           OR EXISTS (SELECT FROM pg_catalog.pg_depend d
                      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = s.seqrelid
                          AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = $1
                          AND d.refobjsubid = $2::int2::int4 AND d.deptype IN ('a', 'i'))";
    for row in line.query(FIND, &[&table, &number]).await? {
        let (name, draws_one, grows): (String, bool, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if !draws_one {
            return Err(FeedFailure::Unfit(format!(
                "the sequence {name} of the cursor {cursor} hands out values in advance, so that a small one may be \
                 written long after a large one: ALTER SEQUENCE {name} CACHE 1, and let its sessions connect anew"
            )));
        }
        if !grows {
            return Err(FeedFailure::Unfit(format!(
                "the sequence {name} of the cursor {cursor} does not only grow: ALTER SEQUENCE {name} INCREMENT 1 NO CYCLE"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_schema() {
        assert_eq!(TableName::parse("scans").unwrap().to_string(), "public.scans");
        assert_eq!(TableName::parse("app.Scans").unwrap().quoted(), r#""app"."Scans""#);
        assert_eq!(TableName::parse("a.b.c"), Err(InvalidName::Parts));
        for name in ["", "app.", "\"Scans\"", &"s".repeat(64)] {
            assert_eq!(TableName::parse(name), Err(InvalidName::Name), "{name}");
        }
    }

    #[test]
    fn what_looks_like_sql_is_a_name() {
        assert_eq!(quoted("id) > 0; DROP TABLE x --"), "\"id) > 0; DROP TABLE x --\"");
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
