//! Mirrors of the Hub and proxies on the way to it, and what becomes of their ways.
//!
//! | what is in between | what happens |
//! |---|---|
//! | an endpoint with a user and a password | Basic to that origin only, shown nowhere |
//! | a proxy, of any kind | used as the variables say; exit 2 if it can never work |
//! | a refusal that is final, from anybody | told at once in its words, exit 10 or 11 |
//! | a compressed answer | named |
//! | a redirect to a host that wants a token | exit 11, with the HF_ENDPOINT that would send it |
//! | a listing of one directory, `next` links of the upstream | the rest is asked for at the endpoint |
//! | links to the storage that expire in another way | renewed |
//! | a host with several addresses | all of them are used |

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::support::own_network::{black_hole, in_own_network, replace_file};
use crate::support::table::{BIG, Case, Row, bucket, check, hub, model, row};
use crate::support::tls::{Authority, Front, Handshake};
use crate::support::*;
use serde_json::json;
use weightlift_fakes::{Blob, FakeHub, FakeHubBuilder, Fault, Relay, Response, Rule, Server, Tree};

/// Requests of a fetch of the model without any fault, and two more that may be on their way.
const USUAL: usize = 13;

fn api(what: &str) -> Rule {
    Rule::on("GET", what).at("hub")
}

fn storage() -> Rule {
    Rule::on("GET", "").at("cdn")
}

fn named(name: String) -> &'static str {
    Box::leak(name.into_boxed_str())
}

/// A fetch of the model from `endpoint`.
fn fetch_at(endpoint: &str, volume: &Volume) -> Command {
    let mut command = weightlift();
    command.args(["fetch", "hf://org/tiny", "m", "--chunk-size", "1MiB", "--root"]);
    command.arg(volume.root()).env("HF_ENDPOINT", endpoint).env("WEIGHTLIFT_CONNECTIONS", "2");
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "20s").env("WEIGHTLIFT_STALL_TIMEOUT", "1s");
    command
}

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().unwrap().parse().unwrap()
}

fn serving(build: impl FnOnce(FakeHubBuilder) -> FakeHubBuilder) -> FakeHub {
    build(FakeHub::builder().repo(REPO, model())).start()
}

// Endpoints

#[test]
fn a_user_in_the_endpoint_is_sent_to_that_origin_and_shown_nowhere() {
    const USER: &str = "bo@t:t/CANARY%x";
    const BASE64: &str = "Ym9AdDp0L0NBTkFSWSV4";
    let hidden = |text: &str| !text.contains("CANARY") && !text.contains(BASE64);
    let with_user = |hub: &FakeHub, user: &str| {
        hub.url().replace("http://", &format!("http://{user}@")) + "/hf/"
    };
    for token in [None, Some(TOKEN)] {
        let (hub, volume) =
            (serving(|hub| hub.user(USER).private(REPO).prefix("/hf")), Volume::new());
        let mut command = fetch_at(&with_user(&hub, "bo%40t:t%2FCANARY%25x"), &volume);
        // It forbids the token only, which nobody has put into the endpoint.
        command.env("HF_HUB_DISABLE_IMPLICIT_TOKEN", if token.is_some() { "0" } else { "1" });
        command.envs(token.map(|token| ("HF_TOKEN", token))).args(["--output", "json"]);
        let run = command.run().assert_success();
        volume.assert_holds("m", &model());
        assert_eq!(run.stderr.contains("the user is sent, the token is not"), token.is_some());
        assert!(hidden(&run.stderr) && hidden(&run.stdout), "{} {}", run.stdout, run.stderr);
        let sentinel = volume.family("m").join(".weightlift-complete.json");
        assert!(hidden(&std::fs::read_to_string(sentinel).unwrap()));
        for request in hub.requests() {
            let sent = request.header("authorization");
            let expected = (request.origin == "hub").then(|| format!("Basic {BASE64}"));
            assert_eq!(sent, expected.as_deref(), "{request:?}");
            assert!(!format!("{request:?}").contains(TOKEN), "{request:?}");
        }
    }
    // Another password, and a user only.
    for (user, only) in [("bo%40t:CANARY", USER), ("CANARY", "CANARY:x")] {
        let (hub, volume) = (serving(|hub| hub.user(only).prefix("/hf")), Volume::new());
        let run = fetch_at(&with_user(&hub, user), &volume).run().assert_code(11);
        assert!(run.last_line().contains("user and password in HF_ENDPOINT"), "{}", run.stderr);
        assert!(hidden(&run.stderr) && hub.requests().len() == 1, "{}", run.stderr);
    }
    let (hub, volume) =
        (serving(|hub| hub.user("CANARY:").private(REPO).prefix("/hf")), Volume::new());
    fetch_at(&with_user(&hub, "CANARY"), &volume).run().assert_success();
    volume.assert_holds("m", &model());
}

