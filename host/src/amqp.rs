//! The connection to a RabbitMQ broker, over AMQP 0-9-1: what the source and the destination of that name share.
//!
//! It finds the broker, speaks TLS where the URL says so, logs in, and keeps what the broker sends within bounds. It
//! reconnects nothing and retries nothing: whoever uses a [`Link`] decides what its loss means. Only this module,
//! `ingress::rabbitmq` and `dispatch::rabbitmq` know lapin; and the demo, which owns the queues that it plays with.
//!
//! lapin logs whole messages: one that the broker returns at `warn`, every frame (a login's too) at `trace`. A log
//! filter leaves [`LOUD`] out, whatever level is asked for.

mod broker;
mod failure;
mod link;
mod reactor;
mod scrub;
mod table;
mod wire;

pub(crate) use broker::SHORT;
pub use broker::{BadBroker, Broker};
pub use failure::LinkError;
pub(crate) use failure::{in_words, says};
pub(crate) use link::CONNECTING;
pub use link::{Addresses, Dialer, Link, SystemAddresses};
pub(crate) use scrub::UNREADABLE;

/// Directives for a log filter, without which lapin would write bodies and passwords into the log.
pub const LOUD: [&str; 3] = ["lapin=off", "amq_protocol=off", "amq_protocol_tcp=off"];
