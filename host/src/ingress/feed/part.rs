//! A part of a partition, and the statements that read it: its rows, or only where they stand.

use tokio_postgres::types::ToSql;

use super::cursor::{Cursor, CursorKind};
use super::table::Table;
use crate::store::Checkpoint;

/// Bytes of rows, as JSON, that come in one batch: the row that goes beyond is its last.
const BATCH_BYTES: u32 = 4 << 20;

/// A place in a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// The row's cursor.
    pub(super) cursor: Cursor,
    /// The row's key; none: behind every row with this cursor.
    pub(super) key: Option<String>,
}

impl From<&Checkpoint> for Place {
    fn from(checkpoint: &Checkpoint) -> Self {
        Self { cursor: Cursor(checkpoint.cursor), key: checkpoint.key.clone() }
    }
}

/// The rows of a partition behind one place and up to another, which it includes.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) partition: u32,
    /// None: from the first row on.
    pub(super) after: Option<Place>,
    pub(super) up_to: Place,
}

impl Part {
    /// What the statements take, in their order.
    pub(super) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut all: Vec<&(dyn ToSql + Sync)> = Vec::with_capacity(4);
        for place in [Some(&self.up_to), self.after.as_ref()].into_iter().flatten() {
            all.push(&place.cursor);
            if let Some(key) = &place.key {
                all.push(key);
            }
        }
        all
    }
}

impl Table {
    /// The statement that reads a part's rows, up to a batch: cursor, its text, key, row, and how many rows the batch
    /// would have, however long they are.
    pub(super) fn rows(&self, part: &Part) -> String {
        let Self { name, cursor, key, batch, .. } = self;
        let (cursor_type, holds) = (self.cursor_read_as(), self.holds(part));
        format!(
            "SELECT at, at_text, key_text, json, there FROM (
                 SELECT *, count(*) OVER () AS there, sum(octet_length(json)) OVER (ORDER BY at, key
                     ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                 FROM (
                     SELECT \"row\".{cursor}::{cursor_type} AS at, \"row\".{cursor}::text AS at_text,
                         \"row\".{key} AS key, \"row\".{key}::text AS key_text, row_to_json(\"row\".*)::text AS json
                     FROM {name} AS \"row\" WHERE {holds}
                     ORDER BY \"row\".{cursor}, \"row\".{key} LIMIT {batch}) AS batch) AS counted
             WHERE coalesce(before, 0) < {BATCH_BYTES} ORDER BY at, key"
        )
    }

    /// The statement that reads where a part's first rows stand, so many of them: cursor, its text, and key. It is for
    /// rows that cannot be read: it touches nothing else of them. What comes behind a limit, the server may have
    /// written as JSON before it applies the limit; what lies behind the end of a part it never does.
    pub(super) fn places(&self, part: &Part, most: u16) -> String {
        let Self { name, cursor, key, .. } = self;
        let (cursor_type, holds) = (self.cursor_read_as(), self.holds(part));
        format!(
            "SELECT \"row\".{cursor}::{cursor_type}, \"row\".{cursor}::text, \"row\".{key}::text
             FROM {name} AS \"row\" WHERE {holds} ORDER BY \"row\".{cursor}, \"row\".{key} LIMIT {most}"
        )
    }

    /// The condition that a row belongs to a part.
    fn holds(&self, part: &Part) -> String {
        let Self { key, partitions, .. } = self;
        let mut parameter = 0;
        let mut holds = self.stands(&part.up_to, "<=", &mut parameter);
        if let Some(after) = &part.after {
            holds = format!("{holds} AND {}", self.stands(after, ">", &mut parameter));
        }
        if *partitions > 1 {
            // By the same function on every version of the server, for as long as it stays.
            holds = format!(
                "{holds} AND ('x' || encode(substr(sha256(convert_to(\"row\".{key}::text, 'UTF8')), 1, 4), 'hex'))::bit(32)::bigint \
                 % {partitions} = {}",
                part.partition
            );
        }
        holds
    }

    /// The condition that a row stands so to a place, which is the next parameter, or the next two.
    fn stands(&self, place: &Place, how: &str, parameter: &mut u32) -> String {
        let Self { cursor, key, key_type, .. } = self;
        let cursor_type = self.cursor_read_as();
        *parameter += 1;
        let number = *parameter;
        if place.key.is_none() {
            return format!("\"row\".{cursor} {how} ${number}::{cursor_type}");
        }
        *parameter += 1;
        format!("(\"row\".{cursor}, \"row\".{key}) {how} (${number}::{cursor_type}, ${parameter}::text::{key_type})")
    }

    /// The type that cursors are read and given as.
    fn cursor_read_as(&self) -> &'static str {
        match self.kind {
            CursorKind::Number => "bigint",
            CursorKind::Time => "timestamptz",
        }
    }
}
