//! What the container may use: the limits of the cgroups (version 1 and 2) that this process is in.

use std::path::{Path, PathBuf};

/// A larger limit of memory is none: version 1 says so with a very large number.
const NO_MEMORY_LIMIT: u64 = 1 << 60;

/// `None` is no limit, or one that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<u64>,
    /// Processors; half of one is 0.5.
    pub processors: Option<f64>,
    /// Threads of all processes together.
    pub threads: Option<u64>,
}

/// Those of this process.
pub fn limits() -> Limits {
    Limits::read(|path| std::fs::read_to_string(path).ok())
}

impl Limits {
    /// The least on the way from the own cgroup up to the root that can be seen; `read` reads a file.
    fn read(read: impl Fn(&Path) -> Option<String>) -> Self {
        let own = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
        let mounts = read(Path::new("/proc/self/mountinfo")).unwrap_or_default();
        let least = |controller: &str, limit: &dyn Fn(&Path, Version) -> Option<f64>| {
            mounts
                .lines()
                .filter_map(Mount::parse)
                .filter_map(|mount| Some((mount.version(controller)?, mount)))
                .flat_map(|(version, mount)| {
                    let folders = mount.folders(&own, version, controller);
                    folders.into_iter().filter_map(move |folder| limit(&folder, version))
                })
                .reduce(f64::min)
        };
        let number = |folder: &Path, name: &str| -> Option<f64> {
            read(&folder.join(name))?.trim().parse().ok()
        };
        let memory = least("memory", &|folder, version| match version {
            Version::One => number(folder, "memory.limit_in_bytes"),
            Version::Two => number(folder, "memory.max"),
        });
        let processors = least("cpu", &|folder, version| {
            let (quota, period) = match version {
                Version::One => {
                    (number(folder, "cpu.cfs_quota_us")?, number(folder, "cpu.cfs_period_us")?)
                }
                Version::Two => {
                    let text = read(&folder.join("cpu.max"))?;
                    let (quota, period) = text.trim().split_once(' ')?;
                    (quota.parse().ok()?, period.parse().ok()?)
                }
            };
            (quota > 0.0 && period > 0.0).then(|| quota / period)
        });
        let memory = memory.filter(|bytes| *bytes < NO_MEMORY_LIMIT as f64);
        // The root of a hierarchy has no such file, and `max` is no number.
        let threads = least("pids", &|folder, _| number(folder, "pids.max"));
        let threads = threads.map(|threads| threads as u64);
        Self { memory: memory.map(|bytes| bytes as u64), processors, threads }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A mounted filesystem, as `/proc/self/mountinfo` has it.
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (place, filesystem) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let mut filesystem = filesystem.split(' ');
        let (kind, options) = (filesystem.next()?, filesystem.nth(1).unwrap_or_default());
        Some(Self { root, point, kind, options })
    }

    /// Of the cgroups in it, if they can limit what `controller` is about.
    fn version(&self, controller: &str) -> Option<Version> {
        match self.kind {
            "cgroup2" => Some(Version::Two),
            "cgroup" if self.options.split(',').any(|it| it == controller) => Some(Version::One),
            _ => None,
        }
    }

    /// The cgroup of the process and those above it, as directories; `own` is `/proc/self/cgroup`.
    fn folders(&self, own: &str, version: Version, controller: &str) -> Vec<PathBuf> {
        let path = own.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let is_it = match version {
                Version::One => controllers.split(',').any(|it| it == controller),
                Version::Two => controllers.is_empty(),
            };
            is_it.then_some(path)
        });
        let root = self.root.trim_end_matches('/');
        // What a container sees of its own is often the mount itself, whatever path it is told.
        let below = path.and_then(|path| path.strip_prefix(root)).unwrap_or_default();
        let below = Path::new(below.trim_start_matches('/'));
        let is_inside = below.components().all(|it| matches!(it, std::path::Component::Normal(_)));
        let below = if is_inside { below } else { Path::new("") };
        below.ancestors().map(|part| Path::new(self.point).join(part)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "30 23 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n";
    const ONE: &str = "\
        31 30 0:27 /kubepods/pod7/c1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
        32 30 0:28 /kubepods/pod7/c1 /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n";

    fn of(files: &[(&str, &str)]) -> Limits {
        Limits::read(|path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    fn limits(memory: Option<u64>, processors: Option<f64>) -> Limits {
        Limits { memory, processors, threads: None }
    }

    #[test]
    fn version_2_in_a_container_and_on_a_node() {
        let container = [("/proc/self/cgroup", "0::/\n"), ("/proc/self/mountinfo", TWO)];
        let own = [
            ("/sys/fs/cgroup/memory.max", "1073741824\n"),
            ("/sys/fs/cgroup/cpu.max", "50000 100000\n"),
        ];
        assert_eq!(of(&[container, own].concat()), limits(Some(1 << 30), Some(0.5)));
        let threads = [("/sys/fs/cgroup/pids.max", "64\n")];
        let found = of(&[&container[..], &own, &threads].concat());
        assert_eq!(found, Limits { threads: Some(64), ..limits(Some(1 << 30), Some(0.5)) });
        let none =
            [("/sys/fs/cgroup/memory.max", "max\n"), ("/sys/fs/cgroup/cpu.max", "max 100000\n")];
        assert_eq!(of(&[container, none].concat()), limits(None, None));
        // The least on the way up counts.
        let node = [
            ("/proc/self/cgroup", "0::/system.slice/a.service\n"),
            ("/proc/self/mountinfo", TWO),
            ("/sys/fs/cgroup/system.slice/a.service/memory.max", "max\n"),
            ("/sys/fs/cgroup/system.slice/memory.max", "900\n"),
            ("/sys/fs/cgroup/system.slice/a.service/cpu.max", "200000 100000\n"),
            ("/sys/fs/cgroup/system.slice/cpu.max", "max 100000\n"),
        ];
        assert_eq!(of(&node), limits(Some(900), Some(2.0)));
        // A namespace that does not hide what is above.
        let above = [("/proc/self/cgroup", "0::/../../a\n"), ("/proc/self/mountinfo", TWO)];
        assert_eq!(of(&[above, own].concat()), limits(Some(1 << 30), Some(0.5)));
    }

    #[test]
    fn version_1_and_both_at_once() {
        let own = "12:memory:/kubepods/pod7/c1\n4:cpu,cpuacct:/kubepods/pod7/c1\n0::/\n";
        let both = ONE.to_owned() + TWO;
        for mounts in [ONE, &both] {
            let files = [
                ("/proc/self/cgroup", own),
                ("/proc/self/mountinfo", mounts),
                ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n"),
                ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "150000\n"),
                ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ];
            assert_eq!(of(&files), limits(Some(64 << 20), Some(1.5)));
        }
        let none = [
            ("/proc/self/cgroup", own),
            ("/proc/self/mountinfo", ONE),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(of(&none), limits(None, None));
        let own = "12:memory:/kubepods/pod7/c1/inner\n";
        let deeper = [
            ("/proc/self/cgroup", own),
            ("/proc/self/mountinfo", ONE),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n"),
            ("/sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "4096\n"),
        ];
        assert_eq!(of(&deeper), limits(Some(4096), None));
    }

    #[test]
    fn nothing_is_known_where_nothing_can_be_read() {
        assert_eq!(of(&[]), Limits::default());
        let odd = [("/proc/self/cgroup", "x\n:\n0::\n"), ("/proc/self/mountinfo", "a b - \n - c")];
        assert_eq!(of(&odd), Limits::default());
    }
}