#[test]
fn an_endpoint_is_read_with_care_or_refused_at_once() {
    let hub = serving(|hub| hub.prefix("/a/hf"));
    for form in ["{}/a/hf", "{}/a/hf/", "{}/a/hf//", "  {}/a/hf\n", "{}/a/../a/hf"] {
        let volume = Volume::new();
        fetch_at(&form.replace("{}", &hub.url()), &volume).run().assert_success();
        volume.assert_holds("m", &model());
    }
    hub.log().clear();
    let host = hub.url().replace("http://", "");
    for form in [
        "http://u:CANARY@{}/a/hf?x=1",
        "http://u:CANARY@{}/a/hf#x",
        "http://u:CANARY@{}/a b",
        "http://u:CANARY@\n{}/a/hf",
        "http://u:CANARY\u{7}@{}/a/hf",
        "http://u%0a:CANARY@{}/a/hf",
        "http://u:CANARY@/a/hf",
        "ftp://u:CANARY@{}/a/hf",
        "u:CANARY@{}/a/hf",
        "http://u:CANARY@127.0.0.1:99999",
        "CANARY",
    ] {
        let volume = Volume::new();
        let run = fetch_at(&form.replace("{}", &host), &volume).run().assert_code(2);
        assert!(run.last_line().contains("HF_ENDPOINT"), "{}", run.stderr);
        assert!(!run.stderr.contains("CANARY"), "{}", run.stderr);
    }
    use std::os::unix::ffi::OsStringExt;
    let volume = Volume::new();
    let mut command = fetch_at("", &volume);
    command.env("HF_ENDPOINT", std::ffi::OsString::from_vec(b"http://\xff".to_vec()));
    assert!(command.run().assert_code(2).last_line().contains("HF_ENDPOINT"));
    assert_eq!(hub.requests().len(), 0);
}

// Proxies

