//! What the broker sends, made into what lapin can bear.
//!
//! The broker hands on what publishers wrote, and lapin reads it with a parser that calls itself for every level of
//! nesting (twenty thousand levels in one header end the whole process for want of stack) and gives the connection up
//! over a name that is not UTF-8 (the message is delivered again after the reconnection, for ever). Neither may be
//! within a publisher's power. So the frames that carry names and headers are looked over before lapin sees them: names
//! that are not UTF-8 get a `?` for each byte outside of ASCII, and a header table that cannot be read is replaced by
//! one of the same length with nothing but [`UNREADABLE`] in it. Bodies pass untouched.

use std::io;

use super::table::{is_readable, make_text};

/// The one header of a message whose own could not be read.
pub(crate) const UNREADABLE: &str = "broker-headers-unreadable";

/// The longest frame of names and headers, in bytes. RabbitMQ takes none above 128 KiB unless it is set to; more than
/// this ends the connection.
const LONGEST: usize = 4 * 1024 * 1024;

/// Frame types (AMQP 0-9-1 §2.3.5).
const METHOD: u8 = 1;
const HEADER: u8 = 2;

/// A frame's type, channel and length: what comes before its payload.
const HEAD: usize = 7;

/// Looks frames over, however they are cut into pieces.
#[derive(Default)]
pub(super) struct Scrubber {
    /// A frame that has not come whole; empty while one of another type passes.
    frame: Vec<u8>,
    /// How much of the present frame passes as it is.
    passing: usize,
    /// What may be taken, from `taken` on.
    ready: Vec<u8>,
    taken: usize,
}

impl Scrubber {
    /// Takes what has been looked over; answers how many bytes.
    pub(super) fn take(&mut self, into: &mut [u8]) -> usize {
        let ready = self.ready.get(self.taken..).unwrap_or_default();
        let length = ready.len().min(into.len());
        if let (Some(into), Some(ready)) = (into.get_mut(..length), ready.get(..length)) {
            into.copy_from_slice(ready);
        }
        self.taken += length;
        if self.taken >= self.ready.len() {
            self.ready.clear();
            self.taken = 0;
        }
        length
    }

