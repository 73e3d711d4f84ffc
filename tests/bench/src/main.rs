//! What Backstop carries beside relays that promise less, and beside proxies: one command, one run, one table.
//!
//! ```sh
//! cargo run --release -p backstop-bench                 # all contestants: (a) to (e)
//! cargo run --release -p backstop-bench -- --isolation  # one of 50 destinations is a black hole
//! cargo run --release -p backstop-bench -- --backlog    # a million delayed messages, and how cost grows
//! ```
//!
//! The sink and the load generator live in this process; each contestant is one of its own. It measures; it holds
//! nothing against a target but in the table, since figures are of the machine as much as of the code.

mod backlog;
mod clock;
mod contestant;
mod isolation;
mod ledger;
mod load;
mod machine;
mod process;
mod relay;
mod sink;
mod table;
mod trial;
mod wire;

use std::path::PathBuf;

use clap::Parser;
use tempfile::TempDir;

use contestant::{Artefacts, Kind};

/// Measures what Backstop carries, beside what else could be used.
#[derive(Parser, Debug)]
struct Bench {
    #[command(subcommand)]
    command: Option<Command>,
    /// Messages sent to each contestant, beside a twentieth of that beforehand which is not measured.
    #[arg(long, default_value_t = 20_000)]
    messages: usize,
    /// Connections they are sent over.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Only these contestants, by letter: `a,b,c`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<char>,
    /// How often each contestant has its turn; the best of its turns is shown.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Instead: what one black hole among 50 destinations does to the other 49.
    #[arg(long)]
    isolation: bool,
    /// Instead: what a backlog of so many delayed messages does (1,000,000), and how cost grows.
    #[arg(long, num_args = 0..=1, default_missing_value = "1000000")]
    backlog: Option<usize>,
    /// Where everything is kept meanwhile; the system's temporary folder by default. It should be on the disk that
    /// matters.
    #[arg(long)]
    folder: Option<PathBuf>,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// A contestant: a relay. The bench starts it itself.
    #[command(hide = true)]
    Relay(relay::Relay),
}

fn main() -> anyhow::Result<()> {
    let bench = Bench::parse();
    if let Some(Command::Relay(relay)) = bench.command {
        return relay.run();
    }
    let artefacts = Artefacts::build()?;
    let place = TempDir::new_in(bench.folder.clone().unwrap_or_else(std::env::temp_dir))?;
    let place = place.path();
    println!("{}\n", machine::describe(place)?);
    if bench.isolation {
        return isolation::run(place, &artefacts);
    }
    if let Some(most) = bench.backlog {
        return backlog::run(most, bench.messages, bench.connections, place, &artefacts);
    }
    let takes_part = |kind: &Kind| bench.only.is_empty() || bench.only.contains(&kind.letter());
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(takes_part).collect();
    let mut results: Vec<trial::Result> = Vec::new();
    for round in 1..=bench.rounds.max(1) {
        for kind in kinds.iter().copied() {
            eprintln!("round {round}: {}", kind.name());
            let result = trial::run(kind, bench.messages, bench.connections, place, &artefacts)?;
            match results.iter_mut().find(|known| known.kind == kind) {
                Some(best) if result.is_better_than(best) => *best = result,
                Some(_) => {}
                None => results.push(result),
            }
        }
    }
    println!(
        "{} messages of 1 KiB over {} connections; the best of {} rounds.\n",
        bench.messages, bench.connections, bench.rounds
    );
    table::print(&results);
    Ok(())
}
