//! What the scenarios in `it/` stand on: a scripted [`Vendor`], the real binary as a running [`Host`], and conditions
//! that are awaited rather than slept for ([`mod@eventually`]).
//!
//! Nothing here knows how the host works. It sees what an operator sees: a YAML file, a log, HTTP, and the command line.

pub mod vendor;
pub mod host;
pub mod setup;
pub mod artefacts;
pub mod languages;
pub mod hand_made;
pub mod fuzzing;
pub mod eventually;
pub mod disk;
pub mod postgres;
pub mod nats;
pub mod rabbitmq;
pub mod load;
pub mod knocks;

pub use disk::Disk;
pub use eventually::eventually;
pub use host::{Answer, Host};
pub use knocks::Knocks;
pub use load::Load;
pub use nats::Nats;
pub use postgres::Postgres;
pub use rabbitmq::RabbitMq;
pub use setup::Setup;
pub use vendor::{Gate, Received, Reply, Vendor, black_hole, garbage, half_response, huge, json, nothing, ok, status};
