//! Runs a command beside a private Postgres server, whose URL it finds in `BACKSTOP_TEST_POSTGRES`:
//!
//! ```sh
//! cargo run -p backstop-tests --bin private-postgres -- cargo test -p backstop postgres_
//! ```
//!
//! It exits as the command does, and the server is gone then. Where Postgres is not installed, it says what to install
//! and fails: no test is left out for want of a server.

use std::process::{Command, ExitCode};

use backstop_tests::postgres::Postgres;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: private-postgres COMMAND [ARGUMENT…]");
        return ExitCode::from(2);
    };
    let server = match Postgres::try_start() {
        Ok(server) => server,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::FAILURE;
        }
    };
    let ended = Command::new(&program).args(arguments).env("BACKSTOP_TEST_POSTGRES", server.url()).status();
    match ended {
        // Ended by a signal, it has no code.
        Ok(status) => u8::try_from(status.code().unwrap_or(1)).unwrap_or(1).into(),
        Err(error) => {
            eprintln!("error: failed to run {}: {error}", program.display());
            ExitCode::FAILURE
        }
    }
}
