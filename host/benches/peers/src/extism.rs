//! Extism: a plugin in WebAssembly, written in Rust with Extism's own kit, which reads the body with the same code as
//! the policy of Backstop's.
//!
//! Its memory, fuel and time are limited. Question and answer cross as MessagePack, which Extism supports and which
//! carries a body without escaping it.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use extism::convert::Msgpack;
use extism::{CompiledPlugin, Manifest, Plugin, PluginBuilder, Wasm};
use serde::{Deserialize, Serialize};

use crate::{Decision, Peer, Question, limits};

/// Bytes in a page of WebAssembly's memory.
const PAGE: usize = 64 << 10;

/// What the plugin is asked. It knows it as `extism-guest/src/lib.rs` has it.
#[derive(Serialize)]
struct Asked<'a> {
    status: u16,
    headers: Vec<(&'a str, &'a str)>,
    #[serde(with = "serde_bytes")]
    body: &'a [u8],
}

/// What it answers.
#[derive(Deserialize)]
struct Answered {
    verdict: String,
    after: Option<u64>,
    reason: String,
}

/// The plugin, compiled, of which instances are made.
pub struct Compiled(CompiledPlugin);

/// An instance of the plugin, reused.
pub struct Extism(Plugin);

impl Compiled {
    /// Builds the plugin's crate with cargo, and compiles what it makes.
    ///
    /// # Errors
    /// When it does not build, or is no plugin.
    pub fn build() -> anyhow::Result<Self> {
        Self::new(build()?)
    }

    pub(crate) fn new(module: Vec<u8>) -> anyhow::Result<Self> {
        let pages = u32::try_from(limits::MEMORY / PAGE)?;
        let manifest = Manifest::new([Wasm::data(module)])
            .disallow_all_hosts()
            .with_memory_max(pages)
            .with_timeout(Duration::from_millis(limits::MILLIS));
        let compiled = PluginBuilder::new(manifest)
            .with_wasi(false)
            .with_fuel_limit(limits::OPERATIONS.into())
            .with_cache_disabled()
            .compile()?;
        Ok(Self(compiled))
    }

    /// Makes an instance.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn instance(&self) -> anyhow::Result<Extism> {
        Ok(Extism(Plugin::new_from_compiled(&self.0)?))
    }
}

impl Peer for &Compiled {
    /// Decides on a fresh instance.
    fn judge(&mut self, question: &Question<'_>) -> anyhow::Result<Decision> {
        self.instance()?.judge(question)
    }
}

impl Peer for Extism {
    fn judge(&mut self, question: &Question<'_>) -> anyhow::Result<Decision> {
        let asked = Asked { status: question.status, headers: question.headers().collect(), body: question.body };
        let Msgpack(answered): Msgpack<Answered> = self.0.call("judge", Msgpack(asked))?;
        Decision::new(&answered.verdict, answered.after, answered.reason)
    }
}

/// Builds the crate as Backstop builds policies, and returns the module.
fn build() -> anyhow::Result<Vec<u8>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| here.join("target"), Into::into).join("extism-guest");
    let built = Command::new("cargo")
        .args(["build", "--release", "--target", "wasm32-unknown-unknown", "--manifest-path"])
        .arg(here.join("extism-guest/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        // Backstop's policies are built with the same flags.
        .env("CARGO_ENCODED_RUSTFLAGS", "-C\u{1f}link-arg=-zstack-size=65536\u{1f}-C\u{1f}target-feature=+simd128")
        .status()
        .context("failed to run cargo")?;
    ensure!(built.success(), "the plugin did not build: see above");
    let module = target.join("wasm32-unknown-unknown/release/extism_guest.wasm");
    std::fs::read(&module).map_err(|error| anyhow!("failed to read {}: {error}", module.display()))
}
