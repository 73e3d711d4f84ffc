//! Watching: the host's feed and API are followed until every message has ended, time is up, or somebody has seen
//! enough; what happens is drawn, or told line by line.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::clock::{Clock, Stopwatch, SystemClock};
use crate::dispatch::HostClient;
use crate::engine::Engine;
use crate::message::RouteName;
use crate::watch::Event;

use super::asking::{self, AlarmNow, RouteNow};
use super::board::{Board, Pace, wait};
use super::ink::{Ink, Line, Paper};
use super::screen::{Screen, Size};
use super::traffic::Traffic;

/// How often the screen is drawn and the host asked.
const FRAME: Duration = Duration::from_millis(200);
/// How often a line tells how things stand, where there is no screen.
const STATUS: Duration = Duration::from_secs(2);
/// The share of the time in which messages are sent; the rest is for those that wait.
pub(super) const SENDING: f64 = 0.6;

/// How what happens is shown.
pub(super) enum View {
    /// Redrawn in place.
    Screen(Screen),
    /// Line by line.
    Plain,
}

impl View {
    /// How much of what happens is told: a screen may scroll faster than a log should grow.
    pub(super) fn pace(&self) -> Pace {
        match self {
            Self::Screen(_) => Pace { per_second: 8.0, gap: Duration::from_millis(600) },
            Self::Plain => Pace { per_second: 4.0, gap: Duration::from_secs(2) },
        }
    }

    fn tell(&self, line: Option<&Line>) {
        if let (Self::Plain, Some(line)) = (self, line) {
            Paper::PLAIN.say(line);
        }
    }
}

/// SIGINT and SIGTERM.
pub(super) struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    /// Listens from now on.
    pub(super) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("failed to listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Returns with the next of them.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What is watched.
pub(super) struct Watching<'a> {
    /// The host.
    pub(super) engine: &'a Engine,
    /// Its admin API.
    pub(super) admin: &'a HostClient,
    /// What is sent to it.
    pub(super) traffic: &'a Traffic,
    /// The host's feed, from before the first message.
    pub(super) feed: Receiver<Arc<Event>>,
    /// Since the first message.
    pub(super) since: Stopwatch,
}

impl Watching<'_> {
    /// Watches until the end. Answers whether somebody ended it early.
    pub(super) async fn run(
        mut self,
        board: &mut Board,
        view: &mut View,
        interrupt: &mut Interrupt,
    ) -> anyhow::Result<bool> {
        let mut resized = signal(SignalKind::window_change()).context("failed to listen for signals")?;
        let mut next_frame = SystemClock.now();
        let mut next_status = STATUS;
        loop {
            tokio::select! {
                event = self.feed.recv() => {
                    board.elapsed = self.since.elapsed();
                    match event {
                        Ok(event) => view.tell(board.note(&event).as_ref()),
                        Err(RecvError::Lagged(missed)) => board.missed += missed,
                        // The host is gone, and the API will say so.
                        Err(RecvError::Closed) => SystemClock.sleep(FRAME).await,
                    }
                }
                () = SystemClock.sleep_until(next_frame) => {
                    next_frame = SystemClock.now().after(FRAME);
                    if self.look(board, view).await? {
                        return Ok(false);
                    }
                    if matches!(view, View::Plain) && board.elapsed >= next_status {
                        next_status += STATUS;
                        Paper::PLAIN.say(&status(board));
                    }
                }
                _ = resized.recv() => if let View::Screen(screen) = view {
                    screen.size = Size::of_terminal().await;
                },
                () = interrupt.next() => return Ok(true),
            }
        }
    }

    /// Looks at everything once, and shows it. Answers whether this is the end.
    async fn look(&self, board: &mut Board, view: &View) -> anyhow::Result<bool> {
        board.elapsed = self.since.elapsed();
        if board.sending && board.elapsed >= board.whole.mul_f64(SENDING) {
            board.sending = false;
            self.traffic.stop();
            let line = board.announce(Ink::Bold, "(demo)", "no more is sent; what waits goes on");
            view.tell(Some(&line));
        }
        // Asked before the host is: a message answered after that may still be waiting.
        let answered = self.traffic.is_answered();
        let now = asking::now(self.admin).await?;
        self.take_in(board, &now.routes, view);
        take_in_alarms(board, &now.alarms, view);
        if let View::Screen(screen) = view {
            screen.draw(board);
        }
        let waiting = now.routes.iter().any(|route| route.open > 0);
        // The alarm is given the time to clear: its end belongs to the story.
        let story_is_over = answered && !waiting && board.alarms.is_empty();
        Ok(story_is_over || board.elapsed >= board.whole)
    }

    fn take_in(&self, board: &mut Board, routes: &[RouteNow], view: &View) {
        for now in routes {
            let held = now.held_until.and_then(asking::left_until);
            let Some(row) = board.row_mut(&now.route) else { continue };
            let new = held.is_some() && row.held.is_none();
            (row.open, row.held) = (now.open, held);
            if let Ok(name) = RouteName::new(&now.route) {
                row.totals = self.engine.watch.totals(&name);
            }
            if new && let Some(held) = held {
                let text = format!("destination held for {}: nothing is sent there until then", wait(held));
                view.tell(Some(&board.announce(Ink::Host, &now.route, &text)));
            }
        }
        for (route, sent) in self.traffic.sent() {
            if let Some(row) = board.row_mut(route) {
                row.sent = sent;
            }
        }
    }
}

fn take_in_alarms(board: &mut Board, alarms: &[AlarmNow], view: &View) {
    let mut firing = BTreeMap::new();
    for alarm in alarms.iter().filter(|alarm| alarm.firing) {
        let (rate, threshold) = (alarm.error_rate * 100.0, alarm.threshold * 100.0);
        let text = format!("{rate:.0}% of the latest attempts failed; the threshold is {threshold:.0}%");
        firing.insert(alarm.route.clone(), text);
    }
    let before = std::mem::replace(&mut board.alarms, firing.clone());
    for (route, text) in firing.iter().filter(|(route, _)| !before.contains_key(*route)) {
        view.tell(Some(&board.announce(Ink::Bad, route, &format!("ALARM: {text}; the pager is told"))));
    }
    for route in before.keys().filter(|route| !firing.contains_key(*route)) {
        view.tell(Some(&board.announce(Ink::Good, route, "alarm cleared; the pager is told")));
    }
}

/// How things stand, in a line.
fn status(board: &Board) -> Line {
    let (sent, open) = board.sent_and_open();
    let sum = |of: fn(&crate::watch::Totals) -> u64| board.rows.iter().map(|row| of(&row.totals)).sum::<u64>();
    Line::of(
        Ink::Bold,
        format!(
            "{:5.1}s  {sent} sent: {} delivered, {} answered, {} dead, {} dropped; {open} waiting; {} attempts",
            board.elapsed.as_secs_f64(),
            sum(|totals| totals.delivered),
            sum(|totals| totals.answered),
            sum(|totals| totals.dead),
            sum(|totals| totals.dropped),
            sum(|totals| totals.attempts),
        ),
    )
}
