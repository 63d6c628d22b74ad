//! What `docs/kubernetes.md` quotes is what is printed, with the exit code that it names.
//!
//! A quote on the page is a block with a name: ` ```text permission-denied `. Each is brought about here
//! and compared line by line. Amounts, times and digests are those of an example there, so their place
//! is compared and not their value; paths and hosts are put in the place of ours.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::own_network::{black_hole, in_own_network, replace_file};
use crate::support::process::{heartbeat, straced};
use crate::support::tls::{Authority, Front, Handshake};
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

const PAGE: &str = include_str!("../../docs/kubernetes.md");
const EXIT_CODES: &str = include_str!("../../docs/exit-codes.md");
const MODEL: &str = "meta-llama/Llama-3.1-8B-Instruct";
const SOURCE: &str = "hf://meta-llama/Llama-3.1-8B-Instruct";
const FAMILY: &str = "llama-3-8b";
const HUB: &str = "https://huggingface.co";
const SHARD: &str = "model-00001-of-00004.safetensors";
/// The other three of them, which no scene needs.
const ONLY_ONE: [&str; 2] = ["--exclude", "model-0000[2-4]-of-00004.safetensors"];
const OTHER_COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const MIB: u64 = 1 << 20;

// The page

#[test]
fn every_quote_is_brought_about_by_a_test() {
    let quotes = quotes();
    assert!(quotes.len() > 30, "{} quotes", quotes.len());
    for name in quotes.keys() {
        let call = format!("quoted(\"{name}\"");
        assert!(include_str!("kubernetes_docs.rs").contains(&call), "no test for `{name}`");
    }
}

#[test]
fn every_message_on_the_page_is_a_named_quote() {
    let mut is_named = false;
    for line in PAGE.lines() {
        if let Some(info) = line.strip_prefix("```") {
            is_named = info.contains(' ');
        }
        let is_message = ["error: ", "warning: ", "bad: ", "complete: "]
            .iter()
            .any(|start| line.starts_with(start));
        assert!(is_named || !is_message, "in a block without a name: {line}");
    }
}

#[test]
fn the_exit_codes_are_those_of_their_own_page() {
    let rows = |text: &str, retry: usize| -> BTreeMap<String, String> {
        let cells = |line: &str| -> Vec<String> {
            line.split('|').map(|cell| cell.trim().to_owned()).collect()
        };
        let tables = text.lines().filter(|line| line.starts_with('|')).map(cells);
        let is_code = |code: &str| code.split(", ").all(|code| code.parse::<u8>().is_ok());
        tables
            .filter(|row| row.len() > 4 && is_code(&row[1]))
            .map(|row| (row[1].clone(), row[retry].clone()))
            .collect()
    };
    let expected = rows(EXIT_CODES, 4);
    assert!(expected.len() > 12, "{expected:?}");
    assert_eq!(rows(PAGE, 3), expected);
}

#[test]
fn every_link_within_the_page_leads_to_a_heading() {
    let anchor = |heading: &str| -> String {
        let kept = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    let headings: Vec<String> =
        PAGE.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
    let links: Vec<&str> =
        PAGE.split("](#").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    assert!(links.len() > 10, "{links:?}");
    for link in links {
        assert!(headings.iter().any(|heading| heading == link), "no heading for #{link}");
    }
}

/// The named blocks, each with its lines.
fn quotes() -> BTreeMap<String, Vec<String>> {
    let mut quotes = BTreeMap::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let body: Vec<String> =
            lines.by_ref().take_while(|line| *line != "```").map(str::to_owned).collect();
        if let Some((_, name)) = info.split_once(' ') {
            assert!(!body.is_empty(), "`{name}` is empty");
            assert!(quotes.insert(name.to_owned(), body).is_none(), "`{name}` is there twice");
        }
    }
    quotes
}

/// Fails unless `run` ended with `code` and has printed the lines that the page quotes as `name`, in
/// their order. `ours` is what the page shows under other names.
#[track_caller]
fn quoted(name: &str, code: i32, run: &Run, ours: &[(String, &str)]) {
    let expected = quotes().remove(name).unwrap_or_else(|| panic!("the page has no `{name}`"));
    assert_eq!(run.code, code, "{name}: {}", run.stderr);
    for told in expected.iter().filter_map(|line| line.split_once("[exit ")) {
        assert!(told.1.starts_with(&format!("{code}, ")), "the page gives {name} another code");
    }
    let mut text = run.stderr.clone();
    for (from, to) in ours {
        text = text.replace(from, to);
    }
    let mut printed = text.lines().map(skeleton);
    for line in &expected {
        let wanted = skeleton(line);
        assert!(
            printed.any(|line| line == wanted),
            "{name}\nthe page: {line}\nas compared: {wanted}\nprinted:\n{text}"
        );
    }
}

