//! The words that a policy looks for, found without knowing the policy: in its configuration, and among the constants of
//! its own binary.
//!
//! An error code that a policy compares with stands in its file, since it must come from somewhere. A compiler lays
//! texts end to end, without anything between them, so their bounds are read off where the program names them: as a
//! pair of address and length, in a table of the data or as two constants in the code. What is found beside (names of
//! source files, texts of panics) only wastes a few questions.

use std::collections::HashSet;

use fastrand::Rng;
use serde_json::Value;
use wasmparser::{DataKind, Operator, Parser, Payload};

/// Words kept of a binary. More would each be tried too seldom.
const MAX_WORDS: usize = 400;

/// Words of one function that are taken to belong together.
const MOST_TOGETHER: usize = 256;

/// Bytes of the longest word.
const MAX_WORD: usize = 64;

/// How far apart in the code an address and its length may stand, in instructions.
const BESIDE: usize = 3;

/// How far apart the two numbers may stand that a text is compared as.
const NEAR: usize = 6;

/// What a question's texts are made of.
#[derive(Clone, Debug, Default)]
pub struct Dictionary {
    /// From the configuration: few, and each of them matters.
    configured: Vec<String>,
    /// From the binary.
    compiled: Vec<String>,
    /// Those of them that one function names: what stands together in a policy belongs together in an answer.
    together: Vec<Vec<String>>,
}

impl Dictionary {
    /// The words of the policy whose file this is, and of its configuration. A file that cannot be read as WebAssembly
    /// has none.
    pub fn of(file: &[u8], config: &Value) -> Self {
        let mut configured = Vec::new();
        collect(config, &mut configured);
        let mut seen = HashSet::new();
        configured.retain(|word| seen.insert(word.clone()));
        let (compiled, together) = compiled(file);
        Self { configured, compiled, together }
    }

    /// A few words that belong together, now these and now those; every other time none, for all words to be used.
    pub fn part(&self, rng: &mut Rng) -> Option<Self> {
        let words = rng.choice(&self.together).filter(|_| rng.bool())?;
        Some(Self { configured: words.clone(), ..Self::default() })
    }

    /// Some word, now one and now another.
    pub fn word(&self, rng: &mut Rng) -> &str {
        let from = match (self.configured.is_empty(), self.compiled.is_empty()) {
            (true, true) => return "error",
            (false, true) => &self.configured,
            (true, false) => &self.compiled,
            (false, false) if rng.u8(..5) < 2 => &self.configured,
            (false, false) => &self.compiled,
        };
        rng.choice(from).map_or("error", String::as_str)
    }

    /// A few words that belong together and have a JSON pointer among them; all words, if no few have.
    pub fn pointing(&self, rng: &mut Rng) -> Self {
        let points = |words: &&Vec<String>| words.iter().any(|word| is_pointer(word));
        let few: Vec<&Vec<String>> = self.together.iter().filter(points).collect();
        match rng.choice(few) {
            Some(words) if rng.u8(..4) > 0 => Self { configured: words.clone(), ..Self::default() },
            _ => Self { configured: self.configured.clone(), compiled: self.compiled.clone(), together: Vec::new() },
        }
    }

    /// Several different words at most, all if there are so few.
    pub fn several(&self, rng: &mut Rng, most: usize) -> Vec<&str> {
        let all: Vec<&str> = self.configured.iter().chain(&self.compiled).map(String::as_str).collect();
        rng.choose_multiple(all, most)
    }

    /// The words that may be JSON pointers (RFC 6901), some of them without their first slash.
    pub fn pointers(&self) -> impl Iterator<Item = &str> {
        self.configured.iter().chain(&self.compiled).map(String::as_str).filter(|word| is_pointer(word))
    }

    /// Every word that stands near what may be a JSON pointer, with that pointer: at most so many pairs.
    pub fn aimed(&self, most: usize) -> Vec<(&str, &str)> {
        let groups = std::iter::once(&self.configured).chain(&self.together);
        let pairs = groups.flat_map(|words| {
            let pointers = words.iter().filter(|word| is_pointer(word));
            pointers.flat_map(|pointer| {
                words.iter().filter(|word| !is_pointer(word)).map(move |word| (&**pointer, &**word))
            })
        });
        let mut seen = HashSet::new();
        pairs.filter(|pair| seen.insert(*pair)).take(most).collect()
    }

