//! The circuit breaker: stops a route's attempts when too many fail, and tries with a few whether they work again.
//! Pure: it is told the time.
//!
//! ```text
//!  closed ──(too many fail)──► open ──(open_for is over)──► half-open ──(probes succeed)──► closed
//!                                ▲                              │
//!                                └───────(a probe fails)────────┘
//! ```

use std::fmt;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::Breaker;
use crate::window::{Counts, Window};

/// Parts the window is counted in, one more than make it up: nothing leaves it early.
const PARTS: usize = 11;

/// A route's circuit breaker.
#[derive(Clone, Debug)]
pub(super) struct Circuit {
    settings: Breaker,
    state: State,
    /// Told apart by this are attempts that began before the last change: what they come to says nothing any more.
    era: u64,
}

#[derive(Clone, Debug)]
enum State {
    Closed(Window<PARTS>),
    Open { until: Timestamp },
    HalfOpen { under_way: u32, succeeded: u32 },
}

/// The right to make one attempt, which is to be handed back with what it came to.
#[derive(Debug)]
#[must_use = "a probe's place is to be given back"]
pub(super) struct Pass {
    era: u64,
    probe: bool,
}

/// What an attempt came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Came {
    /// The destination did its work, or said that it will not do this.
    Good,
    /// It gave no answer, or one that is to be retried.
    Bad,
}

/// Whether attempts may be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Room {
    /// As many as one likes.
    Free,
    /// So many probes.
    Probes(u32),
    /// None before then.
    NoneUntil(Timestamp),
}

/// What a breaker has just done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// It opened: so many of the attempts in the window failed.
    Opened { counts: Counts, until: Timestamp },
    /// It opened again: a probe failed.
    OpenedAgain { until: Timestamp },
    /// It is half-open.
    HalfOpened,
    /// It closed: all probes succeeded.
    Closed,
}

impl Pass {
    /// Whether others wait for it to come back.
    pub(super) const fn is_probe(&self) -> bool {
        self.probe
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { counts, .. } => write!(f, "{} of {} attempts failed", counts.marked, counts.all),
            Self::OpenedAgain { .. } => f.write_str("a probe failed"),
            Self::HalfOpened => f.write_str("its time is over"),
            Self::Closed => f.write_str("the probes succeeded"),
        }
    }
}

impl Circuit {
    /// A closed breaker. Its `era` must be above that of any breaker whose passes are still about.
    pub(super) fn new(settings: Breaker, era: u64) -> Self {
        Self { settings, state: State::Closed(window(settings.window)), era }
    }

    /// How it is set.
    pub(super) const fn settings(&self) -> Breaker {
        self.settings
    }

    /// The era after which a breaker that replaces this one begins.
    pub(super) const fn era(&self) -> u64 {
        self.era
    }

    /// Goes on with the time: a breaker whose time is over is half-open.
    pub(super) fn advance(&mut self, now: Timestamp) -> Option<Change> {
        let State::Open { until } = &mut self.state else { return None };
        // A clock set back does not keep it open for longer.
        *until = now.after(self.settings.open_for).min(*until);
        if *until > now {
            return None;
        }
        self.turn(State::HalfOpen { under_way: 0, succeeded: 0 });
        Some(Change::HalfOpened)
    }

    /// Whether attempts may be made, as it stands since it last went on.
    pub(super) fn room(&self) -> Room {
        match &self.state {
            State::Closed(_) => Room::Free,
            State::Open { until } => Room::NoneUntil(*until),
            State::HalfOpen { under_way, .. } => Room::Probes(self.settings.probes.saturating_sub(*under_way)),
        }
    }

    /// The right to make one attempt, if there is [`Circuit::room`].
    pub(super) fn enter(&mut self) -> Option<Pass> {
        let probe = match &mut self.state {
            State::Closed(_) => false,
            State::HalfOpen { under_way, .. } if *under_way < self.settings.probes => {
                *under_way += 1;
                true
            }
            State::HalfOpen { .. } | State::Open { .. } => return None,
        };
        Some(Pass { era: self.era, probe })
    }