/// The line with a mark in the place of each amount, time and digest.
pub fn skeleton(line: &str) -> String {
    const UNITS: [&str; 8] =
        [" B", " kB", " MB", " GB", " TB", " %", " free inodes", " are needed"];
    // Two timers end at the same moment, and either may be first.
    let line = line.replace("tcp connect error: deadline has elapsed", "operation timed out");
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '.';
    let (mut out, mut rest) = (String::new(), line.as_str());
    while let Some(first) = rest.chars().next() {
        if !is_part(first) {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (word, behind) = rest.split_at(rest.find(|c: char| !is_part(c)).unwrap_or(rest.len()));
        rest = behind;
        let is_number = word.starts_with(|c: char| c.is_ascii_digit())
            && word.chars().all(|c| c.is_ascii_digit() || c == '.');
        let unit = UNITS.iter().find(|unit| {
            rest.strip_prefix(**unit).is_some_and(|after| !after.starts_with(is_part))
        });
        if word.len() >= 8 && word.chars().all(|c| c.is_ascii_hexdigit()) {
            out += "<digest>";
        } else if is_time(word) {
            out += "<time>";
        } else if let (true, Some(unit)) = (is_number, unit) {
            out += "<amount>";
            rest = &rest[unit.len()..];
        } else {
            out += word;
        }
    }
    out
}

/// `3.0s`, `42s`, `4m47s`, `2h00m`.
fn is_time(word: &str) -> bool {
    let is_number = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_digit())
            && text.chars().all(|c| c.is_ascii_digit() || c == '.')
    };
    let before = |unit: char| word.strip_suffix(unit);
    match (before('s'), before('m')) {
        (Some(seconds), _) => match seconds.split_once('m') {
            Some((minutes, seconds)) => is_number(minutes) && is_number(seconds),
            None => is_number(seconds),
        },
        (None, Some(rest)) => {
            rest.split_once('h').is_some_and(|(hours, rest)| is_number(hours) && is_number(rest))
        }
        (None, None) => false,
    }
}

#[test]
fn only_amounts_times_and_digests_are_left_open() {
    for (line, expected) in [
        ("has 9.4 GB free, 6.7 GB more", "has <amount> free, <amount> more"),
        ("for another 4m47s [exit 21, x]", "for another <time> [exit 21, x]"),
        ("waited 2h00m, in 0.0s;", "waited <time>, in <time>;"),
        ("llama-3-8b~ca71227525abe0c1/tree", "llama-3-8b~<digest>/tree"),
        ("Llama-3.1-8B-Instruct of 13 files (os error 13)", ""),
        ("fetching 43 % of 16.1 GB", "fetching <amount> of <amount>"),
        ("has 9 free inodes, 30 are needed;", "has <amount>, <amount>;"),
        ("after 3 complete fetches: digest sha256:", ""),
    ] {
        assert_eq!(skeleton(line), if expected.is_empty() { line } else { expected });
    }
}

// What the scenes share

fn hub() -> FakeHub {
    FakeHub::builder().repo(MODEL, tiny()).start()
}

/// A Hub whose model is one file.
fn hub_of(name: &str, blob: Blob) -> FakeHub {
    FakeHub::builder().repo(MODEL, Tree::new().with_blob(name, blob)).start()
}

/// The usual fetch, with a patience of two seconds.
fn usual(hub: &FakeHub, volume: &Volume) -> Command {
    let mut command = fetch(hub, volume, &[SOURCE, FAMILY]);
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "2s");
    command
}

fn ours(hub: &FakeHub, volume: &Volume) -> Vec<(String, &'static str)> {
    vec![(hub.url(), HUB), (volume.root().display().to_string(), "/data/models")]
}

/// `command` as a user who is nobody in particular.
fn as_somebody(volume: &Volume, command: &Command) -> Command {
    // The binary may lie where this user cannot look.
    let copy = volume.path("weightlift");
    copy_binary(&copy);
    open(&volume.path(""), 0o755);
    let mut other = Command::new(&copy);
    other.args(command.get_args()).env_clear();
    other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    other.uid(65_532).gid(65_532);
    other
}

