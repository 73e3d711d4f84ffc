//! The document as a tree in which every value knows its line.
//!
//! It is grown from the parser's events, since no serde reader of YAML keeps positions or goes on after a first
//! mistake. Scalars are read by YAML 1.2's core schema: `yes` and `5xx` are text, `429` is a number. Bounded: nesting
//! to 64 levels, and aliases may repeat 1 MiB in all. Refused: tags of one's own, merge keys, a second document.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::interpolate::Interpolator;
use super::problem::{Findings, Step, cut};

/// Levels of nesting.
const MAX_DEPTH: usize = 64;

/// What aliases may repeat, in bytes of text, each value counting one more.
const MAX_REPEATED: usize = 1 << 20;

/// A value in the document.
pub(super) struct Node {
    /// Where it begins, from 1.
    pub(super) line: usize,
    /// What it is.
    pub(super) value: Value,
    /// A scalar's text as it stands in the file, before `${…}` was replaced; empty for anything else.
    pub(super) written: String,
    /// Whether some of it came from a variable or a file.
    pub(super) secret: bool,
    /// The bytes of text in and under it, each value counting one more.
    weight: usize,
}

/// The kinds of value.
pub(super) enum Value {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number from zero.
    Unsigned(u64),
    /// A whole number below zero.
    Negative(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// `[…]`
    List(Vec<Arc<Node>>),
    /// `{…}`: no key occurs twice.
    Section(Vec<Entry>),
    /// Something that a problem was reported of already.
    Broken,
}

/// A key and its value.
pub(super) struct Entry {
    /// The key.
    pub(super) key: String,
    /// The key's line, from 1.
    pub(super) line: usize,
    /// The value.
    pub(super) node: Arc<Node>,
}

impl Node {
    /// The deepest value on the way down `steps`, with its line, and whether that is all the way.
    pub(super) fn descend(&self, steps: &[Step<'_>]) -> (&Node, usize, bool) {
        let (mut node, mut line) = (self, self.line);
        for step in steps {
            let next = match (step, &node.value) {
                (Step::Key(key), Value::Section(entries)) => {
                    entries.iter().find(|entry| entry.key == *key).map(|entry| (&*entry.node, entry.line))
                }
                (Step::Index(index), Value::List(items)) => items.get(*index).map(|item| (&**item, item.line)),
                _ => None,
            };
            let Some(found) = next else { return (node, line, false) };
            (node, line) = found;
        }
        (node, line, true)
    }

    /// Whether it, or anything in it, came from a variable or a file.
    pub(super) fn holds_secret(&self) -> bool {
        self.secret
            || match &self.value {
                Value::List(items) => items.iter().any(|item| item.holds_secret()),
                Value::Section(entries) => entries.iter().any(|entry| entry.node.holds_secret()),
                _ => false,
            }
    }
}

/// Grows the tree of `text`. `None` when the text is no YAML at all; the reason was then reported.
/// `needs` is what an empty file lacks.
pub(super) fn grow(
    text: &str,
    needs: &str,
    interpolator: &mut Interpolator<'_>,
    findings: &Findings,
) -> Option<Arc<Node>> {
    Gardener {
        interpolator,
        findings,
        stack: Vec::new(),
        root: None,
        anchors: HashMap::new(),
        repeated: 0,
        documents: 0,
    }
    .grow(text, needs)
}

struct Gardener<'g, 's> {
    interpolator: &'g mut Interpolator<'s>,
    findings: &'g Findings,
    /// The lists and sections that are not complete yet, outermost first.
    stack: Vec<Open>,
    root: Option<Arc<Node>>,
    anchors: HashMap<usize, Arc<Node>>,
    repeated: usize,
    documents: usize,
}

struct Open {
    line: usize,
    anchor: usize,
    children: Children,
}

enum Children {
    List(Vec<Arc<Node>>),
    Section { entries: Vec<Entry>, lines: HashMap<String, usize>, key: Key },
}

/// What a section waits for.
enum Key {
    /// A key.
    Awaited,
    /// The value of this key, which stands on this line.
    Given(String, usize),
    /// The value of a key that was refused: it is left out.
    Refused,
}

/// The tree cannot be completed; why was reported.
struct Hopeless;

impl Gardener<'_, '_> {
    fn grow(mut self, text: &str, needs: &str) -> Option<Arc<Node>> {
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let done = match event {
                Ok((event, span)) => self.take(event, span),
                Err(error) => {
                    let (line, message) = explain(&error, text);
                    self.findings.report_file(Some(line), message);
                    Err(Hopeless)
                }
            };
            if done.is_err() {
                return None;
            }
        }
        if self.root.is_none() {
            self.findings.report_file(None, format!("the file is empty: it needs at least {needs}"));
        }
        self.root
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Hopeless> {
        let line = span.start.line();
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = "a second document begins here: put everything into one, without `---` in between";
                    self.findings.report_file(Some(line), message);
                    return Err(Hopeless);
                }
            }
            Event::Scalar(text, style, anchor, tag) => self.scalar(&text, style, anchor, tag.as_deref(), line),
            Event::Alias(anchor) => return self.alias(anchor, line),
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), "seq", line);
                return self.open(Open { line, anchor, children: Children::List(Vec::new()) });
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), "map", line);
                let children = Children::Section { entries: Vec::new(), lines: HashMap::new(), key: Key::Awaited };
                return self.open(Open { line, anchor, children });
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn open(&mut self, open: Open) -> Result<(), Hopeless> {
        if self.stack.len() >= MAX_DEPTH {
            self.findings.report(Some(open.line), self.place(), format!("nested deeper than {MAX_DEPTH} levels"));
            return Err(Hopeless);
        }
        self.stack.push(open);
        Ok(())
    }

    fn close(&mut self) {
        let Some(Open { line, anchor, children }) = self.stack.pop() else { return };
        let (value, weight) = match children {
            Children::List(items) => {
                let weight = items.iter().map(|item| item.weight).fold(1, usize::saturating_add);
                (Value::List(items), weight)
            }
            Children::Section { entries, .. } => {
                let weights = entries.iter().map(|entry| entry.key.len().saturating_add(entry.node.weight));
                let weight = weights.fold(1, usize::saturating_add);
                (Value::Section(entries), weight)
            }
        };
        let node = Node { line, value, written: String::new(), secret: false, weight };
        self.settle(Arc::new(node), anchor);
    }

    fn alias(&mut self, anchor: usize, line: usize) -> Result<(), Hopeless> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            self.findings.report(Some(line), self.place(), "an alias cannot stand inside the value it repeats");
            return Err(Hopeless);
        };
        self.repeated = self.repeated.saturating_add(node.weight);
        if self.repeated > MAX_REPEATED {
            self.findings.report(Some(line), self.place(), "aliases repeat more than 1 MiB: write less of it");
            return Err(Hopeless);
        }
        self.settle(node, 0);
        Ok(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, anchor: usize, tag: Option<&Tag>, line: usize) {
        let (value, secret) = if self.awaits_key() {
            (Value::Text(text.to_owned()), false)
        } else {
            match self.interpolator.replace(text) {
                // What a variable or a file holds is text, whatever it looks like.
                Ok(replaced) if replaced.secret => (Value::Text(replaced.text.into_owned()), true),
                Ok(replaced) => (self.kind(&replaced.text, style, tag, line), false),
                Err(message) => {
                    self.findings.report(Some(line), self.place(), message);
                    (Value::Broken, false)
                }
            }
        };
        let length = if let Value::Text(text) = &value { text.len() } else { 0 };
        let weight = length.max(text.len()).saturating_add(1);
        self.settle(Arc::new(Node { line, value, written: text.to_owned(), secret, weight }), anchor);
    }

    fn kind(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Value {
        let plain = match tag {
            None => style == ScalarStyle::Plain,
            Some(tag) if tag.is_yaml_core_schema() => match tag.suffix.as_str() {
                "str" => false,
                "int" | "float" | "bool" | "null" => true,
                _ => {
                    self.refuse_tag(Some(tag), "", line);
                    false
                }
            },
            Some(tag) => {
                self.refuse_tag(Some(tag), "", line);
                false
            }
        };
        if !plain {
            return Value::Text(text.to_owned());
        }
        read_plain(text).unwrap_or_else(|TooLarge| {
            let message = format!("`{}` is more than 64 bits hold: put it in quotes to keep it as text", cut(text));
            self.findings.report(Some(line), self.place(), message);
            Value::Broken
        })
    }

    fn refuse_tag(&self, tag: Option<&Tag>, allowed: &str, line: usize) {
        let Some(tag) = tag else { return };
        if !(tag.is_yaml_core_schema() && tag.suffix == allowed) {
            let message = format!("the tag `{}` means nothing here: remove it", cut(&tag.to_string()));
            self.findings.report(Some(line), self.place(), message);
        }
    }

    /// Puts a complete value where it belongs.
    fn settle(&mut self, node: Arc<Node>, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, Arc::clone(&node));
        }
        let place = if self.awaits_key() { self.place() } else { String::new() };
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return;
        };
        match &mut open.children {
            Children::List(items) => items.push(node),
            Children::Section { entries, lines, key } => match std::mem::replace(key, Key::Awaited) {
                Key::Refused => {}
                Key::Given(given, line) => entries.push(Entry { key: given, line, node }),
                Key::Awaited => *key = accept_key(&node, lines, &place, self.findings),
            },
        }
    }

    /// Whether the next value is a key.
    fn awaits_key(&self) -> bool {
        matches!(self.stack.last(), Some(Open { children: Children::Section { key: Key::Awaited, .. }, .. }))
    }

    /// The keys that lead to the innermost value under way.
    fn place(&self) -> String {
        let mut place = String::new();
        for open in &self.stack {
            match &open.children {
                Children::List(items) => place.push_str(&format!("[{}]", items.len())),
                Children::Section { key: Key::Given(key, _), .. } => {
                    if !place.is_empty() {
                        place.push('.');
                    }
                    place.push_str(&cut(key));
                }
                Children::Section { .. } => {}
            }
        }
        place
    }
}

