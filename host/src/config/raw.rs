//! The raw twin: what the file says, key by key. The JSON Schema of the configuration is made from these types, so
//! their docs are what an editor shows.

mod check_back;
mod limits;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use url::Url;

use super::endpoint::Endpoint;
use super::events::{SourceAndId, Taken};
use super::limits::{OrderKey, PerSecond};
use super::reader::{Field, Named, Shorthand};
use super::resolved::Secret;
use super::units::{Count, Factor, Share, Size, Times, Written};
pub(super) use check_back::RawCheckBack;
pub(super) use limits::{RawBreaker, RawOnFailure, RawOrderBy, RawRate, RawRetryBudget};

/// The configuration of Backstop.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Backstop", extend("required" = ["routes"]))]
pub(super) struct RawConfig {
    /// Where messages come in. Default 127.0.0.1:8080.
    pub(super) listen: Field<Written<SocketAddr>>,
    /// The admin API: an address, or `{listen, token}`. Default 127.0.0.1:8081. An address that others can reach
    /// needs a token.
    pub(super) admin: Field<Shorthand<Written<SocketAddr>, RawAdmin>>,
    /// Where messages are kept: `sqlite:PATH`, relative to this file's folder, or, for hosts that share them,
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE?schema=NAME`. Default sqlite:backstop.db.
    pub(super) store: Field<String>,
    /// The folder of policies, relative to this file's folder. Default ./policies.
    pub(super) policies: Field<String>,
    /// The host's own folder, relative to this file's folder: compiled policies, and the last good file of each, which
    /// a start falls back on. Made if missing; only the host's user may write there. `none` keeps nothing. Default
    /// ./.backstop.
    pub(super) state: Field<String>,
    /// How long a shutdown waits for what is in flight, 0s to 1h. Default 10s.
    pub(super) shutdown_grace: Field<Written<Duration>>,
    /// How long a host has a message to itself without saying that it still attempts it, 1s to 10m: so long do the
    /// messages of a host that died wait for another one. Default 30s.
    pub(super) lease: Field<Written<Duration>>,
    /// How long finished messages are kept to be looked at, 0s to 3650d. Default 24h.
    pub(super) keep_finished: Field<Written<Duration>>,
    /// Requests served at once; one more is answered 503. Default 4096.
    pub(super) max_in_flight: Field<Count>,
    /// Where messages are taken from, beside the listener, by name: queues and streams of brokers, and tables.
    pub(super) sources: Field<Named<RawSource>>,
    /// The routes by name. A name is 1 to 64 of a-z, 0-9, - and _, and starts with a letter or digit.
    pub(super) routes: Field<Named<RawRoute>>,
}

/// The admin API.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Admin")]
pub(super) struct RawAdmin {
    /// Where it listens. Default 127.0.0.1:8081.
    pub(super) listen: Field<Written<SocketAddr>>,
    /// The bearer token that every caller must send.
    pub(super) token: Field<Written<Secret>>,
}

/// Where a request goes, and what is done when that fails.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Route", extend("required" = ["destination"]))]
pub(super) struct RawRoute {
    /// Where its messages go: a URL, or a section.
    pub(super) destination: Field<Shorthand<Written<Endpoint>, RawDestination>>,
    /// Whether it takes messages in and attempts them. Where it does not, those it has wait. Default true.
    pub(super) enabled: Field<bool>,
    /// Whether the caller waits. Default async.
    pub(super) mode: Field<RawMode>,
    /// sync and sync_then_async: how long the caller waits at most, 1ms to 24h. Default 30s.
    pub(super) deadline: Field<Written<Duration>>,
    /// sync_then_async: attempts made while the caller waits. Default 1.
    pub(super) sync_attempts: Field<Count>,
    /// The policy that judges outcomes: policies/NAME.wasm. Without one, the standard rule does.
    pub(super) policy: Field<String>,
    /// The policy's own configuration.
    pub(super) policy_config: Field<serde_json::Value>,
    /// What one question to the policy may cost.
    pub(super) policy_limits: Field<RawPolicyLimits>,
    /// Whether every question gets a new instance of the policy. Default reuse.
    pub(super) isolation: Field<RawIsolation>,
    /// What decides when the policy gives no usable answer. Default standard.
    pub(super) on_policy_failure: Field<RawOnPolicyFailure>,
    /// The envelope: limits on any verdict, and the backoff.
    pub(super) retry: Field<RawRetry>,
    /// What to answer when attempts are exhausted: a default answer, or another route.
    pub(super) fallback: Field<RawFallback>,
    /// When to raise an alarm.
    pub(super) alarm: Field<RawAlarm>,
    /// What is done with dead letters.
    pub(super) dead_letter: Field<RawDeadLetter>,
    /// Attempts at once, 1 to 10000. Default 64.
    pub(super) concurrency: Field<Count>,
    /// Attempts that may begin in a time, retries counted in: a number a second, or `{per_second, burst}`. Default no
    /// limit.
    pub(super) rate: Field<Shorthand<Written<PerSecond>, RawRate>>,
    /// The circuit breaker: no attempts for a while when too many fail. Default none; `{}` takes every default.
    pub(super) breaker: Field<RawBreaker>,
    /// async: messages with the same key are delivered one after the other, in the order they came: header:NAME,
    /// json:/POINTER or ce:ATTRIBUTE, or `{key, on_failure}`. A message without the key is in no order.
    pub(super) order_by: Field<Shorthand<Written<OrderKey>, RawOrderBy>>,
    /// async: whom to ask about a half message (`POST /v1/transactions`) whose sender has not said whether to deliver it:
    /// a URL, or a section. Without it the route takes no half messages.
    pub(super) check_back: Field<Shorthand<Written<Url>, RawCheckBack>>,
    /// Messages waiting at once, half messages counted in; one more is answered 503. Default 100000.
    pub(super) max_queued: Field<Count>,
    /// The longest request body, up to 256MiB; a longer one is answered 413. Default 1MiB.
    pub(super) body_limit: Field<Written<Size>>,
    /// What is done about Idempotency-Key.
    pub(super) idempotency: Field<RawIdempotency>,
    /// async: which of the events that come in at POST /events it takes: an expression in CEL over their attributes,
    /// `true` for all, or `otherwise` for those that no other route takes.
    #[serde(rename = "match")]
    pub(super) matches: Field<Written<Taken>>,
    /// match: a file, relative to this file's folder, with the JSON Schema that an event's data must fit.
    pub(super) schema: Field<String>,
    /// match: what makes an event a repeat of an earlier one, which is then not taken again: source+id, or
    /// `{by, window}`. Default: nothing does.
    pub(super) dedupe: Field<Shorthand<Written<SourceAndId>, RawDedupe>>,
}

/// What makes an event a repeat of an earlier one.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "DedupeSection", extend("required" = ["by"]))]
pub(super) struct RawDedupe {
    /// source+id.
    pub(super) by: Field<Written<SourceAndId>>,
    /// How long after the earlier one, 1s to 365d. Default 24h.
    pub(super) window: Field<Written<Duration>>,
}

/// Where messages are taken from: exactly one broker or table.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Source", extend("required" = ["route"]))]
pub(super) struct RawSource {
    /// The route that its messages go to, in mode async.
    pub(super) route: Field<String>,
    /// When the broker is told that a message is done with. Default on_store, which is all there is for a feed. With
    /// on_delivery, RabbitMQ needs a quorum queue, and the route a `retry.max_delay` of 20m at the most.
    pub(super) settle: Field<RawSettle>,
    /// Brokers: messages taken and not settled at once, 1 to 1000. Default 64.
    pub(super) prefetch: Field<Count>,
    /// How often subscribing or connecting is tried again, at the start and after a connection was lost.
    pub(super) connect: Field<RawConnect>,
    /// A table in Postgres, each of whose new and changed rows becomes a message.
    pub(super) feed: Field<RawFeed>,
    /// A consumer of a JetStream stream.
    pub(super) nats: Field<RawNats>,
    /// A RabbitMQ queue.
    pub(super) rabbitmq: Field<RawRabbitMq>,
}

/// When a broker is told that a message is done with.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Settle", inline)]
pub(super) enum RawSettle {
    OnStore,
    OnDelivery,
}

/// How often subscribing is tried again.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Connect")]
pub(super) struct RawConnect {
    /// Attempts after the first one. Default unlimited.
    pub(super) retries: Field<Times>,
    /// The pause between two, 100ms to 1h. Default 5s.
    pub(super) wait: Field<Written<Duration>>,
}

/// A table in Postgres, each of whose new and changed rows becomes a message.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Feed", extend("required" = ["url", "table", "cursor", "key"]))]
pub(super) struct RawFeed {
    /// The primary: postgres://USER:PASSWORD@HOST:5432/DATABASE
    pub(super) url: Field<Written<Secret>>,
    /// The table: SCHEMA.TABLE, or TABLE for one in the schema public.
    pub(super) table: Field<String>,
    /// The column that grows with every insert and update: a smallint, integer, bigint or timestamp with time zone, not
    /// null, drawn in the transaction that writes the row. An index should begin with it.
    pub(super) cursor: Field<String>,
    /// The column that tells rows apart, not null; by a hash of it they are split into partitions.
    pub(super) key: Field<String>,
    /// How many hosts can share the feed at most, 1 to 64. Default 1.
    pub(super) partitions: Field<Count>,
    /// Rows of one partition that are read and stored before its place is written down, 1 to 1000. Default 100.
    pub(super) batch: Field<Count>,
    /// How often the table is looked at, 100ms to 1h. Default 1s.
    pub(super) poll: Field<Written<Duration>>,
    /// How long a partition of a host that died waits for another one, 1s to 10m. Default 30s.
    pub(super) lease: Field<Written<Duration>>,
}

/// A RabbitMQ queue.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "RabbitMq", extend("required" = ["url", "queue"]))]
pub(super) struct RawRabbitMq {
    /// The broker: amqp://USER:PASSWORD@HOST:5672/VHOST, or amqps://…
    pub(super) url: Field<Written<Secret>>,
    /// The queue, which must exist.
    pub(super) queue: Field<String>,
    /// on_delivery: the queue's `x-delivery-limit`, which only its owner knows: a message that fails at its last
    /// delivery is then a dead letter here, too. Default: none is taken for the last.
    pub(super) delivery_limit: Field<Count>,
}

/// A consumer of a JetStream stream.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Nats", extend("required" = ["url", "stream", "consumer"]))]
pub(super) struct RawNats {
    /// The server: nats://USER:PASSWORD@HOST:4222, or tls://…
    pub(super) url: Field<Written<Secret>>,
    /// The stream.
    pub(super) stream: Field<String>,
    /// The durable pull consumer. One that is there is used as it is; otherwise it is made.
    pub(super) consumer: Field<String>,
    /// Which of the stream's subjects are wanted. Default all.
    pub(super) filter: Field<String>,
    /// How long the server waits for a message to be settled before it delivers it again, of a consumer that is made:
    /// 1s to 1h. Default 30s.
    pub(super) ack_wait: Field<Written<Duration>>,
    /// on_delivery: the delivery that is the last; a message that fails then is a dead letter. Default none is.
    pub(super) max_deliver: Field<Count>,
}

/// Where a route's messages go.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Destination", extend("required" = ["url"]))]
pub(super) struct RawDestination {
    /// The URL that the caller's path is appended to; or a broker's, with what is published to.
    pub(super) url: Field<Written<Endpoint>>,
    /// The time one attempt may take, 1ms to 24h. Default 10s.
    pub(super) timeout: Field<Written<Duration>>,
    /// The most that is read of an answer's body, up to 256MiB. Default 1MiB.
    pub(super) response_limit: Field<Written<Size>>,
    /// How attempts identify themselves: exactly one of the three.
    pub(super) auth: Field<RawAuth>,
    /// Header fields set on every attempt, in place of the caller's of the same name.
    pub(super) headers: Field<Named<String>>,
    /// Private networks that its name may resolve to, such as 10.0.0.0/8.
    pub(super) allow: Field<Vec<Field<Written<IpNet>>>>,
}

/// How attempts identify themselves.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Auth", extend("minProperties" = 1, "maxProperties" = 1))]
pub(super) struct RawAuth {
    /// A fixed header field.
    pub(super) header: Field<RawHeaderAuth>,
    /// User name and password (RFC 7617).
    pub(super) basic: Field<RawBasicAuth>,
    /// OAuth 2 client credentials (RFC 6749 §4.4).
    pub(super) oauth2: Field<RawOauth2>,
}

/// A fixed header field.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "HeaderAuth", extend("required" = ["name", "value"]))]
pub(super) struct RawHeaderAuth {
    /// Its name.
    pub(super) name: Field<String>,
    /// Its value.
    pub(super) value: Field<Written<Secret>>,
}

/// User name and password.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "BasicAuth", extend("required" = ["username", "password"]))]
pub(super) struct RawBasicAuth {
    /// The user's name.
    pub(super) username: Field<String>,
    /// The password.
    pub(super) password: Field<Written<Secret>>,
}

/// OAuth 2 client credentials.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "OAuth2", extend("required" = ["token_url", "client_id", "client_secret"]))]
pub(super) struct RawOauth2 {
    /// The token endpoint.
    pub(super) token_url: Field<Written<Url>>,
    /// The client's id.
    pub(super) client_id: Field<String>,
    /// The client's secret.
    pub(super) client_secret: Field<Written<Secret>>,
    /// The scope asked for.
    pub(super) scope: Field<String>,
    /// Further form parameters, such as audience.
    pub(super) params: Field<Named<String>>,
}

/// Whether the caller waits.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Mode", inline)]
pub(super) enum RawMode {
    Sync,
    Async,
    SyncThenAsync,
}

/// Whether instances are reused.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Isolation", inline)]
pub(super) enum RawIsolation {
    Reuse,
    Fresh,
}

/// What decides when a policy gives no usable answer.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "OnPolicyFailure", inline)]
pub(super) enum RawOnPolicyFailure {
    Standard,
    Retry,
    DeadLetter,
}

/// What one question to a policy may cost.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "PolicyLimits")]
pub(crate) struct RawPolicyLimits {
    /// Fuel, about one per instruction. Default 10000000.
    pub(super) fuel: Field<Count>,
    /// Linear memory, 64KiB to 256MiB. Default 16MiB.
    pub(super) memory: Field<Written<Size>>,
    /// Wall-clock time, 1ms to 1m. Default 100ms.
    pub(crate) time: Field<Written<Duration>>,
    /// Bytes of one answer, up to 64MiB. Default 1MiB.
    pub(super) output: Field<Written<Size>>,
    /// Failures in a row after which the policy is quarantined: not asked any more on this route, until a new file
    /// comes. Default 10.
    pub(super) failures: Field<Count>,
}

/// The envelope: limits on any verdict, and the backoff.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Retry")]
pub(super) struct RawRetry {
    /// `event-pipeline`: the limits and the defaults of a managed event bus. Delays of 1s to 600s, each twice the one
    /// before, or all equal; jitter none and max_elapsed 36500d unless written.
    pub(super) profile: Field<RawProfile>,
    /// Attempts in all; 1 means one delivery and no retry. `unlimited` tries for ever, unless max_elapsed is written,
    /// too. Default 5.
    pub(super) max_attempts: Field<Times>,
    /// Time from the first attempt after which none begins, 1ms to 36500d. Default 24h.
    pub(super) max_elapsed: Field<Written<Duration>>,
    /// The first and the shortest delay, 1ms to 24h. Default 1s.
    pub(super) min_delay: Field<Written<Duration>>,
    /// The longest delay, 1ms to 24h. Default 60s.
    pub(super) max_delay: Field<Written<Duration>>,
    /// How delays grow. Default exponential.
    pub(super) backoff: Field<RawBackoff>,
    /// exponential: how much longer each delay is, 1 to 100. Default 2.
    pub(super) factor: Field<Factor>,
    /// How chance spreads delays. Default full.
    pub(super) jitter: Field<RawJitter>,
    /// The longest Retry-After that is honoured in full, 1ms to 24h. Default 1h.
    pub(super) retry_after_max: Field<Written<Duration>>,
    /// The retry budget: how many retries there may be for each first attempt, or `{share, reserve, window}`. A retry
    /// beyond it is made later. Default no limit.
    pub(super) budget: Field<Shorthand<Written<Share>, RawRetryBudget>>,
}

/// A set of limits and defaults.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Profile", inline)]
pub(super) enum RawProfile {
    EventPipeline,
}

/// How delays grow.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Growth", inline)]
pub(super) enum RawBackoff {
    Exponential,
    Constant,
}

/// How chance spreads delays.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Jitter", inline)]
pub(super) enum RawJitter {
    None,
    Full,
    Equal,
    Decorrelated,
}

/// A default answer, or another route.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Fallback")]
pub(super) struct RawFallback {
    /// The route that takes the message over; nothing else beside it.
    pub(super) route: Field<String>,
    /// The answer's status, 200 to 599. Default 200.
    pub(super) status: Field<Count>,
    /// The answer's header fields.
    pub(super) headers: Field<Named<String>>,
    /// The answer's body as JSON, with its Content-Type.
    pub(super) json: Field<serde_json::Value>,
    /// The answer's body as text.
    pub(super) body: Field<String>,
}

/// When to raise an alarm.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Alarm", extend("required" = ["error_rate"]))]
pub(super) struct RawAlarm {
    /// The share of failed attempts at which it fires; it clears below half of that.
    pub(super) error_rate: Field<Written<Share>>,
    /// The window, 1s to 24h. Default 1m.
    pub(super) window: Field<Written<Duration>>,
    /// Attempts in the window below which nothing is said. Default 20.
    pub(super) min_requests: Field<Count>,
    /// Where a notice is POSTed.
    pub(super) notify: Field<Written<Url>>,
}

/// What is done with dead letters.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "DeadLetter")]
pub(super) struct RawDeadLetter {
    /// How long they are kept, 1s to 3650d. Default 14d.
    pub(super) keep: Field<Written<Duration>>,
}

/// What is done about Idempotency-Key.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Idempotency")]
pub(super) struct RawIdempotency {
    /// Whether a request without one is refused. Default false.
    pub(super) required: Field<bool>,
    /// How long keys are kept, 1s to 365d. Default 24h.
    pub(super) keep: Field<Written<Duration>>,
}

impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<S: JsonSchema, F: JsonSchema> JsonSchema for Shorthand<S, F> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}Or{}", S::schema_name(), F::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [generator.subschema_for::<S>(), generator.subschema_for::<F>()] })
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("NamedOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BTreeMap::<String, T>::json_schema(generator)
    }
}