#[test]
fn a_socks_proxy_is_used_and_given_the_name() {
    const USER: &str = "us@r:p:CANARY";
    let through = |scheme: &'static str,
                   variable: &'static str,
                   endpoint: &'static str,
                   (protocol, host): (&'static str, &'static str)|
     -> Row {
        row(named(format!("{scheme} in {variable}")), move || {
            let (hub, volume, proxy) =
                (serving(FakeHubBuilder::lfs_direct), Volume::new(), Relay::proxy(None));
            let mut command =
                fetch_at(&format!("http://{endpoint}:{}", port_of(&hub.url())), &volume);
            command.env(variable, format!("{scheme}://127.0.0.1:{}", proxy.port()));
            command.env("HF_TOKEN", TOKEN).run().assert_success();
            volume.assert_holds("m", &model());
            let seen = proxy.seen();
            assert_eq!(seen.len(), hub.accepted_connections(), "past the proxy: {seen:?}");
            for relayed in seen {
                assert_eq!((relayed.protocol, relayed.host.as_str()), (protocol, host));
            }
        })
    };
    let local = ["127.0.0.1", "localhost"];
    check([
        through("socks5h", "ALL_PROXY", "hub.invalid", ("socks5", "hub.invalid")),
        through("socks5h", "all_proxy", "hub.invalid", ("socks5", "hub.invalid")),
        through("socks5h", "HTTP_PROXY", "hub.invalid", ("socks5", "hub.invalid")),
        through("SOCKS5H", "http_proxy", "hub.invalid", ("socks5", "hub.invalid")),
        through("socks4a", "ALL_PROXY", "hub.invalid", ("socks4a", "hub.invalid")),
        through("socks5", "ALL_PROXY", local[0], ("socks5", local[0])),
        through("socks4", "ALL_PROXY", local[0], ("socks4", local[0])),
        row("a user and a password", || {
            let (hub, volume, proxy) =
                (serving(FakeHubBuilder::lfs_direct), Volume::new(), Relay::proxy(Some(USER)));
            let endpoint = format!("http://hub.invalid:{}", port_of(&hub.url()));
            let mut command = fetch_at(&endpoint, &volume);
            let at = format!("@127.0.0.1:{}", proxy.port());
            command.env("ALL_PROXY", format!("socks5h://us%40r:p%3ACANARY{at}"));
            let run = command.run().assert_success();
            assert!(!run.stderr.contains("CANARY"), "{}", run.stderr);
            assert!(proxy.seen().iter().all(|relayed| relayed.user.as_deref() == Some(USER)));
            // Another one.
            let volume = Volume::new();
            let mut command = fetch_at(&endpoint, &volume);
            command.env("ALL_PROXY", format!("socks5h://us%40r:wrongCANARY{at}"));
            let run = command.env("WEIGHTLIFT_RETRY_TIMEOUT", "1s").run().assert_code(20);
            assert!(run.last_line().contains("socks"), "{}", run.stderr);
            assert!(!run.stderr.contains("CANARY"), "{}", run.stderr);
        }),
        row("a Hub that speaks TLS, by SOCKS and by CONNECT", || {
            if !has("openssl") {
                return;
            }
            let authority = Authority::new("proxied");
            let good = authority.certify("DNS:hub.invalid", 2020, 2090);
            for scheme in ["socks5h", "http"] {
                let (hub, volume) = (serving(FakeHubBuilder::lfs_direct), Volume::new());
                let front = Front::start(good.clone(), port_of(&hub.url()), |_| Handshake::Done);
                let proxy = Relay::proxy(Some(USER));
                let mut command = fetch_at(&format!("https://hub.invalid:{}", front.port), &volume);
                let at = format!("@127.0.0.1:{}", proxy.port());
                command.env("HTTPS_PROXY", format!("{scheme}://us%40r:p%3ACANARY{at}"));
                // For the other scheme, and not looked at.
                command.env("HTTP_PROXY", "http://127.0.0.1:9");
                let run = command.env("SSL_CERT_FILE", authority.path()).run().assert_success();
                volume.assert_holds("m", &model());
                assert!(!run.stderr.contains("CANARY"), "{}", run.stderr);
                let seen = proxy.seen();
                assert!(!seen.is_empty());
                for relayed in seen {
                    assert_eq!((relayed.host.as_str(), relayed.port), ("hub.invalid", front.port));
                    assert_eq!(relayed.user.as_deref(), Some(USER));
                }
            }
        }),
        row("an S3", || {
            let (s3, volume, proxy) = (bucket(), Volume::new(), Relay::proxy(None));
            let usual = fetch_s3(&s3, &volume, &["s3://models/llama/", "m"]);
            let named = s3.url().replace("127.0.0.1", "s3.invalid");
            let mut command = weightlift();
            command.args(usual.get_args().map(|argument| match argument.to_str() {
                Some(url) if url == s3.url() => named.as_ref(),
                _ => argument,
            }));
            command.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
            command.env("ALL_PROXY", format!("socks5h://127.0.0.1:{}", proxy.port()));
            command.run().assert_success();
            volume.assert_holds("m", &model());
            assert!(proxy.seen().iter().all(|relayed| relayed.host == "s3.invalid"));
        }),
        row("a proxy that is not there", || {
            let volume = Volume::new();
            let mut command = fetch_at("http://hub.invalid", &volume);
            command.env("ALL_PROXY", "socks5h://127.0.0.1:9");
            let run = command.env("WEIGHTLIFT_RETRY_TIMEOUT", "1s").run().assert_code(20);
            assert!(run.last_line().contains("socks"), "{}", run.stderr);
        }),
        row("a proxy for plain requests, with a user and a password", || {
            let (hub, volume) = (serving(FakeHubBuilder::lfs_direct), Volume::new());
            let mut command = fetch_at("http://hub.invalid", &volume);
            // The Hub itself is the proxy.
            let proxy = hub.url().replace("http://", "us%40r:p%3ACANARY@");
            let run = command.env("http_proxy", proxy).run().assert_success();
            volume.assert_holds("m", &model());
            assert!(!run.stderr.contains("CANARY"), "{}", run.stderr);
            for request in hub.requests() {
                let sent = request.header("proxy-authorization");
                assert_eq!(sent, Some("Basic dXNAcjpwOkNBTkFSWQ=="), "{request:?}");
                assert_eq!(request.header("host"), Some("hub.invalid"), "{request:?}");
            }
        }),
    ]);
}

#[test]
fn a_proxy_that_can_never_work_is_a_usage_error_that_names_its_variable() {
    let (hub, s3) = (hub_of_tiny(), bucket());
    let check = |mut command: Command, variable: &str, value: &str| {
        let run = command.env(variable, value).run().assert_code(2);
        assert!(run.last_line().contains(variable), "{value}: {}", run.stderr);
        assert!(!run.stderr.contains("CANARY"), "{value}: {}", run.stderr);
    };
    let variables =
        ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    for variable in variables {
        for value in
            ["ftp://u:CANARY@p:1", "http://u:CANARY@", "http://u:CANARY@p:port", "u:CAN\nARY@p:1"]
        {
            check(fetch(&hub, &Volume::new(), &["hf://org/tiny"]), variable, value);
        }
    }
    for value in [
        "socks://u:CANARY@p:1",
        "socks5h://",
        "socks5h://:1080",
        "socks5h://u:CANARY@p:99999",
        "socks4://u:CANARY@p:1",
        "http://u:1#CANARY@p:1",
        "http://u:1/CANARY@p:1",
        "http://p:0",
        "::::",
        "@",
    ] {
        check(fetch(&hub, &Volume::new(), &["hf://org/tiny"]), "ALL_PROXY", value);
        check(fetch_s3(&s3, &Volume::new(), &["s3://models/llama/"]), "ALL_PROXY", value);
    }
    assert_eq!((hub.requests().len(), s3.requests().len()), (0, 0));
    // Set to nothing is unset, and what is unset decides nothing.
    let mut command = fetch(&hub, &Volume::new(), &["hf://org/tiny"]);
    command.envs(variables.map(|variable| (variable, " "))).run().assert_success();
}

