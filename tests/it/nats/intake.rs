//! An intake that does as a test says, and writes down what came.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use backstop::clock::{Clock, Stopwatch, SystemClock};
use backstop::ingress::source::{Brought, Intake, Settlement, Stored};

/// What came, and when, counted from the start.
#[derive(Clone, Debug)]
pub(crate) struct Came {
    pub(crate) body: String,
    pub(crate) at: Duration,
    pub(crate) brought: Brought,
}

type Says<T> = Box<dyn Fn(&Brought, usize) -> T + Send + Sync>;

/// The intake: what it says is a function of the message and of how often it came before.
pub(crate) struct Scripted {
    store: Says<Stored>,
    deliver: Says<Settlement>,
    takes: Duration,
    started: Stopwatch,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    came: Vec<Came>,
    times: HashMap<String, usize>,
    now: usize,
    most: usize,
}

impl Scripted {
    pub(crate) fn storing(says: impl Fn(&Brought, usize) -> Stored + Send + Sync + 'static) -> Self {
        Self { store: Box::new(says), ..Self::new() }
    }

    pub(crate) fn delivering(says: impl Fn(&Brought, usize) -> Settlement + Send + Sync + 'static) -> Self {
        Self { deliver: Box::new(says), ..Self::new() }
    }

    fn new() -> Self {
        Self {
            store: Box::new(|_, _| Stored::Yes),
            deliver: Box::new(|_, _| Settlement::Ack),
            takes: Duration::ZERO,
            started: Stopwatch::start(),
            state: Mutex::default(),
        }
    }

    /// Takes so long for each.
    pub(crate) fn taking(mut self, takes: Duration) -> Self {
        self.takes = takes;
        self
    }

    pub(crate) fn came(&self) -> Vec<Came> {
        self.state().came.clone()
    }

    /// How many different bodies came.
    pub(crate) fn different(&self) -> usize {
        self.state().times.len()
    }

    /// How many there were at once, at most.
    pub(crate) fn most(&self) -> usize {
        self.state().most
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn note(&self, brought: &Brought) -> usize {
        let before = {
            let body = String::from_utf8_lossy(&brought.body).into_owned();
            let at = self.started.elapsed();
            let mut state = self.state();
            state.came.push(Came { body: body.clone(), at, brought: brought.clone() });
            state.now += 1;
            state.most = state.most.max(state.now);
            let times = state.times.entry(body).or_default();
            *times += 1;
            *times - 1
        };
        if !self.takes.is_zero() {
            SystemClock.sleep(self.takes).await;
        }
        self.state().now -= 1;
        before
    }
}

#[async_trait]
impl Intake for Scripted {
    async fn store(&self, brought: Brought) -> Stored {
        let before = self.note(&brought).await;
        (self.store)(&brought, before)
    }

    async fn put_aside(&self, _: Brought, _: String) -> Stored {
        unreachable!("a broker's message can be read")
    }

    async fn deliver(&self, brought: Brought) -> Settlement {
        let before = self.note(&brought).await;
        (self.deliver)(&brought, before)
    }
}
