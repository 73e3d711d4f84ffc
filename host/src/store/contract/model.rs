//! Any sequence of calls leaves the store as it leaves a few lines of plain Rust: every message in exactly one state,
//! none lost.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::store::{Filter, NextDue, Retention, Selection, Turn};

const ROUTES: [&str; 2] = ["orders", "parcels"];
const OWNERS: [&str; 2] = ["a", "b"];
const KEYS: [&str; 2] = ["customer-1", "customer-2"];
const LEASE: Duration = Duration::from_secs(3);
const KEEP: Duration = Duration::from_secs(8);

/// One call, or a while in which nothing is called.
#[derive(Clone, Debug)]
pub(in crate::store) enum Call {
    Queue { route: usize, due_in: u64, key: Option<usize> },
    Lease { route: usize, owner: usize, key: Option<usize> },
    End { route: usize, state: State },
    Claim { route: usize, owner: usize, limit: usize },
    Requeue { pick: usize, owner: usize, route: usize, due_in: u64 },
    Finish { pick: usize, owner: usize, state: State, blocks: bool },
    Extend { pick: usize, owner: usize },
    Release { pick: usize, owner: usize },
    Redrive { pick: usize },
    RedriveMatching { route: usize },
    Discard { pick: usize },
    Sweep,
    Wait { seconds: u64 },
}

/// A sequence of calls.
pub(in crate::store) fn calls() -> impl Strategy<Value = Vec<Call>> {
    let (route, owner, pick, due_in) = (0..2_usize, 0..2_usize, 0..12_usize, 0..4_u64);
    let k = prop::option::of(0..2_usize);
    let terminal = prop::sample::select(&State::ALL[2..]);
    let (r, o, p, d, t) = (route, owner, pick, due_in, terminal);
    let call = prop_oneof![
        3 => (r.clone(), d.clone(), k.clone()).prop_map(|(route, due_in, key)| Call::Queue { route, due_in, key }),
        2 => (r.clone(), o.clone(), k).prop_map(|(route, owner, key)| Call::Lease { route, owner, key }),
        1 => (r.clone(), t.clone()).prop_map(|(route, state)| Call::End { route, state }),
        5 => (r.clone(), o.clone(), 0..4_usize).prop_map(|(route, owner, limit)| Call::Claim { route, owner, limit }),
        4 => (p.clone(), o.clone(), r.clone(), d)
            .prop_map(|(pick, owner, route, due_in)| Call::Requeue { pick, owner, route, due_in }),
        4 => (p.clone(), o.clone(), t, any::<bool>())
            .prop_map(|(pick, owner, state, blocks)| Call::Finish { pick, owner, state, blocks }),
        1 => (p.clone(), o.clone()).prop_map(|(pick, owner)| Call::Extend { pick, owner }),
        1 => (p.clone(), o).prop_map(|(pick, owner)| Call::Release { pick, owner }),
        1 => p.clone().prop_map(|pick| Call::Redrive { pick }),
        1 => r.prop_map(|route| Call::RedriveMatching { route }),
        1 => p.prop_map(|pick| Call::Discard { pick }),
        1 => Just(Call::Sweep),
        3 => (1..5_u64).prop_map(|seconds| Call::Wait { seconds }),
    ];
    prop::collection::vec(call, 1..60)
}

/// What a message should look like.
#[derive(Clone, Debug, PartialEq)]
struct Expected {
    route: &'static str,
    state: State,
    due: Timestamp,
    lease: Option<(&'static str, Timestamp)>,
    ended: Option<Timestamp>,
    journal: usize,
    key: Option<usize>,
    /// Where it came to.
    came_to: &'static str,
    turn: Option<Turn>,
}

impl Expected {
    fn new(route: &'static str, key: Option<usize>, state: State, due: Timestamp) -> Self {
        Self { route, state, due, lease: None, ended: None, journal: 0, key, came_to: route, turn: None }
    }
}

#[derive(Default)]
struct Model {
    seconds: u64,
    accepted: u64,
    messages: BTreeMap<u64, Expected>,
}

impl Model {
    fn now(&self) -> Timestamp {
        at(self.seconds)
    }

    /// The messages in the order that one with this `key` joins on this route.
    fn in_order(&mut self, route: &str, key: Option<usize>) -> impl Iterator<Item = &mut Expected> {
        let in_order = move |m: &&mut Expected| key.is_some() && m.key == key && m.came_to == route && m.turn.is_some();
        self.messages.values_mut().filter(in_order)
    }

    /// A message that may be attempted joins its order.
    fn join(&mut self, mut message: Expected) -> (u64, Option<Turn>) {
        let first = self.in_order(message.came_to, message.key).next().is_none();
        message.turn = message.key.map(|_| if first { Turn::Now } else { Turn::Behind });
        if message.turn == Some(Turn::Behind) {
            (message.state, message.lease) = (State::Queued, None);
        }
        let turn = message.turn;
        (self.add(message), turn)
    }

