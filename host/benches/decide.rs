//! What one decision costs: the same policy as native Rust, on a reused instance in the sandbox, and on a fresh one.
//!
//! ```text
//! cargo bench -p backstop --bench decide
//! ```

#![expect(unreachable_pub, reason = "what is in these modules is public where they are crates of their own")]

use backstop::config::Isolation;
use backstop::message::VerdictKind;
use divan::Bencher;

#[path = "decide/guest/src/lib.rs"]
mod guest;
#[path = "decide/ours.rs"]
mod ours;
#[path = "decide/question.rs"]
mod question;

/// Where the policy's crate is.
const GUEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/decide/guest");

fn main() {
    divan::main();
}

/// Answer 200, two wanted header fields, 1 KiB of JSON whose error code decides.
#[divan::bench_group(sample_count = 200, sample_size = 500)]
mod error_inside {
    use super::*;

    #[divan::bench]
    fn native_rust(bencher: Bencher<'_, '_>) {
        ours::native(bencher, &ours::error_inside());
    }

    #[divan::bench]
    fn reused_instance(bencher: Bencher<'_, '_>) {
        ours::sandboxed(bencher, &ours::error_inside(), Isolation::Reuse, VerdictKind::Retry);
    }

    #[divan::bench]
    fn fresh_instance(bencher: Bencher<'_, '_>) {
        ours::sandboxed(bencher, &ours::error_inside(), Isolation::Fresh, VerdictKind::Retry);
    }
}

/// Answer 503 without a body or a wanted field.
#[divan::bench_group(sample_count = 200, sample_size = 500)]
mod bodyless {
    use super::*;

    #[divan::bench]
    fn native_rust(bencher: Bencher<'_, '_>) {
        ours::native(bencher, &ours::bodyless());
    }

    #[divan::bench]
    fn reused_instance(bencher: Bencher<'_, '_>) {
        ours::sandboxed(bencher, &ours::bodyless(), Isolation::Reuse, VerdictKind::Retry);
    }

    #[divan::bench]
    fn fresh_instance(bencher: Bencher<'_, '_>) {
        ours::sandboxed(bencher, &ours::bodyless(), Isolation::Fresh, VerdictKind::Retry);
    }
}
