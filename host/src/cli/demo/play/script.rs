//! The script of a play: one of `host/examples/*.yaml` as it stands, but for addresses, and delays that nobody would sit
//! through.

use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::config::{Config, Secret, StoreUrl, Surroundings};

/// A configuration among the examples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Example {
    /// Its name, that of the system.
    pub(super) name: &'static str,
    /// Its text.
    pub(super) text: &'static str,
    /// The files that it names, and their text.
    pub(super) files: &'static [(&'static str, &'static str)],
}

/// An example as it is played.
#[derive(Debug)]
pub(super) struct Script {
    example: Example,
    text: String,
    variables: Vec<(&'static str, Secret)>,
    /// What is played otherwise than the example has it, as far as a person should know.
    changes: Vec<String>,
    /// The sources that are left out.
    silent: Vec<&'static str>,
    /// What was to be changed, and is not there.
    absent: Vec<String>,
}

impl Script {
    /// The example as it stands.
    pub(super) fn of(example: Example) -> Self {
        let text = example.text.to_owned();
        Self { example, text, variables: Vec::new(), changes: Vec::new(), silent: Vec::new(), absent: Vec::new() }
    }

    /// Where the example has `written`, an address or a name, `here` is meant.
    pub(super) fn at(mut self, written: &str, here: &str) -> Self {
        if !self.text.contains(written) {
            self.absent.push(written.to_owned());
        }
        self.text = self.text.replace(written, here);
        self
    }

    /// Where the example has `written`, `here` is played, so that it can be watched; the audience is told.
    pub(super) fn but(mut self, written: &str, here: &str) -> Self {
        self.changes.push(format!("`{written}` is played as `{here}`"));
        self.at(written, here)
    }

    /// The source called `name` is left out, for this reason; the audience is told.
    pub(super) fn without(mut self, name: &'static str, why: &str) -> Self {
        self.silent.push(name);
        self.changes.push(format!("the source `{name}` is left out: {why}"));
        self
    }

    /// `${env:NAME}` stands for this.
    pub(super) fn variable(mut self, name: &'static str, value: Secret) -> Self {
        self.variables.push((name, value));
        self
    }

    /// What is played otherwise than it is written, beside addresses and names.
    pub(super) fn differences(&self) -> &[String] {
        &self.changes
    }

    /// What it comes to: on free ports, with its database in `folder`, and with the policies in `policies`.
    ///
    /// # Errors
    /// When the example has changed, and no longer says what this script changes in it; or is none.
    pub(super) fn config(&self, folder: &Path, policies: PathBuf) -> anyhow::Result<Config> {
        let file = self.file();
        let mut config = Config::parse_in(&self.text, Path::new(&file), folder, self)?;
        let is_there = |name: &&str| config.tapped.iter().any(|source| source.name == **name);
        let silent = self.silent.iter().filter(|name| !is_there(name)).map(ToString::to_string);
        let absent: Vec<String> = self.absent.iter().cloned().chain(silent).collect();
        if !absent.is_empty() {
            bail!("{file} does not say `{}` any more, which is played otherwise", absent.join("`, `"));
        }
        config.tapped.retain(|source| !self.silent.contains(&source.name.as_str()));
        let anywhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        (config.listen, config.admin.listen) = (anywhere, anywhere);
        config.store = StoreUrl::Sqlite(folder.join("demo.db"));
        config.policies = policies;
        config.state = None;
        Ok(config)
    }

    /// Where the example is found.
    pub(super) fn file(&self) -> String {
        format!("host/examples/{}.yaml", self.example.name)
    }
}

/// The example's own: never the machine's environment, nor its files.
impl Surroundings for Script {
    fn variable(&self, name: &str) -> Result<Option<String>, String> {
        let known = self.variables.iter().find(|(known, _)| *known == name);
        Ok(known.map(|(_, value)| value.expose().to_owned()))
    }

    fn file(&self, path: &Path, limit: usize) -> std::io::Result<Vec<u8>> {
        let known = self.example.files.iter().find(|(name, _)| path.ends_with(name));
        let (_, text) = known.ok_or(std::io::ErrorKind::NotFound)?;
        Ok(text.bytes().take(limit).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: Example =
        Example { name: "small", text: "routes: { a: { destination: 'http://127.0.0.1:1' } }", files: &[] };

    #[test]
    fn what_is_played_is_the_example_with_other_addresses() {
        let script = Script::of(EXAMPLE).at("127.0.0.1:1", "127.0.0.1:2");
        let config = script.config(Path::new("/tmp"), PathBuf::new()).unwrap();
        let urls: Vec<_> = config.routes.values().map(|route| route.destination.url.to_string()).collect();
        assert_eq!(urls, ["http://127.0.0.1:2/"]);
        assert!(script.differences().is_empty());
        assert_eq!(Script::of(EXAMPLE).but("a:", "b:").differences(), ["`a:` is played as `b:`"]);
    }

    #[test]
    fn an_example_that_has_changed_is_noticed() {
        let script = Script::of(EXAMPLE).but("after: 5s", "after: 1s");
        let why = script.config(Path::new("/tmp"), PathBuf::new()).unwrap_err().to_string();
        assert!(why.contains("small.yaml does not say `after: 5s`"), "{why}");
        let script = Script::of(EXAMPLE).without("rows", "it needs a table");
        let why = script.config(Path::new("/tmp"), PathBuf::new()).unwrap_err().to_string();
        assert!(why.contains("does not say `rows`"), "{why}");
    }
}
