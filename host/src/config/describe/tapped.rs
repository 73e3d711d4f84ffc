//! How a source is shown: as it is written, without credentials.

use serde_json::{Map, Value, json};

use super::{Describer, duration};
use crate::config::problem::Place;
use crate::config::{Tap, Tapped};
use crate::ingress::source::Settle;

impl Describer<'_> {
    pub(super) fn tapped(&self, place: &Place<'_>, tapped: &Tapped) -> Value {
        let mut shown = Map::new();
        shown.insert("route".into(), self.text(&place.key("route"), tapped.route.as_str()));
        let (settle, prefetch, connect) = match &tapped.tap {
            Tap::Nats(nats) => (nats.settle, Some(nats.prefetch), nats.connect),
            Tap::RabbitMq(rabbitmq) => (rabbitmq.settle, Some(rabbitmq.prefetch), rabbitmq.connect),
            Tap::Feed(feed) => (Settle::OnStore, None, feed.connect),
        };
        let settle = match settle {
            Settle::OnStore => "on_store",
            Settle::OnDelivery => "on_delivery",
        };
        shown.insert("settle".into(), settle.into());
        if let Some(prefetch) = prefetch {
            shown.insert("prefetch".into(), prefetch.into());
        }
        let retries = connect.retries.map_or_else(|| "unlimited".into(), Value::from);
        shown.insert("connect".into(), json!({ "retries": retries, "wait": duration(connect.wait) }));
        let place = place.key(tapped.tap.kind());
        shown.insert(tapped.tap.kind().into(), self.tap(&place, &tapped.tap).into());
        shown.into()
    }

    fn tap(&self, place: &Place<'_>, tap: &Tap) -> Map<String, Value> {
        let url = |url: String| match self.sources.reference(&place.key("url"), true) {
            Some(written) => written.into(),
            None => Value::from(url),
        };
        let mut shown = Map::new();
        match tap {
            Tap::Nats(nats) => {
                shown.insert("url".into(), url(nats.address.to_string()));
                shown.insert("stream".into(), self.text(&place.key("stream"), &nats.stream));
                shown.insert("consumer".into(), self.text(&place.key("consumer"), &nats.consumer));
                if let Some(filter) = &nats.filter {
                    shown.insert("filter".into(), self.text(&place.key("filter"), filter));
                }
                shown.insert("ack_wait".into(), duration(nats.ack_wait));
                if let Some(last) = nats.max_deliver {
                    shown.insert("max_deliver".into(), last.into());
                }
            }
            Tap::RabbitMq(rabbitmq) => {
                shown.insert("url".into(), url(rabbitmq.broker.to_string()));
                shown.insert("queue".into(), self.text(&place.key("queue"), &rabbitmq.queue));
                if let Some(limit) = rabbitmq.delivery_limit {
                    shown.insert("delivery_limit".into(), limit.into());
                }
            }
            Tap::Feed(feed) => {
                shown.insert("url".into(), url(feed.database.without_schema()));
                shown.insert("table".into(), self.text(&place.key("table"), &feed.table.to_string()));
                shown.insert("cursor".into(), self.text(&place.key("cursor"), &feed.cursor));
                shown.insert("key".into(), self.text(&place.key("key"), &feed.key));
                shown.insert("partitions".into(), feed.partitions.into());
                shown.insert("batch".into(), feed.batch.into());
                shown.insert("poll".into(), duration(feed.poll));
                shown.insert("lease".into(), duration(feed.lease));
            }
        }
        shown
    }
}
