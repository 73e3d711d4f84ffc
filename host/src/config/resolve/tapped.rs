//! Where messages are taken from, beside the listener.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::{HOUR, MILLISECOND, Resolver, SECOND};
use crate::amqp::Broker;
use crate::config::problem::Place;
use crate::config::raw::{RawConnect, RawNats, RawRabbitMq, RawSettle, RawSource};
use crate::config::reader::{Field, Named};
use crate::config::resolved::Route;
use crate::config::tapped::{Tap, Tapped};
use crate::config::units::{Count, Times, Written, show_duration};
use crate::dispatch::nats::Address;
use crate::ingress::nats::{self, DEFAULT_PREFETCH, Draft};
use crate::ingress::rabbitmq::{LONGEST_DELAY, RabbitMq};
use crate::ingress::source::{Connect, Settle};
use crate::ingress::takes;
use crate::message::RouteName;

/// The pause between two attempts to subscribe, unless one is written.
const WAIT: Duration = Duration::from_secs(5);
/// How long a JetStream server waits for a settlement, unless it is written.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// What every source says.
pub(super) struct Common {
    pub(super) name: String,
    prefetch: u16,
    pub(super) settle: Settle,
    pub(super) connect: Connect,
}

impl Resolver<'_> {
    /// The sources that are as they should be; of the others it was reported what is wrong.
    pub(super) fn tapped(
        &self,
        place: &Place<'_>,
        raw: Field<Named<RawSource>>,
        routes: &BTreeMap<RouteName, Arc<Route>>,
    ) -> Vec<Tapped> {
        let Some(Named(sources)) = raw.given() else { return Vec::new() };
        let sources = sources.into_iter().filter_map(|(name, raw)| Some((name, raw.given()?)));
        sources.filter_map(|(name, raw)| self.tap(&place.key(&name), &name, raw, routes)).collect()
    }

    fn tap(
        &self,
        place: &Place<'_>,
        name: &str,
        raw: RawSource,
        routes: &BTreeMap<RouteName, Arc<Route>>,
    ) -> Option<Tapped> {
        // A source is called like a route is.
        if let Err(error) = RouteName::new(name) {
            self.complain(place, error.to_string());
        }
        let settle = match raw.settle.given() {
            Some(RawSettle::OnStore) | None => Settle::OnStore,
            Some(RawSettle::OnDelivery) => Settle::OnDelivery,
        };
        let route_place = place.key("route");
        let route = self.required(&route_place, raw.route, "`route: NAME`");
        let route = route.and_then(|route| match RouteName::new(&route).ok().and_then(|route| routes.get(&route)) {
            Some(route) if takes(route) => {
                if settle == Settle::OnDelivery && route.order.is_some() && !raw.feed.is_present() {
                    let message = "keeps messages in order, which a broker that delivers them again does not: write \
                                   `settle: on_store`";
                    self.complain_of(&route_place, message);
                }
                if settle == Settle::OnDelivery && raw.rabbitmq.is_present() {
                    self.bound_delays(route);
                }
                Some(route.name.clone())
            }
            Some(_) => {
                self.complain_of(&route_place, "is not in mode async, and nobody waits for what a source brings");
                None
            }
            None => {
                self.complain_of(&route_place, "no route is called that: write the name of one under `routes:`");
                None
            }
        });
        let connect = self.connect(&place.key("connect"), raw.connect.given().unwrap_or_default());
        if raw.feed.is_present() && raw.prefetch.is_present() {
            self.complain(&place.key("prefetch"), "only for brokers: write `batch` in the `feed`");
        }
        let prefetch = self.count(&place.key("prefetch"), raw.prefetch, 1..=1000, DEFAULT_PREFETCH);
        let kinds = [raw.nats.is_present(), raw.rabbitmq.is_present(), raw.feed.is_present()];
        if kinds.into_iter().filter(|is_present| *is_present).count() != 1 {
            self.complain(
                place,
                "write exactly one of `nats: { url: …, stream: …, consumer: … }`, `rabbitmq: { url: …, queue: … }` and \
                 `feed: { url: …, table: …, cursor: …, key: … }`",
            );
        }
        let (nats, rabbitmq, feed) = (raw.nats.given(), raw.rabbitmq.given(), raw.feed.given());
        let common = Common { name: name.to_owned(), prefetch, settle, connect };
        let tap = match (nats, rabbitmq, feed) {
            (Some(nats), None, None) => self.nats(&place.key("nats"), nats, common).map(Tap::Nats),
            (None, Some(rabbitmq), None) => self.rabbitmq(&place.key("rabbitmq"), rabbitmq, common).map(Tap::RabbitMq),
            (None, None, Some(feed)) => self.feed(place, feed, common).map(Tap::Feed),
            _ => None,
        };
        Some(Tapped { name: name.to_owned(), route: route?, tap: tap? })
    }

    fn rabbitmq(&self, place: &Place<'_>, raw: RawRabbitMq, common: Common) -> Option<RabbitMq> {
        let url_place = place.key("url");
        let broker = self.required(&url_place, raw.url, "`url: amqp://HOST:5672/VHOST`").and_then(|Written(url)| {
            let read = Url::parse(url.expose()).map_err(|error| error.to_string());
            let read = read.and_then(|url| Broker::parse(&url).map_err(|bad| bad.to_string()));
            read.map_err(|bad| self.complain(&url_place, bad)).ok()
        });
        let queue_place = place.key("queue");
        let queue = self.required(&queue_place, raw.queue, "`queue: NAME`");
        if queue.as_ref().is_some_and(|queue| queue.is_empty() || queue.len() > 255) {
            self.complain(&queue_place, "a queue's name has 1 to 255 bytes");
        }
        self.only_on_delivery(&place.key("delivery_limit"), raw.delivery_limit.is_present(), common.settle);
        let delivery_limit = raw
            .delivery_limit
            .is_present()
            .then(|| self.count(&place.key("delivery_limit"), raw.delivery_limit, 1..=u64::from(u32::MAX), 1));
        let Common { name, prefetch, settle, connect } = common;
        Some(RabbitMq { name, broker: broker?, queue: queue?, prefetch, settle, connect, delivery_limit })
    }

    /// A RabbitMQ source that settles on delivery holds what failed until its delay is over, and may not hold it for long.
    fn bound_delays(&self, route: &Route) {
        if route.envelope.max_delay > LONGEST_DELAY {
            let routes = Place::ROOT.key("routes");
            let route_place = routes.key(route.name.as_str());
            let retry = route_place.key("retry");
            let message = format!(
                "a RabbitMQ source that settles on delivery feeds this route, and can keep no delay beyond {longest}, \
                 since the broker waits no longer than half an hour: write {longest} or less, or `settle: on_store` there",
                longest = show_duration(LONGEST_DELAY)
            );
            self.complain_of(&retry.key("max_delay"), message);
        }
    }

    fn only_on_delivery(&self, place: &Place<'_>, is_present: bool, settle: Settle) {
        if is_present && settle == Settle::OnStore {
            let message = "only for `settle: on_delivery`: what is stored is delivered once; remove it";
            self.complain(place, message);
        }
    }

    fn connect(&self, place: &Place<'_>, raw: RawConnect) -> Connect {
        let retries = match raw.retries.given() {
            Some(Times::Of(count)) => {
                let count = Field::Given(Count(count));
                Some(self.count(&place.key("retries"), count, 0..=u64::from(u32::MAX), 0))
            }
            Some(Times::Unlimited) | None => None,
        };
        Connect { retries, wait: self.duration(&place.key("wait"), raw.wait, MILLISECOND * 100..=HOUR, WAIT) }
    }

    fn nats(&self, place: &Place<'_>, raw: RawNats, common: Common) -> Option<nats::Settings> {
        let url_place = place.key("url");
        let address = self.required(&url_place, raw.url, "`url: nats://HOST:4222`");
        let address = address.and_then(|Written(url)| match Address::parse(url.expose()) {
            Ok(address) => Some(address),
            Err(bad) => {
                self.complain(&url_place, bad.to_string());
                None
            }
        });
        let stream = self.required(&place.key("stream"), raw.stream, "`stream: NAME`");
        let consumer = self.required(&place.key("consumer"), raw.consumer, "`consumer: NAME`");
        let ack_wait = self.duration(&place.key("ack_wait"), raw.ack_wait, SECOND..=HOUR, ACK_WAIT);
        let max_deliver = raw
            .max_deliver
            .is_present()
            .then(|| self.count(&place.key("max_deliver"), raw.max_deliver, 1..=u64::from(u32::MAX), 1));
        let Common { name, prefetch, settle, connect } = common;
        let draft = Draft {
            name,
            address: address?,
            stream: stream?,
            consumer: consumer?,
            filter: raw.filter.given(),
            prefetch,
            settle,
            ack_wait,
            max_deliver,
            connect,
        };
        match nats::Settings::new(draft) {
            Ok(settings) => Some(settings),
            Err(all) => {
                all.iter().for_each(|bad| self.complain(place, bad.to_string()));
                None
            }
        }
    }
}
