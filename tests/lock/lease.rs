//! `--lock kubernetes`: one fetcher among nodes whose volumes have no lock in common.
//!
//! Two roots stand for two nodes whose locks and heartbeats do not reach each other.

use std::process::Command;
use std::time::Duration;

use crate::support::cluster::{API_TOKEN, FakeCluster, Fault};
use crate::support::*;
use weightlift_fakes::{FakeHub, Fault as HubFault, Rule};

const LEASE: &str = "weightlift-tiny";

/// A pod `pod` on a node of its own.
fn pod(cluster: &FakeCluster, hub: &FakeHub, node: &Volume, pod: &str) -> Command {
    let mut command = fetch(hub, node, &["hf://org/tiny", "--lock", "kubernetes"]);
    cluster.tell(&mut command, &node.path("account"));
    command.env("POD_NAME", pod);
    command
}

/// A Hub whose fixture takes some ten seconds.
fn slow_hub() -> FakeHub {
    dripping(15_000)
}

fn dripping(bytes_per_second: u64) -> FakeHub {
    let hub = hub_of_tiny();
    hub.script(Rule::on("GET", "").at("cdn").then(HubFault::Drip { bytes_per_second }));
    hub
}

#[track_caller]
fn assert_no_token(run: Run) -> Run {
    assert!(!run.stderr.contains(API_TOKEN), "{}", run.stderr);
    run
}

#[test]
fn the_lease_is_taken_told_about_and_given_back() {
    let (cluster, hub, node) = (FakeCluster::start(), hub_of_tiny(), Volume::new());
    assert_no_token(pod(&cluster, &hub, &node, "pod-a").run()).assert_success();
    let (method, _, created) = cluster.requests().remove(1);
    assert_eq!(method, "POST");
    assert_eq!(created["spec"]["holderIdentity"], "pod-a");
    assert_eq!(created["spec"]["leaseDurationSeconds"], 15);
    let time = created["spec"]["renewTime"].as_str().unwrap();
    assert!(time.len() == "2026-01-01T00:00:00.000000Z".len() && time.ends_with('Z'), "{time}");
    assert_eq!(cluster.holder(LEASE), None);
    // A model that is complete needs no Lease.
    let before = cluster.requests().len();
    pod(&cluster, &hub, &node, "pod-b").run().assert_success();
    assert_eq!(cluster.requests().len(), before);
}

#[test]
fn a_second_node_waits_for_the_first() {
    let (cluster, hub) = (FakeCluster::start(), slow_hub());
    let (a, b) = (Volume::new(), Volume::new());
    let holder = pod(&cluster, &hub, &a, "pod-a").env("NODE_NAME", "node-1").start();
    eventually("pod-a has the Lease", || cluster.holder(LEASE).as_deref() == Some("pod-a"));
    let mut waiter = pod(&cluster, &hub, &b, "pod-b").start();
    std::thread::sleep(Duration::from_secs(3));
    assert!(waiter.is_running());
    assert_eq!(b.attempts().len(), 0, "both fetch");
    hub.clear_script();
    holder.wait().assert_success();
    let run = waiter.wait().assert_success();
    run.assert_says(
        "pod `pod-a` on node node-1, which holds the Lease `model-storage/weightlift-tiny`",
    );
    b.assert_holds("tiny", &tiny_selected());
}

#[test]
fn it_is_renewed_and_its_progress_is_told() {
    let (cluster, hub, node) = (FakeCluster::start(), slow_hub(), Volume::new());
    let running = pod(&cluster, &hub, &node, "pod-a").start();
    let progress = || {
        let lease = cluster.lease(LEASE)?;
        let told = &lease["metadata"]["annotations"]["weightlift.io/progress"];
        told.as_str().map(str::to_owned)
    };
    eventually("it is renewed", || progress().is_some());
    let first = progress();
    eventually("it has moved", || progress() != first);
    hub.clear_script();
    running.wait().assert_success();
}

#[test]
fn a_lease_that_nobody_renews_is_taken_when_it_has_run_out() {
    let (cluster, hub, node) = (FakeCluster::start(), hub_of_tiny(), Volume::new());
    cluster.put(LEASE, "pod-of-a-lost-node", 3);
    let mut running = pod(&cluster, &hub, &node, "pod-b").start();
    std::thread::sleep(Duration::from_secs(2));
    assert!(running.is_running());
    assert_eq!(cluster.count("PUT"), 0, "taken too early");
    running.wait().assert_success();
    assert_eq!(cluster.lease(LEASE).unwrap()["spec"]["leaseTransitions"], 4);
}

