//! Compiled code on disk, so that a start need not compile what an earlier one did.
//!
//! An entry is named by the digest of the component it was compiled from and by the engine (wasmtime's version, its
//! settings, the processor's features): whatever else it was made for is not found. It begins with a digest of its own,
//! so that one that was cut short or has rotted is compiled anew instead of being run. That is no protection against
//! whoever can write here, which is why [`StateDir`](super::state_dir::StateDir) lets nobody else.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::state_dir::write_whole;

/// Bytes kept of compiled code; beyond it the entries written longest ago go. A policy in Rust takes some hundred
/// kilobytes, an interpreter some tens of megabytes.
const MOST: u64 = 2 << 30;

/// The length of SHA-256.
const SUM: usize = 32;

/// The folder of compiled code.
#[derive(Clone, Debug)]
pub(super) struct CompiledCode {
    folder: PathBuf,
    most: u64,
}

impl CompiledCode {
    /// In a folder that nobody else can write to.
    pub(super) const fn new(folder: PathBuf) -> Self {
        Self { folder, most: MOST }
    }

    /// The code of `component`, from disk if it is there, else by `compile`, and then kept. A disk that cannot be
    /// written to costs only the next start's time, and is logged.
    pub(super) fn of<E>(
        &self,
        engine: &Engine,
        component: &[u8],
        compile: impl FnOnce() -> Result<Component, E>,
    ) -> Result<Component, E> {
        let entry = self.entry(engine, component);
        if let Some(code) = load(engine, &entry) {
            return Ok(code);
        }
        let compiled = compile()?;
        if let Err(error) = self.keep(&compiled, &entry) {
            tracing::warn!(folder = %self.folder.display(), %error, "failed to keep a policy's compiled code");
        }
        Ok(compiled)
    }

    fn entry(&self, engine: &Engine, component: &[u8]) -> PathBuf {
        let mut compatibility = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut compatibility);
        let digest = super::load::digest(component);
        self.folder.join(format!("{digest}-{:016x}.code", compatibility.finish()))
    }

    fn keep(&self, compiled: &Component, entry: &Path) -> io::Result<()> {
        let code = compiled.serialize().map_err(|error| io::Error::other(format!("{error:#}")))?;
        write_whole(entry, &[&Sha256::digest(&code), &code])?;
        self.trim(entry)
    }

    /// Removes the entries written longest ago until what is left keeps to the bound; never the one just written.
    fn trim(&self, just_written: &Path) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // Another thread may have renamed or removed it since.
            let Ok(metadata) = entry.metadata() else { continue };
            entries.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), entry.path()));
        }
        let mut kept: u64 = entries.iter().map(|(_, size, _)| size).sum();
        entries.sort();
        for (_, size, path) in entries {
            if kept <= self.most {
                break;
            }
            if path != just_written {
                fs::remove_file(path).or_else(|error| match error.kind() {
                    io::ErrorKind::NotFound => Ok(()),
                    _ => Err(error),
                })?;
                kept = kept.saturating_sub(size);
            }
        }
        Ok(())
    }
}

/// The code in a file that we wrote, whole, for this engine; otherwise none.
fn load(engine: &Engine, entry: &Path) -> Option<Component> {
    // Reading a pipe would wait for its other end.
    if !fs::symlink_metadata(entry).ok()?.is_file() {
        return None;
    }
    let file = fs::read(entry).ok()?;
    let (sum, code) = file.split_at_checked(SUM)?;
    if Sha256::digest(code)[..] != *sum {
        tracing::warn!(file = %entry.display(), "compiled code was damaged on disk: compiling it again");
        return None;
    }
    #[expect(
        unsafe_code,
        reason = "the bytes are native code, as they left `Component::serialize`: only this host's user can write to \
                  the folder they come from, and their digest was checked"
    )]
    let loaded = unsafe { Component::deserialize(engine, code) };
    loaded.ok()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;

    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    struct Counted {
        _dir: tempfile::TempDir,
        code: CompiledCode,
        compiled: Cell<u32>,
    }

    impl Counted {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a folder");
            let code = CompiledCode::new(dir.path().to_owned());
            Self { _dir: dir, code, compiled: Cell::new(0) }
        }

        fn ask(&self, engine: &Engine) {
            let compile = || {
                self.compiled.set(self.compiled.get() + 1);
                Ok::<_, Infallible>(Component::from_binary(engine, EMPTY).expect("the least of components"))
            };
            let Ok(_component) = self.code.of(engine, EMPTY, compile);
        }

        fn entries(&self) -> Vec<PathBuf> {
            let entries = fs::read_dir(&self.code.folder).expect("it is there");
            entries.map(|entry| entry.expect("an entry").path()).collect()
        }
    }

    #[test]
    fn what_was_compiled_once_is_found_by_the_same_engine_only() {
        let code = Counted::new();
        let engine = Engine::default();
        code.ask(&engine);
        code.ask(&engine);
        assert_eq!(code.compiled.get(), 1, "the second time it is found");
        code.ask(&Engine::new(wasmtime::Config::new().consume_fuel(true)).expect("an engine"));
        assert_eq!(code.compiled.get(), 2, "code that burns no fuel must not be found by an engine that counts it");
        assert_eq!(code.entries().len(), 2);
    }

    #[test]
    fn beyond_the_bound_what_was_written_longest_ago_goes() {
        let mut code = Counted::new();
        let engine = Engine::default();
        code.ask(&engine);
        let [entry] = code.entries().try_into().expect("one entry");
        let size = fs::metadata(&entry).expect("it is there").len();
        let long_ago = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        fs::File::options().write(true).open(&entry).expect("opened").set_modified(long_ago).expect("dated");
        code.code.most = size + size / 2;
        code.ask(&Engine::new(wasmtime::Config::new().consume_fuel(true)).expect("an engine"));
        let [left] = code.entries().try_into().expect("there is room for one");
        assert_ne!(left, entry, "the newer one stays");
    }

    #[test]
    fn what_was_damaged_is_compiled_again_and_mended() {
        let code = Counted::new();
        let engine = Engine::default();
        code.ask(&engine);
        let [entry] = code.entries().try_into().expect("one entry");
        let whole = fs::read(&entry).expect("read");
        let mut flipped = whole.clone();
        *flipped.last_mut().expect("it is not empty") ^= 1;
        for (n, damaged) in [&whole[..whole.len() / 2], &whole[..10], &[], &flipped].into_iter().enumerate() {
            fs::write(&entry, damaged).expect("written");
            code.ask(&engine);
            assert_eq!(code.compiled.get(), u32::try_from(n).expect("small") + 2, "it was not trusted");
            assert_eq!(fs::read(&entry).expect("read").len(), whole.len(), "it is whole again");
        }
    }
}
