//! The CPU time and memory of processes, and the machine.

use std::fs;
use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;

use super::{Fault, Result};

/// Returns the CPU time of a process, in nanoseconds: of all threads, including those
/// that have ended, which `/proc/PID/task` omits. It is exact, while `utime` and `stime`
/// of `/proc/PID/stat` have steps of 10 ms.
pub(crate) fn cpu_ns(pid: u32) -> Result<u64> {
    let read = || {
        let pid = i32::try_from(pid).map_err(|_| nix::errno::Errno::ESRCH)?;
        ClockId::pid_cpu_clock_id(Pid::from_raw(pid))?.now()
    };
    let time = read().map_err(|error| {
        Fault(format!(
            "cannot read the process {pid} of the server ({error}). \
                                        Check --pid"
        ))
    })?;
    Ok(u64::try_from(Duration::from(time).as_nanos()).expect("less than five centuries"))
}

/// Returns the resident memory of a process, in bytes. `smaps_rollup` counts pages;
/// `statm` lacks what each core has not added yet.
pub(crate) fn rss_bytes(pid: u32) -> Result<u64> {
    kib_in(&format!("/proc/{pid}/smaps_rollup"), "Rss:")
}

/// Returns the memory of the kernel in small objects, sockets included, in bytes: of the
/// whole machine, and therefore of both ends of a loopback connection.
pub(crate) fn kernel_bytes() -> Result<u64> {
    kib_in("/proc/meminfo", "Slab:")
}

fn kib_in(path: &str, label: &str) -> Result<u64> {
    let text = fs::read_to_string(path).map_err(|error| {
        Fault(format!(
            "cannot read {path} \
                                                                       ({error})"
        ))
    })?;
    let line = text.lines().find(|line| line.starts_with(label));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| Fault(format!("{path} has no line `{label} N kB`")))
}

/// Describes the machine, in one line.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown CPU", |rest| {
        rest.trim_start_matches([' ', '\t', ':'])
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let gib = kib_in("/proc/meminfo", "MemTotal:").unwrap_or(0) as f64 / (1 << 30) as f64;
    let is_virtual = cpus.contains(" hypervisor");
    format!(
        "{cores} × {model}{}, {gib:.0} GiB, Linux {}",
        if is_virtual { " (virtual)" } else { "" },
        read("/proc/sys/kernel/osrelease").trim(),
    )
}

/// Returns the mean load of the last minute. Much above 0 before the bench, the figures
/// are not reliable.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_has_ended_has_used_its_time() {
        let me = std::process::id();
        let before = cpu_ns(me).unwrap();
        let busy = std::thread::spawn(move || {
            loop {
                let now = cpu_ns(me).unwrap();
                if now > before + 20_000_000 {
                    return now;
                }
            }
        });
        let while_it_ran = busy.join().unwrap();
        assert!(cpu_ns(me).unwrap() >= while_it_ran);
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        for pid in [0x7fff_fffe, u32::MAX] {
            let reported = cpu_ns(pid).unwrap_err().to_string();
            assert!(
                reported.contains(&format!("process {pid} of the server")),
                "{reported}"
            );
        }
    }
}
