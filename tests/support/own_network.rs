//! A network, and files below `/etc`, that only one test sees.

use std::process::Command;

use super::*;

/// Runs `body` in a network of its own, with nothing but a loopback: starts the test `test`, which this
/// is, with its module before it (`hub_mirrors::proxies_…`), once more as a process in namespaces of its own. Without root it is skipped.
pub fn in_own_network(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        run("ip", &["link", "set", "lo", "up"]);
        return body();
    }
    if !is_root() || !has("unshare") || !has("ip") || !has("tc") {
        return;
    }
    let mut inside = Command::new("timeout");
    inside.args(["120", "unshare", "--net", "--mount", "--propagation", "private"]);
    inside.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    let output = inside.env(INSIDE, "1").output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

/// Puts `content` in the place of a file that is there.
pub fn replace_file(path: &str, content: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    run("mount", &["--bind", file.path().to_str().unwrap(), path]);
}

/// From here on every packet is lost, of connections that are open as well; nobody is told.
pub fn lose_everything() {
    tbf("rate 1kbit burst 10 limit 10");
}

/// From here on packets that are larger than this are lost.
pub fn lose_packets_above(bytes: usize) {
    tbf(&format!("rate 1gbit burst {bytes} limit 1000000"));
}

pub fn lose_nothing() {
    run("tc", &["qdisc", "del", "dev", "lo", "root"]);
}

/// Lets every address of `network` be a place that swallows everything.
pub fn black_hole(network: &str) {
    run("ip", &["route", "add", network, "dev", "lo"]);
}

fn tbf(settings: &str) {
    let mut arguments = vec!["qdisc", "add", "dev", "lo", "root", "tbf"];
    arguments.extend(settings.split(' '));
    run("tc", &arguments);
}

#[track_caller]
pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

const INSIDE: &str = "WEIGHTLIFT_TEST_IN_OWN_NETWORK";