#[test]
fn no_proxy_is_read_as_curl_and_go_read_it() {
    let hub = FakeHub::builder().repo(REPO, Tree::new().with("a.json", "{}")).start();
    let port = port_of(&hub.url());
    let excepted = |variable: &'static str, list: &'static str, host: &'static str, yes: bool| {
        let list = list.replace("PORT", &port.to_string());
        let name = named(format!("{variable}={list} for {host}"));
        row(name, move || {
            let volume = Volume::new();
            let mut command = fetch_at(&format!("http://{host}:{port}"), &volume);
            // Nobody listens there.
            command.env("ALL_PROXY", "http://127.0.0.1:9").env(variable, list);
            command.env("WEIGHTLIFT_RETRY_TIMEOUT", "1s").run().assert_code(if yes {
                0
            } else {
                20
            });
        })
    };
    let (v4, name) = ("127.0.0.1", "localhost");
    check([
        excepted("NO_PROXY", "127.0.0.1:PORT", v4, true),
        excepted("NO_PROXY", "127.0.0.1:1", v4, false),
        excepted("NO_PROXY", "*", v4, true),
        excepted("no_proxy", "*", v4, true),
        excepted("NO_PROXY", "*", name, true),
        excepted("NO_PROXY", "127.0.0.0/8", v4, true),
        excepted("NO_PROXY", "10.0.0.0/8", v4, false),
        excepted("NO_PROXY", "127.0.0.0/8", name, false),
        excepted("NO_PROXY", "x.example , 127.0.0.1", v4, true),
        excepted("NO_PROXY", "x.example 127.0.0.1", v4, true),
        excepted("no_proxy", "LocalHost:PORT", name, true),
        excepted("no_proxy", ".localhost", name, true),
        excepted("no_proxy", "localhost.", name, true),
        excepted("no_proxy", "ocalhost", name, false),
    ]);
}

// Refusals

