//! What a route says of events: which ones it takes, what it checks of them, and what it takes for a repeat.

use std::sync::Arc;
use std::time::Duration;

use schemars::{Schema as JsonSchema, json_schema};

use super::units::Unit;
use crate::event::Event;
use crate::event::matching::{Match, MatchError};
use crate::event::schema::Schema;

/// Which events a route takes, and what it checks of them.
#[derive(Clone, PartialEq, Debug)]
pub struct Events {
    /// Which ones it takes.
    pub taken: Taken,
    /// What their data must fit. An event that does not becomes a dead letter without an attempt.
    pub schema: Option<EventSchema>,
    /// How long a second event with the same `source` and `id` is taken for a repeat of the first. Default: it is not.
    pub dedupe: Option<Duration>,
}

impl Events {
    /// Why the event is put aside without an attempt, if its data does not fit.
    pub fn misfit(&self, event: &Event) -> Option<String> {
        let misfit = self.schema.as_ref()?.schema().check(event).err()?;
        Some(format!("the event does not fit the route's schema: {misfit}"))
    }
}

/// Which events a route takes.
#[derive(Clone, Debug)]
pub enum Taken {
    /// Those for which the expression is true.
    Matching(Arc<Match>),
    /// Those that no other route takes.
    Otherwise,
}

impl Taken {
    /// How it is written for [`Taken::Otherwise`].
    pub const OTHERWISE: &'static str = "otherwise";

    /// As it is written in a configuration.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Matching(expression) => expression.as_str(),
            Self::Otherwise => Self::OTHERWISE,
        }
    }

    /// Whether its expression takes the event; false where it has none.
    ///
    /// # Errors
    /// When the expression gives no answer for this event.
    pub fn matches(&self, event: &Event) -> Result<bool, MatchError> {
        match self {
            Self::Matching(expression) => expression.matches(event),
            Self::Otherwise => Ok(false),
        }
    }
}

impl PartialEq for Taken {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

/// A JSON Schema from a file.
#[derive(Clone)]
pub struct EventSchema {
    /// The file, as it is written in the configuration.
    pub path: String,
    /// What stands in it.
    pub(super) text: Arc<[u8]>,
    pub(super) schema: Arc<Schema>,
}

impl EventSchema {
    /// The schema itself.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }
}

impl PartialEq for EventSchema {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.text == other.text
    }
}

impl std::fmt::Debug for EventSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("EventSchema").field(&self.path).finish()
    }
}

impl Unit for Taken {
    const NAME: &'static str = "Match";
    const FORM: &'static str = "an expression in CEL over an event's attributes, such as `type == \"order.created\"` or \
                                `true`, or the word `otherwise`";

    fn from_text(text: &str) -> Result<Self, String> {
        if text == Self::OTHERWISE {
            return Ok(Self::Otherwise);
        }
        Match::compile(text).map(|expression| Self::Matching(Arc::new(expression))).map_err(|bad| bad.to_string())
    }

    fn from_bool(value: bool) -> Result<Self, String> {
        Self::from_text(if value { "true" } else { "false" })
    }

    fn schema() -> JsonSchema {
        json_schema!({
            "type": ["string", "boolean"],
            "description": "CEL over an event's attributes: type == \"order.created\", or true; or the word otherwise.",
        })
    }
}

/// What makes two events the same.
pub(super) struct SourceAndId;

impl Unit for SourceAndId {
    const NAME: &'static str = "Dedupe";
    const FORM: &'static str = "source+id, or a section such as `{ by: source+id, window: 1h }`";

    fn from_text(text: &str) -> Result<Self, String> {
        if text == "source+id" { Ok(Self) } else { Err(format!("write {}", Self::FORM)) }
    }

    fn schema() -> JsonSchema {
        json_schema!({ "const": "source+id", "description": "What makes two events the same." })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_is_an_expression_or_a_word() {
        assert!(matches!(Taken::from_text("otherwise"), Ok(Taken::Otherwise)));
        assert_eq!(Taken::from_bool(true).unwrap().as_str(), "true");
        assert_eq!(Taken::from_text("type == 'a'").unwrap(), Taken::from_text("type == 'a'").unwrap());
        assert_ne!(Taken::from_text("true").unwrap(), Taken::Otherwise);
        let wrong = Taken::from_text("type ==").unwrap_err();
        assert!(wrong.contains("line 1"), "{wrong}");
    }
}
