//! The connection to one broker, and the channels on it: few, lent to one message at a time.
//!
//! A connection is made when it is needed. While the broker is away, one attempt at a time finds out whether it still
//! is, no more often than the pause allows; the others fail at once with what the last one found.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::amqp::{Broker, Dialer, Link, LinkError, in_words};
use crate::clock::Stopwatch;

/// Messages at once to one broker; as many channels.
pub const CHANNELS: usize = 32;

/// The pause before a broker that is away is tried again: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// The connection and its channels.
pub(super) struct Channels {
    broker: Broker,
    dialer: Dialer,
    known: Mutex<Known>,
    turns: Semaphore,
    /// Held while a connection is made: one at a time.
    making: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    link: Option<Arc<Link>>,
    idle: Vec<Channel>,
    away: Option<Away>,
}

/// Since when the broker is away.
struct Away {
    since: Stopwatch,
    pause: Duration,
    error: LinkError,
}

/// A channel that one message has to itself. It is closed unless it is given back.
pub(super) struct Lent<'c> {
    channel: Channel,
    /// What it is a channel of: kept while the message is under way.
    link: Arc<Link>,
    channels: &'c Channels,
    _turn: SemaphorePermit<'c>,
}

impl Lent<'_> {
    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// For the next message, if the connection is still the same.
    pub(super) fn give_back(self) {
        let mut known = self.channels.known();
        if known.link.as_ref().is_some_and(|link| Arc::ptr_eq(link, &self.link)) && self.channel.status().connected() {
            known.idle.push(self.channel);
        }
    }
}

impl Channels {
    pub(super) fn new(broker: Broker, dialer: Dialer) -> Self {
        let turns = Semaphore::new(CHANNELS);
        Self { broker, dialer, known: Mutex::default(), turns, making: tokio::sync::Mutex::default() }
    }

    /// Whether the broker has asked for no more messages for now (a memory or disk alarm).
    pub(super) fn is_blocked(&self) -> bool {
        self.known().link.as_ref().is_some_and(|link| link.is_blocked())
    }

    /// A channel: an idle one, or else a new one.
    pub(super) async fn lend(&self) -> Result<Lent<'_>, LinkError> {
        // The semaphore is never closed.
        let closed = |_| LinkError::Lost { place: self.broker.place(), says: "the host stops".to_owned() };
        let turn = self.turns.acquire().await.map_err(closed)?;
        let lent = |channel, link| Lent { channel, link, channels: self, _turn: turn };
        if let Some((channel, link)) = self.idle() {
            return Ok(lent(channel, link));
        }
        let link = self.link().await?;
        let channel = link.channel().await?;
        let confirming = channel.confirm_select(ConfirmSelectOptions { nowait: false }).await;
        confirming.map_err(|error| link.lost(&error))?;
        Ok(lent(channel, link))
    }

    fn idle(&self) -> Option<(Channel, Arc<Link>)> {
        let mut known = self.known();
        let link = known.up()?;
        loop {
            let channel = known.idle.pop()?;
            if channel.status().connected() {
                return Some((channel, link));
            }
        }
    }

    /// The connection: the one there is, or else a new one.
    async fn link(&self) -> Result<Arc<Link>, LinkError> {
        let up = self.known().up();
        if let Some(link) = up {
            return Ok(link);
        }
        let _making = self.making.lock().await;
        let pause = {
            let mut known = self.known();
            if let Some(link) = known.up() {
                return Ok(link);
            }
            match &known.away {
                Some(away) if away.since.elapsed() < away.pause => return Err(away.error.again()),
                Some(away) => (away.pause * 2).min(PAUSE.1),
                None => PAUSE.0,
            }
        };
        match self.dialer.dial(&self.broker, "backstop").await {
            Ok(link) => {
                let link = Arc::new(link);
                let mut known = self.known();
                known.away = None;
                known.link = Some(Arc::clone(&link));
                Ok(link)
            }
            Err(error) => {
                tracing::warn!(broker = %self.broker, why = in_words(&error), "cannot connect to the broker");
                let again = error.again();
                self.known().away = Some(Away { since: Stopwatch::start(), pause, error });
                Err(again)
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The connection, if it is up; one that is not is given up with its channels.
    fn up(&mut self) -> Option<Arc<Link>> {
        if self.link.as_ref().is_some_and(|link| !link.is_up()) {
            self.link = None;
            self.idle.clear();
        }
        self.link.clone()
    }
}
