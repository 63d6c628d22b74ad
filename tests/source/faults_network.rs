//! What happens below HTTP: names, connections, certificates, proxies, speed.
//!
//! | what the network does | what happens |
//! |---|---|
//! | a name that is not found, once or for a while | asked for again; then exit 20, naming the host |
//! | an address of several that is dead | the next one is taken |
//! | nobody answers, or everything is lost for a while | replaced and gone on with; then exit 20 |
//! | a certificate that is not trusted | exit 14 at once, naming the reason |
//! | a handshake that is cut or never comes | tried again |
//! | an end without a word of farewell, all bytes being there | no failure |
//! | a proxy that refuses | exit 20, without its password |
//! | one slow connection among many | replaced; it costs little |

use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::own_network::{black_hole, in_own_network, replace_file};
use crate::support::table::{BIG, Row, check, hub, model, row};
use crate::support::tls::{Authority, Front, Handshake};
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Response, Rule, Server, Tree};

/// A fetch of the model from a Hub at `url`.
fn fetch_at(url: &str, volume: &Volume) -> Command {
    let mut command = weightlift();
    command.args(["fetch", "hf://org/tiny", "m", "--chunk-size", "1MiB", "--connections", "2"]);
    command.arg("--root").arg(volume.root()).env("HF_ENDPOINT", url).env("HF_TOKEN", TOKEN);
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "20s").env("WEIGHTLIFT_STALL_TIMEOUT", "1s");
    command
}

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().unwrap().parse().unwrap()
}

/// A Hub that sends everything from its own port.
fn one_port() -> FakeHub {
    FakeHub::builder().repo(REPO, model()).lfs_direct().start()
}

// Names and addresses

#[test]
fn names_and_addresses_that_fail_are_tried_again_and_named() {
    in_own_network(
        "faults_network::names_and_addresses_that_fail_are_tried_again_and_named",
        || {
            replace_file(
                "/etc/resolv.conf",
                "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
            );
            replace_file(
                "/etc/hosts",
                "127.0.0.9 first.dead\n127.0.0.1 first.dead\nfd00::9 v6.dead\n127.0.0.1 v6.dead\n",
            );
            let names = Names::serve();
            // Everything that is sent there vanishes.
            black_hole("10.9.9.0/24");
            own_network::run("ip", &["addr", "add", "fd00::1/128", "dev", "lo"]);
            black_hole("fd00::8/125");
            let fetched = |name: &'static str, host: &'static str| {
                row(name, move || {
                    let (hub, volume) = (one_port(), Volume::new());
                    let started = Instant::now();
                    let url = format!("http://{host}:{}", port_of(&hub.url()));
                    fetch_at(&url, &volume).run().assert_success();
                    volume.assert_holds("m", &model());
                    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
                })
            };
            let given_up = |name: &'static str, host: &'static str, word: &'static str| {
                row(name, move || {
                    let (volume, started) = (Volume::new(), Instant::now());
                    let mut command = fetch_at(&format!("http://{host}:80"), &volume);
                    let run = command.env("WEIGHTLIFT_RETRY_TIMEOUT", "3s").run().assert_code(20);
                    assert!(run.last_line().contains(host), "{}", run.stderr);
                    assert!(run.last_line().contains(word), "{}", run.stderr);
                    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
                })
            };
            check([
                fetched("a server of names that fails for a while", "broken3.models.test"),
                fetched("a server of names that is silent for a while", "silent2.models.test"),
                fetched("a name that comes late", "missing2.models.test"),
                fetched("two addresses of which one refuses", "first.dead"),
                fetched("two addresses of a server of names, one dead", "two.models.test"),
                fetched("an IPv6 address that swallows everything", "v6.dead"),
                given_up("a name that is not there", "missing99.models.test", "dns error"),
                given_up("a server of names that fails", "broken99.models.test", "dns error"),
                given_up("a server of names that is silent", "silent99.models.test", "dns error"),
                given_up(
                    "an address that swallows everything",
                    "10.9.9.9",
                    "did not answer within",
                ),
                given_up("an address without a route", "10.8.8.8", "unreachable"),
            ]);
            for host in ["missing99", "broken99"] {
                let asked = names.asked(host);
                assert!((2..60).contains(&asked), "{asked} questions for {host}");
            }
        },
    );
}

/// A server of names: `broken3.…` fails three times and is then found, `silent2.…` gets no answer
/// twice, `missing2.…` is not there twice, `two.…` has a dead address first.
struct Names(Arc<Mutex<Vec<String>>>);