#[test]
fn a_restarted_container_of_the_same_pod_goes_on_at_once() {
    let (cluster, hub, node) = (FakeCluster::start(), slow_hub(), Volume::new());
    let killed = pod(&cluster, &hub, &node, "pod-a").start();
    eventually("it fetches", || hub.bytes_sent_for("xet-bridge") > 10_000);
    killed.signal("-KILL");
    killed.wait();
    assert_eq!(cluster.holder(LEASE).as_deref(), Some("pod-a"));
    hub.clear_script();
    let run = pod(&cluster, &hub, &node, "pod-a").run().assert_success();
    assert!(!run.stderr.contains("waiting"), "{}", run.stderr);
}

#[test]
fn whoever_is_second_in_a_race_waits() {
    let (cluster, hub, node) = (FakeCluster::start(), hub_of_tiny(), Volume::new());
    cluster.fail("POST", 1, Fault::Status(409, "already exists"));
    cluster.fail("GET", 1, Fault::Status(500, "etcd leader changed"));
    pod(&cluster, &hub, &node, "pod-a").run().assert_success();
    assert_eq!(cluster.holder(LEASE), None);
    cluster.fail("PUT", 1, Fault::Status(409, "the object has been modified"));
    let other = Volume::new();
    pod(&cluster, &hub, &other, "pod-b").run().assert_success();
    assert_eq!(cluster.holder(LEASE), None);
}

#[test]
fn whoever_gets_the_lease_looks_whether_the_one_before_has_finished() {
    let (cluster, hub) = (FakeCluster::start(), hub_of_tiny());
    let (node, other) = (Volume::new(), Volume::new());
    fetch(&hub, &other, &["hf://org/tiny"]).run().assert_success();
    cluster.fail("GET", 1, Fault::Silence(Duration::from_secs(2)));
    let waiter = pod(&cluster, &hub, &node, "pod-b").start();
    // It is silent to pod-b from now on, which has looked at the volume before.
    eventually("pod-b asks for the Lease", || cluster.has_failed());
    std::fs::create_dir_all(node.root().join(".weightlift")).unwrap();
    for name in [".weightlift/revisions", "tiny"] {
        std::fs::rename(other.root().join(name), node.root().join(name)).unwrap();
    }
    let asked = hub.requests().len();
    let run = waiter.wait().assert_success();
    assert_eq!(hub.requests().len(), asked, "{}", run.stderr);
    assert_eq!(cluster.holder(LEASE), None);
}

#[test]
fn an_api_server_that_is_away_for_a_while_does_not_matter() {
    let (cluster, hub, node) = (FakeCluster::start(), slow_hub(), Volume::new());
    let running = pod(&cluster, &hub, &node, "pod-a").start();
    eventually("pod-a has the Lease", || cluster.holder(LEASE).is_some());
    // A renewal that is done and not heard of, one that is refused, one that is not answered.
    cluster.fail("PUT", 1, Fault::DoneInVain);
    cluster.fail("PUT", 1, Fault::Close);
    cluster.fail("GET", 1, Fault::Silence(Duration::from_secs(6)));
    let version = || cluster.lease(LEASE).map(|it| it["metadata"]["resourceVersion"].to_string());
    eventually("two are lost", || cluster.count("PUT") >= 2 && version().is_some());
    hub.clear_script();
    let run = running.wait().assert_success();
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    assert_eq!(cluster.holder(LEASE), None, "not given back");
}

#[test]
fn without_an_api_server_the_lock_of_the_volume_has_to_do() {
    let (cluster, hub, node) = (FakeCluster::start(), hub_of_tiny(), Volume::new());
    cluster.fail("GET", usize::MAX, Fault::Close);
    let run = pod(&cluster, &hub, &node, "pod-a").run().assert_success();
    run.assert_says("continuing with the volume lock only");
}

#[test]
fn a_lease_that_is_taken_away_does_no_harm() {
    let (cluster, hub, node) = (FakeCluster::start(), slow_hub(), Volume::new());
    let running = pod(&cluster, &hub, &node, "pod-a").start();
    eventually("pod-a has the Lease", || cluster.holder(LEASE).is_some());
    cluster.put(LEASE, "pod-x", 15);
    eventually("it has seen that", || cluster.count("GET") >= 2);
    hub.clear_script();
    running.wait().assert_success().assert_says("has acquired the Lease");
    assert_eq!(cluster.holder(LEASE).as_deref(), Some("pod-x"), "it was not ours to give");
}