/// Takes a complete value as the key of the next one, unless it is no text or was there before.
fn accept_key(node: &Node, lines: &mut HashMap<String, usize>, place: &str, findings: &Findings) -> Key {
    let dot = if place.is_empty() { "" } else { "." };
    if matches!(node.value, Value::List(_) | Value::Section(_)) {
        let message = "a key must be text: if this is meant as a value, put it in quotes";
        findings.report(Some(node.line), place, message);
        return Key::Refused;
    }
    let key = node.written.clone();
    if key == "<<" {
        let message = "merge keys are not part of YAML 1.2: write the keys themselves, or give a whole section an \
                       anchor and repeat it with an alias";
        findings.report(Some(node.line), format!("{place}{dot}<<"), message);
        return Key::Refused;
    }
    if let Some(first) = lines.get(&key) {
        let message = format!("given twice, first on line {first}: remove one of the two");
        findings.report(Some(node.line), format!("{place}{dot}{}", cut(&key)), message);
        return Key::Refused;
    }
    lines.insert(key.clone(), node.line);
    Key::Given(key, node.line)
}

/// A whole number of more than 64 bits.
struct TooLarge;

/// Reads a plain scalar by YAML 1.2's core schema (§10.3.2).
fn read_plain(text: &str) -> Result<Value, TooLarge> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        ".nan" | ".NaN" | ".NAN" => return Ok(Value::Float(f64::NAN)),
        _ => {}
    }
    let radix = |digits: &str, radix| u64::from_str_radix(digits, radix).map(Value::Unsigned).map_err(|_| TooLarge);
    if let Some(digits) = text.strip_prefix("0x").filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return radix(digits, 16);
    }
    if let Some(digits) =
        text.strip_prefix("0o").filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit() && b < b'8'))
    {
        return radix(digits, 8);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Ok(Value::Float(f64::INFINITY));
    }
    if !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        if !text.starts_with('-') {
            return unsigned.parse().map(Value::Unsigned).map_err(|_| TooLarge);
        }
        let negative: i64 = text.parse().map_err(|_| TooLarge)?;
        return Ok(u64::try_from(negative).map_or(Value::Negative(negative), Value::Unsigned));
    }
    let looks_like_float = unsigned.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
        && unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    match text.parse() {
        Ok(float) if looks_like_float => Ok(Value::Float(float)),
        _ => Ok(Value::Text(text.to_owned())),
    }
}