    /// In each order in which nobody has the turn, the first one has it now.
    fn let_next(&mut self) {
        for (route, key) in ROUTES.into_iter().flat_map(|route| [(route, Some(0)), (route, Some(1))]) {
            if self.in_order(route, key).all(|message| message.turn != Some(Turn::Now))
                && let Some(next) = self.in_order(route, key).next()
            {
                next.turn = Some(Turn::Now);
            }
        }
    }

    fn add(&mut self, expected: Expected) -> u64 {
        self.accepted += 1;
        self.messages.insert(self.accepted, expected);
        self.accepted
    }

    /// The message picked, if there is such a one.
    fn pick(&mut self, pick: usize) -> Option<(u64, &mut Expected)> {
        self.messages.iter_mut().nth(pick).map(|(number, expected)| (*number, expected))
    }

    fn redrive(&mut self, fits: impl Fn(u64, &Expected) -> bool) -> u64 {
        let now = self.now();
        let mut redriven = 0;
        for (number, message) in &mut self.messages {
            let ended = matches!(message.state, State::Dead | State::Answered | State::Dropped);
            if ended && fits(*number, message) {
                (message.state, message.due, message.ended) = (State::Queued, now, None);
                message.turn = message.turn.or(message.key.map(|_| Turn::Behind));
                redriven += 1;
            }
        }
        self.let_next();
        redriven
    }

    async fn make(&mut self, store: &dyn Store, call: Call) {
        let now = self.now();
        match call {
            Call::Queue { route, due_in, key } => {
                let (route, due) = (ROUTES[route], at(self.seconds + due_in));
                let (number, turn) = self.join(Expected::new(route, key, State::Queued, due));
                accept_in_turn(store, in_order(queued(number, route, due), key), turn).await;
            }
            Call::Lease { route, owner, key } => {
                let (route, until) = (ROUTES[route], now.after(LEASE));
                let mut message = Expected::new(route, key, State::InFlight, at(0));
                message.lease = Some((OWNERS[owner], until));
                let (number, turn) = self.join(message);
                accept_in_turn(store, in_order(leased(number, route, lease(OWNERS[owner], until)), key), turn).await;
            }
            Call::End { route, state } => {
                let mut message = Expected::new(ROUTES[route], None, state, now);
                message.ended = Some(now);
                let number = self.add(message);
                accept(store, ended(number, ROUTES[route], state, "ended", now)).await;
            }
            Call::Claim { route, owner, limit } => self.claim(store, ROUTES[route], OWNERS[owner], limit).await,
            Call::Requeue { pick, owner, route: to, due_in } => {
                let due = at(self.seconds + due_in);
                let Some((number, message)) = self.pick(pick) else { return };
                let holds = message.lease.is_some_and(|(holder, _)| holder == OWNERS[owner]);
                if holds {
                    (message.state, message.lease) = (State::Queued, None);
                    (message.route, message.due) = (ROUTES[to], due);
                    message.journal += 1;
                }
                let then = Then::Queue { due, route: route(ROUTES[to]) };
                let finished = store.finish(finish(number, OWNERS[owner], then)).await.unwrap();
                assert_eq!(finished == Finished::Done, holds);
            }
            Call::Finish { pick, owner, state, blocks } => {
                let Some((number, message)) = self.pick(pick) else { return };
                let holds = message.lease.is_some_and(|(holder, _)| holder == OWNERS[owner]);
                if holds {
                    (message.state, message.lease, message.ended) = (state, None, Some(now));
                    message.journal += 1;
                    message.turn = message.turn.filter(|_| blocks && state == State::Dead);
                }
                self.let_next();
                let finish = Finish { blocks, ..finish(number, OWNERS[owner], end(state, now)) };
                let finished = store.finish(finish).await.unwrap();
                assert_eq!(finished == Finished::Done, holds);
            }
            Call::Extend { pick, owner } => {
                let Some((number, message)) = self.pick(pick) else { return };
                let holds = message.lease.is_some_and(|(holder, _)| holder == OWNERS[owner]);
                if holds {
                    message.lease = Some((OWNERS[owner], now.after(LEASE)));
                }
                let held = store.extend_lease(vec![id(number)], lease(OWNERS[owner], now.after(LEASE))).await.unwrap();
                assert_eq!(held.len(), usize::from(holds));
            }
            Call::Release { pick, owner: by } => {
                let Some((number, message)) = self.pick(pick) else { return };
                if message.lease.is_some_and(|(holder, _)| holder == OWNERS[by]) {
                    (message.state, message.lease) = (State::Queued, None);
                    message.journal += 1;
                }
                store.release(vec![id(number)], owner(OWNERS[by]), now).await.unwrap();
            }
            Call::Redrive { pick } => {
                let Some((number, _)) = self.pick(pick) else { return };
                let expected = self.redrive(|other, _| other == number);
                assert_eq!(store.redrive(Selection::Ids(vec![id(number)]), now).await.unwrap(), expected);
            }
            Call::RedriveMatching { route } => {
                let expected = self.redrive(|_, message| message.route == ROUTES[route]);
                let filter = Filter { route: Some(ROUTES[route].to_owned()), ..Filter::default() };
                assert_eq!(store.redrive(Selection::Matching(filter), now).await.unwrap(), expected);
            }
            Call::Discard { pick } => {
                let Some((number, message)) = self.pick(pick) else { return };
                let dead = message.state == State::Dead;
                if dead {
                    (message.state, message.ended, message.turn) = (State::Discarded, Some(now), None);
                }
                self.let_next();
                let discarded = store.discard(Selection::Ids(vec![id(number)]), now).await.unwrap();
                assert_eq!(discarded, u64::from(dead));
            }
            Call::Sweep => {
                let dead = BTreeMap::from([(route(ROUTES[0]), KEEP)]);
                let before = self.messages.len();
                self.messages.retain(|_, message| {
                    let kept_by_route =
                        matches!(message.state, State::Dead | State::Answered) && message.route != ROUTES[0];
                    kept_by_route || message.ended.is_none_or(|ended| now.since(ended) <= KEEP)
                });
                self.let_next();
                let swept = store.sweep(Retention { finished: KEEP, dead }, now, 1000).await.unwrap();
                assert_eq!(swept, (before - self.messages.len()) as u64);
            }
            Call::Wait { seconds } => self.seconds += seconds,
        }
    }

