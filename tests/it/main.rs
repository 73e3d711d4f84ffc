//! Scenarios: the real binary, real sockets, real policies, and vendors that fail in the ways vendors do.
//!
//! A test is named for the system it is about (see each module), and says in its name what must hold.

mod risk_control;
mod async_retry;
mod reliable_message;
mod maintenance;
mod event_pipeline;
mod events;
mod archive;
mod scan_platform;
mod feed;
mod fallback;
mod carriage;
mod idempotency;
mod ingress;
mod bad_vendor;
mod lanes;
mod nats;
mod policy_reload;
mod config_reload;
mod rabbitmq;
mod sources;
mod broker_crashes;
mod reload_storm;
mod hostile;
mod fuzzing;
mod config;
mod cases;
mod languages;
mod shutdown;
mod crash;
mod crash_cycles;
mod upgrade;
mod disk;
mod clock_jumps;
mod retention;
mod postgres_outage;
mod many_hosts;
mod author_tools;
mod demo;
