//! A table's change feed.

use std::fmt::Display;

use super::tapped::Common;
use super::{HOUR, MILLISECOND, MINUTE, Resolver, SECOND};
use crate::config::problem::Place;
use crate::config::raw::RawFeed;
use crate::config::reader::Field;
use crate::config::units::Written;
use crate::ingress::feed::{self, BATCH, LEASE, MOST_BATCH, MOST_PARTITIONS, POLL, TableName, check_name};
use crate::ingress::source::Settle;
use crate::store::PostgresTarget;

impl Resolver<'_> {
    /// The feed of the source at `source`.
    pub(super) fn feed(&self, source: &Place<'_>, raw: RawFeed, common: Common) -> Option<feed::Settings> {
        let Common { name, settle, connect, .. } = common;
        if settle == Settle::OnDelivery {
            let message = "a table keeps no count of deliveries and takes nothing back: remove it, or write \
                           `settle: on_store`";
            self.complain(&source.key("settle"), message);
        }
        let place = source.key("feed");
        let url_place = place.key("url");
        let url = self.required(&url_place, raw.url, "`url: postgres://USER:PASSWORD@HOST:5432/DATABASE`");
        let database = url.and_then(|Written(url)| {
            let read = database(url.expose());
            read.map_err(|bad| self.complain(&url_place, bad)).ok()
        });
        let table = self.name(&place.key("table"), raw.table, "`table: SCHEMA.TABLE`", TableName::parse);
        let column = |name: &str| check_name(name).map(|()| name.to_owned());
        let cursor = self.name(
            &place.key("cursor"),
            raw.cursor,
            "`cursor: COLUMN`, of the column that grows with every insert and update",
            column,
        );
        let key = self.name(&place.key("key"), raw.key, "`key: COLUMN`, of the column that tells rows apart", column);
        Some(feed::Settings {
            name,
            database: database?,
            table: table?,
            cursor: cursor?,
            key: key?,
            partitions: self.count(&place.key("partitions"), raw.partitions, 1..=u64::from(MOST_PARTITIONS), 1),
            batch: self.count(&place.key("batch"), raw.batch, 1..=u64::from(MOST_BATCH), BATCH),
            poll: self.duration(&place.key("poll"), raw.poll, MILLISECOND * 100..=HOUR, POLL),
            lease: self.duration(&place.key("lease"), raw.lease, SECOND..=10 * MINUTE, LEASE),
            connect,
        })
    }

    /// A name of the database's, as `read` reads it.
    fn name<T, E: Display>(
        &self,
        place: &Place<'_>,
        raw: Field<String>,
        example: &str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let written = self.required(place, raw, example)?;
        read(&written).map_err(|bad| self.complain_of(place, bad.to_string())).ok()
    }
}

/// The database at `url`. What is said of a bad one never quotes it.
fn database(url: &str) -> Result<PostgresTarget, String> {
    let lower = url.to_ascii_lowercase();
    if !(lower.starts_with("postgres://") || lower.starts_with("postgresql://")) {
        return Err("only Postgres tables are read: write postgres://USER:PASSWORD@HOST:5432/DATABASE".to_owned());
    }
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    if parameters.split('&').any(|parameter| parameter.starts_with("schema=")) {
        return Err(
            "a feed's schema stands in the table's name: remove it here, and write `table: SCHEMA.TABLE`".to_owned()
        );
    }
    PostgresTarget::parse(url).map_err(|bad| bad.to_string())
}
