//! Dispatch to NATS JetStream: one attempt is one publish, and it counts once the stream has confirmed it.
//!
//! It decides nothing and never tries twice: whatever goes wrong is said as it is. It speaks to streams only; a subject
//! that no stream keeps is refused, since a plain publish tells nobody whether anyone took the message.
//!
//! What a request becomes on the wire, and back:
//!
//! | NATS header                      | as a request's field (source)        | from a request's field (destination)  |
//! |----------------------------------|--------------------------------------|---------------------------------------|
//! | `Nats-Msg-Id`                    | none: the idempotency key            | the message's id, the same each time  |
//! | every other `Nats-…`             | left out                             | left out: it would steer the stream   |
//! | `Content-Type`, `Correlation-Id`, `traceparent`, any other | itself, in small letters | itself, in small letters      |
//! | hop-by-hop fields, `Host`, `Content-Length`, `Expect`      | left out             | left out                          |
//! | `Idempotency-Key`                | left out: `Nats-Msg-Id` is the key   | itself                                |
//! | `Backstop-…`                     | left out: the host alone says these  | itself: the host wrote them           |
//! | `Broker-…`                       | left out: the source says these      | left out                              |
//! | (the delivery)                   | `broker-kind: nats`, `broker-origin` (stream), `broker-subject`, `broker-sequence`, `broker-delivery-count` (earlier ones), `broker-redelivered` | |
//!
//! At most [`headers::MAX_FIELDS`] fields of [`headers::MAX_BYTES`] bytes in all come in, in the order of their names;
//! what is over that, and what is no valid field, is left out and counted.

pub mod address;
pub mod connection;
pub mod headers;
pub mod publish;

pub use self::address::{Address, BadAddress, Target};
pub use self::connection::{ConnectFailure, Connection};
pub use self::publish::{Publication, Published, Publisher};