    /// Looks at what has come.
    ///
    /// # Errors
    /// When a frame to be looked over is longer than 4 MiB.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let wanted = if self.passing > 0 { self.passing } else { self.missing()? };
            let (now, later) = bytes.split_at(wanted.min(bytes.len()));
            bytes = later;
            if self.passing > 0 {
                self.passing -= now.len();
                self.ready.extend_from_slice(now);
                continue;
            }
            self.frame.extend_from_slice(now);
            if now.len() == wanted {
                self.look();
            }
        }
        Ok(())
    }

    /// How many bytes of the present frame, or of its head, are still to come.
    fn missing(&self) -> io::Result<usize> {
        match self.payload_length() {
            None => Ok(HEAD - self.frame.len()),
            Some(length) if length > LONGEST => Err(io::Error::other("the broker sent too long a frame")),
            Some(length) => Ok(HEAD + length + 1 - self.frame.len()),
        }
    }

    /// The length of the present frame's payload, once its head has come.
    fn payload_length(&self) -> Option<usize> {
        let length = self.frame.get(3..HEAD)?.try_into().ok().map(u32::from_be_bytes)?;
        Some(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// The head has come, or the whole frame.
    fn look(&mut self) {
        let Some(length) = self.payload_length() else { return };
        let kind = self.frame.first().copied().unwrap_or_default();
        let is_looked_over = matches!(kind, METHOD | HEADER);
        if is_looked_over && self.frame.len() == HEAD {
            return;
        }
        if is_looked_over {
            let payload = self.frame.get_mut(HEAD..HEAD + length).unwrap_or_default();
            // What is too short to be read is left to lapin to refuse.
            let _ = if kind == METHOD { scrub_delivery(payload) } else { scrub_header(payload) };
        } else {
            self.passing = length.saturating_add(1);
        }
        self.ready.append(&mut self.frame);
    }
}

/// `basic.deliver`: consumer tag, delivery tag, redelivered, exchange, routing key. Other methods are left alone.
fn scrub_delivery(method: &mut [u8]) -> Option<()> {
    const DELIVER: [u8; 4] = [0, 60, 0, 60];
    if method.get(..4)? != DELIVER {
        return Some(());
    }
    let rest = scrub_short(method.get_mut(4..)?)?;
    let rest = rest.get_mut(9..)?;
    let rest = scrub_short(rest)?;
    scrub_short(rest).map(drop)
}

/// A content header: class, weight, body size, flags, then the properties that the flags name, in order.
fn scrub_header(header: &mut [u8]) -> Option<()> {
    let flags = header.get(12..14)?.try_into().ok().map(u16::from_be_bytes)?;
    let mut rest = header.get_mut(14..)?;
    for property in 0..14_u32 {
        if flags & (0x8000 >> property) == 0 {
            continue;
        }
        rest = match property {
            2 => scrub_table(rest)?,
            3 | 4 => rest.get_mut(1..)?,
            9 => rest.get_mut(8..)?,
            _ => scrub_short(rest)?,
        };
    }
    Some(())
}

/// Makes a short string UTF-8; answers what follows it.
fn scrub_short(bytes: &mut [u8]) -> Option<&mut [u8]> {
    let (length, rest) = bytes.split_first_mut()?;
    let (text, rest) = rest.split_at_mut_checked(usize::from(*length))?;
    make_text(text);
    Some(rest)
}

/// Makes a table readable; answers what follows it.
fn scrub_table(bytes: &mut [u8]) -> Option<&mut [u8]> {
    let (length, rest) = bytes.split_first_chunk_mut::<4>()?;
    let (table, rest) = rest.split_at_mut_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    if !is_readable(table) {
        replace(table);
    }
    Some(rest)
}

/// Fills `table` with one header of its whole length.
fn replace(table: &mut [u8]) {
    // A name and its length, the type and the length of a string; too short a table has room for its padding only.
    let overhead = 1 + UNREADABLE.len() + 1 + 4;
    let Some(room) = table.len().checked_sub(overhead) else { return fill_short(table) };
    let mut one = Vec::with_capacity(table.len());
    one.push(u8::try_from(UNREADABLE.len()).unwrap_or(u8::MAX));
    one.extend_from_slice(UNREADABLE.as_bytes());
    one.push(b'S');
    one.extend_from_slice(&u32::try_from(room).unwrap_or(u32::MAX).to_be_bytes());
    one.resize(table.len(), b' ');
    table.copy_from_slice(&one);
}

/// Fills a table that is too short for a header of any worth: entries without name or value, two bytes each, and one of
/// three bytes if the length is odd. (No table is a single byte long that could be read; lapin then refuses it.)
fn fill_short(table: &mut [u8]) {
    let odd = table.len() % 2 == 1;
    let (first, pairs) = table.split_at_mut(if odd { table.len().min(3) } else { 0 });
    if let [length, name, kind] = first {
        (*length, *name, *kind) = (1, b'?', b'V');
    }
    for pair in pairs.chunks_exact_mut(2) {
        if let [length, kind] = pair {
            (*length, *kind) = (0, b'V');
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::table::DEPTH;
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, 1], &length[..], payload, &[0xce]].concat()
    }

    /// A content header with nothing but headers.
    fn header(table: &[u8]) -> Vec<u8> {
        let length = u32::try_from(table.len()).unwrap().to_be_bytes();
        frame(HEADER, &[&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0], &length[..], table].concat())
    }

    /// What comes out when `pieces` go in, taken a few bytes at a time.
    fn scrubbed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let (mut scrubber, mut out, mut few) = (Scrubber::default(), Vec::new(), [0; 5]);
        for piece in pieces {
            scrubber.feed(piece).unwrap();
            loop {
                let taken = scrubber.take(&mut few);
                if taken == 0 {
                    break;
                }
                out.extend_from_slice(&few[..taken]);
            }
        }
        out
    }

    /// `levels` arrays, each in the one before.
    fn nested(levels: u32) -> Vec<u8> {
        let arrays = (0..levels).rev().flat_map(|within| [b"A", &(within * 5).to_be_bytes()[..]].concat());
        [&[1, b'a'][..], &arrays.collect::<Vec<u8>>()].concat()
    }

    #[test]
    fn what_is_as_it_should_be_passes_byte_for_byte() {
        let depth = u32::try_from(DEPTH).unwrap() - 1;
        for table in [&b""[..], b"\x01at\x01\x00S\x00\x00\x00\x02\xff\xff\x01bV", &nested(depth)] {
            assert_eq!(scrubbed([&header(table)[..]]), header(table));
        }
        let body = frame(3, b"\xff\xff");
        let heartbeat = frame(8, b"");
        assert_eq!(scrubbed([&body[..], &heartbeat, &body]), [&body[..], &heartbeat, &body].concat());
    }

    #[test]
    fn a_table_that_cannot_be_read_becomes_one_that_can_of_the_same_length() {
        for table in
            [nested(u32::try_from(DEPTH).unwrap()), nested(20_000), b"\x01a?".to_vec(), b"\x05a".to_vec(), vec![9; 77]]
        {
            let mut frame = scrubbed([&header(&table)[..]]);
            assert_eq!(frame.len(), header(&table).len());
            let mut inside = frame.split_off(HEAD + 18);
            inside.pop();
            assert!(is_readable(&mut inside), "{table:?} became {inside:?}");
            assert_ne!(inside, table);
        }
    }

    #[test]
    fn a_frame_of_headers_without_end_is_refused() {
        let mut scrubber = Scrubber::default();
        assert!(scrubber.feed(&[HEADER, 0, 1, 0xff, 0xff, 0xff, 0xff, 0]).is_err());
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_same_comes_out(
            frames in prop::collection::vec((0_u8..9, prop::collection::vec(any::<u8>(), 0..60)), 0..6),
            cuts in prop::collection::vec(1_usize..20, 1..40),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(kind, payload)| frame(*kind, payload)).collect();
            let mut rest = &bytes[..];
            let mut pieces = Vec::new();
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                pieces.push(now);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            let whole = scrubbed([&bytes[..]]);
            prop_assert_eq!(whole.len(), bytes.len());
            prop_assert_eq!(scrubbed(pieces), whole);
        }

        #[test]
        fn whatever_a_table_is_lapin_can_read_what_becomes_of_it(table in prop::collection::vec(any::<u8>(), 2..80)) {
            let mut frame = scrubbed([&header(&table)[..]]);
            let mut inside = frame.split_off(HEAD + 18);
            inside.pop();
            prop_assert!(is_readable(&mut inside));
            let long = [&u32::try_from(inside.len()).unwrap().to_be_bytes()[..], &inside].concat();
            prop_assert!(lapin::types::parsing::parse_field_table(&long[..]).is_ok());
        }
    }
}