/// One refusal of each kind of request: the exit code, and that it is not asked again and again.
#[test]
fn a_refusal_that_is_final_is_told_at_once_in_its_words() {
    const WORDS: &str = "the house says no";
    let refusal = |status: u16| {
        let body = json!({ "error": WORDS }).to_string();
        Fault::status_with(status, &[("X-Error-Message", WORDS)], &body)
    };
    let of_hub = |status: u16| match status {
        404 | 410 => 10,
        408 | 425 | 500 => 20,
        429 => 21,
        _ => 11,
    };
    let of_storage = |status: u16| match status {
        400 | 401 | 402 | 403 | 451 => 11,
        429 => 21,
        _ => 20,
    };
    type Place = (&'static str, fn() -> Rule, fn(u16) -> i32);
    let places: [Place; 5] = [
        ("revision", || api("/revision/"), of_hub),
        ("tree", || api("/tree/"), of_hub),
        ("HEAD of a file", || Rule::on("HEAD", "/resolve/"), of_hub),
        ("GET of a file", || api("/resolve"), of_hub),
        ("storage", storage, of_storage),
    ];
    let mut rows = Vec::new();
    for (place, rule, exit) in places {
        for status in [400, 402, 404, 405, 406, 408, 410, 414, 422, 425, 451, 500] {
            if place.starts_with("HEAD") && status == 405 {
                continue;
            }
            let code = exit(status);
            // What may pass is tried for two seconds, by two workers; what is final is asked once more by
            // each of those that have begun.
            let most = if code == 20 { 4 * USUAL } else { USUAL + 6 };
            let words: &[&str] = match (place, status) {
                // What is not there is said in our words.
                (_, 404 | 410) => &[],
                _ => &[WORDS],
            };
            let case = hub(named(format!("{place}: {status}"))).rule(rule().then(refusal(status)));
            rows.push(case.fails(code, most, words));
        }
    }
    rows.push(
        hub("a mirror that does not know HEAD")
            .rule(Rule::on("HEAD", "").then(Fault::status(405)))
            .recovers(USUAL + 6),
    );
    rows.push(
        hub("nor that it does not")
            .rule(Rule::on("HEAD", "").then(Fault::status(501)))
            .recovers(USUAL + 6),
    );
    let page = "<!DOCTYPE html><html><head><title>Blocked by\u{202e} policy</title></head>";
    rows.push(
        hub("a web page").rule(api("/revision/").then(Fault::status_with(400, &[], page))).fails(
            11,
            1,
            &["answered 400", "a web page, `Blocked by"],
        ),
    );
    check(rows);
}

#[test]
fn a_compressed_answer_is_named() {
    let gzip = || Fault::ReplaceBody(vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x8b, 0x8e, 5, 0]);
    let says = |name: &str| Fault::add_headers(&[("Content-Encoding", name)]);
    let fails = |name, rule: Rule, words| hub(name).rule(rule).fails(20, 4 * USUAL, words);
    check([
        fails("a revision", api("/revision/").then(gzip()).then(says("gzip")), &["(`gzip`)"]),
        fails("a listing", api("/tree/").then(gzip()).then(says("br")), &["compressed (`br`)"]),
        fails("a listing that does not say so", api("/tree/").then(gzip()), &["(`gzip`)"]),
        fails(
            "a small file",
            api("/resolve-cache/").then(gzip()).then(says("gzip")),
            &["`config.json`", "compressed (`gzip`)"],
        ),
        fails(
            "a range",
            storage().then(gzip()).then(says("gzip")),
            &["`big.bin`", "compressed (`gzip`)"],
        ),
        fails(
            "a range without a length",
            storage().then(gzip()).then(says("zstd")).then(Fault::NoLength),
            &["compressed (`zstd`)"],
        ),
        fails(
            "a range of the compressed file",
            storage().then(Fault::WrongTotal(BIG / 2)).then(says("gzip")),
            &["`big.bin`", "compressed (`gzip`)"],
        ),
        // What is said of plain bytes is a lie that costs nothing.
        hub("a listing that is not")
            .rule(Rule::on("GET", "/api/").then(Fault::GzipHeader))
            .recovers(USUAL + 4),
    ]);
}

// Redirects to others

/// A mirror that redirects requests with `what` in them to `upstream`, and passes on no others.
fn redirecting(what: &'static str, upstream: &str) -> Server {
    let upstream = upstream.to_owned();
    Server::start(move |request| {
        if request.target().contains(what) {
            return Response::new(308)
                .header("Location", &format!("{upstream}{}", request.target()));
        }
        let commit = "0123456789012345678901234567890123456789";
        if request.path.contains("/revision/") {
            return Response::json(200, &json!({ "id": REPO, "sha": commit }));
        }
        let (big, small) = (Blob::synthetic(BIG, 9), Blob::bytes("{\"a\": 1}"));
        Response::json(
            200,
            &json!([
                { "type": "file", "path": "big.bin", "size": BIG, "oid": commit,
                  "lfs": { "oid": big.sha256(), "size": BIG } },
                { "type": "file", "path": "config.json", "size": 8, "oid": small.git_sha1() },
            ]),
        )
    })
}

#[test]
fn a_redirect_to_a_host_that_wants_a_token_says_which_endpoint_would_send_it() {
    let refused = |name: &'static str,
                   what: &'static str,
                   prefix: &'static str,
                   login: Option<&'static str>,
                   build: fn(FakeHubBuilder) -> FakeHubBuilder,
                   words: &'static str| {
        row(name, move || {
            let hub = serving(|hub| build(hub.token(TOKEN).prefix(prefix)));
            let there = hub.url() + prefix;
            let mirror = redirecting(what, &there);
            let volume = Volume::new();
            let endpoint = match login {
                Some("user") => mirror.url().replace("http://", "http://u:CANARY@"),
                _ => mirror.url(),
            };
            let mut command = fetch_at(&endpoint, &volume);
            if login == Some("token") {
                command.env("HF_TOKEN", TOKEN);
            }
            let run = command.run().assert_code(11);
            let last = run.last_line();
            assert!(last.contains(words), "{}", run.stderr);
            assert!(last.contains(&format!("set HF_ENDPOINT={there}")), "{}", run.stderr);
            assert!(last.contains(&mirror.url()), "{}", run.stderr);
            assert!(!last.contains("CANARY@"), "{}", run.stderr);
            assert!((1..8).contains(&hub.requests().len()), "{:?}", hub.requests());
            for request in hub.requests() {
                assert_eq!(request.header("authorization"), None, "{request:?}");
            }
        })
    };
    let private: fn(FakeHubBuilder) -> FakeHubBuilder = |hub| hub.private(REPO);
    let gated: fn(FakeHubBuilder) -> FakeHubBuilder = |hub| hub.gated(REPO);
    let not_sent = "the token was not sent there";
    check([
        refused("the revision", "/revision/", "", Some("token"), private, not_sent),
        refused("the listing", "/tree/", "", Some("token"), private, not_sent),
        refused("the files", "/resolve/", "", Some("token"), gated, not_sent),
        refused("below a path", "/revision/", "/hf", Some("token"), private, not_sent),
        refused("files below a path", "/resolve/", "/a/hf", Some("token"), gated, not_sent),
        refused("without a token", "/revision/", "", None, private, "give the token in HF_TOKEN"),
        refused(
            "files, without a token",
            "/resolve/",
            "",
            None,
            gated,
            "give the token in HF_TOKEN",
        ),
        refused("with a user", "/tree/", "", Some("user"), private, "were not sent there"),
    ]);
    // The storage of a mirror that wants a login of its own.
    let volume = Volume::new();
    let storage = Server::start(|_| Response::text(401, "who are you?"));
    let hub = serving(|hub| hub.external_cdn(&format!("{}/files", storage.url())));
    let run = fetch_at(&hub.url(), &volume).env("HF_TOKEN", TOKEN).run().assert_code(11);
    assert!(run.last_line().contains("the token was not sent there"), "{}", run.stderr);
    assert!(run.last_line().contains("who are you?"), "{}", run.stderr);
}

