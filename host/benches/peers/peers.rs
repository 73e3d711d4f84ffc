//! What one decision costs with Backstop, and with what a user might choose instead. See the README beside this file.
//!
//! ```text
//! cargo bench --manifest-path host/benches/peers/Cargo.toml
//! ```

use std::sync::LazyLock;

use backstop::config::Isolation;
use backstop::message::{Outcome, VerdictKind};
use backstop_peers::cel::Cel;
use backstop_peers::extism::Compiled;
use backstop_peers::javascript::{Fresh, JavaScript};
use backstop_peers::lua::Lua;
use backstop_peers::rego::Rego;
use backstop_peers::rhai::Rhai;
use backstop_peers::{Body, Peer, Question};
use divan::Bencher;

#[path = "../decide/guest/src/lib.rs"]
mod guest;
#[path = "../decide/ours.rs"]
mod ours;
#[path = "../decide/question.rs"]
mod question;
mod trial;

/// Where Backstop's policy is.
const GUEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../decide/guest");

fn main() {
    divan::main();
}

/// Extism's plugin, built and compiled once.
static PLUGIN: LazyLock<Compiled> = LazyLock::new(|| made(Compiled::build()));

/// Answer 200, two wanted header fields, 1 KiB of JSON whose error code decides.
#[divan::bench_group(sample_count = 100, sample_size = 100)]
mod error_inside {
    use super::*;

    #[divan::bench(sample_size = 500)]
    fn native_rust(bencher: Bencher<'_, '_>) {
        ours::native(bencher, &ours::error_inside());
    }

    #[divan::bench(sample_size = 500)]
    fn backstop_reused(bencher: Bencher<'_, '_>) {
        ours::sandboxed(bencher, &ours::error_inside(), Isolation::Reuse, VerdictKind::Retry);
    }

    #[divan::bench]
    fn backstop_fresh(bencher: Bencher<'_, '_>) {
        ours::sandboxed(bencher, &ours::error_inside(), Isolation::Fresh, VerdictKind::Retry);
    }

    #[divan::bench]
    fn cel(bencher: Bencher<'_, '_>) {
        peer(bencher, Cel::new(Body::Whole), &ours::error_inside());
    }

    #[divan::bench]
    fn rego(bencher: Bencher<'_, '_>) {
        peer(bencher, Rego::new(), &ours::error_inside());
    }

    #[divan::bench]
    fn rhai_tree(bencher: Bencher<'_, '_>) {
        peer(bencher, Rhai::new(Body::Whole), &ours::error_inside());
    }

    #[divan::bench]
    fn rhai_bytecode(bencher: Bencher<'_, '_>) {
        peer(bencher, Rhai::bytecode(Body::Whole), &ours::error_inside());
    }

    #[divan::bench]
    fn lua_reused(bencher: Bencher<'_, '_>) {
        peer(bencher, Lua::new(Body::Whole), &ours::error_inside());
    }

    #[divan::bench(sample_size = 10)]
    fn lua_fresh(bencher: Bencher<'_, '_>) {
        peer(bencher, Lua::compile(Body::Whole), &ours::error_inside());
    }

    #[divan::bench]
    fn javascript_reused(bencher: Bencher<'_, '_>) {
        peer(bencher, JavaScript::new(Body::Whole), &ours::error_inside());
    }

    #[divan::bench(sample_size = 10)]
    fn javascript_fresh(bencher: Bencher<'_, '_>) {
        peer(bencher, Ok(Fresh(Body::Whole)), &ours::error_inside());
    }

    #[divan::bench]
    fn extism_reused(bencher: Bencher<'_, '_>) {
        peer(bencher, PLUGIN.instance(), &ours::error_inside());
    }

    #[divan::bench(sample_size = 10)]
    fn extism_fresh(bencher: Bencher<'_, '_>) {
        peer(bencher, Ok(&*PLUGIN), &ours::error_inside());
    }
}

/// The same, but for those peers that can call the host: native code reads the one value that decides, outside of the
/// peer and its limits.
#[divan::bench_group(sample_count = 100, sample_size = 100)]
mod error_inside_found_by_the_host {
    use super::*;

    #[divan::bench]
    fn cel(bencher: Bencher<'_, '_>) {
        peer(bencher, Cel::new(Body::Pointer), &ours::error_inside());
    }

