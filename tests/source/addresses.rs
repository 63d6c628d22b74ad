//! A host with several addresses: all of them are used, and one that is bad is left alone for a while.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::own_network::{self, black_hole, in_own_network, replace_file};
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Relay, Rule, Tree};

const MIB: u64 = 1 << 20;

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().unwrap().parse().unwrap()
}

fn big(size: u64) -> Tree {
    Tree::new().with_blob("big.dat", Blob::synthetic(size, 3))
}

fn serving(tree: &Tree) -> FakeHub {
    FakeHub::builder().repo(REPO, tree.clone()).lfs_direct().start()
}

/// Every answer from here on ends its connection.
fn close_each(hub: &FakeHub) {
    let close = Fault::AddHeaders(vec![("Connection".to_owned(), "close".to_owned())]);
    hub.script(Rule::on("GET", "").then(close));
}

fn fetch_from(host: &str, port: u16, volume: &Volume, connections: &str) -> Command {
    let mut command = weightlift();
    command.args(["fetch", "hf://org/tiny", "m", "--chunk-size", "1MiB", "--root"]);
    command.arg(volume.root()).args(["--connections", connections]);
    command.env("HF_ENDPOINT", format!("http://{host}:{port}"));
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "20s");
    command
}

/// Writes the calls to `connect` into `file`.
fn traced(file: &Path, command: &Command) -> Command {
    let file = file.to_str().unwrap();
    under(&["strace", "-f", "-ttt", "-e", "trace=connect", "-o", file], command)
}

/// When which address was connected to at this port, in order.
fn connects(file: &Path, port: u16) -> Vec<(f64, String)> {
    let text = std::fs::read_to_string(file).unwrap();
    let port = format!("htons({port})");
    let calls = text.lines().filter(|line| line.contains("connect(") && line.contains(&port));
    calls
        .map(|line| {
            let at = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            let quoted = |start: &str| line.split(start).nth(1)?.split('"').next();
            let address = quoted("inet_addr(\"").or_else(|| quoted("AF_INET6, \""));
            (at, address.unwrap().to_owned())
        })
        .collect()
}

fn counted(connects: &[(f64, String)]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for (_, address) in connects {
        *counts.entry(address.as_str()).or_insert(0) += 1;
    }
    counts
}

#[test]
fn sixteen_connections_to_a_host_of_sixteen_addresses_use_each() {
    in_own_network(
        "addresses::sixteen_connections_to_a_host_of_sixteen_addresses_use_each",
        || {
            let hosts = (1..=16).map(|n| format!("127.0.0.{n} many.example\n"));
            replace_file("/etc/hosts", &hosts.collect::<String>());
            let (tree, volume) = (big(40 * MIB), Volume::new());
            let hub = serving(&tree);
            // Each brings so little that all are worth having.
            let relay = Relay::everywhere_at(port_of(&hub.url()), |_| Some(MIB));
            fetch_from("many.example", relay.port(), &volume, "16").run().assert_success();
            volume.assert_holds("m", &tree);
            let mut seen = BTreeMap::new();
            for relayed in relay.seen() {
                *seen.entry(relayed.came_to.unwrap()).or_insert(0) += 1;
            }
            let all: usize = seen.values().sum();
            assert!(all >= 12, "{seen:?}");
            assert!(
                seen.len() >= all.min(16) - 1 && seen.values().all(|count| *count <= 3),
                "{seen:?}"
            );
        },
    );
}

