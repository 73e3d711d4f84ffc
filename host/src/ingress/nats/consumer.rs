//! Binding to the durable pull consumer, or creating it.
//!
//! A consumer that is there is used as it is: its `ack_wait`, `backoff` and `max_deliver` are its owner's, and nothing
//! of it is changed. It must be a pull consumer with explicit acknowledgements, and filter what the source says, if
//! the source says so. One that is not there is created: explicit acknowledgements, every message from the stream's
//! first on, the source's `ack_wait` and filter, and no `max_deliver` (why, the module above says).

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Config, Consumer, DeliverPolicy, pull};
use async_nats::jetstream::context::GetStreamErrorKind;

use super::settings::Settings;
use crate::dispatch::nats::Connection;

/// Progress is said at least this seldom: an existing consumer may wait for next to nothing.
const SHORTEST_PROGRESS: Duration = Duration::from_millis(50);
/// What JetStream waits for a settlement where a consumer does not say.
const DEFAULT_ACK_WAIT: Duration = Duration::from_secs(30);

/// The consumer, and on what terms it delivers.
pub(super) struct Bound {
    pub(super) consumer: Consumer<pull::Config>,
    pub(super) terms: Terms,
}

/// On what terms messages are delivered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Terms {
    /// The number of the delivery that is the last; none: there is none.
    pub(super) last: Option<u64>,
    /// The number of the delivery after which the server itself delivers no more.
    pub(super) server_last: Option<u64>,
    /// How often the server is told that a message is still worked on.
    pub(super) progress_every: Duration,
    /// Tells this stream from one of the same name that was deleted: nanoseconds since the epoch.
    pub(super) incarnation: i128,
}