#[test]
fn the_variable_that_forbids_to_ask_is_named() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let run = |variables: &[(&str, &str)], source: &str| {
        fetch(&hub, &volume, &[source]).envs(variables.iter().copied()).run()
    };
    let (hf, transformers) = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE");
    let other = format!("hf://org/tiny@{}", "1".repeat(40));
    for (variables, named) in [
        (&[(transformers, "1")][..], transformers),
        (&[(hf, "1")], hf),
        (&[(hf, "yes"), (transformers, "1")], hf),
        (&[(hf, ""), (transformers, "true")], transformers),
    ] {
        let wanted = format!("{named} is set");
        let told = run(variables, "hf://org/tiny").assert_code(10);
        assert!(told.last_line().contains(&wanted), "{}", told.stderr);
    }
    // As for `hf`: what is set first decides.
    run(&[(hf, "0"), (transformers, "1")], "hf://org/tiny").assert_success();
    hub.log().clear();
    run(&[(transformers, "1")], "hf://org/tiny")
        .assert_success()
        .assert_says("TRANSFORMERS_OFFLINE is set; using the complete copy");
    let told = run(&[(transformers, "1")], &other).assert_code(10);
    assert!(told.last_line().contains("TRANSFORMERS_OFFLINE is set, and"), "{}", told.stderr);
    assert_eq!(hub.requests().len(), 0);
}

// Listings

fn nested() -> Tree {
    Tree::new()
        .with("config.json", "{}")
        .with("1_Pooling/config.json", "{\"p\": 1}")
        .with("a b/ü#/deep/er.json", "{}")
        .with("a b/ü#/x.json", "{\"x\": 1}")
        .with("a b.json", "{}")
}

fn entry(kind: &str, path: &str) -> serde_json::Value {
    json!({ "type": kind, "path": path, "oid": "0", "size": 0 })
}

