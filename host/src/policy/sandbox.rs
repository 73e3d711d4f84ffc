//! The sandbox: one wasmtime engine with every bound on it, its clock tick, and the slots that instances take.
//!
//! The first bound on a question is **fuel**, a count of instructions, so that the same policy is cut at the same
//! place on an idle and on a busy machine. Wall-clock time is only the backstop, for what fuel does not see: a tick
//! every [`TICK`] by a thread of its own, since a policy runs on the very threads that would drive a timer. Memory,
//! tables, stack, and the strings and lists a guest hands out are bounded besides.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use wasmtime::component::Component;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, ResourceLimiter};

use super::compiled::CompiledCode;

/// The grain of the wall-clock backstop: a question is cut at most this much later than its limit.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Instances alive at once, over all policies and routes.
pub const MAX_INSTANCES: usize = 512;

/// Of these, how many idle ones may not take, so that a question always finds room: one question runs on each thread
/// of the host at most.
const KEPT_FREE: usize = 128;

/// Jobs that wait for the sandbox's own thread.
const JOBS: usize = 64;

/// The most linear memory any route may allow a policy.
pub const MAX_MEMORY: usize = 256 << 20;

/// Entries of a table: function pointers, of which a policy in Rust has some hundred, in Python 5,700, in JavaScript
/// 7,700.
const TABLE_ELEMENTS: usize = 10_000;

/// Core modules in one component: the policy's own, and up to two that `wit-component` adds to tie it in. Python links
/// 38 (its interpreter, the C library in parts, and a stub for each part of WASI), which a pool only counts.
const MODULES_PER_POLICY: u32 = 48;

/// Tables in one component: the policy's own, and one that `wit-component` adds.
const TABLES_PER_POLICY: u32 = 4;

/// Native stack that a policy may use, of the two megabytes that a worker thread has.
const STACK: usize = 256 << 10;

/// The engine and what keeps time for it. The ticker ends with it.
pub(super) struct Sandbox {
    engine: Engine,
    slots: Arc<AtomicUsize>,
    compiled: Option<CompiledCode>,
    attention: Notify,
    turns: Semaphore,
    aside: Aside,
    _ticker: Ticker,
}

impl Sandbox {
    /// Sets the engine up and starts its threads. What it compiles is kept where `compiled` says.
    ///
    /// # Errors
    /// When the machine offers no executable memory, not enough address space, or no thread.
    pub(super) fn new(compiled: Option<CompiledCode>) -> Result<Self, SandboxError> {
        // Slots are reserved address space only (4 GiB each, so that no bounds check is needed); where that is rationed
        // (`ulimit -v`), instances are allocated one by one instead, which costs some microseconds more each.
        let engine = Engine::new(&settings(pooling())).or_else(|_| {
            let mut modest = settings(InstanceAllocationStrategy::OnDemand);
            modest.memory_reservation(MAX_MEMORY as u64).memory_guard_size(64 << 10);
            Engine::new(&modest)
        });
        let engine = engine.map_err(SandboxError::Engine)?;
        let ticker = Ticker::start(engine.clone()).map_err(SandboxError::Thread)?;
        let aside = Aside::start().map_err(SandboxError::Thread)?;
        let slots = Arc::new(AtomicUsize::new(0));
        // Questions that take long leave a core to everything else, where there is more than one.
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let turns = Semaphore::new(cores.saturating_sub(1).max(1));
        Ok(Self { engine, slots, compiled, attention: Notify::new(), turns, aside, _ticker: ticker })
    }

    /// Compiles a component, or finds it compiled already.
    pub(super) fn compile(&self, component: &[u8]) -> wasmtime::Result<Component> {
        let compile = || Component::from_binary(&self.engine, component);
        match &self.compiled {
            Some(compiled) => compiled.of(&self.engine, component, compile),
            None => compile(),
        }
    }

    /// Raised when a policy was set aside, for whoever can put another one in its place.
    pub(super) const fn attention(&self) -> &Notify {
        &self.attention
    }

    /// The turns of questions that take long, over all policies.
    pub(super) const fn turns(&self) -> &Semaphore {
        &self.turns
    }

    /// Does `job` soon, on a thread of the sandbox's own; not at all when [`JOBS`] wait already.
    pub(super) fn aside(&self, job: impl FnOnce() + Send + 'static) {
        self.aside.give(Box::new(job));
    }

