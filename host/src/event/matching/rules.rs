//! What an expression may be made of, and what it can come to: all of that is known before any event comes.
//!
//! Taken: the operators, `has`, `in` a list, `size`, `startsWith`, `endsWith`, `contains`, `matches` with a pattern that
//! stands there, `string`, `int`, `double`, `timestamp`, and the functions that take a timestamp apart. Refused: names
//! that no attribute can have, parts of attributes, maps, the macros that go over lists, any other function, and types
//! that cannot go together, such as `time == "2024-01-01"`, which would be false for ever.

use std::collections::HashMap;

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::parser::pratt_parser::{Lexer, TokenKind};
use regex::{Regex, RegexBuilder};

use super::timestamp::PARTS;
use super::values::EVENT;
use super::{BadMatch, MAX_NESTING, TOO_DEEP, bad};
use crate::event::attributes;

/// The most memory that one compiled pattern takes, in bytes.
const MAX_PATTERN: usize = 256 << 10;

/// Names of CEL's own types, which an extension of the same name does not hide where it is missing.
const TYPES: [&str; 10] = ["bool", "bytes", "double", "dyn", "int", "list", "map", "null", "string", "uint"];

/// What a part of an expression comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Truth,
    Text,
    Number,
    Time,
    List,
    /// An extension, or what comes of one.
    Unknown,
    Other(&'static str),
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Truth => "true or false",
            Self::Text => "text",
            Self::Number => "a number",
            Self::Time => "a timestamp",
            Self::List => "a list",
            Self::Unknown => "an extension",
            Self::Other(name) => name,
        }
    }

    fn may_be(self, other: Self) -> bool {
        self == other || self == Self::Unknown || other == Self::Unknown
    }
}

/// Goes through an expression in the order it is written in.
pub(super) struct Rules<'t> {
    text: &'t str,
    /// How often each name and operator has come by: the last of them is where the walk is.
    seen: HashMap<String, usize>,
    patterns: HashMap<String, Regex>,
}

impl<'t> Rules<'t> {
    /// Checks an expression, and compiles the patterns in it.
    pub(super) fn check(text: &'t str, expression: &IdedExpr) -> Result<HashMap<String, Regex>, BadMatch> {
        let mut rules = Self { text, seen: HashMap::new(), patterns: HashMap::new() };
        let kind = rules.kind(expression, 0)?;
        if !kind.may_be(Kind::Truth) {
            let detail = format!("comes to {}: write what is true or false, such as `type == \"…\"`", kind.name());
            return Err(bad((1, 1), detail));
        }
        Ok(rules.patterns)
    }

    fn kind(&mut self, expression: &IdedExpr, depth: u16) -> Result<Kind, BadMatch> {
        if depth > MAX_NESTING {
            return Err(bad((1, 1), TOO_DEEP));
        }
        match &expression.expr {
            Expr::Literal(literal) => Ok(match literal {
                LiteralValue::Boolean(_) => Kind::Truth,
                LiteralValue::String(_) => Kind::Text,
                LiteralValue::Double(_) | LiteralValue::Int(_) | LiteralValue::UInt(_) => Kind::Number,
                LiteralValue::Bytes(_) => Kind::Other("bytes"),
                LiteralValue::Null => Kind::Other("null"),
            }),
            Expr::Ident(name) => {
                self.see(name);
                if name == EVENT {
                    return Err(self.at(name, "`event` is all attributes: write `event.NAME`"));
                }
                if TYPES.contains(&name.as_str()) {
                    return Err(self.at(name, format!("`{name}` is a type of CEL's: write `event.{name}`")));
                }
                self.attribute(name)
            }
            Expr::Select(select) => {
                self.event(&select.operand, &select.field, depth)?;
                self.see(&select.field);
                let kind = self.attribute(&select.field)?;
                Ok(if select.test { Kind::Truth } else { kind })
            }
            Expr::List(list) => {
                for element in &list.elements {
                    self.kind(element, depth + 1)?;
                }
                Ok(Kind::List)
            }
            Expr::Call(call) => self.call(call, depth),
            Expr::Comprehension(_) => {
                const MACROS: [&str; 6] = ["all", "exists", "exists_one", "existsOne", "map", "filter"];
                let written = MACROS.into_iter().filter_map(|name| Some((self.place(name, 1)?, name))).min();
                let (place, name) = written.unwrap_or(((1, 1), "all"));
                Err(bad(place, format!("`{name}` goes over a list, and attributes are none: compare them one by one")))
            }
            Expr::Map(_) | Expr::Struct(_) => {
                Err(bad(self.place("{", 1).unwrap_or((1, 1)), "maps are of no use here: compare attributes one by one"))
            }
            Expr::Unspecified => Err(bad((1, 1), "no expression")),
        }
    }