#[test]
fn a_directory_that_is_listed_without_its_files_is_asked_for() {
    let case = |name, build: fn(FakeHubBuilder) -> FakeHubBuilder, most: usize| {
        row(name, move || {
            let hub = build(FakeHub::builder().repo(REPO, nested())).start();
            let volume = Volume::new();
            fetch(&hub, &volume, &["hf://org/tiny"]).env("HF_TOKEN", TOKEN).run().assert_success();
            volume.assert_holds("tiny", &nested());
            let asked = hub.count("GET", "/tree/");
            assert!(asked <= most, "{asked} requests for listings");
            let mut requests = hub.requests().into_iter();
            assert!(requests.all(|request| request.header("authorization").is_some()));
        })
    };
    let with_entry = |name, kind: &'static str, path: &'static str, code: i32, most: usize| {
        row(name, move || {
            let hub = FakeHub::builder().repo(REPO, nested());
            let hub = hub.raw_tree_entry(REPO, entry(kind, path)).start();
            let volume = Volume::new();
            let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(code);
            assert_eq!(run.last_line().contains("no file in it"), code == 20, "{}", run.stderr);
            assert_eq!(volume.family("tiny").exists(), code == 0);
            let asked = hub.count("GET", "/tree/");
            assert!(asked <= most, "{asked} requests for listings");
        })
    };
    check([
        case("a server that lists all", |hub| hub, 1),
        case("a server that knows no recursive listings", FakeHubBuilder::flat_listings, 5),
        case("in pages", |hub| hub.flat_listings().page_size(1), 9),
        case("in larger pages", |hub| hub.flat_listings().page_size(2), 9),
        with_entry("a directory that is not there", "directory", "lost", 20, 12),
        with_entry("a directory in another", "directory", "1_Pooling/lost", 20, 12),
        with_entry("a directory that cannot be asked for", "directory", "../lost", 20, 12),
        with_entry("a submodule", "submodule", "lost", 0, 1),
        row("a server that knows no listings of directories", || {
            let hub = FakeHub::builder().repo(REPO, nested()).flat_listings().start();
            let root = format!("/api/models/org/tiny/tree/{}", hub.commit(REPO));
            let all = json!([entry("directory", "1_Pooling"), entry("directory", "a b")]);
            let below = Rule::on("GET", &format!("{root}/"));
            hub.script(below.then(Fault::ReplaceBody(all.to_string().into_bytes())));
            let run = fetch(&hub, &Volume::new(), &["hf://org/tiny"]).run().assert_code(20);
            assert!(run.last_line().contains("which is not in it"), "{}", run.stderr);
            assert!(hub.requests().len() < 16, "{} requests", hub.requests().len());
        }),
        row("a server that finds no directory", || {
            let hub = FakeHub::builder().repo(REPO, nested()).flat_listings().start();
            let below = Rule::on("GET", &format!("/tree/{}/", hub.commit(REPO)));
            hub.script(below.then(Fault::status(404)));
            let run = fetch(&hub, &Volume::new(), &["hf://org/tiny"]).run().assert_code(20);
            assert!(
                run.last_line().contains("answered 404 to the request for its listing"),
                "{}",
                run.stderr
            );
            assert!(hub.requests().len() < 16, "{} requests", hub.requests().len());
        }),
        row("directories without end", || {
            let hub = FakeHub::builder().repo(REPO, nested()).flat_listings().start();
            let root = format!("tree/{}", hub.commit(REPO));
            let down = move |path: &str| {
                let (_, path) = path.split_once(&root).unwrap();
                let path = path.trim_start_matches('/').to_owned();
                if path.is_empty() { "d".to_owned() } else { path + "/d" }
            };
            let (upstream, count) = (hub.url(), Arc::new(AtomicUsize::new(0)));
            let asked = count.clone();
            let front = Server::start(move |request| {
                if request.path.contains("/tree/") {
                    asked.fetch_add(1, Relaxed);
                    return Response::json(200, &json!([entry("directory", &down(&request.path))]));
                }
                Response::new(307).header("Location", &format!("{upstream}{}", request.target()))
            });
            let volume = Volume::new();
            let mut command = fetch_at(&front.url(), &volume);
            let run = command.run().assert_code(20);
            assert!(run.last_line().contains("no file in it"), "{}", run.stderr);
            let asked = count.load(Relaxed);
            assert!((100..600).contains(&asked), "{asked} requests for listings");
        }),
    ]);
}

#[test]
fn the_next_page_is_asked_for_at_the_endpoint_whoever_the_link_names() {
    let upstream = FakeHub::serving(REPO, nested());
    let asked = |name: &'static str, prefix: &'static str, base: String| {
        row(name, move || {
            let hub = FakeHub::builder().repo(REPO, nested()).page_size(2).prefix(prefix);
            let hub = hub.next_base(&base).start();
            let volume = Volume::new();
            let mut command = fetch_at(&(hub.url() + prefix), &volume);
            command.env("HF_TOKEN", TOKEN).run().assert_success();
            volume.assert_holds("m", &nested());
            assert_eq!(hub.count("GET", "/tree/"), 5);
            for request in hub.requests() {
                assert!(request.header("authorization").is_some(), "{request:?}");
                assert!(request.target.starts_with(prefix), "{request:?}");
            }
        })
    };
    let refused = |name: &'static str, link: String, code: i32| {
        row(name, move || {
            let (hub, volume) = (FakeHub::serving(REPO, nested()), Volume::new());
            let link = link.replace("COMMIT", &hub.commit(REPO));
            let link = format!("<{link}>; rel=\"next\"");
            hub.script(api("/tree/").then(Fault::add_headers(&[("Link", &link)])));
            let run = fetch_at(&hub.url(), &volume).env("HF_TOKEN", TOKEN).run().assert_code(code);
            if code == 13 {
                assert!(run.last_line().contains("not followed"), "{}", run.stderr);
            }
            assert!(hub.requests().len() < 12, "{:?}", hub.requests());
        })
    };
    let url = upstream.url();
    check([
        asked("the upstream's", "/hf", url.clone()),
        asked("the upstream's, which has a path as well", "/hf", format!("{url}/other")),
        asked("without the mirror's path", "/hf", String::new()),
        asked("of another scheme", "", "https://127.0.0.1".into()),
        asked("of another port", "/hf", "http://127.0.0.1:1/hf".into()),
        refused("another repo", format!("{url}/api/models/org/other/tree/COMMIT?cursor=x"), 13),
        refused("another repo of ours", "/api/models/org/other/tree/COMMIT?cursor=x".into(), 13),
        refused("another commit", format!("{url}/api/models/org/tiny/tree/main?cursor=x"), 13),
        refused(
            "another commit of ours",
            format!("/api/models/org/tiny/tree/{}", "1".repeat(40)),
            13,
        ),
        refused(
            "another directory",
            format!("{url}/api/models/org/tiny/tree/COMMIT/d?cursor=x"),
            13,
        ),
        refused("no listing", format!("{url}/?cursor=x"), 13),
        refused(
            "the page that was read",
            format!("{url}/api/models/org/tiny/tree/COMMIT?recursive=true&expand=false"),
            20,
        ),
    ]);
    assert_eq!(upstream.requests().len(), 0);
}

