//! The doorbell: arguments in, exit code out.

use std::process::ExitCode;

use backstop::cli::{self, Cli};
use clap::Parser;
use mimalloc::MiMalloc;

/// A message is some hundred small allocations on its way, most of them given back on another thread.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: failed to start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(cli::run(cli));
    // What still runs on blocking threads (a policy being compiled, say) is not worth waiting for.
    runtime.shutdown_background();
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