impl Names {
    fn serve() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        std::thread::spawn(move || {
            let mut packet = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut packet) {
                let question = &packet[12..len];
                let end = question.iter().position(|byte| *byte == 0).unwrap() + 1;
                let first = &question[1..=usize::from(question[0])];
                let name = String::from_utf8_lossy(first).into_owned();
                let is_a = question[end + 1] == 1;
                let times = {
                    let mut log: std::sync::MutexGuard<'_, Vec<String>> = log.lock().unwrap();
                    // The other question is for an IPv6 address.
                    log.extend(is_a.then(|| name.clone()));
                    log.iter().filter(|asked| **asked == name).count()
                };
                let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
                let is_over = times > digits.parse().unwrap_or(0);
                let (code, addresses): (u8, &[[u8; 4]]) = match &name {
                    name if name.starts_with("two") => (0, &[[127, 0, 0, 9], [127, 0, 0, 1]]),
                    _ if is_over => (0, &[[127, 0, 0, 1]]),
                    name if name.starts_with("broken") => (2, &[]),
                    name if name.starts_with("missing") => (3, &[]),
                    _ => continue,
                };
                let addresses = if is_a { addresses } else { &[] };
                let mut answer = packet[..2].to_vec();
                answer.extend([0x81, 0x80 | code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
                answer.extend(&question[..end + 4]);
                for address in addresses {
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
                    answer.extend(address);
                }
                let _ = socket.send_to(&answer, from);
            }
        });
        Self(asked)
    }

    fn asked(&self, host: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|asked| *asked == host).count()
    }
}

// The link

#[test]
fn a_link_that_is_gone_for_a_while_costs_only_that() {
    in_own_network("faults_network::a_link_that_is_gone_for_a_while_costs_only_that", || {
        for (name, cut, heal) in [
            // Nobody is told: connections that are open stay so, and are dead.
            (
                "everything is lost",
                own_network::lose_everything as fn(),
                own_network::lose_nothing as fn(),
            ),
            (
                "there is no network",
                || own_network::run("ip", &["link", "set", "lo", "down"]),
                || own_network::run("ip", &["link", "set", "lo", "up"]),
            ),
        ] {
            let (hub, volume) = (FakeHub::serving(REPO, model()), Volume::new());
            hub.script(
                Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 1 << 20 }),
            );
            let running = fetch_at(&hub.url(), &volume).start();
            eventually(name, || hub.bytes_sent_for("xet-bridge") > 1 << 20);
            cut();
            std::thread::sleep(Duration::from_secs(4));
            heal();
            let run = running.wait().assert_success();
            volume.assert_holds("m", &model());
            assert!(run.stderr.contains("retrying"), "nothing happened: {}", run.stderr);
            // What had arrived is not asked for again.
            let bytes = hub.bytes_sent_for("xet-bridge");
            assert!(bytes < BIG + (2 << 20), "{name}: {bytes} bytes were sent");
            assert!(hub.requests().len() < 40, "{name}: {} requests", hub.requests().len());
        }
    });
}

#[test]
fn a_path_that_loses_all_large_packets_is_given_up_and_gone_on_with_later() {
    in_own_network(
        "faults_network::a_path_that_loses_all_large_packets_is_given_up_and_gone_on_with_later",
        || {
            let (hub, volume) = (FakeHub::serving(REPO, model()), Volume::new());
            own_network::lose_packets_above(4_000);
            let mut command = fetch_at(&hub.url(), &volume);
            let run = command.env("WEIGHTLIFT_RETRY_TIMEOUT", "4s").run().assert_code(20);
            assert!(run.last_line().contains("sent nothing for"), "{}", run.stderr);
            assert!(hub.requests().len() < 40, "{} requests", hub.requests().len());
            own_network::lose_nothing();
            fetch_at(&hub.url(), &volume).run().assert_success();
            volume.assert_holds("m", &model());
        },
    );
}

// TLS

