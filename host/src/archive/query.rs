//! A filter as the query of a URL, and back: `?route=orders&state=dead&state=answered&body=/total=7`.

use std::fmt::Display;
use std::str::FromStr;

use super::ArchiveFilter;
use crate::message::State;

/// A part of a query that is none of a filter's, or cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadQuery {
    /// There is no such part.
    #[error(
        "{0:?} is nothing that messages are found by: write route, state, from, until, uid, reason, policy or body"
    )]
    Unknown(String),
    /// It cannot be read.
    #[error("{name}={value}: {why}")]
    Unreadable {
        /// The part.
        name: String,
        /// What it says.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// It is given more than once, and only one can be meant.
    #[error("{0} is given twice")]
    Twice(String),
}

impl ArchiveFilter {
    /// Adds a part of a query: `state` and `body` may come more than once, the others may not.
    ///
    /// # Errors
    /// When there is no such part, or it cannot be read, or it was there before.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), BadQuery> {
        match name {
            // An empty text is a variable that was not set, and would be everybody's.
            "route" | "reason" if value.is_empty() => Err(unreadable(name, value, "it is empty".to_owned())),
            "route" => once(&mut self.route, name, value),
            "from" => once(&mut self.from, name, value),
            "until" => once(&mut self.until, name, value),
            "uid" => once(&mut self.uid, name, value),
            "reason" => once(&mut self.reason, name, value),
            "policy" => once(&mut self.policy, name, value),
            "body" => read(name, value).map(|test| self.body.push(test)),
            "state" => {
                let state = State::ALL.into_iter().find(|state| state.as_str() == value).ok_or_else(|| {
                    let known = State::ALL.map(State::as_str).join(", ");
                    unreadable(name, value, format!("there is no such state; there are {known}"))
                })?;
                self.states.push(state);
                Ok(())
            }
            _ => Err(BadQuery::Unknown(name.to_owned())),
        }
    }

    /// The filter as the parts of a query.
    pub fn parts(&self) -> Vec<(&'static str, String)> {
        fn one<T: ToString>(name: &'static str, value: &Option<T>) -> Option<(&'static str, String)> {
            value.as_ref().map(|value| (name, value.to_string()))
        }
        let single = [
            one("route", &self.route),
            one("from", &self.from),
            one("until", &self.until),
            one("uid", &self.uid),
            one("reason", &self.reason),
            one("policy", &self.policy),
        ];
        let states = self.states.iter().map(|state| ("state", state.to_string()));
        let body = self.body.iter().map(|test| ("body", test.to_string()));
        single.into_iter().flatten().chain(states).chain(body).collect()
    }
}

fn once<T: FromStr<Err: Display>>(part: &mut Option<T>, name: &str, value: &str) -> Result<(), BadQuery> {
    match part.replace(read(name, value)?) {
        None => Ok(()),
        Some(_) => Err(BadQuery::Twice(name.to_owned())),
    }
}

fn read<T: FromStr<Err: Display>>(name: &str, value: &str) -> Result<T, BadQuery> {
    value.parse().map_err(|why: T::Err| unreadable(name, value, why.to_string()))
}

fn unreadable(name: &str, value: &str, why: String) -> BadQuery {
    BadQuery::Unreadable { name: name.to_owned(), value: value.to_owned(), why }
}
