//! The writing thread on a database of its own, whose commits can be made to fail.

use std::sync::mpsc;

use futures_util::future::join_all;

use super::*;

/// A writer on a table of numbers, in which a number may refer to another one; that it is there is checked by the
/// commit, which fails if it is not.
fn writer(bounds: Bounds) -> (tempfile::TempDir, Writer) {
    let place = tempfile::TempDir::new().unwrap();
    let opened = super::super::opening::open(&place.path().join("numbers.db")).unwrap();
    opened
        .connection
        .execute_batch(
            "CREATE TABLE numbers (n INTEGER PRIMARY KEY,
                                   refers INTEGER REFERENCES numbers (n) DEFERRABLE INITIALLY DEFERRED)",
        )
        .unwrap();
    let writer = Writer::start(opened.connection, opened.lock, bounds).unwrap();
    (place, writer)
}

async fn insert(writer: &Writer, n: i64, refers: Option<i64>) -> Result<(), StoreError> {
    let work = move |connection: &Connection| {
        connection.execute("INSERT INTO numbers (n, refers) VALUES (?1, ?2)", (n, refers))?;
        Ok(())
    };
    writer.run(0, work).await
}

async fn numbers(writer: &Writer) -> Vec<i64> {
    let work = |connection: &Connection| {
        let mut statement = connection.prepare("SELECT n FROM numbers ORDER BY n")?;
        let numbers = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok(numbers)
    };
    writer.run(0, work).await.unwrap()
}

/// Keeps the writer busy until the answer is dropped, so that what comes next waits and shares a group.
fn busy(writer: &Writer) -> (mpsc::Sender<()>, impl Future<Output = Result<(), StoreError>> + '_) {
    let (go_on, wait) = mpsc::channel::<()>();
    let (started, running) = mpsc::channel();
    let (reply, answer) = oneshot::channel();
    let work = move |_: &Connection| {
        let _ = started.send(());
        let _ = wait.recv();
        Ok(())
    };
    writer.enqueue(Box::new(Task { weight: 0, work, result: None, reply })).unwrap();
    running.recv().unwrap();
    (go_on, async { answer.await.unwrap_or_else(|_| Err(closed())) })
}

#[tokio::test]
async fn a_job_that_fails_fails_alone() {
    let (_place, writer) = writer(Bounds::default());
    let (go_on, blocked) = busy(&writer);
    let fails_halfway = |connection: &Connection| {
        connection.execute("INSERT INTO numbers (n) VALUES (2)", [])?;
        connection.execute("INSERT INTO numbers (n) VALUES (1)", [])?;
        Ok(())
    };
    let jobs = async { tokio::join!(insert(&writer, 1, None), writer.run(0, fails_halfway), insert(&writer, 3, None)) };
    let release = async { drop(go_on) };
    let ((first, second, third), blocked, ()) = tokio::join!(jobs, blocked, release);

    assert!(first.is_ok() && third.is_ok() && blocked.is_ok());
    assert!(matches!(second, Err(StoreError::Unavailable(_))));
    assert_eq!(numbers(&writer).await, [1, 3], "what the failing job had done is undone");
}

#[tokio::test]
async fn a_commit_that_fails_fails_its_whole_group_and_no_other() {
    let (_place, writer) = writer(Bounds::default());
    let (go_on, blocked) = busy(&writer);
    let jobs = async { tokio::join!(insert(&writer, 1, None), insert(&writer, 2, Some(99)), insert(&writer, 3, None)) };
    let release = async { drop(go_on) };
    let ((first, second, third), blocked, ()) = tokio::join!(jobs, blocked, release);

    assert!(blocked.is_ok(), "it was in the group before");
    for result in [first, second, third] {
        assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    }
    insert(&writer, 4, None).await.unwrap();
    assert_eq!(numbers(&writer).await, [4]);
}

#[tokio::test]
async fn what_waits_shares_a_commit() {
    let (place, writer) = writer(Bounds::default());
    insert(&writer, -1, None).await.unwrap();
    // Each commit writes every page it changed to the log, once.
    let log_pages = || std::fs::metadata(place.path().join("numbers.db-wal")).unwrap().len() / 4096;
    let before = log_pages();
    let (go_on, _blocked) = busy(&writer);
    let release = async { drop(go_on) };
    let (inserted, ()) = tokio::join!(join_all((0..200).map(|n| insert(&writer, n, None))), release);

    assert!(inserted.iter().all(Result::is_ok));
    let written = log_pages() - before;
    assert!(written < 20, "{written} pages were written for 200 jobs");
}

