//! The live screen: the board, redrawn in place a few times a second.
//!
//! Drawing is a pure function of the board and the terminal's size; only [`Screen`] writes. It uses the terminal's
//! second screen, and gives the first one back, cursor and all, whatever happens.

use std::io::{self, Write as _};
use std::process::Stdio;
use std::time::Duration;

use super::board::{Board, Row, wait};
use super::ink::{Ink, Line};

/// What is assumed of a terminal that does not say.
const SIZE: Size = Size { width: 100, height: 30 };

/// A terminal's size, in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Size {
    /// Columns.
    pub(super) width: usize,
    /// Lines.
    pub(super) height: usize,
}

impl Size {
    /// The size of the terminal at our standard input, as `stty` tells it.
    pub(super) async fn of_terminal() -> Self {
        let stty =
            tokio::process::Command::new("stty").arg("size").stdin(Stdio::inherit()).stderr(Stdio::null()).output();
        let said = stty.await.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let mut figures = said.split_whitespace().filter_map(|figure| figure.parse().ok()).filter(|figure| *figure > 0);
        match (figures.next(), figures.next()) {
            (Some(height), Some(width)) => Self { width, height },
            _ => SIZE,
        }
    }
}

/// The terminal, while it is ours.
pub(super) struct Screen {
    /// Its size.
    pub(super) size: Size,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn take(size: Size) -> Self {
        // The second screen, without a cursor. Where standard output is gone there is nobody to draw for.
        let _ = write_all("\x1b[?1049h\x1b[?25l\x1b[2J");
        Self { size }
    }

    /// Draws the board.
    pub(super) fn draw(&self, board: &Board) {
        // One write, shown at once where the terminal can do that; each line is overwritten rather than cleared.
        let mut frame = String::from("\x1b[?2026h\x1b[H");
        for (index, line) in picture(board, self.size).iter().enumerate() {
            if index > 0 {
                frame.push_str("\r\n");
            }
            frame.push_str(&line.paint(self.size.width, true));
            frame.push_str("\x1b[K");
        }
        frame.push_str("\x1b[J\x1b[?2026l");
        let _ = write_all(&frame);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = write_all("\x1b[?25h\x1b[?1049l");
    }
}

fn write_all(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The board as lines that fill, and fit, a terminal of this size.
pub(super) fn picture(board: &Board, size: Size) -> Vec<Line> {
    let mut lines = vec![headline(board, size.width), Line::new(), heading(size.width)];
    lines.extend(board.rows.iter().map(|row| line_of(row, size.width)));
    lines.push(Line::new());
    for row in &board.rows {
        if let Some(held) = row.held {
            let text = format!("destination held for {} more: nothing is sent there until then", wait(held));
            lines.push(Line::of(Ink::Host, format!(" hold   {:<14}", row.route)).then(Ink::Host, text));
        }
    }
    for (route, text) in &board.alarms {
        lines.push(Line::of(Ink::Bad, format!(" alarm  {route:<14}{text}")));
    }
    // Room is kept for two of these, so that the events below do not jump with each.
    while lines.len() < board.rows.len() + 6 {
        lines.push(Line::new());
    }
    let room = size.height.saturating_sub(lines.len() + 2);
    if room > 0 {
        lines.push(Line::of(Ink::Faint, " the latest of what failed, and what was done about it"));
        let skip = board.latest.len().saturating_sub(room);
        lines.extend(board.latest.iter().skip(skip).cloned());
        while lines.len() + 1 < size.height {
            lines.push(Line::new());
        }
        lines.push(Line::of(Ink::Faint, " Ctrl-C ends it early, with a summary"));
    }
    lines.truncate(size.height);
    lines
}

fn headline(board: &Board, width: usize) -> Line {
    let (sent, open) = board.sent_and_open();
    let phase = match board.sending {
        true => "sending",
        false if open == 0 && !board.alarms.is_empty() => "waiting for the alarm to clear",
        false => "draining",
    };
    let bar = bar(board.elapsed, board.whole, if width >= 90 { 24 } else { 10 });
    Line::of(Ink::Bold, " backstop demo  ")
        .then(Ink::Host, bar)
        .then(Ink::Plain, format!("  {:.1}s of {:.0}s  ", board.elapsed.as_secs_f64(), board.whole.as_secs_f64()))
        .then(if board.sending { Ink::Good } else { Ink::Again }, format!("{phase}  "))
        .then(Ink::Bold, format!("{sent} sent  "))
        .then(Ink::Plain, format!("{open} waiting"))
}

fn bar(elapsed: Duration, whole: Duration, width: usize) -> String {
    let share = if whole.is_zero() { 1.0 } else { (elapsed.as_secs_f64() / whole.as_secs_f64()).clamp(0.0, 1.0) };
    // Cast: the share is 0 to 1, the width a few columns.
    let filled = (share * width as f64).round() as usize;
    format!("{}{}", "━".repeat(filled), "┄".repeat(width - filled))
}

/// Columns of the table: heading, figure and ink.
type Column = (&'static str, fn(&Row) -> u64, Ink);

const COLUMNS: [Column; 7] = [
    ("sent", |row| row.sent, Ink::Bold),
    ("tries", |row| row.totals.attempts, Ink::Plain),
    ("deliv.", |row| row.totals.delivered, Ink::Good),
    ("waiting", |row| row.open, Ink::Again),
    ("fallback", |row| row.totals.answered + row.totals.rerouted, Ink::Instead),
    ("dead", |row| row.totals.dead, Ink::Bad),
    ("dropped", |row| row.totals.dropped, Ink::Bad),
];

/// Whether there is room for the policies' names.
const fn shows_policies(width: usize) -> bool {
    width >= 96
}

fn heading(width: usize) -> Line {
    let mut text = format!(" {:<14}", "route");
    if shows_policies(width) {
        text.push_str(&format!("{:<14}", "policy"));
    }
    for (name, ..) in COLUMNS {
        text.push_str(&format!("{name:>wide$}", wide = name.len() + 1));
    }
    text.push_str("  last");
    Line::of(Ink::Faint, text)
}

fn line_of(row: &Row, width: usize) -> Line {
    let mut line = Line::of(Ink::Bold, format!(" {:<14}", row.route));
    if shows_policies(width) {
        line = line.then(Ink::Faint, format!("{:<14}", row.policy.as_deref().unwrap_or("(built in)")));
    }
    for (name, of, ink) in COLUMNS {
        let figure = of(row);
        let ink = if figure == 0 { Ink::Faint } else { ink };
        line = line.then(ink, format!("{figure:>wide$}", wide = name.len() + 1));
    }
    line.then(Ink::Plain, "  ").append(&row.last)
}

#[cfg(test)]
mod tests;
