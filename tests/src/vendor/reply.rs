//! What a vendor answers: an HTTP answer, or one of the things vendors do instead.

use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// What a vendor answers.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) act: Act,
    pub(super) gate: Option<Gate>,
    pub(super) delay: Duration,
}

/// What is done on the wire.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// A complete HTTP answer.
    Answer { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// These bytes, and then the connection is closed.
    Bytes(Vec<u8>),
    /// An answer whose body is this long.
    Huge(usize),
    /// Silence on an open connection.
    Silence,
}

/// Holds replies back until it is opened.
#[derive(Clone, Debug, Default)]
pub struct Gate(CancellationToken);

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self::default()
    }

    /// Lets every reply behind it out, now and from now on.
    pub fn open(&self) {
        self.0.cancel();
    }

    pub(super) async fn opened(&self) {
        self.0.cancelled().await;
    }
}

/// An answer with this status and no body.
pub fn status(status: u16) -> Reply {
    Reply::new(Act::Answer { status, headers: Vec::new(), body: Vec::new() })
}

/// 200, with a short body.
pub fn ok() -> Reply {
    status(200).body("done")
}

/// An answer with this status and a JSON body.
pub fn json(code: u16, body: &Value) -> Reply {
    status(code).header("content-type", "application/json").body(body.to_string())
}

/// The request is taken, and nothing comes back on a connection that stays open.
pub fn black_hole() -> Reply {
    Reply::new(Act::Silence)
}

/// The request is taken, and the connection is closed without a byte.
pub fn nothing() -> Reply {
    Reply::new(Act::Bytes(Vec::new()))
}

/// Ten bytes of a body that was to have a hundred, and then the connection is closed.
pub fn half_response() -> Reply {
    Reply::new(Act::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of it".to_vec()))
}

/// Bytes that are not HTTP.
pub fn garbage() -> Reply {
    Reply::new(Act::Bytes(b"\x16\x03\x01 what a day \xff\xfe\r\n\r\n".to_vec()))
}

/// 200, with a body of `bytes` bytes, sent as fast as it is read.
pub fn huge(bytes: usize) -> Reply {
    Reply::new(Act::Huge(bytes))
}

impl Reply {
    const fn new(act: Act) -> Self {
        Self { act, gate: None, delay: Duration::ZERO }
    }

    /// And this header field.
    ///
    /// # Panics
    /// When this is no HTTP answer.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        let Act::Answer { headers, .. } = &mut self.act else { panic!("{self:?} has no header") };
        headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// And this body.
    ///
    /// # Panics
    /// When this is no HTTP answer.
    #[must_use]
    pub fn body(mut self, text: impl Into<Vec<u8>>) -> Self {
        let Act::Answer { body, .. } = &mut self.act else { panic!("{self:?} has no body") };
        *body = text.into();
        self
    }

    /// Given only once `gate` is open.
    #[must_use]
    pub fn held_by(self, gate: &Gate) -> Self {
        Self { gate: Some(gate.clone()), ..self }
    }

    /// Given only after so long.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}
