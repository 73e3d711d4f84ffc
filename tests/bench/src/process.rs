//! What a process and its children cost, as the kernel counts it.

use std::fs;

/// What a process and its children have used so far.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Usage {
    /// Processor time, user and system, in seconds.
    pub(crate) cpu: f64,
    /// The most memory that was resident at once, in bytes: the sum of each process's peak.
    pub(crate) peak: u64,
    /// The memory that is resident now, in bytes.
    pub(crate) resident: u64,
}

/// Ticks in a second: what Linux has answered to `sysconf(_SC_CLK_TCK)` on every platform for decades.
const TICKS: f64 = 100.0;

/// What the process `id` and its descendants have used.
pub(crate) fn usage(id: u32) -> Usage {
    let mut usage = Usage::default();
    for process in family(id) {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let ticks = |field: usize| fields(&stat).nth(field).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
        usage.cpu += (ticks(11) + ticks(12)) / TICKS;
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        usage.peak += kilobytes(&status, "VmHWM:") * 1024;
        usage.resident += kilobytes(&status, "VmRSS:") * 1024;
    }
    usage
}

/// The fields of `/proc/PID/stat` after the command's name, which may hold anything: the state is the first.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}

fn kilobytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The process and all that descend from it.
fn family(id: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let parents: Vec<(u32, u32)> = processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|process| {
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
            Some((process, fields(&stat).nth(1)?.parse().ok()?))
        })
        .collect();
    let mut family = vec![id];
    let mut known = 0;
    while let Some(parent) = family.get(known).copied() {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(process, _)| *process));
        known += 1;
    }
    family
}
