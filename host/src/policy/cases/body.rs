//! The body of a message or an answer, in whichever of its forms it is written, within the bounds of a case file.

use std::io::Read as _;

use base64::Engine as _;
use bytes::Bytes;
use serde_json::Value;

use super::read::Reading;
use crate::config::{Count, Field, Place};

/// The longest body: 4 MiB, four times what a route reads of an answer by default.
const MAX_BODY: usize = 4 << 20;

/// The bytes of all bodies of one file: 64 MiB.
pub(super) const MAX_BODIES: usize = 64 << 20;

/// A body as it is written.
pub(super) struct RawBody {
    pub(super) text: Field<String>,
    pub(super) json: Field<Value>,
    pub(super) base64: Field<String>,
    pub(super) file: Field<String>,
    pub(super) repeat: Field<Count>,
}

/// A body, and whether it was written as JSON.
pub(super) struct Body {
    pub(super) bytes: Bytes,
    pub(super) is_json: bool,
}

impl Reading<'_> {
    /// Reads the body written under `place`; what is wrong with it is reported, and an empty one serves.
    pub(super) fn body(&self, place: &Place<'_>, raw: RawBody) -> Body {
        let forms = [
            ("body", raw.text.is_present()),
            ("json", raw.json.is_present()),
            ("body_base64", raw.base64.is_present()),
            ("body_file", raw.file.is_present()),
        ];
        let mut written = forms.iter().filter(|(_, is_present)| *is_present);
        let (first, second) = (written.next(), written.next());
        if let (Some((first, _)), Some((second, _))) = (first, second) {
            self.sheet.complain(&place.key(second), format!("a body is written once: remove this, or `{first}`"));
        }
        let is_json = raw.json.is_present();
        let once = if let Some(json) = raw.json.given() {
            json.to_string().into_bytes()
        } else if let Some(base64) = raw.base64.given() {
            self.base64(&place.key("body_base64"), &base64)
        } else if let Some(file) = raw.file.given() {
            self.file(&place.key("body_file"), &file)
        } else {
            raw.text.given().unwrap_or_default().into_bytes()
        };
        if first.is_none() && raw.repeat.is_present() {
            self.sheet.complain(&place.key("repeat"), "there is no body to repeat: write `body`, too");
        }
        let times: usize = self.sheet.count(&place.key("repeat"), raw.repeat, 1..=MAX_BODY as u64, 1);
        let whole = once.len().saturating_mul(times);
        if whole > MAX_BODY {
            self.sheet.complain(place, "the body is longer than 4 MiB: a shorter one will do, see `truncated`");
            return Body { bytes: Bytes::new(), is_json };
        }
        let Some(left) = self.bodies_left.get().checked_sub(whole) else {
            self.sheet.complain(place, "the bodies of this file hold more than 64 MiB: put some into another file");
            return Body { bytes: Bytes::new(), is_json };
        };
        self.bodies_left.set(left);
        Body { bytes: if times == 1 { once.into() } else { once.repeat(times).into() }, is_json }
    }

    fn base64(&self, place: &Place<'_>, text: &str) -> Vec<u8> {
        // A long one is folded over lines.
        let text: String = text.split_ascii_whitespace().collect();
        base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_else(|error| {
            self.sheet.complain(place, format!("is no base64 ({error}): `base64 FILE` prints it"));
            Vec::new()
        })
    }

    fn file(&self, place: &Place<'_>, name: &str) -> Vec<u8> {
        let path = self.base_dir.join(name);
        let read = || -> std::io::Result<Vec<u8>> {
            // Reading a pipe or a device might never end.
            if !std::fs::metadata(&path)?.is_file() {
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
            }
            let mut content = Vec::new();
            std::fs::File::open(&path)?.take(MAX_BODY as u64 + 1).read_to_end(&mut content)?;
            Ok(content)
        };
        read().unwrap_or_else(|error| {
            self.sheet.complain_of(place, format!("{error}: name a file, relative to this one's folder"));
            Vec::new()
        })
    }
}