#[test]
fn an_address_that_does_not_answer_is_waited_for_once() {
    if !has("strace") {
        return;
    }
    in_own_network("addresses::an_address_that_does_not_answer_is_waited_for_once", || {
        let good: String = (1..=3).map(|n| format!("127.0.0.{n} quarter.example\n")).collect();
        replace_file("/etc/hosts", &format!("{good}10.9.9.9 quarter.example\n"));
        black_hole("10.9.9.0/24");
        // One after the other, and several at once: these must not all begin with it before it is known.
        for workers in ["1", "8"] {
            let (tree, volume) = (big(32 * MIB), Volume::new());
            let hub = serving(&tree);
            close_each(&hub);
            let relay = Relay::everywhere(port_of(&hub.url()));
            let file = volume.path("calls");
            let command = fetch_from("quarter.example", relay.port(), &volume, workers);
            traced(&file, &command).run().assert_success();
            volume.assert_holds("m", &tree);
            let connects = connects(&file, relay.port());
            let counts = counted(&connects);
            eprintln!("{workers} workers: {counts:?}");
            // Each request needs a connection; a quarter of them would be eight.
            assert!(connects.len() >= 33, "{counts:?}");
            assert!((1..=3).contains(&counts["10.9.9.9"]), "{workers} workers: {counts:?}");
        }
    });
}

#[test]
fn an_address_of_ipv6_that_does_not_answer_is_tried_with_the_next_family_and_left_alone() {
    if !has("strace") {
        return;
    }
    let name = "addresses::an_address_of_ipv6_that_does_not_answer_is_tried_with_the_next_family_and_left_alone";
    in_own_network(name, || {
        let silent =
            "2001:db8::9 silent.example\n127.0.0.1 silent.example\n127.0.0.2 silent.example\n";
        let refusing = silent.replace("silent", "refusing").replace("::9", "::1");
        replace_file("/etc/hosts", &(silent.to_owned() + &refusing));
        own_network::run("ip", &["addr", "add", "2001:db8::1/128", "dev", "lo"]);
        black_hole("2001:db8::8/125");
        for (host, v6) in [("silent.example", "2001:db8::9"), ("refusing.example", "2001:db8::1")] {
            let (tree, volume) = (big(16 * MIB), Volume::new());
            let hub = serving(&tree);
            close_each(&hub);
            let relay = Relay::everywhere(port_of(&hub.url()));
            let file = volume.path("calls");
            let command = fetch_from(host, relay.port(), &volume, "4");
            traced(&file, &command).run().assert_success();
            volume.assert_holds("m", &tree);
            let connects = connects(&file, relay.port());
            // The system prefers IPv6. The other family has its turn after 300 ms, and not after the
            // five seconds that one of two addresses may take.
            assert_eq!(connects[0].1, v6, "{connects:?}");
            assert!(connects[1].1.starts_with("127."), "{connects:?}");
            assert!(connects[1].0 - connects[0].0 < 2.5, "{connects:?}");
            let counts = counted(&connects);
            assert!(connects.len() >= 17 && counts[v6] <= 2, "{host}: {counts:?}");
        }
    });
}

#[test]
fn an_address_whose_connection_was_replaced_because_it_was_slow_gets_no_new_one() {
    let name =
        "addresses::an_address_whose_connection_was_replaced_because_it_was_slow_gets_no_new_one";
    in_own_network(name, || {
        let hosts = (1..=4).map(|n| format!("127.0.0.{n} uneven.example\n"));
        replace_file("/etc/hosts", &hosts.collect::<String>());
        let (tree, volume) = (big(80 * MIB), Volume::new());
        let hub = serving(&tree);
        let is_slow = |address: std::net::IpAddr| address.to_string() == "127.0.0.4";
        let relay = Relay::everywhere_at(port_of(&hub.url()), move |address| {
            Some(if is_slow(address) { 20_000 } else { MIB })
        });
        let running = fetch_from("uneven.example", relay.port(), &volume, "8").start();
        // Until then the connections stay, and each of the slow ones is replaced.
        std::thread::sleep(Duration::from_secs(7));
        close_each(&hub);
        let slow = |seen: &[weightlift_fakes::Relayed]| {
            seen.iter().filter(|it| it.came_to.is_some_and(is_slow)).count()
        };
        let before = relay.seen();
        let run = running.wait().assert_success();
        volume.assert_holds("m", &tree);
        let after = relay.seen();
        assert!(slow(&before) >= 1, "{before:?}");
        run.assert_says("replac");
        assert!(after.len() >= before.len() + 8, "{} after {}", after.len(), before.len());
        assert_eq!(slow(&after[before.len()..]), 0, "{after:?}");
    });
}