/// A scalar that holds a variable's or a file's text, read as a number where a number is asked for.
pub(super) fn read_number(text: &str) -> Option<Value> {
    match read_plain(text.trim()) {
        Ok(value @ (Value::Unsigned(_) | Value::Negative(_) | Value::Float(_))) => Some(value),
        _ => None,
    }
}

/// A syntax error in words, with what mostly causes it, and its line.
fn explain(error: &ScanError, text: &str) -> (usize, String) {
    let said = error.info();
    let (line, column) = (error.marker().line(), error.marker().col() + 1);
    let indented_by_tab = |line: &str| {
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        line.get(..indent).is_some_and(|indent| indent.contains('\t'))
    };
    // The parser may mark where the value began that the tab then broke.
    let tab =
        text.lines().enumerate().skip(line.saturating_sub(1)).take(if said.contains("tab") { usize::MAX } else { 1 });
    if let Some((index, _)) = tab.into_iter().find(|(_, line)| indented_by_tab(line)) {
        return (index + 1, format!("not YAML ({said}): indent with spaces, not tabs"));
    }
    let hint = if said.contains("recursion") {
        "nested too deeply"
    } else if said.contains("quote") {
        "is a quote left open?"
    } else if said.contains("flow") || said.contains("bracket") || said.contains("','") {
        "is a { or [ left open, or a comma missing?"
    } else if said.contains("anchor") || said.contains("alias") {
        "put text that begins with & or * in quotes"
    } else if said.contains("unexpected character") {
        "put text that begins with such a character in quotes"
    } else {
        "keys of one section stand in one column, each with `: ` behind it; text that holds `: ` or `#` wants quotes"
    };
    // What is missing at the end of the file is marked behind it.
    let last = text.lines().count().max(1);
    if line > last {
        return (last, format!("not YAML, at its end ({said}): {hint}"));
    }
    (line, format!("not YAML, at column {column} ({said}): {hint}"))
}