    #[divan::bench]
    fn rhai_tree(bencher: Bencher<'_, '_>) {
        peer(bencher, Rhai::new(Body::Pointer), &ours::error_inside());
    }

    #[divan::bench]
    fn rhai_bytecode(bencher: Bencher<'_, '_>) {
        peer(bencher, Rhai::bytecode(Body::Pointer), &ours::error_inside());
    }

    #[divan::bench]
    fn lua_reused(bencher: Bencher<'_, '_>) {
        peer(bencher, Lua::new(Body::Pointer), &ours::error_inside());
    }

    #[divan::bench(sample_size = 10)]
    fn lua_fresh(bencher: Bencher<'_, '_>) {
        peer(bencher, Lua::compile(Body::Pointer), &ours::error_inside());
    }

    #[divan::bench]
    fn javascript_reused(bencher: Bencher<'_, '_>) {
        peer(bencher, JavaScript::new(Body::Pointer), &ours::error_inside());
    }
}

/// Answer 503 without a body or a wanted field.
#[divan::bench_group(sample_count = 100, sample_size = 100)]
mod bodyless {
    use super::*;

    #[divan::bench(sample_size = 500)]
    fn native_rust(bencher: Bencher<'_, '_>) {
        ours::native(bencher, &ours::bodyless());
    }

    #[divan::bench(sample_size = 500)]
    fn backstop_reused(bencher: Bencher<'_, '_>) {
        ours::sandboxed(bencher, &ours::bodyless(), Isolation::Reuse, VerdictKind::Retry);
    }

    #[divan::bench]
    fn backstop_fresh(bencher: Bencher<'_, '_>) {
        ours::sandboxed(bencher, &ours::bodyless(), Isolation::Fresh, VerdictKind::Retry);
    }

    #[divan::bench]
    fn cel(bencher: Bencher<'_, '_>) {
        peer(bencher, Cel::new(Body::Whole), &ours::bodyless());
    }

    #[divan::bench]
    fn rego(bencher: Bencher<'_, '_>) {
        peer(bencher, Rego::new(), &ours::bodyless());
    }

    #[divan::bench]
    fn rhai_tree(bencher: Bencher<'_, '_>) {
        peer(bencher, Rhai::new(Body::Whole), &ours::bodyless());
    }

    #[divan::bench]
    fn rhai_bytecode(bencher: Bencher<'_, '_>) {
        peer(bencher, Rhai::bytecode(Body::Whole), &ours::bodyless());
    }

    #[divan::bench]
    fn lua_reused(bencher: Bencher<'_, '_>) {
        peer(bencher, Lua::new(Body::Whole), &ours::bodyless());
    }

    #[divan::bench(sample_size = 10)]
    fn lua_fresh(bencher: Bencher<'_, '_>) {
        peer(bencher, Lua::compile(Body::Whole), &ours::bodyless());
    }

    #[divan::bench]
    fn javascript_reused(bencher: Bencher<'_, '_>) {
        peer(bencher, JavaScript::new(Body::Whole), &ours::bodyless());
    }

    #[divan::bench(sample_size = 10)]
    fn javascript_fresh(bencher: Bencher<'_, '_>) {
        peer(bencher, Ok(Fresh(Body::Whole)), &ours::bodyless());
    }

    #[divan::bench]
    fn extism_reused(bencher: Bencher<'_, '_>) {
        peer(bencher, PLUGIN.instance(), &ours::bodyless());
    }

    #[divan::bench(sample_size = 10)]
    fn extism_fresh(bencher: Bencher<'_, '_>) {
        peer(bencher, Ok(&*PLUGIN), &ours::bodyless());
    }
}

/// Measures a peer, once it has shown that it decides as the policy does.
fn peer(bencher: Bencher<'_, '_>, peer: anyhow::Result<impl Peer>, outcome: &Outcome) {
    let mut peer = made(peer);
    trial::hold(&mut peer);
    bencher.bench_local(|| Question::of(divan::black_box(outcome)).and_then(|question| peer.judge(&question)));
}

fn made<T>(made: anyhow::Result<T>) -> T {
    made.unwrap_or_else(|error| panic!("failed to make a contestant: {error:#}"))
}