    async fn claim(&mut self, store: &dyn Store, on: &'static str, owner: &'static str, limit: usize) {
        let now = self.now();
        let until = now.after(LEASE);
        let may_be_claimed = |message: &Expected| {
            message.route == on
                && message.turn != Some(Turn::Behind)
                && match (message.state, message.lease) {
                    (State::Queued, _) => message.due <= now,
                    (State::InFlight, Some((_, until))) => until <= now,
                    _ => false,
                }
        };
        let mut due: Vec<_> = self.messages.values().filter(|message| may_be_claimed(message)).map(|m| m.due).collect();
        due.sort_unstable();
        due.truncate(limit);

        let claimed = claim(store, on, limit, now, lease(owner, until)).await;

        let mut dues = Vec::new();
        let mut taken = Vec::new();
        for message in &claimed.messages {
            let (number, expected) = self.messages.iter_mut().find(|(number, _)| id(**number) == message.id).unwrap();
            assert!(may_be_claimed(expected), "{number} was not to be had: {expected:?}");
            dues.push(expected.due);
            taken.push(*number);
            // What may have been attempted under a lease that ran out is written down.
            expected.journal += usize::from(expected.state == State::InFlight);
            (expected.state, expected.lease) = (State::InFlight, Some((owner, until)));
        }
        assert_eq!(dues, due, "the oldest due go first");
        let waits = self
            .messages
            .iter()
            .filter(|(number, m)| m.route == on && m.turn != Some(Turn::Behind) && !taken.contains(number));
        let next = waits.filter_map(|(_, m)| match m.state {
            State::Queued => Some(m.due),
            State::InFlight => m.lease.map(|(_, until)| until),
            _ => None,
        });
        assert_eq!(claimed.next_due.get(on).and_then(NextDue::earliest), next.min());
    }

    async fn check(&self, store: &dyn Store) {
        let mut tally = BTreeMap::new();
        for message in self.messages.values() {
            *tally.entry((message.route.to_owned(), message.state)).or_insert(0_u64) += 1;
        }
        assert_eq!(store.tally().await.unwrap(), tally);
        let mut backlog = BTreeMap::new();
        for message in self.messages.values().filter(|message| message.ended.is_none()) {
            *backlog.entry(message.route.to_owned()).or_insert(0_u64) += 1;
        }
        assert_eq!(store.backlog().await.unwrap(), backlog);
        for (number, message) in &self.messages {
            let Stored { summary, attempts, .. } = stored(store, *number).await;
            let found = (summary.route.as_str(), summary.state, summary.due_at, summary.ended_at, attempts.len());
            let due = message.ended.is_none().then_some(message.due);
            assert_eq!(found, (message.route, message.state, due, message.ended, message.journal), "{number}");
            assert_eq!((summary.order_key.as_deref(), summary.turn), (message.key.map(|k| KEYS[k]), message.turn));
        }
    }
}

fn in_order(acceptance: Acceptance, key: Option<usize>) -> Acceptance {
    Acceptance { order: key.map(|key| KEYS[key].to_owned()), ..acceptance }
}

async fn accept_in_turn(store: &dyn Store, acceptance: Acceptance, turn: Option<Turn>) {
    let expected = if turn == Some(Turn::Behind) { Accepted::Behind } else { Accepted::Stored };
    assert_eq!(store.accept(acceptance).await.unwrap(), expected);
}

/// Makes the calls on an empty store, and checks each against the model.
pub(in crate::store) async fn any_calls_leave_what_the_model_leaves(store: &dyn Store, calls: Vec<Call>) {
    let mut model = Model::default();
    for call in calls {
        model.make(store, call).await;
    }
    model.check(store).await;
}
