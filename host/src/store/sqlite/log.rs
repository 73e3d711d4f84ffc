//! The write-ahead log, looked through before SQLite reads it.
//!
//! SQLite follows the log for as long as its checksums agree, and leaves the rest: that may be what a power cut left of
//! a commit that nobody was told of. Damage in the middle looks the same to it, and every commit behind it would be
//! gone without a word. The two can be told apart, because a commit is on disk before the next one is begun: where two
//! sound commits lie behind the place at which the checksums break off, at least one of them had been promised to
//! somebody. Damage to the last two commits cannot be told from a power cut. This holds as long as a log goes through
//! one power cut at most, since the end of what the first one broke off may lie behind what the second one does: so
//! each start begins a new log (`opening.rs`).

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

/// The first word of a log, whose last bit says in which order the checksums take bytes.
const MAGIC: u32 = 0x377f_0682;
const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// The largest page SQLite knows, in bytes.
const LARGEST_PAGE: usize = 64 << 10;
/// So many sound commits behind a break are proof of damage.
const PROOF: usize = 2;

/// Where the log of the database at `path` is damaged, in bytes from its beginning; none when it is sound, empty, or
/// not there.
///
/// # Errors
/// When it cannot be read.
pub(super) fn damage(path: &Path) -> io::Result<Option<u64>> {
    match File::open(path) {
        Ok(log) => look_through(BufReader::with_capacity(1 << 20, log)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn look_through(mut log: impl Read) -> io::Result<Option<u64>> {
    let mut header = [0; HEADER];
    if !fills(&mut log, &mut header)? {
        return Ok(None);
    }
    let (magic, page_size, salts) = (word(&header, 0), word(&header, 8) as usize, word_pair(&header, 16));
    let order = if magic & 1 == 1 { u32::from_be_bytes } else { u32::from_le_bytes };
    let begun = sum(order, (0, 0), &header[..24]);
    let is_header = magic & !1 == MAGIC && page_size <= LARGEST_PAGE && begun == word_pair(&header, 24);
    if !is_header {
        // A header is on disk before its first frame; where there never was one, there are only zeros.
        return Ok((header != [0; HEADER]).then_some(0));
    }
    let (mut before, mut at, mut broken_at, mut commits_behind) = (begun, HEADER as u64, None, 0);
    let (mut frame, mut page) = ([0; FRAME_HEADER], vec![0; page_size]);
    while commits_behind < PROOF && fills(&mut log, &mut frame)? && fills(&mut log, &mut page)? {
        // Each checksum goes on from the one before, as it is written there: so a frame is judged without those in
        // front of the last.
        let (written, is_of_this_log) = (word_pair(&frame, 16), word_pair(&frame, 8) == salts);
        let is_sound = is_of_this_log && sum(order, sum(order, before, &frame[..8]), &page) == written;
        match (broken_at, is_sound) {
            (None, false) => broken_at = Some(at),
            (Some(_), true) if word(&frame, 4) != 0 => commits_behind += 1,
            _ => {}
        }
        before = written;
        at += (FRAME_HEADER + page_size) as u64;
    }
    Ok(broken_at.filter(|_| commits_behind >= PROOF))
}

/// Reads until `buffer` is full; false when the log ends before that.
fn fills(log: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The big-endian word at `from`; zero beyond the end.
fn word(bytes: &[u8], from: usize) -> u32 {
    bytes.get(from..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_be_bytes(*four))
}

fn word_pair(bytes: &[u8], from: usize) -> (u32, u32) {
    (word(bytes, from), word(bytes, from + 4))
}

/// SQLite's checksum of `bytes`, a multiple of eight, going on from `before`.
fn sum(order: fn([u8; 4]) -> u32, before: (u32, u32), bytes: &[u8]) -> (u32, u32) {
    bytes.as_chunks().0.chunks_exact(2).fold(before, |(first, second), pair| match pair {
        [one, two] => {
            let first = first.wrapping_add(order(*one)).wrapping_add(second);
            (first, second.wrapping_add(order(*two)).wrapping_add(first))
        }
        _ => (first, second),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use rusqlite::Connection;

    use super::*;

    const PAGE: usize = 4096;
    const FRAME: usize = FRAME_HEADER + PAGE;

    /// The log of ten commits, as SQLite writes it, and where each ends.
    fn ten_commits() -> (Vec<u8>, Vec<usize>) {
        static TEN_COMMITS: LazyLock<(Vec<u8>, Vec<usize>)> = LazyLock::new(make_ten_commits);
        TEN_COMMITS.clone()
    }

    fn make_ten_commits() -> (Vec<u8>, Vec<usize>) {
        let place = tempfile::TempDir::new().unwrap();
        let file = place.path().join("numbers.db");
        let connection = Connection::open(&file).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        connection.execute_batch("CREATE TABLE numbers (n INTEGER PRIMARY KEY, text TEXT)").unwrap();
        let log = || std::fs::read(place.path().join("numbers.db-wal")).unwrap();
        let mut ends = vec![log().len()];
        for n in 1..10_u32 {
            connection.execute("INSERT INTO numbers VALUES (?1, ?2)", (n, "long ".repeat(500 * n as usize))).unwrap();
            ends.push(log().len());
        }
        (log(), ends)
    }

    fn damage_in(log: &[u8]) -> Option<u64> {
        look_through(log).unwrap()
    }

    #[test]
    fn a_log_is_sound_however_much_of_it_had_come_to_disk() {
        let (log, _) = ten_commits();
        for end in (0..=log.len()).step_by(512) {
            assert_eq!(damage_in(&log[..end]), None, "cut off at {end}");
        }
        let mut unwritten = log.clone();
        unwritten[HEADER..].fill(0);
        assert_eq!(damage_in(&unwritten), None, "made longer, and never written");
        assert_eq!(damage_in(&vec![0; log.len()]), None);
    }

    #[test]
    fn what_an_earlier_round_left_behind_is_no_damage() {
        let (mut log, ends) = ten_commits();
        // Another round has other salts.
        for frame in (ends[4]..log.len()).step_by(FRAME) {
            log[frame + 8] ^= 1;
        }
        assert_eq!(damage_in(&log), None);
    }

    proptest! {
        #[test]
        fn a_byte_changed_in_front_of_the_last_two_commits_is_damage(at in 0_usize..1 << 20, bit in 0_u8..8) {
            let (mut log, ends) = ten_commits();
            let at = at % ends[7];
            log[at] ^= 1_u8 << bit;
            let frame = at.checked_sub(HEADER).map_or(0, |at| HEADER + at / FRAME * FRAME);
            prop_assert_eq!(damage_in(&log), Some(frame as u64));
        }

        #[test]
        fn a_power_cut_in_a_commit_is_no_damage(at in 0_usize..1 << 20) {
            let (mut log, ends) = ten_commits();
            // Of the last commit any page may be missing, for no commit came after it.
            let at = ends[8] + at % (log.len() - ends[8]);
            log[at] ^= 0xff;
            prop_assert_eq!(damage_in(&log), None);
        }
    }
}
