//! A configuration as its author meets it: what loads, what it comes to, and what is said of mistakes.

mod mistakes;
mod secrets;
mod sources;
mod whole;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Config, Problems, Route, Surroundings};

/// An environment and files made up for a test.
#[derive(Default)]
struct Made {
    variables: BTreeMap<&'static str, &'static str>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Surroundings for Made {
    fn variable(&self, name: &str) -> Result<Option<String>, String> {
        Ok(self.variables.get(name).map(|value| (*value).to_owned()))
    }

    fn file(&self, path: &Path, limit: usize) -> std::io::Result<Vec<u8>> {
        let content = self.files.get(path).ok_or(std::io::ErrorKind::NotFound)?;
        Ok(content.iter().copied().take(limit).collect())
    }
}

fn parse(text: &str) -> Result<Config, Problems> {
    parse_in(text, &Made::default())
}

fn parse_in(text: &str, surroundings: &Made) -> Result<Config, Problems> {
    Config::parse_in(text, Path::new("backstop.yaml"), Path::new("/etc/backstop"), surroundings)
}

fn load(text: &str) -> Config {
    parse(text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// A file with one route `orders`, whose section holds a destination and these lines.
fn with_route(lines: &str) -> String {
    let mut text = String::from("routes:\n  orders:\n    destination: https://vendor.example.com/\n");
    for line in lines.lines() {
        text.push_str("    ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn route<'c>(config: &'c Config, name: &str) -> &'c Route {
    config.routes.get(name).expect("the route is in the file")
}

/// `line key: message` of every problem.
fn said(text: &str) -> Vec<String> {
    said_in(text, &Made::default())
}

fn said_in(text: &str, surroundings: &Made) -> Vec<String> {
    let problems = parse_in(text, surroundings).expect_err("the file is wrong").problems;
    problems
        .into_iter()
        .map(|problem| {
            let line = problem.line.map_or("-".to_owned(), |line| line.to_string());
            format!("{line} {}: {}", problem.key, problem.message)
        })
        .collect()
}
