//! As much HTTP/1.1 as a load generator and a sink need, written by hand: it costs a fraction of what the contestants
//! pay for theirs, so that they are what is measured.
//!
//! Only messages with a `Content-Length` (or none, which means no body) are read; anything else is an error.

use std::io;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// The length of a message's body: 1 KiB.
pub(crate) const BODY: usize = 1024;
/// How many digits a message's number has, and where they stand in its body.
const DIGITS: usize = 16;
const PREFIX: &[u8] = b"{\"id\":\"";

/// A body of 1 KiB of JSON that says which message it is.
pub(crate) fn body(number: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(BODY);
    body.extend_from_slice(PREFIX);
    body.extend_from_slice(format!("{number:0DIGITS$}\",\"padding\":\"").as_bytes());
    body.resize(BODY - 2, b'x');
    body.extend_from_slice(b"\"}");
    body
}

/// Which message a body is of.
pub(crate) fn number(body: &[u8]) -> Option<usize> {
    let digits = body.strip_prefix(PREFIX)?.get(..DIGITS)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Reads one message after another from a connection.
pub(crate) struct Reader {
    buffer: Vec<u8>,
    from: usize,
    to: usize,
}

/// Where a message lies in its reader's buffer.
pub(crate) struct Head {
    start: usize,
    body: usize,
    end: usize,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; 16 * 1024], from: 0, to: 0 }
    }

    /// Reads the next message whole; none when the connection ended before one began.
    pub(crate) async fn next(&mut self, stream: &mut TcpStream) -> io::Result<Option<Head>> {
        let mut searched = self.from;
        let body = loop {
            let unread = self.buffer.get(searched..self.to).unwrap_or_default();
            if let Some(at) = unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break searched + at + 4;
            }
            searched = self.to.saturating_sub(3).max(self.from);
            let before = self.from;
            if !self.more(stream).await? {
                return if self.to == self.from { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            // What was read so far may have moved to the front.
            searched -= before - self.from;
        };
        let head = self.buffer.get(self.from..body).unwrap_or_default();
        let mut wanted = body - self.from + content_length(head)?;
        let length_of_head = body - self.from;
        while self.to - self.from < wanted {
            if !self.more(stream).await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        wanted += self.from;
        let head = Head { start: self.from, body: self.from + length_of_head, end: wanted };
        self.from = wanted;
        Ok(Some(head))
    }

    async fn more(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        } else if self.to == self.buffer.len() {
            if self.from > 0 {
                self.buffer.copy_within(self.from..self.to, 0);
                (self.from, self.to) = (0, self.to - self.from);
            } else {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
        }
        let room = self.buffer.get_mut(self.to..).unwrap_or_default();
        let read = stream.read(room).await?;
        self.to += read;
        Ok(read > 0)
    }

    /// The path of a request.
    pub(crate) fn path(&self, head: &Head) -> &[u8] {
        let line = self.buffer.get(head.start..head.body).unwrap_or_default();
        line.split(|byte| *byte == b' ').nth(1).unwrap_or_default()
    }

    /// The status of a response; 0 when it cannot be read.
    pub(crate) fn status(&self, head: &Head) -> u16 {
        let digits = self.buffer.get(head.start + 9..head.start + 12).unwrap_or_default();
        std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    /// The body.
    pub(crate) fn body(&self, head: &Head) -> &[u8] {
        self.buffer.get(head.body..head.end).unwrap_or_default()
    }
}

fn content_length(head: &[u8]) -> io::Result<usize> {
    const LENGTH: &[u8] = b"content-length:";
    for line in head.split(|byte| *byte == b'\n') {
        if line.get(..LENGTH.len()).is_some_and(|name| name.eq_ignore_ascii_case(LENGTH)) {
            let value = line.get(LENGTH.len()..).unwrap_or_default().trim_ascii();
            let value = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            return value.ok_or_else(|| io::ErrorKind::InvalidData.into());
        }
        if line.get(..18).is_some_and(|name| name.eq_ignore_ascii_case(b"transfer-encoding:")) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a chunked body"));
        }
    }
    Ok(0)
}