    /// Whether `word` is among them.
    #[cfg(test)]
    pub(super) fn knows(&self, word: &str) -> bool {
        self.configured.iter().chain(&self.compiled).any(|known| known == word)
    }
}

/// Whether `word` may be a JSON pointer that a policy looks something up with. Its first slash is often missing: the
/// compiler has looked at it already.
fn is_pointer(word: &str) -> bool {
    let fits = |letter: char| letter.is_alphanumeric() || "/_-~.".contains(letter);
    word.contains('/') && !word.ends_with('/') && !word.contains("//") && word.chars().all(fits)
}

/// Every text of a configuration, keys included.
fn collect(value: &Value, words: &mut Vec<String>) {
    if words.len() >= MAX_WORDS {
        return;
    }
    match value {
        Value::String(text) => words.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, words)),
        Value::Object(entries) => {
            for (key, value) in entries {
                words.push(key.clone());
                collect(value, words);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The data of a module, as it lies in its memory.
#[derive(Default)]
struct Memory<'a>(Vec<(u32, &'a [u8])>);

impl<'a> Memory<'a> {
    /// The text of `length` bytes at `address`, if it is one that somebody may have written.
    fn text(&self, address: u32, length: u32) -> Option<&'a str> {
        if length == 0 || length as usize > MAX_WORD {
            return None;
        }
        let (start, data) = self.0.iter().find(|(start, data)| {
            address >= *start && u64::from(address) + u64::from(length) <= u64::from(*start) + data.len() as u64
        })?;
        let from = (address - start) as usize;
        let text = std::str::from_utf8(data.get(from..from + length as usize)?).ok()?;
        is_word(text).then_some(text)
    }
}

/// Whether a policy might look for `text`; not what the standard library says of itself.
fn is_word(text: &str) -> bool {
    let noise = [
        "/rustc/",
        ".rs",
        "::",
        "`",
        "panicked",
        "called ",
        "src/",
        "assertion failed",
        "expected",
        "invalid ",
        "while parsing",
        "surrogate",
        "overflow",
        "recursion limit",
    ];
    text.contains(char::is_alphanumeric)
        && !text.contains(char::is_control)
        && !noise.iter().any(|noise| text.contains(noise))
}

