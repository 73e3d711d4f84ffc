//! `backstop policy`: making and trying policies, each command in a file of its own.

mod ask;
mod build;
mod candidate;
mod check;
mod inspect;
mod new;
mod test;

use std::process::ExitCode;

use anyhow::Context as _;

#[derive(clap::Args, Debug)]
pub(super) struct Policy {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Compile guest crates to components, check them against the contract, and write `policies/NAME.wasm`.
    #[command(
        after_help = "Examples:\n  backstop policy build                    # the crate here, or every crate in ./policies\n  backstop policy build my-rule --out policies"
    )]
    Build(build::Build),
    /// Make a crate for a new policy, with a unit test and a case file, that builds as it is.
    #[command(after_help = new::EXAMPLES)]
    New(new::New),
    /// Test a policy in the sandbox, by cases in YAML files.
    #[command(after_help = test::EXAMPLES)]
    Test(test::Test),
    /// Try a policy against the laws that every policy is held to, over thousands of generated outcomes.
    #[command(
        after_help = "Exit code: 0 when no law is broken, 1 when one is, 2 for a file that is no policy.\n\nExamples:\n  backstop policy check policies/my-rule.wasm\n  backstop policy check policies/vendor-codes.wasm --config codes.yaml --seed 7 --cases 100000\n  backstop policy check policies/my-rule.wasm --without never-retries-410='the vendor means: try later'"
    )]
    Check(check::Check),
    /// Show what a policy's file holds: imports, questions answered, interest, configuration, digest.
    #[command(
        after_help = "Examples:\n  backstop policy inspect policies/risk-control.wasm\n  backstop policy inspect policies/risk-control.wasm --json | jq .config_schema"
    )]
    Inspect(inspect::Inspect),
    /// Ask a policy one question, and show its answer and what a route makes of it.
    #[command(
        after_help = "Exit code: 0 when the policy answers, 1 when it fails at the question, 2 when it cannot be asked.\n\nExamples:\n  backstop policy ask policies/my-rule.wasm --status 429 --header 'retry-after: 30' --attempt 2\n  backstop policy ask policies/risk-control.wasm --status 200 --body @answer.json\n  backstop policy ask policies/my-rule.wasm --silence timeout --elapsed 90s --json\n  backstop policy ask policies/scan-platform.wasm --hook admit --request-body '{\"scan_id\": 7}'"
    )]
    Ask(Box<ask::Ask>),
}

impl Policy {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        // Cargo and the sandbox's compiler are waited for; nothing else runs meanwhile.
        let done = tokio::task::spawn_blocking(move || match self.command {
            Command::Build(build) => build.run(),
            Command::New(new) => new.run(),
            Command::Test(test) => test.run(),
            Command::Check(check) => check.run(),
            Command::Inspect(inspect) => inspect.run(),
            Command::Ask(ask) => ask.run(),
        });
        done.await.context("the command broke off")?
    }
}