fn open(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A filesystem that is unmounted at the end.
struct Mounted(PathBuf);

impl Mounted {
    fn new(arguments: &[&str], at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        assert!(Command::new("mount").args(arguments).arg(at).status().unwrap().success());
        Self(at.to_owned())
    }

    fn tmpfs(options: &str, at: &Path) -> Self {
        Self::new(&["-t", "tmpfs", "-o", options, "tmpfs"], at)
    }

    fn read_only(at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Self::new(&["--bind", at.to_str().unwrap()], at);
        let remount = ["-o", "remount,bind,ro"];
        assert!(Command::new("mount").args(remount).arg(at).status().unwrap().success());
        mounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A URL at which nobody listens.
fn nobody() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("http://127.0.0.1:{port}")
}

fn flip_last_byte(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();
}

// Volume

#[test]
fn a_volume_of_somebody_else() {
    if !is_root() {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    std::fs::create_dir(volume.root()).unwrap();
    open(&volume.root(), 0o755);
    let run = as_somebody(&volume, &usual(&hub, &volume)).run();
    quoted("permission-denied", 14, &run, &ours(&hub, &volume));

    fetch(&hub, &volume, &[SOURCE, "other"]).run().assert_success();
    for dir in ["", ".weightlift", ".weightlift/locks", ".weightlift/attempts"] {
        open(&volume.root().join(dir), if dir.is_empty() { 0o777 } else { 0o755 });
    }
    let run = as_somebody(&volume, &usual(&hub, &volume)).run();
    quoted("other-user", 14, &run, &ours(&hub, &volume));
}

#[test]
fn a_umask_that_hides_the_model() {
    let (hub, volume) = (hub(), Volume::new());
    std::fs::create_dir(volume.root()).unwrap();
    open(&volume.root(), 0o755);
    let shell = ["sh", "-c", "umask 077; exec \"$@\"", "sh"];
    let run = under(&shell, &usual(&hub, &volume)).run();
    quoted("umask", 0, &run, &ours(&hub, &volume));
}

#[test]
fn a_read_only_mount() {
    if !is_root() {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    let mounted = Mounted::read_only(&volume.root());
    quoted("read-only", 14, &usual(&hub, &volume).run(), &ours(&hub, &volume));
    drop(mounted);
    usual(&hub, &volume).run().assert_success();
    let _mounted = Mounted::read_only(&volume.root());
    quoted("read-only-complete", 0, &usual(&hub, &volume).run(), &ours(&hub, &volume));
}

#[test]
fn a_full_disk() {
    if !is_root() || !has("strace") {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    let mounted = Mounted::tmpfs("size=64k", &volume.root());
    quoted("disk-full", 15, &usual(&hub, &volume).run(), &ours(&hub, &volume));
    drop(mounted);
    let mounted = Mounted::tmpfs("size=64m,nr_inodes=20", &volume.root());
    quoted("no-inodes", 15, &usual(&hub, &volume).run(), &ours(&hub, &volume));
    drop(mounted);

    let hub = hub_of(SHARD, Blob::synthetic(MIB, 1));
    let mut command = usual(&hub, &volume);
    command.args(ONLY_ONE);
    let run = straced(&command, "fallocate", &["fallocate:error=ENOSPC"]).run();
    quoted("disk-fills-up", 15, &run, &ours(&hub, &volume));
}

#[test]
fn a_corrupted_model() {
    let (hub, volume) = (hub(), Volume::new());
    let shard = volume.family(FAMILY).join("model-00002-of-00002.safetensors");
    let verify = || weightlift().arg("verify").arg(volume.family(FAMILY)).run();
    usual(&hub, &volume).run().assert_success();
    flip_last_byte(&shard);
    quoted("corrupted-same-size", 0, &usual(&hub, &volume).run(), &ours(&hub, &volume));
    std::fs::remove_file(volume.family(FAMILY).join("tokenizer.json")).unwrap();
    quoted("corrupted", 12, &verify(), &ours(&hub, &volume));

    // As the page says: what is bad is removed, then fetched.
    std::fs::remove_file(&shard).unwrap();
    quoted("corrupted-repair", 0, &usual(&hub, &volume).run(), &ours(&hub, &volume));
    verify().assert_success();
    volume.assert_holds(FAMILY, &tiny_selected());
}

#[test]
fn a_source_whose_bytes_are_not_what_it_has_published() {
    // A broken header would end it earlier, and by another name.
    let header = format!(
        "{{\"t\":{{\"dtype\":\"U8\",\"shape\":[{0}],\"data_offsets\":[0,{0}]}}}}",
        12 * MIB
    );
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + 12 * MIB as usize, 2);
    let blob = Blob::bytes(file).announcing_sha256(&"ab".repeat(32));
    let (hub, volume) = (hub_of(SHARD, blob), Volume::new());
    let run = usual(&hub, &volume).args(ONLY_ONE).run();
    quoted("wrong-bytes", 12, &run, &ours(&hub, &volume));
}

#[test]
fn a_holder_that_is_slow_and_then_frozen() {
    let (hub, volume) = (hub_of("big.gguf", Blob::synthetic(24 * MIB, 3)), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: MIB / 4 }));
    let with = |arguments: &[&str]| {
        let usual = [SOURCE, FAMILY, "--chunk-size", "1MiB", "--connections", "2"];
        fetch(&hub, &volume, &[&usual[..], arguments].concat())
    };
    let mut holder = with(&[]);
    holder.env("POD_NAME", "download-weights-x7k2p").env("NODE_NAME", "gpu-node-3");
    let holder = holder.start();
    eventually("the holder says that it fetches", || {
        let beat = heartbeat(&volume, FAMILY);
        beat["phase"] == "fetching" && beat["total_bytes"] != 0
    });
    holder.signal("-STOP");
    let run = with(&["--lock-timeout", "2s"]).run();
    quoted("waiting", 23, &run, &ours(&hub, &volume));
    quoted("stuck-lock", 23, &run, &ours(&hub, &volume));

    hub.clear_script();
    let run = with(&["--takeover-after", "3s"]).run();
    quoted("frozen-holder", 0, &run, &ours(&hub, &volume));
    holder.signal("-CONT");
    holder.wait().assert_success();
}

#[test]
fn a_wait_for_an_update() {
    let (hub, volume) = (hub_of("big.gguf", Blob::bytes("small")), Volume::new());
    usual(&hub, &volume).run().assert_success();
    let update = Tree::new().with_blob("big.gguf", Blob::synthetic(24 * MIB, 3));
    let expected = hub.move_branch(MODEL, "main", update);
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: MIB / 4 }));
    let mut holder = usual(&hub, &volume);
    holder.env("POD_NAME", "download-weights-x7k2p").env("NODE_NAME", "gpu-node-3");
    let _holder = holder.start();
    eventually("the holder says that it fetches", || {
        let beat = heartbeat(&volume, FAMILY);
        beat["phase"] == "fetching" && beat["total_bytes"] != 0
    });
    let mut wait = weightlift();
    wait.arg("wait").arg(volume.family(FAMILY));
    let run = wait.args(["--expect-revision", &expected, "--timeout", "1s"]).run();
    quoted("wait-for-an-update", 23, &run, &ours(&hub, &volume));
}

