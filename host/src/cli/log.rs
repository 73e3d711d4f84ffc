//! Log lines go to standard error through a bounded channel and a thread of their own, so that a slow reader of the
//! log never holds a message up. When the channel is full, lines are lost, and a line says how many.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::amqp::LOUD;

/// Lines that may wait to be written.
const WAITING: usize = 16 * 1024;
/// How long lines gather after some have been written.
const GATHERED_FOR: Duration = Duration::from_millis(5);
/// How long the end of a command waits for the log to be read.
const FLUSHED_WITHIN: Duration = Duration::from_secs(2);

/// The log's writer.
pub(super) struct Log {
    lines: SyncSender<Line>,
    /// Closed when the last line is written.
    written: Receiver<()>,
}

enum Line {
    Text(Vec<u8>),
    End,
}

#[derive(Clone)]
struct Channel {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

/// Starts logging; `quiet` (for commands that draw on the terminal) keeps all but errors away.
///
/// # Errors
/// When `filter` is not one.
pub(super) fn start(json: bool, filter: &str, quiet: bool) -> anyhow::Result<Log> {
    let filter = if quiet && filter == "info" { "off" } else { filter };
    let filter_text = filter;
    let mut filter =
        EnvFilter::builder().parse(filter).with_context(|| format!("--log-level {filter:?} is not a filter"))?;
    // These would write bodies and passwords, and a directive for a part of them would be heeded before ours.
    if ["lapin", "amq_protocol"].iter().any(|loud| filter_text.contains(loud)) {
        anyhow::bail!("--log-level {filter_text:?}: lapin and amq_protocol write passwords, and are never logged");
    }
    for loud in LOUD {
        filter = filter.add_directive(loud.parse()?);
    }
    let (lines, waiting) = sync_channel(WAITING);
    let lost = Arc::new(AtomicU64::new(0));
    let channel = Channel { lines: lines.clone(), lost: Arc::clone(&lost) };
    let (writing, written) = sync_channel(0);
    std::thread::Builder::new().name("log".to_owned()).spawn(move || {
        write(&waiting, &lost);
        drop(writing);
    })?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(channel);
    if json {
        subscriber.json().flatten_event(true).with_ansi(false).init();
    } else {
        subscriber.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init();
    }
    Ok(Log { lines, written })
}

impl Log {
    /// Writes out what waits, unless nobody reads it: the log must not keep the host from stopping.
    pub(super) fn flush(self) {
        if self.lines.try_send(Line::End).is_ok() {
            let _ = self.written.recv_timeout(FLUSHED_WITHIN);
        }
    }
}

fn write(waiting: &Receiver<Line>, lost: &AtomicU64) {
    let mut out = io::BufWriter::new(io::stderr());
    while let Ok(first) = waiting.recv() {
        // What waits together is written together.
        for line in std::iter::once(first).chain(waiting.try_iter()) {
            match line {
                // Standard error may be gone; there is nowhere left to say so.
                Line::Text(text) => drop(out.write_all(&text)),
                Line::End => {
                    let _ = out.flush();
                    return;
                }
            }
        }
        let missed = lost.swap(0, Ordering::Relaxed);
        if missed > 0 {
            let _ = writeln!(out, "{missed} log lines were lost: standard error is read too slowly");
        }
        let _ = out.flush();
        // Waking this thread costs whoever logs more than the line itself: under load it is woken for many at once.
        std::thread::park_timeout(GATHERED_FOR);
    }
}

impl<'a> MakeWriter<'a> for Channel {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl io::Write for Channel {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Line::Text(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
