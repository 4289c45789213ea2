//! What a process has used, as `/proc` tells it.

use std::fs;

/// The CPU time of all threads of a process, in nanoseconds. `schedstat` counts
/// exactly, where the `utime` and `stime` of `stat` come in steps of 10 ms.
pub(crate) fn cpu_ns(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the server runs");
    let spent = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    spent.sum()
}

/// The resident memory of a process, in bytes. `smaps_rollup` counts the pages;
/// `statm` may be off by what each core has not yet added.
pub(crate) fn rss_bytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the server runs");
    let line = text.lines().find(|line| line.starts_with("Rss:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.expect("smaps_rollup has a line `Rss: N kB`") * 1024
}

/// How busy the machine is, the mean of the last minute: much above 0 before the
/// bench begins, and its figures say little.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
