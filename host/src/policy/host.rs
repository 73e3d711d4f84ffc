//! What a guest is given while it answers one question: a notebook (`log`) and what it may ask about the message
//! (`attribute`). Both cost it fuel by the byte, so that work done on its behalf is bounded like its own.

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use wasmtime::{StoreContextMut, Trap};

use super::sandbox::Growth;
use crate::message::{LogLevel, LogLine, Message};

/// Lines kept of one question.
const LOG_LINES: usize = 32;

/// Bytes kept of one line.
const LOG_LINE: usize = 512;

/// Fuel that a call to the host costs besides a unit per byte.
const CALL_COST: usize = 100;

/// The host as one instance sees it.
pub(super) struct Host {
    /// The bound on its memory.
    pub(super) growth: Growth,
    /// The message being decided, if the question is about one.
    pub(super) about: Option<Message>,
    log: Vec<LogLine>,
    lines_dropped: u32,
}

impl Host {
    pub(super) const fn new(growth: Growth) -> Self {
        Self { growth, about: None, log: Vec::new(), lines_dropped: 0 }
    }

    /// Keeps a line, within the bounds.
    pub(super) fn log(&mut self, level: LogLevel, text: String) {
        if self.log.len() >= LOG_LINES {
            self.lines_dropped = self.lines_dropped.saturating_add(1);
            return;
        }
        self.log.push(LogLine { level, text: one_line(text, LOG_LINE) });
    }

    /// What the contract's `attribute` answers for `key`.
    pub(super) fn attribute(&self, key: &str) -> Option<String> {
        let message = self.about.as_ref()?;
        match key {
            "message-id" => Some(message.id.to_string()),
            "route" => Some(message.route.to_string()),
            "method" => Some(message.request.method.to_string()),
            "path" => Some(path(message).to_owned()),
            "idempotency-key" => message.idempotency_key.clone(),
            _ => {
                let name: HeaderName = key.strip_prefix("header:")?.parse().ok()?;
                // Credentials of the caller's never enter the sandbox.
                if name == AUTHORIZATION || name == PROXY_AUTHORIZATION || name == COOKIE {
                    return None;
                }
                let value = message.request.headers.get(name)?;
                Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
            }
        }
    }

    /// Takes the lines of the question just answered, with a last one that says how many were dropped.
    pub(super) fn take_log(&mut self) -> Vec<LogLine> {
        let mut log = std::mem::take(&mut self.log);
        let dropped = std::mem::take(&mut self.lines_dropped);
        if dropped > 0 {
            log.push(LogLine { level: LogLevel::Warn, text: format!("{dropped} more lines were dropped") });
        }
        log
    }
}

/// The path below the route, with its leading slash.
pub(super) fn path(message: &Message) -> &str {
    if message.request.path.is_empty() { "/" } else { &message.request.path }
}

/// Charges a guest for `bytes` that the host handles on its behalf.
///
/// # Errors
/// The trap for spent fuel, when it has not so much left.
pub(super) fn charge(store: &mut StoreContextMut<'_, Host>, bytes: usize) -> wasmtime::Result<()> {
    let cost = u64::try_from(bytes.saturating_add(CALL_COST)).unwrap_or(u64::MAX);
    match store.get_fuel()?.checked_sub(cost) {
        Some(left) => store.set_fuel(left),
        None => {
            store.set_fuel(0)?;
            Err(Trap::OutOfFuel.into())
        }
    }
}

/// Cuts `text` to at most `limit` bytes, at a character's boundary.
pub(super) fn truncate(text: &mut String, limit: usize) {
    text.truncate(text.floor_char_boundary(limit));
}

/// One line of at most `limit` bytes: control characters, which could forge a log line, become spaces.
pub(super) fn one_line(mut text: String, limit: usize) -> String {
    truncate(&mut text, limit);
    // U+0080 to U+009F are 0xC2 and a second byte. Nearly every text is seen to be harmless without decoding it.
    let suspect = text.bytes().fold(false, |suspect, byte| suspect | (byte < b' ') | (byte == 0x7f) | (byte == 0xc2));
    if suspect && text.contains(char::is_control) { text.replace(char::is_control, " ") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_between_characters_and_cannot_forge_another() {
        assert_eq!(one_line("grün\nERROR forged".to_owned(), 256), "grün ERROR forged");
        assert_eq!(one_line("a\u{85}b\u{7f}c §".to_owned(), 256), "a b c §", "U+0085 breaks a line, too");
        assert_eq!(one_line("grün".to_owned(), 3), "gr", "the two bytes of the third letter do not fit");
    }

    #[test]
    fn more_lines_than_are_kept_are_counted() {
        let mut host = Host::new(Growth::up_to(0));
        for n in 0..40 {
            host.log(LogLevel::Info, format!("{n}{}", "x".repeat(1000)));
        }
        let log = host.take_log();
        assert_eq!(log.len(), LOG_LINES + 1);
        assert!(log.iter().all(|line| line.text.len() <= LOG_LINE));
        assert_eq!(log.last().map(|line| line.text.as_str()), Some("8 more lines were dropped"));
        assert!(host.take_log().is_empty(), "the next question starts with an empty notebook");
    }
}