// Storage

#[test]
fn a_link_that_has_expired_is_renewed_however_the_storage_says_so() {
    let expired = |name, status: u16, code: &'static str, message: &'static str| {
        Case::at(name, move || {
            Box::new(serving(|hub| {
                hub.expire_urls_after_requests(2).expired_answer(status, code, message)
            }))
        })
        .recovers(4 * USUAL)
    };
    let no = |status, body: &'static str| Fault::status_with(status, &[], body);
    check([
        expired("Google's way", 400, "ExpiredToken", "Invalid argument."),
        expired("Amazon's words with Google's number", 400, "AccessDenied", "Request has expired"),
        expired("not logged in", 401, "Unauthorized", "token expired"),
        expired("Amazon's way", 403, "AccessDenied", "Request has expired"),
        expired("gone", 410, "Gone", "the link is gone"),
        hub("a link that is refused once with 400")
            .rule(storage().once().then(no(400, "<Code>ExpiredToken</Code>")))
            .recovers(USUAL + 4),
        hub("400 for another reason, for good")
            .rule(storage().then(no(400, "<Code>InvalidArgument</Code>")))
            .fails(11, 2 * USUAL, &["answered 400", "InvalidArgument"]),
        hub("400 half-way, for good")
            .rule(storage().skip(2).then(no(400, "<Code>InvalidArgument</Code>")))
            .fails(11, 3 * USUAL, &["answered 400", "InvalidArgument"]),
    ]);
}

#[test]
fn all_addresses_of_a_host_are_connected_to() {
    in_own_network("hub_mirrors::all_addresses_of_a_host_are_connected_to", || {
        replace_file(
            "/etc/hosts",
            "127.0.0.1 hub.example\n127.0.0.2 hub.example\n127.0.0.3 hub.example\n\
             127.0.0.1 half.example\n10.9.9.9 half.example\n127.0.0.2 half.example\n",
        );
        // What is sent there vanishes.
        black_hole("10.9.9.0/24");
        let big = Tree::new().with_blob("big.dat", Blob::synthetic(24 << 20, 3));
        let fetched = |host: &str, connections: &str| {
            let hub = FakeHub::builder().repo(REPO, big.clone()).lfs_direct().start();
            hub.script(Rule::on("GET", "/resolve").then(Fault::Delay(Duration::from_millis(50))));
            let everywhere = Relay::everywhere(port_of(&hub.url()));
            let volume = Volume::new();
            let mut command = fetch_at(&format!("http://{host}:{}", everywhere.port()), &volume);
            command
                .env("WEIGHTLIFT_CONNECTIONS", connections)
                .env("WEIGHTLIFT_STALL_TIMEOUT", "20s");
            command.run().assert_success();
            volume.assert_holds("m", &big);
            let mut connections = BTreeMap::new();
            for relayed in everywhere.seen() {
                *connections.entry(relayed.came_to.unwrap().to_string()).or_insert(0) += 1;
            }
            connections
        };
        let seen = fetched("hub.example", "8");
        assert_eq!(seen.len(), 3, "{seen:?}");
        // Evenly, up to one; who still waits for a connection to one address is not followed there.
        let (least, most) = (seen.values().min().unwrap(), seen.values().max().unwrap());
        assert!(most - least <= 2, "{seen:?}");
        // One that is dead is passed over.
        let seen = fetched("half.example", "4");
        assert_eq!(seen.keys().collect::<Vec<_>>(), ["127.0.0.1", "127.0.0.2"], "{seen:?}");
    });
}