#[test]
fn a_volume_that_can_do_less() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    let command = usual(&hub, &volume);
    let run = straced(&command, "flock", &["flock:error=ENOLCK"]).run();
    quoted("no-locks", 0, &run, &ours(&hub, &volume));

    // An update where directories can be neither exchanged nor linked.
    let mut command = usual(&hub, &volume);
    command.args(["--exclude", "tokenizer.json", "--replace"]);
    let injects = ["renameat2:error=EINVAL", "symlinkat:error=EPERM"];
    let run = straced(&command, "renameat2,symlinkat", &injects).run();
    quoted("cannot-publish", 14, &run, &ours(&hub, &volume));
}

#[test]
fn two_models_in_one_place() {
    let other = "hf://org/other";
    let hub = FakeHub::builder().repo(MODEL, tiny()).repo("org/other", tiny()).start();
    let volume = Volume::new();
    let run = |arguments: &[&str]| fetch(&hub, &volume, arguments).run();
    quoted("same-dest", 2, &run(&[SOURCE, "llama", other, "llama"]), &ours(&hub, &volume));
    run(&[SOURCE, "llama"]).assert_success();
    quoted("inside-a-model", 16, &run(&[other, "llama/instruct"]), &ours(&hub, &volume));
    quoted("another-model", 16, &run(&[other, "llama"]), &ours(&hub, &volume));

    std::fs::create_dir(volume.family(FAMILY)).unwrap();
    std::fs::write(volume.family(FAMILY).join("config.json"), "{}").unwrap();
    quoted("foreign-files", 16, &run(&[SOURCE, FAMILY]), &ours(&hub, &volume));
}

// Source and network

