//! A client that writes what it likes: AMQP 0-9-1 byte by byte, where a library would refuse.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{PASSWORD, USER};

/// A connection with an open channel in confirm mode.
pub struct Rough(TcpStream);

/// A short string.
pub fn short(text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(text.len()).expect("at most 255 bytes")];
    bytes.extend_from_slice(text);
    bytes
}

/// A long string, a table or an array: its length, then its inside.
pub fn long(inside: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(inside.len()).expect("not that long").to_be_bytes().to_vec();
    bytes.extend_from_slice(inside);
    bytes
}

/// An array in an array in an array.
pub fn nested(depth: usize) -> Vec<u8> {
    let levels = (0..depth).rev().flat_map(|within| {
        let length = u32::try_from(within * 5).expect("not that long").to_be_bytes();
        [b"A", &length[..]].concat()
    });
    levels.collect()
}

impl Rough {
    /// Connects, logs in and opens a channel.
    pub async fn at(port: u16) -> Self {
        let mut rough = Self(TcpStream::connect(("127.0.0.1", port)).await.expect("a connection"));
        rough.0.write_all(b"AMQP\0\0\x09\x01").await.expect("sent");
        rough.answer([0, 10, 0, 10]).await;
        let login =
            [long(b""), short(b"PLAIN"), long(format!("\0{USER}\0{PASSWORD}").as_bytes()), short(b"en_US")].concat();
        rough.method(0, [0, 10, 0, 11], &login).await;
        rough.answer([0, 10, 0, 30]).await;
        rough.method(0, [0, 10, 0, 31], &[0, 16, 0, 2, 0, 0, 0, 0]).await;
        rough.method(0, [0, 10, 0, 40], &[short(b"/"), short(b""), vec![0]].concat()).await;
        rough.answer([0, 10, 0, 41]).await;
        rough.method(1, [0, 20, 0, 10], &short(b"")).await;
        rough.answer([0, 20, 0, 11]).await;
        rough.method(1, [0, 85, 0, 10], &[0]).await;
        rough.answer([0, 85, 0, 11]).await;
        rough
    }

    /// Publishes, and waits for the broker's confirmation. `properties` are the flags and what they name.
    pub async fn publish(&mut self, exchange: &[u8], routing_key: &[u8], properties: &[u8], body: &[u8]) {
        let publish = [vec![0, 0], short(exchange), short(routing_key), vec![0]].concat();
        self.method(1, [0, 60, 0, 40], &publish).await;
        let length = u64::try_from(body.len()).expect("a length").to_be_bytes();
        self.frame(2, 1, &[&[0, 60, 0, 0], &length[..], properties].concat()).await;
        if !body.is_empty() {
            self.frame(3, 1, body).await;
        }
        self.answer([0, 60, 0, 80]).await;
    }

    async fn method(&mut self, channel: u16, id: [u8; 4], arguments: &[u8]) {
        self.frame(1, channel, &[&id[..], arguments].concat()).await;
    }

    async fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let frame = [&[kind], &channel.to_be_bytes()[..], &long(payload), &[0xce]].concat();
        self.0.write_all(&frame).await.expect("sent");
    }

    /// Waits for the method `id`.
    async fn answer(&mut self, id: [u8; 4]) {
        let mut head = [0; 7];
        self.0.read_exact(&mut head).await.expect("an answer");
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let mut payload = vec![0; usize::try_from(length).expect("a length") + 1];
        self.0.read_exact(&mut payload).await.expect("an answer");
        assert!(payload.starts_with(&id), "{}", String::from_utf8_lossy(&payload));
    }
}
