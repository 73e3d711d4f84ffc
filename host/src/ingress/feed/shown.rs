//! How far a feed has come, for onlookers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::Value;

use crate::clock::Timestamp;

/// How far a feed has come; shared by those who read and those who look on.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Shown>);

/// How far a feed has come on this host.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Shown {
    /// The table.
    pub table: String,
    /// How many partitions the feed is split into.
    pub partitions: u32,
    /// Those that this host reads, each with the cursor up to which its rows are stored; null: none is.
    pub held: BTreeMap<u32, Value>,
    /// The cursor up to which rows may be read just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readable: Option<Value>,
    /// What reading further waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<Waiting>,
    /// Since when it waits, in milliseconds since the Unix epoch: rows have been seen since then that are not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_since: Option<Timestamp>,
    /// Whether the largest cursor lies before what was read already: rows that draw such cursors are not read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub went_back: bool,
}

/// What a feed waits for before it reads further: the oldest of the transactions that may still write earlier rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Waiting {
    /// The server process that runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Its name, if it is prepared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prepared: Option<String>,
    /// How old it is, where the database tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
    /// How many there are.
    pub transactions: usize,
}

impl Waiting {
    pub(super) fn running(pid: Option<i32>, age_seconds: Option<f64>, transactions: usize) -> Self {
        Self { pid, prepared: None, age_seconds, transactions }
    }

    pub(super) fn prepared(name: String, age_seconds: Option<f64>, transactions: usize) -> Self {
        Self { pid: None, prepared: Some(name), age_seconds, transactions }
    }
}

impl Progress {
    /// That of a feed of `table` that has not begun.
    pub fn new(table: String, partitions: u32) -> Self {
        Self(Mutex::new(Shown { table, partitions, ..Shown::default() }))
    }

    /// How it stands now.
    pub fn shown(&self) -> Shown {
        self.lock().clone()
    }

    /// The table cannot be read.
    pub(super) fn lost(&self) {
        let mut shown = self.lock();
        (shown.waits_for, shown.waits_since) = (None, None);
        shown.held.clear();
    }

    pub(super) fn readable(&self, cursor: Value) {
        self.lock().readable = Some(cursor);
    }

    pub(super) fn went_back(&self, is_back: bool) {
        self.lock().went_back = is_back;
    }

    /// Reading further waits for this, or for nothing.
    pub(super) fn waits_for(&self, waiting: Option<Waiting>, now: Timestamp) {
        let mut shown = self.lock();
        shown.waits_since = waiting.as_ref().and(shown.waits_since.or(Some(now)));
        shown.waits_for = waiting;
    }

    /// A partition is read from here, or has come to here.
    pub(super) fn at(&self, partition: u32, cursor: Value) {
        self.lock().held.insert(partition, cursor);
    }

    pub(super) fn let_go(&self, partition: u32) {
        self.lock().held.remove(&partition);
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