    /// An attempt is not made, or nothing is known of what it came to.
    pub(super) const fn give_back(&mut self, pass: Pass) {
        if let State::HalfOpen { under_way, .. } = &mut self.state
            && pass.era == self.era
        {
            *under_way = under_way.saturating_sub(1);
        }
    }

    /// An attempt is over.
    pub(super) fn leave(&mut self, pass: Pass, came: Came, now: Timestamp) -> Option<Change> {
        if pass.era != self.era {
            return None;
        }
        match (&mut self.state, came) {
            (State::Open { .. }, _) => None,
            (State::Closed(window), came) => {
                let counts = window.count(now, came == Came::Bad);
                let enough = counts.all >= u64::from(self.settings.min_attempts);
                let failing = counts.marked as f64 >= self.settings.failures * counts.all as f64;
                (came == Came::Bad && enough && failing).then(|| {
                    let until = self.open(now);
                    Change::Opened { counts, until }
                })
            }
            (State::HalfOpen { .. }, Came::Bad) => {
                let until = self.open(now);
                Some(Change::OpenedAgain { until })
            }
            (State::HalfOpen { under_way, succeeded }, Came::Good) => {
                *under_way = under_way.saturating_sub(1);
                *succeeded += 1;
                (*succeeded >= self.settings.probes).then(|| {
                    self.turn(State::Closed(window(self.settings.window)));
                    Change::Closed
                })
            }
        }
    }

    fn open(&mut self, now: Timestamp) -> Timestamp {
        let until = now.after(self.settings.open_for);
        self.turn(State::Open { until });
        until
    }

    fn turn(&mut self, state: State) {
        self.state = state;
        self.era += 1;
    }

    /// What its window holds while it is closed.
    pub(super) fn counts(&mut self, now: Timestamp) -> Counts {
        match &mut self.state {
            State::Closed(window) => window.read(now),
            State::Open { .. } | State::HalfOpen { .. } => Counts::default(),
        }
    }

    /// Its state's name, as `/v1/routes` shows it.
    pub(super) const fn state(&self) -> &'static str {
        match self.state {
            State::Closed(_) => "closed",
            State::Open { .. } => "open",
            State::HalfOpen { .. } => "half_open",
        }
    }
}

