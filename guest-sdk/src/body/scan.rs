//! Reading one value of a JSON body where it lies, and passing over the rest of the body at nearly the speed of memory.
//!
//! A reader on demand: it checks what it goes through (the keys and commas on the way to the value, the value itself)
//! and trusts what it passes over, of which it looks at quotes and brackets only. So it can say what stands in a body
//! that is cut short or broken further on, and it cannot say that a body is JSON; [`json_pointer`](super::json_pointer)
//! can. It never recurses and keeps nothing, however deep or long a body is.

use std::borrow::Cow;

use super::block::{Block, Strings, position, position_of_either, same};

/// The value that `pointer` leads to, as it is written. Of several equal keys the first counts: what comes after the
/// value is not read.
pub(super) fn find<'a>(body: &'a [u8], pointer: &str) -> Option<&'a [u8]> {
    let mut cursor = Cursor { rest: body };
    cursor.pass_space();
    let has_escapes = position(pointer.as_bytes(), b'~').is_some();
    let mut left = pointer;
    while !left.is_empty() {
        let steps = left.strip_prefix('/')?;
        let end = position(steps.as_bytes(), b'/').unwrap_or(steps.len());
        let (step, further) = steps.split_at_checked(end)?;
        if has_escapes {
            cursor.enter(&step.replace("~1", "/").replace("~0", "~"))?;
        } else {
            cursor.enter(step)?;
        }
        left = further;
    }
    if pointer.is_empty() && !matches!(cursor.rest, [b'"' | b'{' | b'[', ..]) {
        // Alone, a number has no end but the body's.
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let end = cursor.rest.iter().rposition(|byte| !is_blank(byte))?;
        return cursor.rest.get(..=end);
    }
    cursor.pass_value()
}

/// The text that a JSON string holds; none for any other value.
pub(super) fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    let [b'"', raw @ .., b'"'] = value else { return None };
    if position(raw, b'\\').is_some() {
        return serde_json::from_slice(value).ok().map(Cow::Owned);
    }
    // JSON has no control characters inside a string.
    let is_clean = raw.iter().fold(true, |clean, byte| clean & (*byte >= b' '));
    std::str::from_utf8(raw).ok().filter(|_| is_clean).map(Cow::Borrowed)
}

/// What is still to be read. After a `None` it stands anywhere, and is not used any more.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    #[inline]
    fn pass_space(&mut self) {
        // Most JSON has none.
        if self.rest.first().is_none_or(|byte| *byte <= b' ') {
            self.pass_blanks();
        }
    }

    fn pass_blanks(&mut self) {
        while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// Goes past this byte, if it is the next but for blanks, and the blanks after it.
    #[inline]
    fn pass_sign(&mut self, byte: u8) -> Option<()> {
        self.pass_space();
        self.pass(byte)?;
        self.pass_space();
        Some(())
    }

    /// Goes past this byte, if it is the next.
    #[inline]
    fn pass(&mut self, byte: u8) -> Option<()> {
        let (next, rest) = self.rest.split_first()?;
        self.rest = rest;
        (*next == byte).then_some(())
    }

    /// From a container to the value in it that a step leads to.
    fn enter(&mut self, step: &str) -> Option<()> {
        match self.rest.first()? {
            b'{' => self.enter_object(step),
            b'[' => self.enter_array(step),
            _ => None,
        }
    }

    fn enter_object(&mut self, wanted: &str) -> Option<()> {
        self.pass(b'{')?;
        self.pass_space();
        loop {
            let key = self.pass_string()?;
            self.pass_sign(b':')?;
            if is_key(key, wanted) {
                return Some(());
            }
            self.pass_member()?;
        }
    }

    fn enter_array(&mut self, step: &str) -> Option<()> {
        let is_index = step.bytes().all(|byte| byte.is_ascii_digit()) && (step.len() == 1 || !step.starts_with('0'));
        let index = step.parse::<usize>().ok().filter(|_| is_index)?;
        self.pass(b'[')?;
        self.pass_space();
        for _ in 0..index {
            self.pass_member()?;
        }
        Some(())
    }

    /// Goes past a value that others follow, to the next of them.
    #[inline]
    fn pass_member(&mut self) -> Option<()> {
        self.pass_value()?;
        self.pass_sign(b',')
    }

    /// Goes past a value within a container, and returns it as it is written.
    #[inline]
    fn pass_value(&mut self) -> Option<&'a [u8]> {
        match self.rest.first()? {
            b'"' => self.pass_string(),
            b'{' => self.pass_container(b'{', b'}'),
            b'[' => self.pass_container(b'[', b']'),
            _ => self.pass_scalar(),
        }
    }

    /// Goes past a number or a word. What ends it must be there: in a body that is cut short, `17` may have been `172`.
    fn pass_scalar(&mut self) -> Option<&'a [u8]> {
        let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
        let end = self.rest.iter().position(is_end).filter(|length| *length > 0)?;
        self.pass_bytes(end)
    }

    /// Goes past a string, and returns it with its quotes.
    fn pass_string(&mut self) -> Option<&'a [u8]> {
        let [b'"', raw @ ..] = self.rest else { return None };
        let mut at = 0;
        loop {
            let rest = raw.get(at..)?;
            let found = position_of_either(rest, b'"', b'\\')?;
            if rest.get(found) == Some(&b'"') {
                return self.pass_bytes(at + found + 2);
            }
            // The backslash, and what it escapes.
            at += found + 2;
        }
    }

    /// Goes past an object or an array, and returns it. Brackets of the other kind are taken to be in order.
    fn pass_container(&mut self, opening: u8, closing: u8) -> Option<&'a [u8]> {
        let mut strings = Strings::default();
        let mut rest = self.rest;
        let mut passed = 0;
        let mut depth = 0_u32;
        while !rest.is_empty() {
            let (block, further) = Block::first_of(rest);
            let outside = !strings.inside(&block);
            let opened = block.equal_to(opening) & outside;
            let closed = block.equal_to(closing) & outside;
            let ends = closed.count_ones();
            if ends >= depth {
                // It may end here: after each bracket that closes, is another one open?
                let mut left = closed;
                for count in 1..=ends {
                    let at = left.trailing_zeros();
                    left &= left.wrapping_sub(1);
                    let before = opened & 1_u64.checked_shl(at)?.wrapping_sub(1);
                    if depth + before.count_ones() <= count {
                        return self.pass_bytes(passed + usize::try_from(at).ok()? + 1);
                    }
                }
            }
            // No more than the bytes read, of which there are fewer than 2³².
            depth = (depth + opened.count_ones()).checked_sub(ends)?;
            passed += Block::LENGTH;
            rest = further;
        }
        None
    }

    #[inline]
    fn pass_bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (passed, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(passed)
    }
}

/// Whether a key, as it is written, is the one that is wanted.
#[inline]
fn is_key(key: &[u8], wanted: &str) -> bool {
    match key {
        [b'"', raw @ .., b'"'] if same(raw, wanted.as_bytes()) => position(raw, b'\\').is_none(),
        _ => {
            key.len() > wanted.len() + 2
                && position(key, b'\\').is_some()
                && text(key).is_some_and(|text| text == wanted)
        }
    }
}

#[cfg(test)]
mod tests;
