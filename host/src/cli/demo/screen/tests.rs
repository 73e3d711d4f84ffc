//! The picture fits, whatever the terminal.

use super::super::board::tests::{board, event, record};
use super::*;

fn painted(board: &Board, width: usize, height: usize) -> Vec<String> {
    picture(board, Size { width, height }).iter().map(|line| line.paint(width, false)).collect()
}

fn busy() -> Board {
    let mut board = board();
    board.elapsed = Duration::from_secs(5);
    for number in 1..100 {
        board.elapsed += Duration::from_secs(1);
        board.note(&event(record("billing", number, 400, "retry", Some(2000))));
    }
    board.elapsed = Duration::from_secs(5);
    board.alarms.insert("billing".to_owned(), "all is lost".to_owned());
    if let Some(row) = board.row_mut("search") {
        (row.sent, row.open, row.held) = (12, 3, Some(Duration::from_millis(1400)));
    }
    board
}

#[test]
fn the_picture_at_a_hundred_by_fourteen() {
    let mut board = busy();
    board.latest.drain(..58);
    assert_eq!(
        painted(&board, 100, 14),
        [
            " backstop demo  ━━━━━━┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄  5.0s of 20s  sending  12 sent  3 waiting",
            "",
            " route         policy         sent tries deliv. waiting fallback dead dropped  last",
            " billing       vendor-codes      0     0      0       0        0    0       0  400 → retry",
            " search        (built in)       12     0      0       3        0    0       0  ",
            "",
            " hold   search        destination held for 1.4s more: nothing is sent there until then",
            " alarm  billing       all is lost",
            " the latest of what failed, and what was done about it",
            "103.0s  billing        #98 400 Bad Request → retry in 2.0s  reason of 400",
            "104.0s  billing        #99 400 Bad Request → retry in 2.0s  reason of 400",
            "",
            "",
            " Ctrl-C ends it early, with a summary",
        ],
    );
}

#[test]
fn it_fits_whatever_the_terminal() {
    let board = busy();
    for (width, height) in [(100, 30), (80, 24), (40, 10), (200, 60), (1, 1), (0, 0)] {
        let lines = painted(&board, width, height);
        assert!(lines.len() <= height, "{} lines at {width}x{height}", lines.len());
        assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}x{height}");
    }
}

#[test]
fn the_newest_events_are_those_that_are_seen() {
    let lines = painted(&busy(), 100, 30);
    assert!(lines.iter().any(|line| line.contains("#99")));
    assert!(!lines.iter().any(|line| line.contains("#50 ")));
}