/// Binds to the consumer, and creates it if it is not there.
///
/// # Errors
/// When the stream is not there, the consumer is not one that can be worked with, or the server does not answer.
pub(super) async fn bind(connection: &Connection, settings: &Settings) -> Result<Bound, BindFailure> {
    let stream = connection.context().get_stream(&settings.stream).await.map_err(|error| match error.kind() {
        GetStreamErrorKind::JetStream(said) if said.code() == 404 => BindFailure::NoStream(settings.stream.clone()),
        _ => BindFailure::Stream { stream: settings.stream.clone(), source: error.into() },
    })?;
    let failed =
        |source| BindFailure::Consumer { stream: settings.stream.clone(), consumer: settings.consumer.clone(), source };
    let wanted = Config {
        durable_name: Some(settings.consumer.clone()),
        description: Some("created by backstop".to_owned()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: settings.ack_wait,
        filter_subject: settings.filter.clone().unwrap_or_default(),
        // What is outstanding at all the hosts that share the consumer: each has its own `prefetch`.
        max_ack_pending: -1,
        ..Config::default()
    };
    let found =
        stream.get_or_create_consumer(&settings.consumer, wanted).await.map_err(|error| failed(error.into()))?;
    let config = found.cached_info().config.clone();
    check(&config, settings)?;
    let consumer = stream.get_consumer::<pull::Config>(&settings.consumer).await.map_err(failed)?;
    let incarnation = stream.cached_info().created.unix_timestamp_nanos();
    Ok(Bound { consumer, terms: terms(&config, settings, incarnation) })
}

/// Whether the source can work with such a consumer.
fn check(config: &Config, settings: &Settings) -> Result<(), BindFailure> {
    let unfit =
        |why: String| BindFailure::Unfit { stream: settings.stream.clone(), consumer: settings.consumer.clone(), why };
    if config.deliver_subject.is_some() {
        return Err(unfit("it is a push consumer, and a source pulls".to_owned()));
    }
    if config.ack_policy != AckPolicy::Explicit {
        return Err(unfit(format!("its ack policy is {:?}, and a source settles each message", config.ack_policy)));
    }
    match &settings.filter {
        Some(filter) if *filter != config.filter_subject => {
            Err(unfit(format!("it filters {:?}, and the source is to have {filter:?}", config.filter_subject)))
        }
        _ => Ok(()),
    }
}

/// The terms of a consumer that is set up so.
fn terms(config: &Config, settings: &Settings, incarnation: i128) -> Terms {
    // JetStream means "without a limit" by a number below one.
    let server_last = u64::try_from(config.max_deliver).ok().filter(|last| *last > 0);
    let own_last = settings.max_deliver.map(u64::from);
    // A backoff takes the place of the ack wait; the shortest of its steps is what has to be kept.
    let patience = config.backoff.iter().copied().min().unwrap_or(config.ack_wait);
    let patience = if patience.is_zero() { DEFAULT_ACK_WAIT } else { patience };
    Terms {
        last: own_last.into_iter().chain(server_last).min(),
        server_last,
        progress_every: (patience / 2).max(SHORTEST_PROGRESS),
        incarnation,
    }
}

/// Why the consumer was not bound to.
#[derive(Debug, thiserror::Error)]
pub(super) enum BindFailure {
    #[error("there is no stream {0:?}; create it, or correct its name")]
    NoStream(String),
    #[error("failed to look stream {stream:?} up")]
    Stream { stream: String, source: async_nats::Error },
    #[error("failed to find or create consumer {consumer:?} of stream {stream:?}")]
    Consumer { stream: String, consumer: String, source: async_nats::Error },
    #[error("consumer {consumer:?} of stream {stream:?} cannot be used: {why}")]
    Unfit { stream: String, consumer: String, why: String },
}

#[cfg(test)]
mod tests {
    use super::super::settings::Draft;
    use super::*;
    use crate::dispatch::nats::Address;
    use crate::ingress::source::{Connect, Settle};

    fn settings(max_deliver: Option<u32>, filter: Option<&str>) -> Settings {
        Settings::new(Draft {
            name: "orders".into(),
            address: Address::parse("nats://broker.example").unwrap(),
            stream: "ORDERS".into(),
            consumer: "backstop".into(),
            filter: filter.map(Into::into),
            prefetch: 64,
            settle: Settle::OnStore,
            ack_wait: Duration::from_secs(30),
            max_deliver,
            connect: Connect { retries: None, wait: Duration::from_secs(1) },
        })
        .unwrap()
    }

    #[test]
    fn the_lower_limit_of_deliveries_counts() {
        for (own, server, last, server_last) in [
            (None, -1, None, None),
            (None, 0, None, None),
            (Some(5), -1, Some(5), None),
            (Some(5), 3, Some(3), Some(3)),
            (Some(2), 3, Some(2), Some(3)),
            (None, 3, Some(3), Some(3)),
        ] {
            let terms = terms(&Config { max_deliver: server, ..Config::default() }, &settings(own, None), 0);
            assert_eq!((terms.last, terms.server_last), (last, server_last), "{own:?} {server}");
        }
    }

    #[test]
    fn progress_is_said_at_half_of_the_shortest_time_the_server_waits() {
        let every = |ack_wait, backoff: &[u64]| {
            let backoff = backoff.iter().copied().map(Duration::from_secs).collect();
            terms(&Config { ack_wait, backoff, ..Config::default() }, &settings(None, None), 0).progress_every
        };
        assert_eq!(every(Duration::from_secs(10), &[]), Duration::from_secs(5));
        assert_eq!(every(Duration::from_secs(10), &[4, 2, 60]), Duration::from_secs(1));
        assert_eq!(every(Duration::ZERO, &[]), Duration::from_secs(15));
        assert_eq!(every(Duration::from_millis(1), &[]), SHORTEST_PROGRESS);
    }

    #[test]
    fn a_consumer_that_pushes_or_does_not_wait_or_filters_otherwise_is_unfit() {
        let fit = Config { filter_subject: "a.>".into(), ..Config::default() };
        assert!(check(&fit, &settings(None, None)).is_ok());
        assert!(check(&fit, &settings(None, Some("a.>"))).is_ok());
        assert!(check(&fit, &settings(None, Some("b.>"))).is_err());
        assert!(check(&Config { ack_policy: AckPolicy::None, ..fit.clone() }, &settings(None, None)).is_err());
        assert!(check(&Config { deliver_subject: Some("x".into()), ..fit }, &settings(None, None)).is_err());
    }
}