#[test]
fn a_certificate_that_is_not_trusted_ends_the_fetch_at_once() {
    if !has("openssl") {
        return;
    }
    let (authority, stranger) = (Authority::new("known"), Authority::new("stranger"));
    let hub = one_port();
    let upstream = port_of(&hub.url());
    let good = authority.certify("DNS:localhost,IP:127.0.0.1", 2020, 2049);
    let refused = |name, config, words: &'static [&'static str]| {
        let roots = authority.path();
        row(name, move || {
            let front = Front::start(config, upstream, |_| Handshake::Done);
            let volume = Volume::new();
            let run = fetch_at(&front.url(), &volume).env("SSL_CERT_FILE", roots).run();
            for word in words.iter().chain(&["is not trusted", "SSL_CERT_FILE"]) {
                assert!(run.last_line().contains(word), "`{word}` is not in: {}", run.stderr);
            }
            run.assert_code(14);
            assert_eq!(front.connections(), 1, "it was tried again");
        })
    };
    check([
        refused(
            "one that has expired",
            authority.certify("IP:127.0.0.1", 2020, 2021),
            &["certificate expired"],
        ),
        refused(
            "one of the future",
            authority.certify("IP:127.0.0.1", 2048, 2049),
            &["not valid yet"],
        ),
        refused(
            "one for another name",
            authority.certify("DNS:elsewhere.test", 2020, 2049),
            &["not valid for name"],
        ),
        refused(
            "one of an unknown authority",
            stranger.certify("IP:127.0.0.1", 2020, 2049),
            &["UnknownIssuer"],
        ),
    ]);
    assert_eq!(hub.requests().len(), 0, "something was sent all the same");
    let handshakes = |name, handshake: fn(usize) -> Handshake, code: i32, word: &'static str| {
        let (config, roots) = (good.clone(), authority.path());
        row(name, move || {
            let front = Front::start(config, upstream, handshake);
            let (volume, started) = (Volume::new(), Instant::now());
            let mut command = fetch_at(&front.url(), &volume);
            let patience = if code == 0 { "20s" } else { "3s" };
            command.env("SSL_CERT_FILE", roots).env("WEIGHTLIFT_RETRY_TIMEOUT", patience);
            let run = command.run().assert_code(code);
            assert!(run.stderr.contains(word), "{}", run.stderr);
            assert!(front.connections() < 30, "{} connections", front.connections());
            assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
            if code == 0 {
                volume.assert_holds("m", &model());
            }
        })
    };
    check([
        handshakes("one that is trusted", |_| Handshake::Done, 0, "complete"),
        handshakes(
            "every second handshake is cut",
            |n| if n.is_multiple_of(2) { Handshake::Cut } else { Handshake::Done },
            0,
            "retrying",
        ),
        handshakes(
            "a handshake that never comes, once",
            |n| if n == 0 { Handshake::Silent } else { Handshake::Done },
            0,
            "retrying",
        ),
        handshakes("handshakes that are always cut", |_| Handshake::Cut, 20, "127.0.0.1"),
        handshakes("handshakes that never come", |_| Handshake::Silent, 20, "did not answer"),
        handshakes("a port that speaks something else", |_| Handshake::Plain, 20, "127.0.0.1"),
    ]);
    // The end of the connection is that of the body, and nobody says so.
    let unended = one_port();
    unended.script(Rule::on("GET", "big.bin").then(Fault::NoLength));
    let silent = |_| Handshake::DoneWithoutFarewell;
    let (front, volume) =
        (Front::start(good.clone(), port_of(&unended.url()), silent), Volume::new());
    let mut command = fetch_at(&front.url(), &volume);
    let run = command.env("SSL_CERT_FILE", authority.path()).run().assert_success();
    volume.assert_holds("m", &model());
    assert!(!run.stderr.contains("retrying"), "{}", run.stderr);
    // A storage without TLS behind a Hub with it gets neither the token nor a request.
    let split = FakeHub::serving(REPO, model());
    let front = Front::start(good, port_of(&split.url()), |_| Handshake::Done);
    let volume = Volume::new();
    let mut command = fetch_at(&front.url(), &volume);
    let run = command.env("SSL_CERT_FILE", authority.path()).run().assert_code(13);
    assert!(run.last_line().contains("which is less safe"), "{}", run.stderr);
    assert!(split.requests().iter().all(|request| request.origin == "hub"));
}

// Proxies

