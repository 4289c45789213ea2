//! The memory that the process may use: the smallest of the machine's memory and the
//! limits of its control groups. Known on Linux only.

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::path::Path;

    use procfs::{Current, Meminfo};

    /// The directory of the control groups.
    const GROUPS: &str = "/sys/fs/cgroup";

    /// Returns the memory that the process may use, in bytes, if it is known.
    pub(crate) fn memory() -> Option<u64> {
        let machine = Meminfo::current().ok().map(|info| info.mem_total);
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let limit = limit_of(&groups, Path::new(GROUPS));
        machine.into_iter().chain(limit).min()
    }

    /// Returns the smallest limit of the groups that `/proc/self/cgroup` names, and
    /// of their parents.
    ///
    /// ```text
    /// 0::/system.slice/pushwheel.service      version 2
    /// 4:memory:/docker/0123                   version 1
    /// ```
    pub(super) fn limit_of(groups: &str, root: &Path) -> Option<u64> {
        let limits = groups.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, group) = (parts.next()?, parts.next()?);
            let (root, file) = match controllers {
                "" => (root.to_owned(), "memory.max"),
                list if list.split(',').any(|name| name == "memory") => {
                    (root.join("memory"), "memory.limit_in_bytes")
                }
                _ => return None,
            };
            // In a container the path may be that of the host, and only its root exists.
            let group = root.join(group.trim_start_matches('/'));
            let above = group.ancestors().filter(|path| path.starts_with(&root));
            above.filter_map(|path| limit_in(&path.join(file))).min()
        });
        limits.min()
    }

    /// Returns the limit in a file; `max` means no limit.
    fn limit_in(file: &Path) -> Option<u64> {
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }
}

#[cfg(target_os = "linux")]
pub(crate) use linux::memory;

/// Returns `None`: the limits of other systems are not read.
#[cfg(not(target_os = "linux"))]
pub(crate) fn memory() -> Option<u64> {
    None
}

/// Returns the default of `--history-total-bytes`: half of the memory that the process
/// may use.
pub(crate) fn history_total() -> Option<usize> {
    let half = memory()? / 2;
    usize::try_from(half).ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::linux::limit_of;

    /// A tree of control groups.
    struct Groups(PathBuf);

    impl Groups {
        fn new(name: &str) -> Groups {
            let root = std::env::temp_dir();
            Groups(root.join(format!("pushwheel-groups-{name}-{}", std::process::id())))
        }

        fn set(&self, file: &str, limit: &str) {
            let file = self.0.join(file);
            let directory = file.parent().expect("it is below the root");
            fs::create_dir_all(directory).expect("the directory can be made");
            fs::write(file, limit).expect("the file can be written");
        }
    }

    impl Drop for Groups {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn the_lowest_limit_of_a_group_and_its_parents_counts() {
        let groups = Groups::new("v2");
        groups.set("a/b/memory.max", "max\n");
        let limit = |own: &str| limit_of(own, &groups.0);
        assert_eq!(limit("0::/a/b\n"), None);
        groups.set("a/memory.max", "1000\n");
        assert_eq!(limit("0::/a/b\n"), Some(1000));
        groups.set("a/b/memory.max", "2000\n");
        assert_eq!(limit("0::/a/b\n"), Some(1000));
        groups.set("a/b/memory.max", "500\n");
        assert_eq!(limit("0::/a/b\n"), Some(500));
        assert_eq!(limit(""), None);
        assert_eq!(limit("nonsense"), None);
    }

    #[test]
    fn version_1_and_the_root_of_a_container_are_read_too() {
        let groups = Groups::new("v1");
        groups.set("memory/memory.limit_in_bytes", "3000\n");
        let limit = |own: &str| limit_of(own, &groups.0);
        assert_eq!(
            limit("5:cpu,memory:/docker/0123\n1:name=systemd:/x\n"),
            Some(3000)
        );
        groups.set("memory.max", "2000\n");
        assert_eq!(limit("0::/not/there\n5:memory:/docker/0123\n"), Some(2000));
    }
}
