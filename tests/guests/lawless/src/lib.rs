//! A policy that breaks one law, the one that its configuration names, and only where a generator that knows nothing of
//! it is unlikely to look: so that a law caught here is caught in earnest. Otherwise it is the standard rule.

use std::cell::Cell;

use backstop_sdk::prelude::*;

/// Which law to break.
#[derive(Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Law {
    #[serde(rename = "never-retries-410")]
    NeverRetries410,
    #[serde(rename = "never-accepts-5xx")]
    NeverAccepts5xx,
    NeverAcceptsSilence,
    NeverShortensRetryAfter,
    GivesAReason,
    DeclaresWhatItReads,
    AnswersWithinFuel,
    Total,
    Pure,
}

/// The configuration.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    breaks: Law,
}

struct Lawless {
    breaks: Law,
    asked: Cell<u32>,
}

impl Configured for Lawless {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self { breaks: config.breaks, asked: Cell::new(0) })
    }
}

impl Policy for Lawless {
    fn interest(&self) -> Interest {
        Interest::none().header("retry-after").body(8 * 1024)
    }

    fn judge(&self, attempt: &Attempt, outcome: &Outcome) -> Decision {
        self.asked.set(self.asked.get() + 1);
        let status = outcome.status();
        match self.breaks {
            Law::NeverRetries410 if status == Some(410) && outcome.body_text().contains("back tomorrow") => {
                return retry_after(hours(24), "gone until tomorrow");
            }
            // The code of an error, deep inside.
            Law::NeverAccepts5xx if matches!(status, Some(500..=599)) => {
                if outcome.json_pointer("/Response/Error/Code").is_some_and(|code| code == "AlreadyDone") {
                    return accept("done before");
                }
            }
            Law::NeverAcceptsSilence if outcome.fault() == Some(Fault::Reset) && attempt.number > 2 => {
                return accept("it has surely arrived");
            }
            Law::NeverShortensRetryAfter => {
                if let (Some(429), Some(Ok(wait))) = (status, outcome.header("retry-after").map(str::parse::<u64>)) {
                    return retry_after(seconds(wait.min(20)), "twenty seconds are enough");
                }
            }
            Law::GivesAReason if status == Some(403) => return dead_letter(""),
            Law::DeclaresWhatItReads if status == Some(401) => {
                if outcome.header("www-authenticate").is_some() {
                    return reauthenticate("token expired");
                }
            }
            // Quadratic in a body that somebody else writes.
            Law::AnswersWithinFuel if status == Some(200) => {
                let body = outcome.body();
                let pairs = body.iter().flat_map(|a| body.iter().map(move |b| std::hint::black_box(a) == b));
                if pairs.filter(|same| *same).count() == usize::MAX {
                    return drop_message("cannot be");
                }
            }
            Law::Total if status == Some(429) => {
                let wait = outcome.header("retry-after").unwrap_or("0");
                return retry_after(seconds(wait.parse().expect("a Retry-After in seconds")), "as asked");
            }
            Law::Pure if self.asked.get() > 1000 => return dead_letter("enough for today"),
            _ => {}
        }
        standard(attempt, outcome)
    }
}

export_policy!(Lawless, config = Config);