/// As [`insert()`], for nobody who waits.
async fn insert_in_company(writer: &Writer, n: i64) -> Result<(), StoreError> {
    let work = move |connection: &Connection| {
        connection.execute("INSERT INTO numbers (n) VALUES (?1)", [n])?;
        Ok(())
    };
    writer.run_in_company(work).await
}

#[tokio::test]
async fn what_nobody_waits_for_joins_the_next_commit_that_is_called_for_and_comes_first_in_it() {
    let (_place, writer) = writer(Bounds { patience: Duration::from_secs(600), ..Bounds::default() });
    let lying_by = insert_in_company(&writer, 1);
    // It refers to the one that lies by, and could not be committed without it.
    let (company, called) = tokio::join!(lying_by, insert(&writer, 2, Some(1)));
    company.unwrap();
    called.unwrap();

    let (company, called) = tokio::join!(insert_in_company(&writer, 3), insert(&writer, 4, Some(99)));
    assert!(company.is_err() && called.is_err(), "they share a commit, and its failure");
    assert_eq!(numbers(&writer).await, [1, 2]);
}

#[tokio::test]
async fn what_nobody_waits_for_is_done_when_nothing_else_is() {
    let (_place, writer) = writer(Bounds::default());
    for n in 1..=3 {
        insert_in_company(&writer, n).await.unwrap();
    }
    let (go_on, _blocked) = busy(&writer);
    let release = async { drop(go_on) };
    let (inserted, ()) = tokio::join!(join_all((4..=2000).map(|n| insert_in_company(&writer, n))), release);
    assert!(inserted.iter().all(Result::is_ok), "more than share a commit");
    assert_eq!(numbers(&writer).await.len(), 2000);
}

#[tokio::test]
async fn no_more_may_lie_by_than_may_wait() {
    let (_place, writer) = writer(Bounds { queue: 2, ..Bounds::default() });
    let (go_on, _blocked) = busy(&writer);
    let release = async { drop(go_on) };
    let (inserted, ()) = tokio::join!(join_all((1..=3).map(|n| insert_in_company(&writer, n))), release);
    assert!(matches!(inserted[..], [Ok(()), Ok(()), Err(StoreError::Saturated)]), "{inserted:?}");
}

#[tokio::test]
async fn more_jobs_than_may_wait_are_refused() {
    let (_place, writer) = writer(Bounds { queue: 2, ..Bounds::default() });
    let (go_on, _blocked) = busy(&writer);
    let jobs = async {
        tokio::join!(insert(&writer, 1, None), insert(&writer, 2, None), insert(&writer, 3, None), async {
            drop(go_on)
        })
    };
    let (first, second, third, ()) = jobs.await;
    assert!(first.is_ok() && second.is_ok());
    assert!(matches!(third, Err(StoreError::Saturated)));
    insert(&writer, 4, None).await.unwrap();
}

#[tokio::test]
async fn more_bytes_than_may_wait_are_refused_but_one_large_body_is_not() {
    let (_place, writer) = writer(Bounds { queue_bytes: 100, ..Bounds::default() });
    let (go_on, _blocked) = busy(&writer);
    let nothing = |_: &Connection| Ok(());
    let jobs = async {
        tokio::join!(writer.run(1000, nothing), writer.run(1, nothing), writer.run(0, nothing), async { drop(go_on) })
    };
    let (large, small, empty, ()) = jobs.await;
    assert!(large.is_ok());
    assert!(matches!(small, Err(StoreError::Saturated)));
    assert!(empty.is_ok(), "what carries no body takes no part in this");
    writer.run(100, nothing).await.unwrap();
}

#[tokio::test]
async fn stopping_does_what_waits_first() {
    let (_place, writer) = writer(Bounds::default());
    let (go_on, _blocked) = busy(&writer);
    let stop = async {
        let ending = writer.stop();
        drop(go_on);
        tokio::task::spawn_blocking(move || ending.wait()).await.unwrap()
    };
    let (called, company, stopped) = tokio::join!(insert(&writer, 1, None), insert_in_company(&writer, 2), stop);
    called.unwrap();
    company.unwrap();
    stopped.unwrap();
    assert!(matches!(insert(&writer, 2, None).await, Err(StoreError::Unavailable(_))));
}