    /// Refuses to look into anything but `event`.
    fn event(&mut self, operand: &IdedExpr, field: &str, depth: u16) -> Result<(), BadMatch> {
        match &operand.expr {
            Expr::Ident(name) if name == EVENT => {
                self.see(EVENT);
                Ok(())
            }
            _ => {
                self.kind(operand, depth + 1)?;
                self.see(field);
                Err(self.at(field, "attributes have no parts: write `event.NAME`"))
            }
        }
    }

    fn attribute(&self, name: &str) -> Result<Kind, BadMatch> {
        match name {
            "id" | "source" | "specversion" | "type" | "datacontenttype" | "dataschema" | "subject" => Ok(Kind::Text),
            "time" => Ok(Kind::Time),
            "data" => Err(self.at(name, "the data is no attribute: a route's `schema` looks at it, or its policy")),
            _ if attributes::is_name(name) => Ok(Kind::Unknown),
            _ => Err(self.at(name, format!("no attribute is called `{name}`: they are of a-z and 0-9"))),
        }
    }

    fn call(&mut self, call: &CallExpr, depth: u16) -> Result<Kind, BadMatch> {
        let depth = depth + 1;
        match (call.func_name.as_str(), call.target.as_deref(), call.args.as_slice()) {
            (operators::INDEX, None, [operand, index]) => {
                self.event(operand, "[", depth)?;
                match &index.expr {
                    Expr::Literal(LiteralValue::String(name)) => self.attribute(name.inner()),
                    _ => Err(self.at(EVENT, "write the attribute's name in quotation marks: `event[\"NAME\"]`")),
                }
            }
            (operators::CONDITIONAL, None, [condition, yes, no]) => {
                self.expect("?", condition, Kind::Truth, depth)?;
                let (yes, no) = (self.kind(yes, depth)?, self.kind(no, depth)?);
                Ok(if yes == no { yes } else { Kind::Unknown })
            }
            (operators::LOGICAL_NOT, None, [operand]) => {
                self.expect("!", operand, Kind::Truth, depth).map(|_| Kind::Truth)
            }
            (operators::NEGATE, None, [operand]) => self.expect("-", operand, Kind::Number, depth),
            (operator, None, [left, right]) if symbol(operator).is_some() => {
                self.binary(symbol(operator).unwrap_or_default(), left, right, depth)
            }
            (name, target, args) => self.function(name, target, args, depth),
        }
    }

    fn binary(&mut self, symbol: &str, left: &IdedExpr, right: &IdedExpr, depth: u16) -> Result<Kind, BadMatch> {
        let left = self.kind(left, depth)?;
        self.see(symbol);
        let place = self.here(symbol);
        let right = self.kind(right, depth)?;
        let refused = || {
            let detail = format!("`{symbol}` cannot go between {} and {}", left.name(), right.name());
            let hint = match (left, right) {
                (Kind::Time, Kind::Text) | (Kind::Text, Kind::Time) => {
                    ": write the time as `timestamp(\"2024-01-01T00:00:00Z\")`"
                }
                _ => "",
            };
            Err(bad(place, detail + hint))
        };
        let both = |kinds: &[Kind]| kinds.iter().any(|kind| left.may_be(*kind) && right.may_be(*kind));
        let (fits, kind) = match symbol {
            "&&" | "||" => (both(&[Kind::Truth]), Kind::Truth),
            "==" | "!=" => (left.may_be(right), Kind::Truth),
            "<" | "<=" | ">" | ">=" => (both(&[Kind::Text, Kind::Number, Kind::Time, Kind::Truth]), Kind::Truth),
            "in" => (right == Kind::List, Kind::Truth),
            "+" => (both(&[Kind::Text, Kind::Number]), if left == Kind::Unknown { right } else { left }),
            _ => (both(&[Kind::Number]), Kind::Number),
        };
        if fits { Ok(kind) } else { refused() }
    }

