//! Where each value of the configuration stands in its file, for whoever finds a mistake later.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::problem::{Place, Problem, Problems, Step, cut};
use super::tree::{Node, Value};
use crate::message::RouteName;

/// Where each value stands. Empty by default, for a configuration that came from no file. Cheap to clone.
#[derive(Clone, Default)]
pub struct Sources {
    file: PathBuf,
    root: Option<Arc<Node>>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Sources {
    pub(super) fn new(file: &Path, root: Arc<Node>) -> Self {
        Self { file: file.to_path_buf(), root: Some(root) }
    }

    /// The file, as it was named.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The line, from 1, of what `pointer` (RFC 6901) names inside the route's `policy_config`; of the nearest value
    /// around it when there is no such thing. `None` when the route is not in the file.
    pub fn line_of(&self, route: &RouteName, pointer: &str) -> Option<usize> {
        self.find(&in_policy_config(route, pointer)).and_then(|(_, line, depth)| (depth > 1).then_some(line))
    }

    /// Whether what `pointer` names inside the route's `policy_config`, or anything in it, came from a variable or a
    /// file, and must therefore not be shown.
    pub fn holds_secret(&self, route: &RouteName, pointer: &str) -> bool {
        self.find(&in_policy_config(route, pointer)).is_some_and(|(node, ..)| node.holds_secret())
    }

    /// A problem with what `pointer` names inside the route's `policy_config`. The message must not quote a value
    /// for which [`Sources::holds_secret`] is true.
    pub fn problem(&self, route: &RouteName, pointer: &str, message: impl Into<String>) -> Problem {
        let mut key = format!("routes.{route}.policy_config");
        let mut around = in_policy_config(route, "");
        for token in pointer.split('/').skip(1).map(unescape) {
            let in_list = self.find(&around).is_some_and(|(node, ..)| matches!(node.value, Value::List(_)));
            let shown = cut(&token);
            key.push_str(&if in_list { format!("[{shown}]") } else { format!(".{shown}") });
            around.push(Token::Pointer(token));
        }
        Problem { line: self.line_of(route, pointer), key, message: message.into() }
    }

    /// A problem with one of the route's own keys, such as `policy`.
    pub fn route_problem(&self, route: &RouteName, key: &str, message: impl Into<String>) -> Problem {
        let steps = ["routes", route.as_str(), key].map(|key| Token::Key(key.to_owned()));
        let line = self.find(&steps).and_then(|(_, line, depth)| (depth > 1).then_some(line));
        Problem { line, key: format!("routes.{route}.{key}"), message: message.into() }
    }

    /// Problems found after loading, in order of line.
    pub fn problems(&self, mut problems: Vec<Problem>) -> Problems {
        problems.sort_by_key(|problem| problem.line);
        Problems { file: self.file.clone(), problems }
    }

    /// How the value at `place` is written in the file, when it came from a variable or a file: `${env:NAME}`. What
    /// stands around such a reference is left as it is, unless it is secret itself (`all_secret`).
    pub(super) fn reference(&self, place: &Place<'_>, all_secret: bool) -> Option<&str> {
        let (node, _, found) = self.root.as_deref()?.descend(&place.steps());
        let written = node.written.as_str();
        let bare = written.starts_with("${") && written.find('}') == Some(written.len().saturating_sub(1));
        (found && node.secret && (bare || !all_secret)).then_some(written)
    }

    /// Whether something is written at `place`.
    pub(super) fn has(&self, place: &Place<'_>) -> bool {
        self.root.as_deref().is_some_and(|root| root.descend(&place.steps()).2)
    }

    /// The deepest value on the way down, its line, and how many steps that was.
    fn find(&self, tokens: &[Token]) -> Option<(&Node, usize, usize)> {
        let root = self.root.as_deref()?;
        let (mut here, mut depth) = ((root, root.line), 0);
        for token in tokens {
            let step = match (token, &here.0.value) {
                (Token::Key(key), _) => Step::Key(key),
                (Token::Pointer(token), Value::List(_)) => Step::Index(token.parse().unwrap_or(usize::MAX)),
                (Token::Pointer(token), _) => Step::Key(token),
            };
            let (node, line, found) = here.0.descend(&[step]);
            if !found {
                break;
            }
            here = (node, line);
            depth += 1;
        }
        Some((here.0, here.1, depth))
    }
}

/// A step down whose kind is only known once one is there.
enum Token {
    Key(String),
    Pointer(String),
}

fn in_policy_config(route: &RouteName, pointer: &str) -> Vec<Token> {
    let keys = ["routes", route.as_str(), "policy_config"].map(|key| Token::Key(key.to_owned()));
    keys.into_iter().chain(pointer.split('/').skip(1).map(|token| Token::Pointer(unescape(token)))).collect()
}

fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}
