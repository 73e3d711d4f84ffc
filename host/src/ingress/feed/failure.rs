//! What goes wrong between a feed and its table.

use std::time::Duration;

use super::unreadable::Unreadable;

/// Why a table could not be read. Never quotes a row or a password.
#[derive(Debug, thiserror::Error)]
pub enum FeedFailure {
    /// TLS cannot be set up.
    #[error("failed to set up TLS: {0}")]
    Tls(String),
    /// The server answered with an error. Its `DETAIL` is left out: it may quote a row.
    #[error("the database refused: {message} ({code})")]
    Refused {
        /// The SQLSTATE.
        code: String,
        /// Its own words.
        message: String,
    },
    /// No connection, no answer, or none that was understood.
    #[error("cannot talk to the database")]
    Lost(#[source] tokio_postgres::Error),
    /// No answer in time.
    #[error("the database did not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// A row's data cannot be read. The server's words are left out: they may quote it.
    #[error("a row cannot be read: {0}")]
    Unreadable(Unreadable),
    /// So many rows in a row cannot be read that it is not their own fault.
    #[error(
        "{rows} rows in a row were put aside, and the next one cannot be read either: {why}. What writes them as JSON is \
         to be mended (a cast, perhaps); if it is the rows after all, start the host again to put as many more aside"
    )]
    NothingReadable {
        /// How many were put aside.
        rows: u32,
        /// What is wrong with the next one.
        why: Unreadable,
    },
    /// The table cannot be fed from.
    #[error("{0}")]
    Unfit(String),
    /// A task of the feed ended where it must not have.
    #[error("a reader broke off")]
    BrokeOff,
}

impl From<tokio_postgres::Error> for FeedFailure {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(refused) => {
                Self::Refused { code: refused.code().code().to_owned(), message: refused.message().to_owned() }
            }
            None => Self::Lost(error),
        }
    }
}
