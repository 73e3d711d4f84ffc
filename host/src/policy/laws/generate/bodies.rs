//! Bodies: none, text, JSON made of the policy's words, and what nobody should ever send.

use bytes::Bytes;
use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::super::dictionary::Dictionary;

/// How deep the JSON goes that is made of words.
const DEPTH: usize = 4;

/// Makes bodies of at most a byte more than `limit`: so that one is cut short now and then.
pub(super) struct Bodies<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) words: &'a Dictionary,
    pub(super) limit: usize,
}

impl Bodies<'_> {
    /// Some body.
    pub(super) fn body(&mut self) -> Bytes {
        if self.limit == 0 {
            return Bytes::new();
        }
        let body = match self.rng.u8(..64) {
            0..8 => Vec::new(),
            8..20 => self.text().into_bytes(),
            20..32 => self.value(DEPTH).to_string().into_bytes(),
            32..52 => self.pointed().to_string().into_bytes(),
            52..57 => self.cut_short(),
            57..60 => self.no_utf8(),
            60..63 => self.nested(64).into_bytes(),
            _ => self.huge(),
        };
        self.within(body)
    }

    /// A body like `known`, with something changed.
    pub(super) fn varied(&mut self, known: &Bytes) -> Bytes {
        let Ok(mut value) = serde_json::from_slice::<Value>(known) else { return self.body() };
        if self.limit == 0 || known.len() > (4 << 10) {
            return self.body();
        }
        self.change(&mut value);
        self.within(value.to_string().into_bytes())
    }

    fn within(&self, mut body: Vec<u8>) -> Bytes {
        body.truncate(self.limit.saturating_add(1));
        body.into()
    }

    fn text(&mut self) -> String {
        let words: Vec<&str> = (0..self.rng.u8(1..8)).map(|_| self.words.word(self.rng)).collect();
        match self.rng.u8(..4) {
            0 => format!("<html><body><h1>{}</h1></body></html>", words.join(" ")),
            1 => words.join("\n").to_uppercase(),
            _ => words.join(" "),
        }
    }

    /// JSON made of words, objects at most so deep.
    fn value(&mut self, depth: usize) -> Value {
        match self.rng.u8(..16) {
            0 if depth > 0 => self.everything(),
            1..6 if depth > 0 => {
                let size = self.rng.usize(0..8);
                Value::Object((0..size).map(|_| (self.word(), self.value(depth - 1))).collect())
            }
            6..8 if depth > 0 => {
                let size = self.rng.usize(0..4);
                (0..size).map(|_| self.value(depth - 1)).collect()
            }
            8 => self
                .rng
                .choice([json!(0), json!(1), json!(-1), json!(429), json!(u64::MAX), json!(1.5)])
                .unwrap_or_default(),
            9 => self
                .rng
                .choice([json!(null), json!(true), json!(false), json!(""), json!({}), json!([])])
                .unwrap_or_default(),
            10 => json!("grün\u{0}\u{7f}\"\\½ 錯誤"),
            _ => Value::String(self.word()),
        }
    }

    /// An object that has, as far as there is room, every word for a key.
    fn everything(&mut self) -> Value {
        let most = (self.limit / 64).clamp(1, 64);
        let keys = self.words.several(self.rng, most);
        Value::Object(keys.into_iter().map(|key| (key.to_owned(), Value::String(self.word()))).collect())
    }

    fn word(&mut self) -> String {
        self.words.word(self.rng).to_owned()
    }

    /// A document that has something where a JSON pointer among the words points to.
    fn pointed(&mut self) -> Value {
        let words = self.words.pointing(self.rng);
        let Some(pointer) = self.rng.choice(words.pointers().collect::<Vec<_>>()) else { return self.value(DEPTH) };
        let mut near = Bodies { rng: self.rng, words: &words, limit: self.limit };
        let value = match near.rng.u8(..8) {
            0..5 => Value::String(near.word()),
            5 | 6 => near.everything(),
            _ => near.value(1),
        };
        at(pointer, value)
    }

    /// Changes something somewhere inside.
    fn change(&mut self, value: &mut Value) {
        match value {
            Value::Object(entries) if !entries.is_empty() && self.rng.u8(..3) > 0 => {
                let index = self.rng.usize(..entries.len());
                if let Some(inner) = entries.values_mut().nth(index) {
                    self.change(inner);
                }
            }
            Value::Object(entries) => {
                for _ in 0..self.rng.u8(1..6) {
                    entries.insert(self.word(), self.value(1));
                }
            }
            Value::Array(items) if !items.is_empty() && self.rng.u8(..3) > 0 => {
                let index = self.rng.usize(..items.len());
                if let Some(inner) = items.get_mut(index) {
                    self.change(inner);
                }
            }
            other => *other = self.value(2),
        }
    }

    fn cut_short(&mut self) -> Vec<u8> {
        let mut body = self.value(DEPTH).to_string().into_bytes();
        body.truncate(self.rng.usize(..=body.len()));
        body
    }

    fn no_utf8(&mut self) -> Vec<u8> {
        let mut body = self.text().into_bytes();
        for _ in 0..self.rng.u8(1..4) {
            let at = self.rng.usize(..=body.len());
            body.insert(at, self.rng.choice([0xff, 0xc3, 0x80, 0xed]).unwrap_or(0xff));
        }
        body
    }

    fn nested(&mut self, depth: usize) -> String {
        let (open, close) = self.rng.choice([("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")]).unwrap_or(("[", "]"));
        format!("{}null{}", open.repeat(depth), close.repeat(depth))
    }

    /// As long as the policy looks at, of what is dear to read.
    fn huge(&mut self) -> Vec<u8> {
        let length = if self.rng.bool() { self.limit } else { self.rng.usize(..=self.limit) };
        let (before, piece, after) = match self.rng.u8(..10) {
            0 => ("", "[".to_owned(), ""),
            1 => ("", "{\"a\":".to_owned(), ""),
            2 => ("[", "0,".to_owned(), "0]"),
            3 => ("[", "[],".to_owned(), "[]]"),
            4 => ("{", "\"a\":{},".to_owned(), "\"a\":0}"),
            5 => ("\"", "\\u0041".to_owned(), "\""),
            6 => ("[", "\"\",".to_owned(), "0]"),
            7 => ("", " ".to_owned(), "{}"),
            8 => return vec![0xff; length],
            _ => ("", self.word(), ""),
        };
        let room = length.saturating_sub(before.len() + after.len());
        format!("{before}{}{after}", piece.repeat(room / piece.len().max(1))).into_bytes()
    }
}

/// A document that has `value` where `pointer` points, with or without its first slash.
pub(super) fn at(pointer: &str, value: Value) -> Value {
    pointer.trim_start_matches('/').split('/').rev().fold(value, |value, token| {
        let token = token.replace("~1", "/").replace("~0", "~");
        if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit()) {
            json!([value])
        } else {
            Value::Object(Map::from_iter([(token, value)]))
        }
    })
}
