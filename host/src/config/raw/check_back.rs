//! Whom a route asks about a half message, as the file says it.

use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::RawAuth;
use crate::config::reader::{Field, Named};
use crate::config::units::{Count, Written};

/// How senders of half messages are asked what became of their operations.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "CheckBack", extend("required" = ["url"]))]
pub(in crate::config) struct RawCheckBack {
    /// The URL that is asked, with GET; `{id}` stands for the transaction's id.
    pub(in crate::config) url: Field<Written<Url>>,
    /// How long after it was prepared a transaction is asked about first, 1ms to 30d. Default 1m.
    pub(in crate::config) after: Field<Written<Duration>>,
    /// How long after a check that settled nothing the next one is made, 10ms to 24h. Default 1m.
    pub(in crate::config) every: Field<Written<Duration>>,
    /// Checks that settle nothing, and as many tries in a row that reach nobody, before a transaction is parked for a
    /// person, 1 to 1000000. Default 15.
    pub(in crate::config) max_checks: Field<Count>,
    /// The time one check may take, 1ms to 24h. Default 10s.
    pub(in crate::config) timeout: Field<Written<Duration>>,
    /// How checks identify themselves: exactly one of the three.
    pub(in crate::config) auth: Field<RawAuth>,
    /// Header fields set on every check.
    pub(in crate::config) headers: Field<Named<String>>,
    /// Private networks that the URL's name may resolve to, such as 10.0.0.0/8.
    pub(in crate::config) allow: Field<Vec<Field<Written<IpNet>>>>,
}
