//! What is told, and what is not.

use super::*;
use crate::clock::Timestamp;
use crate::message::{MessageId, OutcomeSummary, Provenance};

pub(in super::super) fn record(
    route: &str,
    number: u32,
    status: u16,
    then: &str,
    delay_ms: Option<u64>,
) -> AttemptRecord {
    AttemptRecord {
        number,
        route: route.to_owned(),
        started_at: Timestamp::from_millis(0),
        latency_ms: 1,
        outcome: OutcomeSummary { status: Some(status), ..OutcomeSummary::default() },
        verdict: if then == "delivered" { VerdictKind::Accept } else { VerdictKind::Retry },
        reason: format!("reason of {status}"),
        delay_ms,
        transition: then.to_owned(),
        clamped: Vec::new(),
        withheld: None,
        provenance: Provenance::default(),
    }
}

pub(in super::super) fn event(record: AttemptRecord) -> Event {
    Event::Attempt { message: MessageId::new(Timestamp::from_millis(0)), record }
}

pub(in super::super) fn board() -> Board {
    let routes = [("billing".to_owned(), Some("vendor-codes".to_owned())), ("search".to_owned(), None)];
    let pace = Pace { per_second: 4.0, gap: Duration::from_secs(1) };
    Board::new(routes.into_iter(), Duration::from_secs(20), pace)
}

fn text(line: Option<Line>) -> String {
    line.map(|line| line.paint(200, false)).unwrap_or_default()
}

#[test]
fn a_failure_is_told_with_its_reason_and_what_follows() {
    let mut board = board();
    board.elapsed = Duration::from_millis(12_340);
    let told = board.note(&event(record("billing", 2, 400, "retry", Some(2000))));
    assert_eq!(text(told), " 12.3s  billing        #2  400 Bad Request → retry in 2.0s  reason of 400");
}

#[test]
fn what_goes_well_at_once_is_not_news_and_what_goes_well_at_last_is() {
    let mut board = board();
    assert_eq!(board.note(&event(record("billing", 1, 200, "delivered", None))), None);
    assert!(text(board.note(&event(record("billing", 3, 200, "delivered", None)))).contains("delivered at attempt 3"));
    assert_eq!(board.rows[0].last.paint(80, false), "200 → delivered");
}

#[test]
fn a_kind_is_told_at_once_and_then_no_oftener_than_can_be_read() {
    let mut board = board();
    let mut told = |seconds: f64| {
        board.elapsed = Duration::from_secs_f64(seconds);
        board.note(&event(record("billing", 1, 503, "retry", Some(10)))).is_some()
    };
    assert!(told(1.0));
    assert!(!told(1.5));
    assert!(told(2.1));
    // Another kind does not wait for its turn.
    assert!(board.note(&event(record("search", 1, 503, "retry", Some(10)))).is_some());
    assert_eq!(board.untold, 1);
}

#[test]
fn every_failure_is_counted_told_or_not() {
    let mut board = board();
    for _ in 0..1000 {
        board.note(&event(record("billing", 1, 503, "retry", Some(10))));
    }
    let counts: Vec<(u64, &str)> =
        board.failures.values().map(|failure| (failure.count, failure.reason.as_str())).collect();
    assert_eq!(counts, [(1000, "reason of 503")]);
    assert_eq!(board.latest.len(), 1);
}
