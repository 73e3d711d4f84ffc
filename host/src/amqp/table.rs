//! The walk over a field table's bytes (AMQP 0-9-1 §4.2.5.5), without recursion: is it one that lapin can read?

/// How deep tables and arrays may be nested. RabbitMQ's own (`x-death`) are two deep.
pub(super) const DEPTH: usize = 32;

/// Whether `table`, the inside of a field table, is well-formed and no deeper than [`DEPTH`]. Names that are not UTF-8
/// are made so, byte for byte.
pub(super) fn is_readable(table: &mut [u8]) -> bool {
    walk(table).is_some()
}

/// Makes `text` ASCII if it is not UTF-8.
pub(super) fn make_text(text: &mut [u8]) {
    if std::str::from_utf8(text).is_err() {
        for byte in text.iter_mut().filter(|byte| !byte.is_ascii()) {
            *byte = b'?';
        }
    }
}

/// A table or an array that is being walked over.
#[derive(Clone, Copy)]
struct Open {
    /// Where its bytes end.
    end: usize,
    /// Whether its values have names: those of a table do.
    named: bool,
}

fn walk(table: &mut [u8]) -> Option<()> {
    let mut open = vec![Open { end: table.len(), named: true }];
    let mut at = 0;
    while let Some(&Open { end, named }) = open.last() {
        if at == end {
            open.pop();
            continue;
        }
        if named {
            let length = usize::from(*table.get(at)?);
            let name = table.get_mut(at + 1..at + 1 + length)?;
            make_text(name);
            at += 1 + length;
        }
        let kind = *table.get(at)?;
        at += 1;
        let fixed = match kind {
            b'V' => Some(0),
            b't' | b'b' | b'B' => Some(1),
            b's' | b'U' | b'u' => Some(2),
            b'I' | b'i' | b'f' => Some(4),
            b'D' => Some(5),
            b'L' | b'l' | b'd' | b'T' => Some(8),
            b'S' | b'x' | b'A' | b'F' => None,
            _ => return None,
        };
        at += match fixed {
            Some(length) => length,
            None => {
                let length = table.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)?;
                let length = usize::try_from(length).ok()?;
                let inside = at.checked_add(4)?;
                if inside.checked_add(length)? > end {
                    return None;
                }
                if matches!(kind, b'A' | b'F') {
                    if open.len() >= DEPTH {
                        return None;
                    }
                    open.push(Open { end: inside + length, named: kind == b'F' });
                    4
                } else {
                    4 + length
                }
            }
        };
        if at > open.last().map_or(0, |open| open.end) {
            return None;
        }
    }
    (at == table.len()).then_some(())
}