/// The words of a binary, and which of them stand together.
fn compiled(file: &[u8]) -> (Vec<String>, Vec<Vec<String>>) {
    let mut memory = Memory::default();
    let mut constants: Vec<Vec<(usize, i64)>> = Vec::new();
    for payload in Parser::new(0).parse_all(file) {
        let Ok(payload) = payload else { break };
        match payload {
            Payload::DataSection(section) => {
                for data in section.into_iter().flatten() {
                    if let DataKind::Active { offset_expr, .. } = data.kind
                        && let Ok(Operator::I32Const { value }) = offset_expr.get_operators_reader().read()
                    {
                        memory.0.push((value.cast_unsigned(), data.data));
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                let Ok(operators) = body.get_operators_reader() else { continue };
                let constant = |(at, operator)| match operator {
                    Ok(Operator::I32Const { value }) => Some((at, i64::from(value))),
                    Ok(Operator::I64Const { value }) => Some((at, value)),
                    _ => None,
                };
                constants.push(operators.into_iter().enumerate().filter_map(constant).collect());
            }
            _ => {}
        }
    }
    let (mut words, mut together) = (Words::default(), Vec::new());
    for function in &constants {
        let mut its = Words::default();
        of_code(function, &memory, &mut its);
        its.kept.iter().for_each(|word| words.add(word));
        if (1..=MOST_TOGETHER).contains(&its.kept.len()) && together.len() < MAX_WORDS {
            together.push(its.kept);
        }
    }
    of_tables(&memory, &mut words);
    (words.kept, together)
}

/// Words in the order in which they were found, each once.
#[derive(Default)]
struct Words {
    kept: Vec<String>,
    seen: HashSet<String>,
}

impl Words {
    fn add(&mut self, word: &str) {
        if self.kept.len() < MAX_WORDS && self.seen.insert(word.to_owned()) {
            self.kept.push(word.to_owned());
        }
    }
}

/// Texts that the code names by two constants, address and length; and short ones, which it holds as numbers.
fn of_code(constants: &[(usize, i64)], memory: &Memory<'_>, words: &mut Words) {
    for (index, (at, first)) in constants.iter().enumerate() {
        let near = constants.iter().skip(index + 1).take_while(|(other, _)| other - at <= NEAR);
        for (other, second) in near {
            let pairs = [(first, second), (second, first)].into_iter().filter(|_| other - at <= BESIDE);
            for (address, length) in pairs {
                if let (Ok(address), Ok(length)) = (u32::try_from(*address), u32::try_from(*length))
                    && let Some(text) = memory.text(address, length)
                {
                    words.add(text);
                }
            }
            // A text of 9 to 16 bytes is compared as two numbers, which overlap when it is shorter than both.
            if let (Some(head), Some(tail)) = (letters(*first), letters(*second)) {
                words.add(&joined(&head, &tail));
            }
        }
        if let Some(text) = letters(*first).filter(|text| text.len() > 2) {
            words.add(&text);
        }
    }
}

/// The letters that a constant's bytes are, if they are letters.
fn letters(constant: i64) -> Option<String> {
    let bytes = constant.to_le_bytes();
    let length = bytes.iter().rposition(|byte| *byte != 0)? + 1;
    let text = std::str::from_utf8(bytes.get(..length)?).ok()?;
    let fits = text.len() > 1 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./ ".contains(&byte));
    fits.then(|| text.to_owned())
}

/// Two pieces as one text, the end of the first being the beginning of the second as far as they agree.
fn joined(head: &str, tail: &str) -> String {
    let overlap = (0..=head.len().min(tail.len())).rev().find(|&n| head.ends_with(tail.get(..n).unwrap_or("\0")));
    format!("{head}{}", tail.get(overlap.unwrap_or(0)..).unwrap_or_default())
}

/// Texts that a table in the data names, such as the keys of a structure.
fn of_tables(memory: &Memory<'_>, words: &mut Words) {
    for (_, data) in &memory.0 {
        let numbers: Vec<u32> = data.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        for pair in numbers.windows(2) {
            if let [address, length] = pair
                && let Some(text) = memory.text(*address, *length)
            {
                words.add(text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_is_found_by_the_two_constants_that_name_it() {
        let wasm = wat::parse_str(
            r#"(module (memory 1)
                (data (i32.const 1024) "okInternalErrorquota exceeded")
                (func (drop (i32.const 1026)) (drop (i32.const 13)))
                (func (drop (i32.const 14)) (drop (i32.const 1039))))"#,
        );
        let words = Dictionary::of(&wasm.unwrap(), &Value::Null);
        assert!(words.knows("InternalError") && words.knows("quota exceeded"), "{words:?}");
        assert_eq!(words.together, [["InternalError"], ["quota exceeded"]], "each function by itself");
    }

    #[test]
    fn a_text_is_found_by_the_table_that_names_it() {
        // At 1024 the text, behind it a table of one entry: its address (0x0400) and its length.
        let wasm = wat::parse_str(
            r#"(module (memory 1) (data (i32.const 1024) "BusyGone\00\04\00\00\04\00\00\00\04\04\00\00\04\00\00\00"))"#,
        );
        let words = Dictionary::of(&wasm.unwrap(), &Value::Null);
        assert!(words.knows("Busy") && words.knows("Gone"), "{words:?}");
    }

    #[test]
    fn a_short_text_is_found_in_the_numbers_that_it_is_compared_as() {
        // "Internal" and "lError" with an overlap: the two loads that a comparison with 13 bytes takes.
        let number = |text: &[u8; 8]| i64::from_le_bytes(*text);
        let wasm = wat::parse_str(format!(
            "(module (func (drop (i64.const {})) (drop (i64.const {}))))",
            number(b"Internal"),
            number(b"nalError")
        ));
        assert!(Dictionary::of(&wasm.unwrap(), &Value::Null).knows("InternalError"));
    }

    #[test]
    fn the_configuration_s_keys_and_texts_are_words() {
        let words = Dictionary::of(b"no wasm", &json!({ "codes": { "E17": ["/fault/code"] } }));
        assert!(words.knows("codes") && words.knows("E17"));
        assert_eq!(words.pointers().collect::<Vec<_>>(), ["/fault/code"]);
        assert_eq!(words.aimed(10), [("/fault/code", "codes"), ("/fault/code", "E17")]);
    }

    #[test]
    fn a_broken_file_has_no_words_and_does_no_harm() {
        let whole = wat::parse_str(r#"(module (memory 1) (data (i32.const -1) "abc"))"#).unwrap();
        for end in 0..whole.len() {
            Dictionary::of(&whole[..end], &Value::Null);
        }
    }
}
