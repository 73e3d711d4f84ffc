//! Requests read off a connection, replies written onto it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backstop::clock::{Clock, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Received;
use super::reply::{Act, Reply};

/// One connection.
pub(super) struct Wire {
    stream: TcpStream,
    /// Read, and not used yet.
    ahead: Vec<u8>,
}

impl Wire {
    pub(super) const fn new(stream: TcpStream) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    /// The next request; none when the other side has closed the connection.
    pub(super) async fn request(&mut self) -> io::Result<Option<Received>> {
        let head_end = loop {
            if let Some(end) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if !self.read_more().await? {
                return Ok(None);
            }
        };
        let head: Vec<u8> = self.ahead.drain(..head_end + 4).take(head_end).collect();
        let mut request = parse(&head);
        let length = request.all("content-length").first().and_then(|text| text.parse().ok()).unwrap_or(0);
        while self.ahead.len() < length {
            if !self.read_more().await? {
                return Ok(None);
            }
        }
        request.body = self.ahead.drain(..length).collect();
        Ok(Some(request))
    }

    /// Gives `reply`, counting what is sent of a huge one; false when that ended the connection.
    pub(super) async fn give(&mut self, reply: Reply, huge_sent: &AtomicU64) -> io::Result<bool> {
        if let Some(gate) = &reply.gate {
            gate.opened().await;
        }
        if !reply.delay.is_zero() {
            SystemClock.sleep(reply.delay).await;
        }
        match reply.act {
            Act::Answer { status, headers, body } => {
                let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                let length = body.len();
                let head = format!("HTTP/1.1 {status} As Scripted\r\n{fields}content-length: {length}\r\n\r\n");
                self.stream.write_all(&[head.as_bytes(), &body].concat()).await?;
                Ok(true)
            }
            Act::Bytes(bytes) => {
                self.stream.write_all(&bytes).await?;
                self.stream.shutdown().await?;
                Ok(false)
            }
            Act::Huge(length) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
                self.stream.write_all(head.as_bytes()).await?;
                let chunk = [b'x'; 64 * 1024];
                let mut left = length;
                while left > 0 {
                    let now = left.min(chunk.len());
                    self.stream.write_all(&chunk[..now]).await?;
                    left -= now;
                    huge_sent.fetch_add(now as u64, Ordering::Relaxed);
                }
                Ok(true)
            }
            Act::Silence => {
                while self.read_more().await? {}
                Ok(false)
            }
        }
    }

    /// False at the end of what the other side sends.
    async fn read_more(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.ahead).await? > 0)
    }
}

/// Takes a header section apart. The host writes it, so it is well-formed; a mistake shows as an odd request.
fn parse(head: &[u8]) -> Received {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let mut words = first.split(' ').map(str::to_owned);
    let field = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        let value = value[1..].trim_ascii().to_vec();
        Some((String::from_utf8_lossy(name).to_ascii_lowercase(), value))
    };
    Received {
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        headers: lines.filter_map(field).collect(),
        body: Vec::new(),
        at: Duration::ZERO,
    }
}