fn window(length: Duration) -> Window<PARTS> {
    Window::new(length / (PARTS as u32 - 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: Breaker = Breaker {
        failures: 0.5,
        window: Duration::from_secs(10),
        min_attempts: 4,
        open_for: Duration::from_secs(30),
        probes: 2,
    };

    const fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + millis)
    }

    fn attempt(circuit: &mut Circuit, came: Came, now: Timestamp) -> Option<Change> {
        circuit.enter().and_then(|pass| circuit.leave(pass, came, now))
    }

    /// A breaker that has just opened.
    fn opened() -> Circuit {
        let mut circuit = Circuit::new(SETTINGS, 0);
        for came in [Came::Good, Came::Bad, Came::Good] {
            assert_eq!(attempt(&mut circuit, came, at(0)), None);
        }
        let counts = Counts { all: 4, marked: 2 };
        assert_eq!(attempt(&mut circuit, Came::Bad, at(0)), Some(Change::Opened { counts, until: at(30_000) }));
        circuit
    }

    #[test]
    fn it_opens_at_its_share_of_failures_and_closes_when_the_probes_succeed() {
        let mut circuit = opened();
        assert_eq!((circuit.advance(at(29_999)), circuit.room()), (None, Room::NoneUntil(at(30_000))));
        assert_eq!(circuit.advance(at(30_000)), Some(Change::HalfOpened));
        let (first, second) = (circuit.enter().unwrap(), circuit.enter().unwrap());
        assert!(circuit.enter().is_none() && circuit.room() == Room::Probes(0), "two probes and no more");
        assert_eq!(circuit.leave(first, Came::Good, at(30_100)), None);
        assert_eq!(circuit.leave(second, Came::Good, at(30_200)), Some(Change::Closed));
        assert_eq!(circuit.room(), Room::Free);
    }

    #[test]
    fn a_probe_that_fails_opens_it_again() {
        let mut circuit = opened();
        circuit.advance(at(30_000));
        assert_eq!(attempt(&mut circuit, Came::Bad, at(31_000)), Some(Change::OpenedAgain { until: at(61_000) }));
        assert_eq!(circuit.room(), Room::NoneUntil(at(61_000)));
    }

    #[test]
    fn what_began_before_a_change_says_nothing_after_it() {
        let mut circuit = Circuit::new(SETTINGS, 0);
        let early: Vec<Pass> = (0..10).filter_map(|_| circuit.enter()).collect();
        for _ in 0..4 {
            attempt(&mut circuit, Came::Bad, at(0));
        }
        circuit.advance(at(30_000));
        for pass in early {
            assert_eq!(circuit.leave(pass, Came::Bad, at(30_001)), None);
        }
        assert_eq!(circuit.room(), Room::Probes(2));
    }

    #[test]
    fn failures_that_left_the_window_are_forgotten() {
        let mut circuit = Circuit::new(SETTINGS, 0);
        for second in 0..40 {
            assert_eq!(attempt(&mut circuit, Came::Bad, at(second * 4_000)), None, "three in ten seconds are too few");
        }
    }

    #[test]
    fn a_clock_set_back_does_not_keep_it_open() {
        let mut circuit = opened();
        let before = Timestamp::from_millis(1_600_000_000_000);
        assert_eq!(circuit.advance(before), None);
        assert_eq!(circuit.advance(before.after(SETTINGS.open_for)), Some(Change::HalfOpened));
    }

    #[derive(Clone, Debug)]
    enum Act {
        Pass(u64),
        Enter,
        Leave(Came),
        GiveBack,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let came = prop_oneof![Just(Came::Good), Just(Came::Bad), Just(Came::Bad)];
        let act = prop_oneof![
            (0..20_000_u64).prop_map(Act::Pass),
            Just(Act::Enter),
            Just(Act::Enter),
            came.prop_map(Act::Leave),
            Just(Act::GiveBack),
        ];
        proptest::collection::vec(act, 0..300)
    }

    proptest! {
        #[test]
        fn whatever_happens_probes_are_bounded_and_come_back_and_attempts_are_made_again(acts in acts()) {
            let mut circuit = Circuit::new(SETTINGS, 0);
            let (mut now, mut out): (u64, Vec<Pass>) = (0, Vec::new());
            for act in acts {
                circuit.advance(at(now));
                match act {
                    Act::Pass(length) => now += length,
                    Act::Enter => {
                        let room = circuit.room();
                        let pass = circuit.enter();
                        prop_assert_eq!(pass.is_some(), !matches!(room, Room::NoneUntil(_) | Room::Probes(0)));
                        out.extend(pass);
                    }
                    Act::GiveBack => {
                        if let Some(pass) = out.pop() {
                            circuit.give_back(pass);
                        }
                    }
                    Act::Leave(came) => {
                        if let Some(pass) = out.pop() {
                            circuit.leave(pass, came, at(now));
                        }
                    }
                }
                circuit.advance(at(now));
                let era = circuit.era();
                let probes = out.iter().filter(|pass| pass.probe && pass.era == era).count();
                match circuit.room() {
                    Room::Free => {}
                    Room::Probes(free) => prop_assert_eq!(probes + free as usize, SETTINGS.probes as usize),
                    Room::NoneUntil(until) => prop_assert!(until > at(now) && until <= at(now + 30_000)),
                }
            }
            // However it stands: when all is given back and its time is over, a destination that works is used again.
            for pass in out {
                circuit.give_back(pass);
            }
            circuit.advance(at(now + 30_000));
            for _ in 0..SETTINGS.probes {
                attempt(&mut circuit, Came::Good, at(now + 30_000));
            }
            prop_assert_eq!(circuit.room(), Room::Free);
        }
    }
}
