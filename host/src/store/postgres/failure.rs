//! What goes wrong between this host and the database, and what follows from it.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::clocks::Apart;
use crate::store::StoreError;

/// Why a call failed. Never quotes a row or a password.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The server answered with an error. Its `DETAIL` is left out: it may quote a row.
    #[error("the database refused: {message} ({})", .code.code())]
    Refused { code: SqlState, message: String },
    /// No answer, or none that was understood.
    #[error("cannot talk to the database")]
    Lost(#[source] Arc<tokio_postgres::Error>),
    /// No answer in time.
    #[error("the database did not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// It was just found to be away, and is not asked again yet.
    #[error("the database is away: {0}")]
    Away(String),
    /// What it holds cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// This host's clock is too far from the database's.
    #[error(
        "this host's clock is {apart} the database's, and a third of `lease`, {most:?}, is what hosts that share it may \
         differ by: nothing is claimed until the clocks agree"
    )]
    ClocksApart { apart: Apart, most: Duration },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl Failure {
    /// Whether the same transaction, repeated, may well succeed at once: another one was in its way.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Refused { code, .. }
            if *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED)
    }

    /// Whether it is about what was asked (a value, a constraint), so that asking without that may succeed.
    pub(super) fn is_about_a_row(&self) -> bool {
        match self {
            Self::Refused { code, .. } => matches!(code.code().get(..2), Some("22" | "23" | "40" | "54")),
            Self::Unusable(_) => true,
            _ => false,
        }
    }

    /// Whether the connection can go on being used. A statement that was cancelled or refused leaves it in order.
    pub(super) fn spares_connection(&self) -> bool {
        match self {
            Self::Refused { code, .. } => {
                *code == SqlState::QUERY_CANCELED
                    || matches!(code.code().get(..2), Some("22" | "23" | "40" | "54" | "55"))
            }
            Self::Unusable(_) | Self::ClocksApart { .. } => true,
            _ => false,
        }
    }

    /// Whether it is certain that nothing was changed. When a connection breaks during a commit, it is not.
    pub(super) fn is_certain(&self) -> bool {
        match self {
            Self::Refused { code, .. } => !matches!(code.code().get(..2), Some("08" | "57" | "58" | "XX")),
            Self::Lost(_) | Self::Late(_) => false,
            Self::Away(_) | Self::Unusable(_) | Self::ClocksApart { .. } | Self::Closed => true,
        }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(refused) => Self::Refused { code: refused.code().clone(), message: refused.message().to_owned() },
            None => Self::Lost(Arc::new(error)),
        }
    }
}

/// A value that cannot be read back.
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unusable(reason) => Self::Unusable(reason),
            other => Self::Away(other.to_string()),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unusable(reason) => Self::Unusable(reason),
            other => Self::Unavailable(Box::new(other)),
        }
    }
}