    /// The engine that policies are compiled for.
    pub(super) const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Takes a slot for one instance, if one is free. Pool exhaustion is an error in wasmtime, not a wait, so a slot
    /// is held *before* instantiating.
    pub(super) fn slot(&self) -> Option<Slot> {
        let taken =
            self.slots.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < MAX_INSTANCES).then_some(n + 1));
        taken.ok().map(|_| Slot(Arc::clone(&self.slots)))
    }

    /// Whether an instance may stay alive with nothing to do.
    pub(super) fn has_room_to_idle(&self) -> bool {
        self.slots.load(Ordering::Relaxed) <= MAX_INSTANCES - KEPT_FREE
    }

    /// The epoch, in ticks from now, at which a question that may take `time` is cut.
    pub(super) fn deadline(time: Duration) -> u64 {
        // One more, since the first tick may be about to fall.
        let ticks = time.as_millis().div_ceil(TICK.as_millis()).saturating_add(1);
        u64::try_from(ticks).unwrap_or(u64::MAX / 2).min(u64::MAX / 2)
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("instances", &self.slots.load(Ordering::Relaxed)).finish_non_exhaustive()
    }
}

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The engine could not be set up.
    #[error("failed to set up the WebAssembly engine")]
    Engine(#[source] wasmtime::Error),
    /// One of its threads could not be started.
    #[error("failed to start a thread of the sandbox's own")]
    Thread(#[source] std::io::Error),
}

/// Room for one instance; given back when dropped.
#[derive(Debug)]
pub(super) struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn settings(allocation: InstanceAllocationStrategy) -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(STACK)
        .allocation_strategy(allocation)
        // No policy awaits anything; without this bookkeeping a call costs less than half.
        .concurrency_support(false)
        // A policy's own panic message says more than addresses in it would.
        .wasm_backtrace_max_frames(None)
        // The same question must have the same answer on every machine.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false);
    config
}

fn pooling() -> InstanceAllocationStrategy {
    let instances = u32::try_from(MAX_INSTANCES).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(MODULES_PER_POLICY))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(TABLES_PER_POLICY))
        .max_core_instances_per_component(MODULES_PER_POLICY)
        .max_memories_per_component(1)
        .max_tables_per_component(TABLES_PER_POLICY)
        .max_memory_size(MAX_MEMORY)
        .table_elements(TABLE_ELEMENTS)
        // A policy touches some pages of its memory; clearing these by hand is cheaper than giving them back to the kernel
        // and taking a fault for each of them again. Which ones, the kernel says (Linux 6.7; without it, the first are
        // cleared whether touched or not).
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(128 << 10)
        .table_keep_resident(8 << 10);
    InstanceAllocationStrategy::Pooling(pool)
}

/// The thread that raises the engine's epoch. It ends when dropped, and is waited for.
struct Ticker {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: Engine) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("policy-ticker".to_owned()).spawn(move || {
            while stopped.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                engine.increment_epoch();
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It can only have ended well: it runs nothing that panics.
            let _ = thread.join();
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The thread that makes instances ready before a question waits for one. It ends when dropped, and is waited for.
struct Aside {
    jobs: Option<mpsc::SyncSender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Aside {
    fn start() -> std::io::Result<Self> {
        let (jobs, given) = mpsc::sync_channel::<Job>(JOBS);
        let thread = thread::Builder::new().name("policy-aside".to_owned()).spawn(move || {
            while let Ok(job) = given.recv() {
                job();
            }
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    fn give(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // What finds no place is done by the question that needs it.
            let _ = jobs.try_send(job);
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // A job may hold the last reference to its sandbox: then this is the thread itself, which is about to end.
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id()) {
            let _ = thread.join();
        }
    }
}

/// What one instance may grow to. Remembers a refusal, since a guest only says that it aborted.
#[derive(Debug)]
pub(super) struct Growth {
    /// Linear memory, in bytes.
    memory: usize,
    /// The size that was refused.
    refused: Option<NonZeroUsize>,
}

impl Growth {
    /// At most `memory` bytes, and never more than [`MAX_MEMORY`].
    pub(super) fn up_to(memory: usize) -> Self {
        Self { memory: memory.min(MAX_MEMORY), refused: None }
    }

    /// Forgets what was refused: another question begins.
    pub(super) fn begin(&mut self) {
        self.refused = None;
    }

    /// What was refused, in words.
    pub(super) fn refusal(&self) -> Option<String> {
        self.refused.map(|size| format!("wanted {} of memory, its limit is {}", bytes(size.get()), bytes(self.memory)))
    }
}

/// A size for people.
pub(super) fn bytes(size: usize) -> String {
    match size {
        0..1024 => format!("{size} bytes"),
        1024..1_048_576 => format!("{} KiB", size.div_ceil(1024)),
        _ => format!("{} MiB", size.div_ceil(1024 * 1024)),
    }
}

impl ResourceLimiter for Growth {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = desired <= self.memory;
        if !allowed {
            self.refused = NonZeroUsize::new(desired);
        }
        Ok(allowed)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        MODULES_PER_POLICY as usize
    }

    fn tables(&self) -> usize {
        TABLES_PER_POLICY as usize
    }

    fn memories(&self) -> usize {
        1
    }
}
