//! Coloured text for a terminal: spans of ink, cut to a width, painted with ANSI codes or without any.

use std::io::Write as _;

/// A colour with a meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ink {
    /// As the terminal has it.
    Plain,
    /// Beside the point.
    Faint,
    /// A heading.
    Bold,
    /// It went well.
    Good,
    /// It is tried again.
    Again,
    /// Answered in the destination's stead, or led another way.
    Instead,
    /// New credentials, a hold: the host helps itself.
    Host,
    /// It failed for good.
    Bad,
}

impl Ink {
    /// The ANSI code that begins it.
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Faint => "\x1b[2m",
            Self::Bold => "\x1b[1m",
            Self::Good => "\x1b[32m",
            Self::Again => "\x1b[33m",
            Self::Instead => "\x1b[35m",
            Self::Host => "\x1b[36m",
            Self::Bad => "\x1b[31m",
        }
    }
}

/// One line of coloured text.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Line(Vec<(Ink, String)>);

impl Line {
    /// An empty line.
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// A line of one ink.
    pub(super) fn of(ink: Ink, text: impl Into<String>) -> Self {
        Self::new().then(ink, text)
    }

    /// This line, with more text at its end. What came from outside cannot steer the terminal: control characters
    /// are replaced.
    #[must_use]
    pub(super) fn then(mut self, ink: Ink, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.contains(char::is_control) {
            text = text.replace(char::is_control, "\u{fffd}");
        }
        self.0.push((ink, text));
        self
    }

    /// This line, with another at its end.
    #[must_use]
    pub(super) fn append(mut self, other: &Self) -> Self {
        self.0.extend(other.0.iter().cloned());
        self
    }

    /// The text, cut to `width` columns (a character counts as one); with ANSI codes if `coloured`.
    pub(super) fn paint(&self, width: usize, coloured: bool) -> String {
        let length: usize = self.0.iter().map(|(_, text)| text.chars().count()).sum();
        // The last column is given up for a sign that there is more.
        let mut left = if length > width { width.saturating_sub(1) } else { width };
        let mut painted = String::new();
        for (ink, text) in &self.0 {
            let shown: String = text.chars().take(left).collect();
            left -= shown.chars().count();
            if shown.is_empty() {
                continue;
            }
            let code = if coloured { ink.code() } else { "" };
            painted.push_str(code);
            painted.push_str(&shown);
            if !code.is_empty() {
                painted.push_str("\x1b[0m");
            }
        }
        if length > width && width > 0 {
            painted.push('…');
        }
        painted
    }
}

/// Where lines are printed: standard output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paper {
    /// Whether it shows colours.
    pub(super) coloured: bool,
    /// Columns; what does not fit is cut.
    pub(super) width: usize,
}

impl Paper {
    /// A file, a pipe, or whatever else is no terminal.
    pub(super) const PLAIN: Self = Self { coloured: false, width: usize::MAX };

    /// Prints a line. Standard output may be gone, and then there is nobody to tell.
    pub(super) fn say(&self, line: &Line) {
        let _ = writeln!(std::io::stdout(), "{}", line.paint(self.width, self.coloured));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_to_its_width_whatever_its_colours() {
        let line = Line::of(Ink::Bad, "seven").then(Ink::Plain, " 503 → retry");
        assert_eq!(line.paint(80, false), "seven 503 → retry");
        assert_eq!(line.paint(11, false), "seven 503 …");
        assert_eq!(line.paint(11, true), "\x1b[31mseven\x1b[0m 503 …");
        assert_eq!(line.paint(0, true), "");
    }

    #[test]
    fn what_a_vendor_says_cannot_steer_the_terminal() {
        assert_eq!(Line::of(Ink::Plain, "a\x1b[2Jb\n").paint(80, true), "a\u{fffd}[2Jb\u{fffd}");
    }
}
