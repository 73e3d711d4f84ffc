//! A policy that misbehaves, as its configuration says, when the vendor is a teapot (HTTP 418). Otherwise it is the
//! standard rule, so that it passes the rehearsal before it is loaded.

use backstop_sdk::prelude::*;

/// How to misbehave.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Trouble {
    /// Panics.
    Panic,
    /// Never returns.
    Spin,
    /// Wants ever more memory.
    Grow,
    /// Calls itself for ever.
    Recurse,
}

/// The configuration.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    trouble: Trouble,
}

struct Rough(Trouble);

impl Configured for Rough {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self(config.trouble))
    }
}

impl Policy for Rough {
    fn judge(&self, attempt: &Attempt, outcome: &Outcome) -> Decision {
        if outcome.status() == Some(418) {
            match self.0 {
                Trouble::Panic => panic!("a teapot was not foreseen"),
                Trouble::Spin => while std::hint::black_box(true) {},
                Trouble::Grow => grow(),
                Trouble::Recurse => drop(recurse(attempt.now)),
            }
        }
        standard(attempt, outcome)
    }
}

fn grow() {
    let mut hoard = Vec::new();
    loop {
        hoard.push(std::hint::black_box(Vec::<u8>::with_capacity(1 << 20)));
    }
}

fn recurse(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 64]);
    recurse(room[7].wrapping_add(1)).wrapping_add(room[11])
}

export_policy!(Rough, config = Config);