#[test]
fn a_gated_model_and_a_wrong_token() {
    let tree = Tree::new().with("config.json", "{}");
    let hub = FakeHub::builder().repo(MODEL, tree).gated(MODEL).token(TOKEN).start();
    let volume = Volume::new();
    let with = |token: &str| usual(&hub, &volume).env("HF_TOKEN", token).run();
    quoted("gated-no-token", 11, &usual(&hub, &volume).run(), &ours(&hub, &volume));
    quoted("gated-no-access", 11, &with(TOKEN), &ours(&hub, &volume));
    quoted("bad-token", 11, &with("hf_wrong"), &ours(&hub, &volume));

    let log = volume.path("termination-log");
    std::fs::write(&log, "").unwrap();
    let mut command = usual(&hub, &volume);
    command.env("HF_TOKEN", TOKEN).env("WEIGHTLIFT_TERMINATION_LOG", &log);
    command.run().assert_code(11);
    let stderr = std::fs::read_to_string(&log).unwrap();
    let message = Run { code: 11, stdout: String::new(), stderr };
    quoted("termination-message", 11, &message, &ours(&hub, &volume));
}

#[test]
fn a_token_that_cannot_be_read() {
    if !is_root() {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    std::fs::create_dir(volume.root()).unwrap();
    open(&volume.root(), 0o777);
    let token = volume.path("token");
    std::fs::write(&token, TOKEN).unwrap();
    open(&token, 0o600);
    let mut command = usual(&hub, &volume);
    command.env("HF_TOKEN_PATH", &token);
    let run = as_somebody(&volume, &command).run();
    let shown = [(token.display().to_string(), "/var/run/secrets/hf/token")];
    quoted("token-unreadable", 11, &run, &shown);
}

#[test]
fn what_is_left_out_and_patterns_that_match_nothing() {
    let (hub, volume) = (hub(), Volume::new());
    let run = usual(&hub, &volume).args(["--exclude", "*.md5"]).run();
    quoted("left-out", 0, &run, &ours(&hub, &volume));
}

#[test]
fn a_repo_or_a_revision_that_is_not_there() {
    let hub = FakeHub::builder().repo("org/other", tiny()).token(TOKEN).start();
    let volume = Volume::new();
    quoted("private-or-missing", 11, &usual(&hub, &volume).run(), &ours(&hub, &volume));
    let run = usual(&hub, &volume).env("HF_TOKEN", TOKEN).run();
    quoted("not-found", 10, &run, &ours(&hub, &volume));

    let hub = self::hub();
    let run = fetch(&hub, &volume, &[&format!("{SOURCE}@{OTHER_COMMIT}"), FAMILY]).run();
    quoted("no-revision", 10, &run, &ours(&hub, &volume));
    let run = fetch(&hub, &volume, &[&format!("{SOURCE}:Q4_K_M"), FAMILY]).run();
    quoted("quantisation", 10, &run, &ours(&hub, &volume));
    let run = usual(&hub, &volume).args(["--expect-revision", OTHER_COMMIT]).run();
    quoted("wrong-revision", 16, &run, &ours(&hub, &volume));
}

#[test]
fn offline_without_the_model() {
    let (hub, volume) = (hub(), Volume::new());
    let run = usual(&hub, &volume).env("HF_HUB_OFFLINE", "1").run();
    quoted("offline-nothing", 10, &run, &ours(&hub, &volume));
    usual(&hub, &volume).run().assert_success();
    let source = format!("{SOURCE}@{OTHER_COMMIT}");
    let run = fetch(&hub, &volume, &[&source, FAMILY]).env("HF_HUB_OFFLINE", "1").run();
    quoted("offline-other", 10, &run, &ours(&hub, &volume));
}

#[test]
fn a_hub_that_limits_the_rate() {
    let (hub, volume) = (hub(), Volume::new());
    let limit = [("RateLimit", "\"api\";r=0;t=287"), ("Retry-After", "287")];
    hub.script(Rule::on("GET", "/api/").at("hub").then(Fault::status_with(429, &limit, "")));
    quoted("rate-limited", 21, &usual(&hub, &volume).run(), &ours(&hub, &volume));
}

#[test]
fn a_certificate_of_an_authority_that_nobody_knows() {
    if !has("openssl") {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    let upstream = hub.url().rsplit(':').next().unwrap().parse().unwrap();
    let config = Authority::new("company").certify("IP:127.0.0.1", 2020, 2049);
    let front = Front::start(config, upstream, |_| Handshake::Done);
    let run = usual(&hub, &volume).env("HF_ENDPOINT", front.url()).run();
    quoted("wrong-ca", 14, &run, &[(front.url(), HUB)]);
    assert_eq!(hub.requests().len(), 0);

    let missing = volume.path("ca.crt").display().to_string();
    let run = usual(&hub, &volume).env("SSL_CERT_FILE", &missing).run();
    quoted("no-ca-file", 2, &run, &[(missing, "/etc/company-ca/ca.crt")]);
}

#[test]
fn a_port_where_nobody_listens() {
    let (hub, volume, nobody) = (hub(), Volume::new(), nobody());
    let fetch = || usual(&hub, &volume).env("HF_ENDPOINT", &nobody).run();
    let root = volume.root().display().to_string();
    let ours = [(nobody.clone(), HUB), (root, "/data/models")];
    quoted("egress-refused", 20, &fetch(), &ours);
    usual(&hub, &volume).run().assert_success();
    quoted("outage-with-a-copy", 0, &fetch(), &ours);
}

#[test]
fn a_firewall_between_the_pod_and_the_hub() {
    in_own_network("kubernetes_docs::a_firewall_between_the_pod_and_the_hub", || {
        // As where the policy has forgotten DNS: nobody answers there.
        replace_file("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
        let fetch = |at: &str, patience: &str| {
            let volume = Volume::new();
            let mut command = weightlift();
            command.args(["fetch", SOURCE, FAMILY, "--root"]).arg(volume.root());
            command.args(ONLY_ONE);
            command.env("HF_ENDPOINT", at).env("WEIGHTLIFT_RETRY_TIMEOUT", patience).run()
        };
        quoted("egress-dns", 20, &fetch(HUB, "3s"), &[]);

        black_hole("10.9.9.0/24");
        replace_file("/etc/hosts", "10.9.9.1 huggingface.co\n10.9.9.2 us.aws.cdn.hf.co\n");
        let tree = Tree::new().with_blob(SHARD, Blob::synthetic(12 * MIB, 4));
        let cdn = "https://us.aws.cdn.hf.co";
        let hub = FakeHub::builder().repo(MODEL, tree).external_cdn(cdn).start();
        let url = hub.url();
        // More than twice as long as a connection is waited for, so that this is what ends.
        std::thread::scope(|scope| {
            let dropped = scope.spawn(|| fetch(HUB, "30s"));
            let storage = scope.spawn(|| fetch(&url, "30s"));
            quoted("egress-dropped", 20, &dropped.join().unwrap(), &[]);
            quoted("egress-storage", 20, &storage.join().unwrap(), &[]);
        });
    });
}

#[test]
fn no_credentials_for_s3() {
    let volume = Volume::new();
    let mut command = weightlift();
    command.args(["fetch", "s3://models/llama-3-8b/", FAMILY, "--root"]).arg(volume.root());
    let run = command.env("AWS_EC2_METADATA_DISABLED", "true").run();
    quoted("s3-no-credentials", 11, &run, &[]);
}

// Ended from outside

#[test]
fn killed_terminated_and_continued() {
    let (hub, volume) = (hub_of_two(), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 2 * MIB }));
    let with = || {
        let options = ["--chunk-size", "1MiB", "--connections", "8"];
        fetch(&hub, &volume, &[&[SOURCE, FAMILY][..], &options[..]].concat())
    };
    for (signal, code) in [("-TERM", 143), ("-KILL", -1)] {
        let running = with().start();
        let before = hub.bytes_sent_for("xet-bridge");
        eventually("bytes arrive", || hub.bytes_sent_for("xet-bridge") > before + 4 * MIB);
        running.signal(signal);
        let run = running.wait().assert_code(code);
        if code == 143 {
            quoted("terminated", code, &run, &[]);
        }
    }
    hub.clear_script();
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: MIB / 4 }));
    let run = with().args(["--deadline", "4s"]).run();
    quoted("deadline", 23, &run, &ours(&hub, &volume));
    hub.clear_script();
    let run = with().run();
    quoted("resumed", 0, &run, &ours(&hub, &volume));
    volume.assert_clean();
}

fn hub_of_two() -> FakeHub {
    let tree =
        Tree::new().with("config.json", "{}").with_blob("big.gguf", Blob::synthetic(48 * MIB, 5));
    FakeHub::builder().repo(MODEL, tree).start()
}

#[test]
fn wrong_arguments() {
    let (hub, volume) = (hub(), Volume::new());
    quoted("no-scheme", 2, &fetch(&hub, &volume, &[MODEL, FAMILY]).run(), &[]);
}
