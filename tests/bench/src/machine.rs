//! The machine that was measured on.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use crate::clock;

/// Writes with an fsync that are timed.
const SYNCS: u32 = 200;

/// The machine in one line: date, processor, kernel, memory, and what an fsync in `folder` takes.
///
/// # Errors
/// When nothing can be written there.
pub(crate) fn describe(folder: &Path) -> anyhow::Result<String> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor =
        processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    Ok(format!(
        "{date} · {cores} cores ({processor}), {memory} GiB · Linux {kernel} · one fsync {fsync:.2} ms · load before the run {load}",
        date = said_by("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        processor = processor.unwrap_or("unknown"),
        memory = memory.unwrap_or(0).div_ceil(1 << 20),
        kernel = said_by("uname", &["-r"]),
        fsync = fsync_millis(folder)?,
        load = load.split_whitespace().next().unwrap_or("unknown"),
    ))
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// What it takes to have four kilobytes more on disk, in milliseconds.
fn fsync_millis(folder: &Path) -> anyhow::Result<f64> {
    let path = folder.join("fsync");
    let mut file = File::create(&path)?;
    let start = clock::nanos();
    for _ in 0..SYNCS {
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
    }
    let took = clock::seconds(start, clock::nanos());
    fs::remove_file(path)?;
    Ok(took * 1000.0 / f64::from(SYNCS))
}
