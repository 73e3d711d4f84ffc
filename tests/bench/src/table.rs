//! The table, and the targets held against it.

use crate::contestant::Kind;
use crate::trial::{Figures, Result};

/// The most memory that Backstop may take, in bytes: 100 MB.
const MEMORY: u64 = 100_000_000;

/// Prints both.
pub(crate) fn print(results: &[Result]) {
    let (asynchronous, waiting): (Vec<&Result>, Vec<&Result>) =
        results.iter().partition(|result| result.kind.is_async());
    if !asynchronous.is_empty() {
        println!(
            "| contestant | accepted/s | delivered/s | p50 accept → delivery | p99 | CPU s per 1,000 | peak memory | lost | repeated | refused |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
        for result in asynchronous {
            println!(
                "{}",
                row(result, |figures| {
                    format!(
                        "{:.0} | {:.0} | {:.2} ms | {:.2} ms | {:.3} | {} | {} | {} | {}",
                        figures.accepted,
                        figures.delivered,
                        figures.p50,
                        figures.p99,
                        figures.cpu,
                        megabytes(figures.memory),
                        figures.lost,
                        figures.repeated,
                        figures.refused
                    )
                })
            );
        }
        println!();
    }
    if !waiting.is_empty() {
        println!(
            "| contestant | requests/s | p50 | p99 | p50 at 500/s | p99 at 500/s | CPU s per 1,000 | peak memory | lost | repeated |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
        for result in waiting {
            println!(
                "{}",
                row(result, |figures| {
                    let (p50, p99) = figures.modest.unwrap_or_default();
                    let cost = match result.kind {
                        Kind::Direct => "– | –".to_owned(),
                        _ => format!("{:.3} | {}", figures.cpu, megabytes(figures.memory)),
                    };
                    format!(
                        "{:.0} | {:.2} ms | {:.2} ms | {:.2} ms | {:.2} ms | {cost} | {} | {}",
                        figures.accepted, figures.p50, figures.p99, p50, p99, figures.lost, figures.repeated
                    )
                })
            );
        }
        println!();
    }
    targets(results);
}

fn row(result: &Result, cells: impl Fn(&Figures) -> String) -> String {
    match &result.figures {
        Ok(figures) => format!("| {} | {} |", result.kind.name(), cells(figures)),
        Err(why) => format!("| {} | not measured: {why} |", result.kind.name()),
    }
}

/// Bytes in MB.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// What is asked of one run.
fn targets(results: &[Result]) {
    println!("| target | measured | |");
    println!("|---|---:|---|");
    let of =
        |kind: Kind| results.iter().find(|result| result.kind == kind).and_then(|result| result.figures.as_ref().ok());
    let delivered = |kind| of(kind).map(|figures| figures.delivered);
    let share = |one: Kind, other: Kind| Some(delivered(one)? / delivered(other)?);
    for (name, least, measured) in [
        ("(c) delivers at least 0.8 of (b)", 0.8, share(Kind::AsyncOnSqlite, Kind::DurableRelay)),
        ("(c) delivers at least 0.4 of (a)", 0.4, share(Kind::AsyncOnSqlite, Kind::BareRelay)),
        ("(d) delivers at least 0.4 of (c)", 0.4, share(Kind::AsyncOnPostgres, Kind::AsyncOnSqlite)),
        ("sync carries at least 0.7 of nginx", 0.7, share(Kind::Sync, Kind::Nginx)),
    ] {
        line(name, measured.map(|measured| (format!("{measured:.2}"), measured >= least)));
    }
    let p50 = |kind| of(kind).and_then(|figures| figures.modest).map(|(p50, _)| p50);
    let added = p50(Kind::Sync).zip(p50(Kind::Direct)).map(|(sync, direct)| sync - direct);
    line(
        "sync adds at most 0.3 ms at p50 to a direct call",
        added.map(|added| (format!("{added:.2} ms"), added <= 0.3)),
    );
    let own = [Kind::AsyncOnSqlite, Kind::AsyncOnPostgres, Kind::Sync];
    let most = own.into_iter().filter_map(|kind| Some(of(kind)?.memory)).max();
    line("Backstop's memory stays under 100 MB", most.map(|most| (megabytes(most), most < MEMORY)));
    let astray = own.into_iter().filter_map(|kind| Some(of(kind)?.lost)).reduce(|one, other| one + other);
    line("nothing is lost", astray.map(|astray| (astray.to_string(), astray == 0)));
}

fn line(name: &str, measured: Option<(String, bool)>) {
    match measured {
        Some((value, met)) => println!("| {name} | {value} | {} |", if met { "met" } else { "**missed**" }),
        None => println!("| {name} | – | not measured |"),
    }
}
