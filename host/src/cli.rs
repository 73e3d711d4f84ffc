//! The command line: each command in a file of its own; what a command does is done by the modules it calls.

/// Prints a line for the person, or the program, at the other end; when that is gone, there is nothing left to do.
macro_rules! out {
    () => { $crate::cli::print(format_args!("")) };
    ($($line:tt)*) => { $crate::cli::print(format_args!($($line)*)) };
}

mod archive;
mod check;
mod dead;
mod demo;
mod log;
mod messages;
mod policy;
mod send;
mod serve;
mod transactions;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use url::Url;

use crate::config::Secret;
use crate::dispatch::HostClient;

/// Runs the retry loop for HTTP calls; sandboxed WebAssembly policies decide.
#[derive(Parser, Debug)]
#[command(name = "backstop", version, about, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How log lines are written to standard error.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log: LogFormat,
    /// Which log lines: a level (error, warn, info, debug), or directives such as `warn,backstop::attempt=info`.
    #[arg(long, global = true, default_value = "info", value_name = "FILTER")]
    log_level: String,
}

/// How log lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the host until SIGTERM or SIGINT. A changed configuration takes effect by itself, and at once with SIGHUP.
    #[command(after_help = "Example:\n  backstop serve -c backstop.yaml --log json")]
    Serve(serve::Serve),
    /// Validate a configuration, its policies and their configurations, and print the resolved routes.
    #[command(
        after_help = "Examples:\n  backstop check -c backstop.yaml\n  backstop check --schema > backstop.schema.json"
    )]
    Check(check::Check),
    /// Watch failing vendors being classified by policies, retried, answered by a fallback or dead-lettered.
    #[command(after_help = "Examples:\n  backstop demo --for 20s\n  backstop demo --system risk-control")]
    Demo(demo::Demo),
    /// Send one request through a running host, to try a route.
    #[command(
        after_help = "Examples:\n  backstop send orders /v1/orders -d '{\"id\": 7}'\n  backstop send orders -X PUT -H 'content-type: text/plain' -d @body.txt"
    )]
    Send(send::Send),
    /// Look at the messages of a running host, or give up those of routes that are gone.
    #[command(
        after_help = "Examples:\n  backstop messages list --route orders --state queued\n  backstop messages show 01931b5e-…\n  backstop messages discard --route gone --all"
    )]
    Messages(messages::Messages),
    /// Look at dead letters, queue them again, or give them up.
    #[command(
        after_help = "Examples:\n  backstop dead list --route orders\n  backstop dead redrive --route orders --reason maintenance\n  backstop dead discard 01931b5e-…"
    )]
    Dead(dead::Dead),
    /// Look at half messages, have their senders asked again, or decide in their stead.
    #[command(
        after_help = "Examples:\n  backstop transactions list --state parked\n  backstop transactions resume 01931b5e-…"
    )]
    Transactions(transactions::Transactions),
    /// Find messages that have been, take them out as NDJSON, or publish them again.
    #[command(
        after_help = "Examples:\n  backstop archive query --state dead --from 2h --body /order/country=NO\n  backstop archive export --route orders > orders.ndjson\n  backstop archive republish --state dead --reason maintenance --rate 20"
    )]
    Archive(archive::Archive),
    /// Build policies, try them, and ask them.
    Policy(policy::Policy),
}

/// Where a running host's admin API is.
#[derive(Args, Debug)]
struct AdminArgs {
    /// The admin API of the running host.
    #[arg(long, default_value = "http://127.0.0.1:8081", value_name = "URL", value_parser = host_url)]
    admin: Url,
    /// A file that holds the admin token, where the host asks for one.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

impl AdminArgs {
    async fn client(&self) -> anyhow::Result<HostClient> {
        let token = match &self.admin_token_file {
            Some(file) => {
                let text = tokio::fs::read_to_string(file).await;
                let text = text.with_context(|| format!("failed to read the admin token from {}", file.display()))?;
                Some(Secret::new(text.trim_end()))
            }
            None => None,
        };
        Ok(HostClient::new(self.admin.clone(), token.as_ref())?)
    }
}

fn print(line: std::fmt::Arguments<'_>) {
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(1);
    }
}

/// Reads where a host is: a URL, or an address alone.
fn host_url(text: &str) -> Result<Url, String> {
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&url).map_err(|error| format!("{error}; write an address such as 127.0.0.1:8081"))?;
    if url.has_host() { Ok(url) } else { Err("write an address such as 127.0.0.1:8081".to_owned()) }
}

/// Carries a command out.
///
/// # Errors
/// What went wrong, for the person at the terminal.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    // The log's writer lives as long as the command, and is flushed at its end.
    let log = log::start(cli.log == LogFormat::Json, &cli.log_level, matches!(cli.command, Command::Demo(_)))?;
    let code = match cli.command {
        Command::Serve(serve) => serve.run().await,
        Command::Check(check) => check.run().await,
        Command::Demo(demo) => demo.run().await,
        Command::Send(send) => send.run().await,
        Command::Messages(messages) => messages.run().await,
        Command::Dead(dead) => dead.run().await,
        Command::Transactions(transactions) => transactions.run().await,
        Command::Archive(archive) => archive.run().await,
        Command::Policy(policy) => policy.run().await,
    };
    log.flush();
    code
}
