//! `backstop policy`: making policies, each command in a file of its own.

mod build;
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
}

impl Policy {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        // Cargo and the sandbox's compiler are waited for; nothing else runs meanwhile.
        let done = tokio::task::spawn_blocking(move || match self.command {
            Command::Build(build) => build.run(),
            Command::New(new) => new.run(),
            Command::Test(test) => test.run(),
        });
        done.await.context("the command broke off")?
    }
}
