//! What the system reports about the process. On Linux only, where `/proc` has it.

/// The figures of the process. A system that hides `/proc`, or a part of it, leaves some out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    pub(super) resident_bytes: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) cpu_seconds: Option<f64>,
    /// In seconds since 1970.
    pub(super) started_at: Option<f64>,
    pub(super) threads: Option<u64>,
    pub(super) descriptors: Option<u64>,
    /// Infinite without a limit.
    pub(super) descriptors_max: Option<f64>,
}

#[cfg(not(target_os = "linux"))]
impl Process {
    pub(super) fn read() -> Process {
        Process::default()
    }
}

#[cfg(target_os = "linux")]
impl Process {
    /// Reads the figures. The cost grows with the open descriptors, which the system counts
    /// one by one before Linux 6.2.
    #[allow(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    pub(super) fn read() -> Process {
        use procfs::process::{LimitValue, Process as Own};
        use procfs::{boot_time_secs, page_size, ticks_per_second};

        let Ok(own) = Own::myself() else {
            return Process::default();
        };
        let stat = own.stat().ok();
        let stat = stat.as_ref();
        let ticks = ticks_per_second() as f64;
        let booted_at = boot_time_secs().ok();
        let limits = own.limits().ok();
        Process {
            resident_bytes: stat.map(|stat| stat.rss * page_size()),
            virtual_bytes: stat.map(|stat| stat.vsize),
            cpu_seconds: stat.map(|stat| (stat.utime + stat.stime) as f64 / ticks),
            started_at: (stat.zip(booted_at))
                .map(|(stat, booted)| booted as f64 + stat.starttime as f64 / ticks),
            threads: stat.and_then(|stat| u64::try_from(stat.num_threads).ok()),
            descriptors: own.fd_count().ok().map(|count| count as u64),
            descriptors_max: limits.map(|limits| match limits.max_open_files.soft_limit {
                LimitValue::Value(max) => max as f64,
                LimitValue::Unlimited => f64::INFINITY,
            }),
        }
    }
}
