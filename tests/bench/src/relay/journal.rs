//! The durable relay's file: one write when a message comes, one when it has gone, each in a commit that everything
//! that waits shares.

use std::path::Path;

use bytes::Bytes;
use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};

/// Writes waiting, and writes in one commit: as with Backstop's own store.
const WAITING: usize = 8192;
const GROUP: usize = 512;

/// A handle to the thread that writes.
#[derive(Clone)]
pub(super) struct Journal(mpsc::Sender<Write>);

enum Write {
    Accept(Bytes, oneshot::Sender<i64>),
    Delivered(i64, oneshot::Sender<()>),
}

enum Reply {
    Accepted(oneshot::Sender<i64>, i64),
    Delivered(oneshot::Sender<()>),
}

impl Journal {
    /// Makes the file and starts the thread.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch("CREATE TABLE messages (number INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT")?;
        let (writes, waiting) = mpsc::channel(WAITING);
        std::thread::Builder::new().name("journal".to_owned()).spawn(move || {
            if let Err(error) = serve(&connection, waiting) {
                eprintln!("the journal failed: {error}");
            }
        })?;
        Ok(Self(writes))
    }

    /// Writes a message down; answers its number once it is on disk.
    pub(super) async fn accept(&self, body: Bytes) -> Option<i64> {
        let (reply, number) = oneshot::channel();
        self.0.send(Write::Accept(body, reply)).await.ok()?;
        number.await.ok()
    }

    /// Forgets a message that was delivered.
    pub(super) async fn delivered(&self, number: i64) {
        let (reply, done) = oneshot::channel();
        if self.0.send(Write::Delivered(number, reply)).await.is_ok() {
            let _ = done.await;
        }
    }
}

fn serve(connection: &Connection, mut waiting: mpsc::Receiver<Write>) -> rusqlite::Result<()> {
    let mut replies = Vec::with_capacity(GROUP);
    while let Some(first) = waiting.blocking_recv() {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut next = Some(first);
        while let Some(write) = next {
            replies.push(match write {
                Write::Accept(body, reply) => {
                    let mut insert = connection.prepare_cached("INSERT INTO messages (body) VALUES (?1)")?;
                    insert.execute(params![&body[..]])?;
                    Reply::Accepted(reply, connection.last_insert_rowid())
                }
                Write::Delivered(number, reply) => {
                    connection.prepare_cached("DELETE FROM messages WHERE number = ?1")?.execute([number])?;
                    Reply::Delivered(reply)
                }
            });
            next = if replies.len() < GROUP { waiting.try_recv().ok() } else { None };
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        for reply in replies.drain(..) {
            match reply {
                Reply::Accepted(reply, number) => drop(reply.send(number)),
                Reply::Delivered(reply) => drop(reply.send(())),
            }
        }
    }
    Ok(())
}