#[test]
fn a_proxy_that_refuses_is_named_and_its_password_is_not() {
    const PASSWORD: &str = "proxyCANARYproxy";
    let through = |name,
                   variable: &'static str,
                   hub: &'static str,
                   answer: fn() -> Response,
                   words: &'static [&'static str]|
     -> Row {
        row(name, move || {
            let log = weightlift_fakes::Log::new();
            let script = weightlift_fakes::Script::new();
            let proxy = Server::start(script.observed("proxy", &log, move |_| answer()));
            let (volume, started) = (Volume::new(), Instant::now());
            let mut command = fetch_at(hub, &volume);
            let address = proxy.url().replace("http://", "");
            command.env(variable, format!("http://user:{PASSWORD}@{address}"));
            let run = command.env("WEIGHTLIFT_RETRY_TIMEOUT", "3s").run().assert_code(20);
            for word in words {
                assert!(run.last_line().contains(word), "`{word}` is not in: {}", run.stderr);
            }
            assert!(!run.stderr.contains(PASSWORD), "{}", run.stderr);
            let requests = log.requests();
            assert!((1..12).contains(&requests.len()), "{} requests", requests.len());
            for request in &requests {
                let credentials = request.header("proxy-authorization").unwrap_or_default();
                assert!(credentials.starts_with("Basic "), "{request:?}");
                // A tunnel is asked for without the token; a plain request is for the Hub.
                let has_token = request.header("authorization").is_some();
                assert_eq!(has_token, request.method != "CONNECT", "{request:?}");
            }
            assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
        })
    };
    let (plain, tls) = ("http://hub.example", "https://hub.example");
    check([
        through(
            "a tunnel that needs another password",
            "HTTPS_PROXY",
            tls,
            || Response::new(407),
            &["proxy"],
        ),
        through("a tunnel to nowhere", "HTTPS_PROXY", tls, || Response::new(502), &["tunnel"]),
        through(
            "a tunnel that is forbidden",
            "HTTPS_PROXY",
            tls,
            || Response::new(403),
            &["tunnel"],
        ),
        through(
            "a proxy that needs another password",
            "HTTP_PROXY",
            plain,
            || Response::text(407, "who are you?"),
            &["407", "proxy"],
        ),
        through(
            "a proxy that reaches nobody",
            "HTTP_PROXY",
            plain,
            || Response::text(502, "no route to the origin"),
            &["502", "no route to the origin"],
        ),
        row("a proxy that accepts and says nothing", || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let (volume, started) = (Volume::new(), Instant::now());
            let mut command = fetch_at("https://hub.example", &volume);
            command.env("HTTPS_PROXY", format!("http://{}", listener.local_addr().unwrap()));
            command.env("WEIGHTLIFT_RETRY_TIMEOUT", "3s").run().assert_code(20);
            assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
        }),
    ]);
}

// Speed

#[test]
fn one_slow_connection_among_many_costs_little() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(96 << 20, 9));
    let run = |slow: bool| {
        let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
        let storage = || Rule::on("GET", "").at("cdn");
        if slow {
            // In the middle of the transfer, and for as long as the connection lives.
            let drip = Fault::Drip { bytes_per_second: 20 };
            hub.script(storage().skip(20).once().then(drip));
        }
        hub.script(storage().then(Fault::Drip { bytes_per_second: 2 << 20 }));
        let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "8"];
        let started = Instant::now();
        let run = fetch(&hub, &volume, &arguments)
            .env("WEIGHTLIFT_STALL_TIMEOUT", "1s")
            .run()
            .assert_success();
        let took = started.elapsed();
        assert_eq!(run.stderr.contains("the connection brought only"), slow, "{}", run.stderr);
        volume.assert_holds("tiny", &tree);
        took
    };
    let (without, with) = (run(false), run(true));
    eprintln!("without {without:?}, with {with:?}");
    assert!(with < without.mul_f64(1.2), "{with:?} instead of {without:?}");
}

#[test]
fn connections_that_are_all_slow_are_borne() {
    // Each brings less than what would be enough beside faster ones, for three windows of time.
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(400_000, 9));
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 100_000 }));
    let run = fetch(&hub, &volume, &["hf://org/tiny"])
        .env("WEIGHTLIFT_STALL_TIMEOUT", "1s")
        .run()
        .assert_success();
    volume.assert_holds("tiny", &tree);
    assert!(!run.stderr.contains("retrying"), "{}", run.stderr);
    assert_eq!(hub.bytes_sent_for("xet-bridge"), 400_000);
}

#[test]
fn a_stall_just_before_the_end_is_noticed() {
    let last = BIG - (BIG % (1 << 20));
    let stall = |name, after: u64, start: u64| {
        let silence = Fault::StallAfter(after, Duration::from_secs(120));
        hub(name)
            .rule(Rule::on("GET", "").at("cdn").when_range_starts_at(start).once().then(silence))
            .recovers(16)
    };
    let started = Instant::now();
    check([
        stall("one byte before the end of a chunk", (1 << 20) - 1, 1 << 20),
        stall("one byte before the end of the file", 10, last),
        stall("before the first byte", 0, last),
    ]);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    // And without any flag within half a minute.
    let help = weightlift().args(["fetch", "--help"]).run().assert_success().stdout;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, about) = help.split_once("--stall-timeout").unwrap();
    let (_, default) = about.split_once("[default: ").unwrap();
    let seconds: u64 = default.split_once("s]").unwrap().0.parse().unwrap();
    assert!(seconds <= 30, "{seconds}");
}