#[test]
fn a_lease_that_somebody_deletes_is_made_anew() {
    let (cluster, hub, node) = (FakeCluster::start(), slow_hub(), Volume::new());
    let running = pod(&cluster, &hub, &node, "pod-a").start();
    eventually("pod-a has the Lease", || cluster.holder(LEASE).is_some());
    cluster.remove(LEASE);
    eventually("it is made anew", || cluster.holder(LEASE).as_deref() == Some("pod-a"));
    hub.clear_script();
    running.wait().assert_success();
    assert_eq!(cluster.holder(LEASE), None);
}

#[test]
fn a_holder_that_renews_and_does_nothing_is_not_waited_for() {
    let (cluster, hub) = (FakeCluster::start(), slow_hub());
    let (a, b) = (Volume::new(), Volume::new());
    // As a pod whose volume hangs: its Lease is renewed, what it tells stays the same.
    let frozen = std::thread::spawn({
        let cluster = cluster.clone();
        move || {
            for _ in 0..40 {
                cluster.put(LEASE, "pod-a", 15);
                std::thread::sleep(Duration::from_millis(500));
            }
        }
    });
    eventually("it is there", || cluster.holder(LEASE).is_some());
    hub.clear_script();
    let run = pod(&cluster, &hub, &b, "pod-b").args(["--takeover-after", "4s"]).run();
    run.assert_success().assert_says("has made no progress for 4");
    frozen.join().unwrap();
    // One that does something is.
    let hub = dripping(6_000);
    let holder = pod(&cluster, &hub, &a, "pod-a").start();
    eventually("it tells", || {
        cluster.lease(LEASE).is_some_and(|lease| lease["metadata"]["annotations"].is_object())
    });
    let c = Volume::new();
    let mut waiter = pod(&cluster, &hub, &c, "pod-c").args(["--takeover-after", "11s"]).start();
    std::thread::sleep(Duration::from_secs(14));
    assert!(waiter.is_running());
    assert_eq!(c.attempts().len(), 0, "taken over");
    hub.clear_script();
    holder.wait().assert_success();
    waiter.wait().assert_success();
}

#[test]
fn only_the_authority_of_the_cluster_is_trusted() {
    let (cluster, hub, node) = (FakeCluster::start(), hub_of_tiny(), Volume::new());
    let mut command = pod(&cluster, &hub, &node, "pod-a");
    let other = tls::Authority::new("other");
    std::fs::copy(other.path(), node.path("account/ca.crt")).unwrap();
    command.env("SSL_CERT_FILE", node.path("account/ca.crt"));
    let run = command.run().assert_success().assert_says("continuing with the volume lock only");
    assert!(run.stderr.contains("certificate"), "{}", run.stderr);
    assert_eq!(cluster.requests().len(), 0);
}

#[test]
fn sigterm_gives_it_back() {
    let (cluster, hub, node) = (FakeCluster::start(), slow_hub(), Volume::new());
    let running = pod(&cluster, &hub, &node, "pod-a").start();
    eventually("it fetches", || hub.bytes_sent_for("xet-bridge") > 10_000);
    running.signal("-TERM");
    running.wait().assert_code(143);
    assert_eq!(cluster.holder(LEASE), None);
}

#[test]
fn what_no_retry_can_mend_is_said_at_once() {
    let (cluster, hub, node) = (FakeCluster::start(), hub_of_tiny(), Volume::new());
    cluster.fail("GET", 1, Fault::Status(403, "leases is forbidden\u{1b}[2J"));
    let run = assert_no_token(pod(&cluster, &hub, &node, "pod-a").run()).assert_code(11);
    assert!(run.last_line().contains("create and update on leases"), "{}", run.stderr);
    let outside = |variable: &str, value: &str| {
        let run = pod(&cluster, &hub, &node, "pod-a").env(variable, value).run();
        run.assert_code(14).assert_says("--lock kubernetes finds no cluster")
    };
    outside("KUBERNETES_SERVICE_HOST", "");
    outside("WEIGHTLIFT_SERVICE_ACCOUNT", "/nonexistent")
        .assert_says("automountServiceAccountToken");
    for namespace in ["../../secrets", "a b", "X"] {
        let run = pod(&cluster, &hub, &node, "pod-a").env("POD_NAMESPACE", namespace).run();
        run.assert_code(2);
    }
    let run = pod(&cluster, &hub, &node, "pod-a").env("POD_NAMESPACE", "elsewhere").run();
    run.assert_code(11).assert_says("there is no namespace `elsewhere`");
    let named = pod(&cluster, &hub, &node, "pod-a").args(["--lease-name", "No_Name"]).run();
    named.assert_code(2);
    pod(&cluster, &hub, &node, "pod-a").args(["--lease-name", "shared"]).run().assert_success();
    assert!(cluster.lease("shared").is_some());
}
