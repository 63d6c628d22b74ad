//! What a container may use, and what becomes of a transfer that would use more.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::measure::*;
use crate::support::tls::{Authority, Front, Handshake};
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

const MIB: u64 = 1 << 20;

/// One file, over connections that bring no more than this each; from the Hub itself if it is direct.
fn capped(bytes: u64, bytes_per_second: u64, is_direct: bool) -> FakeHub {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(bytes, 3));
    let hub = FakeHub::builder().repo(REPO, tree);
    let hub = if is_direct { hub.lfs_direct().start() } else { hub.start() };
    hub.script(Rule::on("GET", "big.bin").then(Fault::Drip { bytes_per_second }));
    hub
}

#[test]
fn connections_are_opened_as_long_as_they_pay_and_memory_has_room_for_them() {
    let Some(group) = MemoryGroup::limited_to(48 * MIB) else { return };
    // More than fit would be faster.
    let (hub, volume) = (capped(320 * MIB, 1_500_000, false), Volume::new());
    let run = group.around(&fetch(&hub, &volume, &["hf://org/tiny"])).run().assert_success();
    let says = "of 64 connections: the container's memory limit is 50.3 MB";
    assert_eq!(run.stderr.matches(says).count(), 1, "{}", run.stderr);
    let (_, most) = run.stderr.split_once("using no more than ").unwrap();
    let most: usize = most.split(' ').next().unwrap().parse().unwrap();
    // Half of what the process has not used yet.
    assert!((12..24).contains(&most), "{most}");
    // One that was replaced may still be served.
    let at_once = hub.most_transfers_at_once();
    assert!((most..=most + 2).contains(&at_once), "{at_once} of {most}");

    // Where nothing binds, nothing is said.
    let (hub, volume) = (capped(16 * MIB, 1_500_000, false), Volume::new());
    let run = group.around(&fetch(&hub, &volume, &["hf://org/tiny"])).run().assert_success();
    assert!(!run.stderr.contains("connections: the container"), "{}", run.stderr);
}

/// So a pod with the smallest usual limit holds the most connections that there are without a flag.
/// `WEIGHTLIFT_TEST_ROUNDS=1` measures other numbers of them as well.
#[test]
fn sixty_four_connections_over_tls_need_less_than_64_mib() {
    let all = std::env::var_os("WEIGHTLIFT_TEST_ROUNDS").is_some();
    let counts = if all { &[16, 32, 64, 128][..] } else { &[64][..] };
    for (count, is_tls) in counts.iter().flat_map(|count| [(*count, false), (*count, true)]) {
        let hub = capped(8 * MIB * count, 1_000_000, true);
        let (authority, volume) = (Authority::new("known"), Volume::new());
        let config = authority.certify("IP:127.0.0.1", 2020, 2049);
        let port = hub.url().rsplit(':').next().unwrap().parse().unwrap();
        let front = Front::start(config, port, |_| Handshake::Done);
        let most = count.to_string();
        let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--connections", &most]);
        if is_tls {
            command.env("HF_ENDPOINT", front.url()).env("SSL_CERT_FILE", authority.path());
        }
        let (run, peak) = with_peak_memory(&mut command);
        run.assert_success();
        let opened = hub.accepted_connections() as u64;
        let kind = if is_tls { "TLS" } else { "plain" };
        eprintln!("{count} connections, {kind}: {opened} opened, peak RSS {} KiB", peak >> 10);
        // Some more for the listing, and for what was replaced.
        assert!((count..count + count / 2 + 3).contains(&opened), "{opened}");
        assert!(count > 64 || peak <= 64 * MIB, "peak RSS {} KiB", peak >> 10);
    }
}

/// Each read costs a few calls, and nobody waits for another: a lock that all share would show as calls to `futex`.
#[test]
fn a_read_costs_the_same_beside_many_others() {
    if !has("strace") {
        return;
    }
    let (bytes, blocks_per_mib) = (192 * MIB, (MIB as f64) / 75_000.0);
    let hub = capped(bytes, 1_500_000, false);
    let calls = Calls::of(&fetch(&hub, &Volume::new(), &["hf://org/tiny"]));
    let per_mib = |names: &[&str]| calls.count(names) as f64 / (bytes / MIB) as f64;
    let (all, locks) = (calls.total() as f64 / (bytes / MIB) as f64, per_mib(&["futex"]));
    let most = hub.most_transfers_at_once();
    eprintln!(
        "{most} at once, {blocks_per_mib:.0} reads: {all:.1} calls a MiB, {locks:.2} to futex"
    );
    // How many it takes depends on how busy the machine is.
    assert!(most >= 16, "{most}");
    assert!(all <= 120.0 && locks <= 6.0, "{all:.1} calls a MiB, {locks:.2} to futex");
}

#[test]
fn a_transfer_that_uses_all_processors_that_it_may_says_so_once() {
    // So much work that a few seconds in which others have the processors do not matter.
    let Some(group) = ProcessorGroup::limited_to(0.06) else { return };
    let (hub, volume) = (capped(768 * MIB, 1 << 30, false), Volume::new());
    let run = group.around(&fetch(&hub, &volume, &["hf://org/tiny"])).run().assert_success();
    let says = "limited by processor, not by network: the transfer uses 0.";
    assert_eq!(run.stderr.matches(says).count(), 1, "{}", run.stderr);
    // More connections, and a hash of its own thread, would only cost more of it: one on a machine that is free.
    // Where others leave it less than it may use, it tries whether more are faster.
    let most = hub.most_transfers_at_once();
    eprintln!("{most} connections at once");
    assert!(most < 64, "{most}");
    assert!(run.stderr.contains(" of the 0.06 CPUs that the container may use"), "{}", run.stderr);
}

#[test]
fn a_transfer_that_waits_for_the_network_says_nothing_of_processors() {
    let (hub, volume) = (capped(24 * MIB, 1_000_000, false), Volume::new());
    let limit = ["hf://org/tiny", "--connections", "4"];
    let run = fetch(&hub, &volume, &limit).run().assert_success();
    assert!(!run.stderr.contains("limited by processor"), "{}", run.stderr);
}

/// A cgroup with a limit of processor time; removed at the end.
struct ProcessorGroup(PathBuf);

impl ProcessorGroup {
    fn limited_to(processors: f64) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let (quota, period) = ((processors * 100_000.0) as u64, 100_000);
        for line in mounts.lines() {
            let [_, path, kind, options, ..] = line.split(' ').collect::<Vec<_>>()[..] else {
                continue;
            };
            let folder = Path::new(path).join(format!("weightlift-limits-{}", std::process::id()));
            let is_one = kind == "cgroup" && options.split(',').any(|it| it == "cpu");
            let (file, limit) = match kind {
                _ if is_one => ("cpu.cfs_quota_us", quota.to_string()),
                "cgroup2" => ("cpu.max", format!("{quota} {period}")),
                _ => continue,
            };
            let _ = std::fs::write(Path::new(path).join("cgroup.subtree_control"), "+cpu");
            if std::fs::create_dir(&folder).is_ok() {
                let group = Self(folder);
                if std::fs::write(group.0.join(file), limit).is_ok() {
                    return Some(group);
                }
            }
        }
        skip("no cgroup with a limit of processor time can be made here");
        None
    }

    fn around(&self, command: &Command) -> Command {
        let procs = self.0.join("cgroup.procs");
        let enter = "echo $$ >\"$0\" && exec \"$@\"";
        under(&["sh", "-c", enter, procs.to_str().unwrap()], command)
    }
}

impl Drop for ProcessorGroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}