    fn function(
        &mut self,
        name: &str,
        target: Option<&IdedExpr>,
        args: &[IdedExpr],
        depth: u16,
    ) -> Result<Kind, BadMatch> {
        let on = target.map(|target| self.kind(target, depth)).transpose()?;
        self.see(name);
        let place = self.here(name);
        let mut kinds: Vec<Kind> = on.into_iter().collect();
        for arg in args {
            kinds.push(self.kind(arg, depth)?);
        }
        let takes = |wanted: &[Kind]| {
            kinds.len() == wanted.len() && kinds.iter().zip(wanted).all(|(kind, wanted)| kind.may_be(*wanted))
        };
        let literal = |arg: Option<&IdedExpr>| match arg.map(|arg| &arg.expr) {
            Some(Expr::Literal(LiteralValue::String(text))) => Some(text.inner().to_owned()),
            _ => None,
        };
        let (fits, kind, usage) = match name {
            "startsWith" | "endsWith" | "contains" => {
                (on.is_some() && takes(&[Kind::Text, Kind::Text]), Kind::Truth, "ATTRIBUTE.startsWith(\"…\")")
            }
            "matches" => {
                let pattern = literal(args.last());
                if let Some(pattern) = &pattern {
                    self.pattern(pattern).map_err(|detail| bad(place, detail))?;
                }
                let fits = pattern.is_some() && takes(&[Kind::Text, Kind::Text]);
                (fits, Kind::Truth, "ATTRIBUTE.matches(\"PATTERN\"), with a pattern that stands there")
            }
            "size" => (takes(&[Kind::Text]) || takes(&[Kind::List]), Kind::Number, "size(ATTRIBUTE)"),
            "string" => (
                on.is_none() && kinds.len() == 1 && !takes(&[Kind::List]) || takes(&[Kind::Unknown]),
                Kind::Text,
                "string(ATTRIBUTE)",
            ),
            "int" | "double" => {
                let fits = on.is_none() && (takes(&[Kind::Text]) || takes(&[Kind::Number]));
                (fits, Kind::Number, "int(ATTRIBUTE)")
            }
            "timestamp" => {
                let written = literal(args.first());
                let is_wrong = written.is_some_and(|text| attributes::timestamp(&text).is_none());
                let usage = "timestamp(\"2024-01-01T00:00:00Z\"), as RFC 3339 says";
                (on.is_none() && takes(&[Kind::Text]) && !is_wrong, Kind::Time, usage)
            }
            _ if PARTS.contains(&name) => (on.is_some() && takes(&[Kind::Time]), Kind::Number, "time.getHours()"),
            _ => {
                let detail = format!(
                    "there is no function `{name}` here; there are has, size, startsWith, endsWith, contains, matches, \
                     string, int, double, timestamp, {}",
                    PARTS.join(", ")
                );
                return Err(bad(place, detail));
            }
        };
        if fits { Ok(kind) } else { Err(bad(place, format!("`{name}` cannot be used so: write {usage}"))) }
    }

    fn pattern(&mut self, pattern: &str) -> Result<(), String> {
        let compiled = RegexBuilder::new(pattern).size_limit(MAX_PATTERN).build().map_err(|error| {
            let why = error.to_string();
            format!("no pattern: {}", why.lines().last().unwrap_or_default().trim_start_matches("error: "))
        })?;
        self.patterns.insert(pattern.to_owned(), compiled);
        Ok(())
    }

    fn expect(&mut self, symbol: &str, operand: &IdedExpr, kind: Kind, depth: u16) -> Result<Kind, BadMatch> {
        self.see(symbol);
        let place = self.here(symbol);
        let found = self.kind(operand, depth)?;
        let detail = || format!("`{symbol}` needs {}, and gets {}", kind.name(), found.name());
        if found.may_be(kind) { Ok(kind) } else { Err(bad(place, detail())) }
    }

    fn see(&mut self, token: &str) {
        *self.seen.entry(token.to_owned()).or_default() += 1;
    }

    fn at(&self, token: &str, detail: impl Into<String>) -> BadMatch {
        bad(self.here(token), detail)
    }

    /// Where the name or operator that came by last stands.
    fn here(&self, token: &str) -> (usize, usize) {
        let count = self.seen.get(token).copied().unwrap_or(1);
        self.place(token, count).or_else(|| self.place(token, 1)).unwrap_or((1, 1))
    }

    /// Where the name or operator stands for the `count`th time: its line and column.
    fn place(&self, wanted: &str, count: usize) -> Option<(usize, usize)> {
        let mut lexer = Lexer::new(self.text);
        let mut left = count;
        loop {
            let token = lexer.lex();
            match token.kind {
                TokenKind::TokEnd | TokenKind::TokError => return None,
                TokenKind::TokString | TokenKind::TokBytes | TokenKind::TokComment => continue,
                _ => {}
            }
            if self.text.get(token.start..token.end) == Some(wanted) {
                left = left.saturating_sub(1);
                if left == 0 {
                    let before = self.text.get(..token.start)?;
                    let line = before.matches('\n').count() + 1;
                    let column = before.len() - before.rfind('\n').map_or(0, |end| end + 1) + 1;
                    return Some((line, column));
                }
            }
        }
    }
}

/// How a binary operator is written.
fn symbol(operator: &str) -> Option<&'static str> {
    Some(match operator {
        operators::LOGICAL_AND => "&&",
        operators::LOGICAL_OR => "||",
        operators::EQUALS => "==",
        operators::NOT_EQUALS => "!=",
        operators::LESS => "<",
        operators::LESS_EQUALS => "<=",
        operators::GREATER => ">",
        operators::GREATER_EQUALS => ">=",
        operators::IN => "in",
        operators::ADD => "+",
        operators::SUBSTRACT => "-",
        operators::MULTIPLY => "*",
        operators::DIVIDE => "/",
        operators::MODULO => "%",
        _ => return None,
    })
}
