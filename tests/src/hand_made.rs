//! Guests written by hand, in WebAssembly's text format: they say exactly what they do, and need no compiler but the
//! assembler.
//!
//! A guest is a plain module with the contract written into it, as the SDK does; the host makes the component. Where
//! the component itself must be odd, the text is a `(component …)` and taken as it stands, or [`HandMade::component`]
//! makes it from a contract that was tampered with.

use std::path::PathBuf;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::artefacts::workspace;

/// Where the guest's own items stand in the prelude: after imports and types, before what they replace.
const GUEST: &str = ";; THE GUEST";

/// A guest to be assembled.
#[derive(Clone, Debug)]
pub struct HandMade {
    name: String,
    version: String,
    items: String,
    contract: String,
}

impl HandMade {
    /// A policy called `name` that accepts everything, with its version as the reason.
    pub fn named(name: &str) -> Self {
        let (name, version) = (name.to_owned(), "1".to_owned());
        Self { name, version, items: String::new(), contract: contract() }
    }

    /// The hostile guest in `tests/guests/hostile/{folder}/{name}.wat`.
    ///
    /// # Panics
    /// When there is none.
    pub fn hostile(folder: &str, name: &str) -> Self {
        let file = hostile_guests().join(folder).join(format!("{name}.wat"));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Self::named(name).items(&text)
    }

    /// Of this version.
    #[must_use]
    pub fn version(mut self, version: impl ToString) -> Self {
        self.version = version.to_string();
        self
    }

    /// With these items in place of the prelude's of the same names.
    #[must_use]
    pub fn items(mut self, text: &str) -> Self {
        self.items = text.to_owned();
        self
    }

    /// By a contract in which `from` stands as `to`.
    ///
    /// # Panics
    /// When the contract does not say `from`.
    #[must_use]
    pub fn contract_with(mut self, from: &str, to: &str) -> Self {
        assert!(self.contract.contains(from), "the contract does not say {from:?}");
        self.contract = self.contract.replace(from, to);
        self
    }

    /// The file: a module with the contract written into it, or what the text makes of itself.
    ///
    /// # Panics
    /// When it does not assemble.
    pub fn file(&self) -> Vec<u8> {
        if is_whole(&self.items) {
            return assemble(&self.items);
        }
        let mut module = assemble(&self.text());
        let mut resolve = Resolve::default();
        let package = resolve.push_str("contract.wit", &self.contract).expect("a contract");
        let world = resolve.select_world(&[package], None).expect("its world");
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("a contract to embed");
        module
    }

    /// The file as a component, which the host takes as it is.
    ///
    /// # Panics
    /// When the module does not keep to the contract it was given.
    pub fn component(&self) -> Vec<u8> {
        let encoder = ComponentEncoder::default().validate(true).module(&self.file());
        encoder.and_then(|mut encoder| encoder.encode()).expect("a module that keeps to its contract")
    }

    /// The module in the text format.
    fn text(&self) -> String {
        let prelude = std::fs::read_to_string(hostile_guests().join("prelude.wat")).expect("the prelude");
        let (given, replaceable) = prelude.split_once(GUEST).expect("the guest's place in the prelude");
        let kept: Vec<&str> = replaceable.split("\n\n").filter(|item| !self.replaces(item)).collect();
        format!("(module\n{given}\n{}\n{})", self.items, kept.join("\n\n"))
            .replace("{name}", &self.name)
            .replace("{name_len}", &self.name.len().to_string())
            .replace("{version}", &self.version)
            .replace("{version_len}", &self.version.len().to_string())
    }

    /// Whether the guest defines an item of this kind and name itself.
    fn replaces(&self, item: &str) -> bool {
        let mut words = item.lines().find(|line| line.starts_with('(')).unwrap_or_default().split_whitespace();
        match (words.next(), words.next()) {
            (Some(kind), Some(name)) if name.starts_with('$') => self
                .items
                .split_whitespace()
                .zip(self.items.split_whitespace().skip(1))
                .any(|pair| pair == (kind, name)),
            _ => false,
        }
    }
}

/// The contract, as policies are built by it.
fn contract() -> String {
    std::fs::read_to_string(workspace().join("wit/backstop-policy.wit")).expect("the contract")
}

fn hostile_guests() -> PathBuf {
    workspace().join("tests/guests/hostile")
}

/// Whether the text is a whole file, not the items of one.
fn is_whole(text: &str) -> bool {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with(";;"));
    first.is_some_and(|line| line.starts_with("(module") || line.starts_with("(component"))
}

/// Makes the text format binary.
///
/// # Panics
/// When it is not WebAssembly.
pub fn assemble(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}
