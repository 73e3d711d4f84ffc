//! What is wrong with the policies that routes use: all of it at once, at the lines of the configuration it concerns.

use std::fmt;

use crate::config::{Problem, Problems, Sources};
use crate::message::RouteName;

/// One thing wrong with a policy, or with a route's configuration of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyProblem {
    /// The policy.
    pub policy: String,
    /// The routes it concerns.
    pub routes: Vec<RouteName>,
    /// Where in the route's `policy_config`, as a JSON pointer; empty when it concerns no single place.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

impl PolicyProblem {
    /// The problem at the line of each route it concerns.
    fn at_its_lines(&self, sources: &Sources) -> Vec<Problem> {
        let at = |route| {
            if self.pointer.is_empty() {
                sources.route_problem(route, "policy", format!("policy `{}`: {}", self.policy, self.message))
            } else if sources.holds_secret(route, &self.pointer) {
                let message =
                    format!("policy `{}` refuses this value, which came from a variable or a file", self.policy);
                sources.problem(route, &self.pointer, message)
            } else {
                sources.problem(route, &self.pointer, self.message.clone())
            }
        };
        self.routes.iter().map(at).collect()
    }
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [route] = self.routes.as_slice() {
            write!(f, "route `{route}`: ")?;
        }
        write!(f, "policy `{}`: ", self.policy)?;
        if !self.pointer.is_empty() {
            write!(f, "policy_config{}: ", self.pointer)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything wrong with the policies that the routes use: never empty.
#[derive(Clone, Debug, thiserror::Error)]
pub struct PolicyProblems(pub Vec<PolicyProblem>);

impl fmt::Display for PolicyProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl PolicyProblems {
    /// The same at the lines of the configuration that they concern, with `sources` saying what stands where. No value
    /// that came from a variable or a file is quoted.
    pub fn in_file(&self, sources: &Sources) -> Problems {
        sources.problems(self.0.iter().flat_map(|problem| problem.at_its_lines(sources)).collect())
    }
}
