//! Every fault, seen from the other end of the wire.

mod client;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use client::{End, connect, get, get_range, receive, request, send};
use weightlift_fakes::{Blob, Fault, Log, Response, Rule, Script, Server};

const SIZE: u64 = 100_000;

/// A server with one file, its script and its log.
struct Fixture {
    server: Server,
    script: Script,
    log: Log,
    blob: Blob,
}

fn serving_with(rule: Rule) -> Fixture {
    let (script, log, blob) = (Script::new(), Log::new(), Blob::synthetic(SIZE, 5));
    script.add(rule);
    let server = Server::start({
        let blob = blob.clone();
        script.observed("test", &log, move |request| Response::blob(request, &blob))
    });
    Fixture { server, script, log, blob }
}

fn serving(fault: Fault) -> Fixture {
    serving_with(Rule::on("*", "").once().then(fault))
}

impl Fixture {
    fn url(&self) -> String {
        format!("{}/dir/file%20one?a=b", self.server.url())
    }

    fn part(&self, from: u64, to: u64) -> Vec<u8> {
        let mut part = vec![0; (to - from) as usize];
        self.blob.read_at(from, &mut part);
        part
    }

    /// After the fault the same request has to be answered as if nothing had been.
    fn assert_back_to_normal(&self) {
        let answer = get_range(&self.url(), "bytes=10-19");
        assert_eq!((answer.status, answer.end), (206, End::Whole));
        assert_eq!(answer.body, self.part(10, 20));
        assert_eq!(self.script.applied(), 1);
    }
}

#[test]
fn without_faults_whole_files_and_ranges_are_right() {
    let fixture = serving_with(Rule::on("POST", "").then(Fault::status(500)));
    let whole = get(&fixture.url());
    assert_eq!((whole.status, whole.body), (200, fixture.blob.to_vec()));
    let part = get_range(&fixture.url(), "bytes=99990-");
    assert_eq!((part.status, part.content_range()), (206, "bytes 99990-99999/100000"));
    assert_eq!(part.body, fixture.part(99_990, SIZE));
    let beyond = get_range(&fixture.url(), "bytes=100000-");
    assert_eq!((beyond.status, beyond.content_range()), (416, "bytes */100000"));
    let head = request("HEAD", &fixture.url(), &[], "");
    assert_eq!((head.status, head.header("content-length")), (200, Some("100000")));
    assert!(head.body.is_empty());
    assert_eq!(fixture.script.applied(), 0);
}

#[test]
fn one_connection_serves_many_requests_until_the_client_wants_no_more() {
    let fixture = serving_with(Rule::on("POST", "").then(Fault::status(500)));
    let (mut stream, target) = connect(&fixture.url());
    for _ in 0..3 {
        send(&mut stream, "HEAD", &target, &[], "");
        assert_eq!(receive(&mut stream, true).status, 200);
        send(&mut stream, "GET", &target, &[("Range", "bytes=0-3")], "");
        assert_eq!(receive(&mut stream, false).body, fixture.part(0, 4));
    }
    send(&mut stream, "GET", &target, &[("Connection", "close")], "");
    assert_eq!(receive(&mut stream, false).body.len(), SIZE as usize);
    assert_eq!(stream.read(&mut [0]).expect("an orderly end"), 0);
}

#[test]
fn dropping_a_server_closes_its_port_and_its_connections() {
    let fixture = serving(Fault::StallAfter(10, Duration::from_secs(60)));
    let address = fixture.server.url().replace("http://", "");
    let (mut idle, _) = connect(&fixture.url());
    let (mut stalled, target) = connect(&fixture.url());
    send(&mut stalled, "GET", &target, &[], "");
    assert_eq!(stalled.read(&mut [0]).expect("a first byte"), 1);
    assert_eq!(fixture.server.open_connections(), 2);
    assert_eq!(fixture.server.accepted_connections(), 2);
    drop(fixture.server);
    assert_eq!(idle.read(&mut [0]).expect("an orderly end"), 0);
    let mut rest = Vec::new();
    let _ = stalled.read_to_end(&mut rest);
    assert!(rest.len() < 1_000);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn status_replaces_the_answer() {
    let fault = Fault::status_with(503, &[("Retry-After", "7")], "later");
    let fixture = serving(fault);
    let answer = get_range(&fixture.url(), "bytes=0-3");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("7")));
    assert_eq!(answer.text(), "later");
    assert_eq!(answer.header("content-range"), None);
    fixture.assert_back_to_normal();
}

#[test]
fn delay_comes_before_the_first_byte() {
    let fixture = serving(Fault::Delay(Duration::from_millis(150)));
    let answer = get_range(&fixture.url(), "bytes=0-3");
    assert_eq!(answer.body, fixture.part(0, 4));
    assert!(answer.first_byte >= Duration::from_millis(140), "{:?}", answer.first_byte);
    fixture.assert_back_to_normal();
}

#[test]
fn hanging_before_headers_ends_without_an_answer() {
    let fixture = serving(Fault::HangBeforeHeaders(Duration::from_millis(150)));
    let answer = get(&fixture.url());
    assert_eq!((answer.status, answer.end), (0, End::Short));
    assert!(answer.first_byte >= Duration::from_millis(140));
    assert_eq!(fixture.log.requests()[0].status, 0);
    fixture.assert_back_to_normal();
}

#[test]
fn a_cut_is_an_orderly_end_after_exactly_so_many_bytes() {
    let fixture = serving(Fault::CutAfter(70_001));
    let answer = get(&fixture.url());
    assert_eq!(answer.header("content-length"), Some("100000"));
    assert_eq!((answer.end, answer.body), (End::Short, fixture.part(0, 70_001)));
    assert_eq!(fixture.log.requests()[0].body_bytes_sent, 70_001);
    fixture.assert_back_to_normal();
}

#[test]
fn a_reset_comes_after_so_many_bytes() {
    let fixture = serving(Fault::ResetAfter(1_000));
    let answer = get_range(&fixture.url(), "bytes=500-");
    assert_eq!((answer.end, answer.body), (End::Reset, fixture.part(500, 1_500)));
    fixture.assert_back_to_normal();
}

#[test]
fn a_stall_is_silence_on_an_open_connection() {
    let fixture = serving(Fault::StallAfter(1_000, Duration::from_secs(30)));
    let answer = get(&fixture.url());
    assert_eq!((answer.end, answer.body.len()), (End::Silent, 1_000));
    fixture.assert_back_to_normal();
}

#[test]
fn after_a_short_stall_the_rest_arrives() {
    let fixture = serving(Fault::StallAfter(1_000, Duration::from_millis(200)));
    let answer = get(&fixture.url());
    assert_eq!((answer.end, answer.body), (End::Whole, fixture.blob.to_vec()));
    assert!(answer.total >= Duration::from_millis(190));
}

#[test]
fn a_drip_keeps_to_its_speed() {
    let fixture = serving(Fault::Drip { bytes_per_second: 200_000 });
    let answer = get(&fixture.url());
    assert_eq!(answer.body, fixture.blob.to_vec());
    let seconds = answer.total.as_secs_f64();
    assert!((0.4..10.0).contains(&seconds), "took {seconds} s");
}

#[test]
fn a_wrong_range_says_so_and_has_the_bytes_of_that_range() {
    let fixture = serving_with(Rule::on("*", "").times(2).then(Fault::WrongRange));
    let answer = get_range(&fixture.url(), "bytes=10-19");
    assert_eq!((answer.status, answer.content_range()), (206, "bytes 11-20/100000"));
    assert_eq!(answer.body, fixture.part(11, 21));
    let last = get_range(&fixture.url(), "bytes=99990-99999");
    assert_eq!(last.content_range(), "bytes 99989-99998/100000");
}

#[test]
fn content_range_can_be_missing_or_lie_about_the_size() {
    let fixture = serving(Fault::NoContentRange);
    let answer = get_range(&fixture.url(), "bytes=10-19");
    assert_eq!((answer.status, answer.header("content-range")), (206, None));
    assert_eq!(answer.body, fixture.part(10, 20));
    fixture.assert_back_to_normal();

    let fixture = serving(Fault::WrongTotal(99));
    let answer = get_range(&fixture.url(), "bytes=10-19");
    assert_eq!(answer.content_range(), "bytes 10-19/99");
    fixture.assert_back_to_normal();
}

#[test]
fn an_ignored_range_brings_the_whole_file() {
    let fixture = serving(Fault::IgnoreRange);
    let answer = get_range(&fixture.url(), "bytes=10-19");
    assert_eq!((answer.status, answer.header("content-range")), (200, None));
    assert_eq!(answer.body, fixture.blob.to_vec());
    fixture.assert_back_to_normal();
}

#[test]
fn a_flipped_byte_is_counted_from_the_start_of_the_file() {
    let fixture = serving_with(Rule::on("*", "").times(2).then(Fault::FlipByteAt(70_000)));
    let answer = get_range(&fixture.url(), "bytes=69990-70009");
    let mut wanted = fixture.part(69_990, 70_010);
    wanted[10] = !wanted[10];
    assert_eq!(answer.body, wanted);
    let elsewhere = get_range(&fixture.url(), "bytes=0-19");
    assert_eq!(elsewhere.body, fixture.part(0, 20));
}

#[test]
fn answers_can_be_longer_or_shorter_than_asked() {
    let fixture = serving(Fault::ExtraBytes(5));
    let answer = get_range(&fixture.url(), "bytes=10-19");
    assert_eq!(answer.header("content-length"), Some("15"));
    assert_eq!(answer.content_range(), "bytes 10-24/100000");
    assert_eq!(answer.body, fixture.part(10, 25));
    fixture.assert_back_to_normal();

    let fixture = serving(Fault::ExtraBytes(5));
    let answer = get(&fixture.url());
    assert_eq!(answer.body.len() as u64, SIZE + 5);
    fixture.assert_back_to_normal();

    let fixture = serving(Fault::ShortLength(4));
    let answer = get_range(&fixture.url(), "bytes=10-19");
    assert_eq!((answer.content_range(), answer.end), ("bytes 10-15/100000", End::Whole));
    assert_eq!(answer.body, fixture.part(10, 16));
    fixture.assert_back_to_normal();
}

#[test]
fn without_a_length_the_connection_ends_the_body() {
    let fixture = serving(Fault::NoLength);
    let answer = get(&fixture.url());
    assert_eq!(answer.header("content-length"), None);
    assert_eq!((answer.body, answer.end), (fixture.blob.to_vec(), End::Whole));
    fixture.assert_back_to_normal();
}

#[test]
fn the_last_chunk_can_be_left_out() {
    let fixture = serving(Fault::NoLastChunk);
    let mut stream =
        TcpStream::connect(("127.0.0.1", fixture.server.port())).expect("a connection");
    stream.write_all(b"GET / HTTP/1.1\r\nRange: bytes=10-19\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let head = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    assert!(head.contains("transfer-encoding: chunked") && !head.contains("content-length"));
    let body = [b"\r\n\r\na\r\n", &fixture.part(10, 20)[..], b"\r\n"].concat();
    assert!(answer.ends_with(&body), "{head}");
    fixture.assert_back_to_normal();
}

#[test]
fn headers_can_be_dropped_set_and_lied_about() {
    let rule = Rule::on("*", "")
        .once()
        .then(Fault::drop_headers(&["Accept-Ranges"]))
        .then(Fault::add_headers(&[("X-New", "1"), ("Content-Range", "bytes 0-0/*")]))
        .then(Fault::GzipHeader);
    let fixture = serving_with(rule);
    let answer = get_range(&fixture.url(), "bytes=10-19");
    assert_eq!(answer.header("accept-ranges"), None);
    assert_eq!(answer.header("x-new"), Some("1"));
    assert_eq!(answer.content_range(), "bytes 0-0/*");
    assert_eq!(answer.headers.iter().filter(|(name, _)| name == "Content-Range").count(), 1);
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    fixture.assert_back_to_normal();
}

#[test]
fn a_replaced_body_keeps_the_status() {
    let fixture = serving(Fault::ReplaceBody(b"<html>".to_vec()));
    let answer = get_range(&fixture.url(), "bytes=10-19");
    assert_eq!((answer.status, answer.text().as_str()), (206, "<html>"));
    assert_eq!(answer.header("content-length"), Some("6"));
    fixture.assert_back_to_normal();
}

#[test]
fn raw_bytes_need_not_be_http() {
    let fixture = serving(Fault::Raw(b"SSH-2.0-nonsense\r\n".to_vec()));
    let (mut stream, target) = connect(&fixture.url());
    send(&mut stream, "GET", &target, &[], "");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("an orderly end");
    assert_eq!(all, b"SSH-2.0-nonsense\r\n");
    fixture.assert_back_to_normal();
}

#[test]
fn stray_bytes_come_behind_a_whole_answer_and_the_connection_stays() {
    let fixture = serving(Fault::StrayBytes(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()));
    let (mut stream, target) = connect(&fixture.url());
    send(&mut stream, "GET", &target, &[("Range", "bytes=0-9")], "");
    let mut all = vec![0; 4_096];
    let mut length = 0;
    while !all[..length].ends_with(b"200 OK\r\n\r\n") {
        length += stream.read(&mut all[length..]).expect("the connection stays");
    }
    let body = [fixture.part(0, 10), b"HTTP/1.1 200 OK\r\n\r\n".to_vec()].concat();
    assert!(all[..length].ends_with(&body));
    send(&mut stream, "GET", &target, &[("Range", "bytes=0-9")], "");
    assert!(stream.read(&mut all).expect("another answer") > 0);
    fixture.assert_back_to_normal();
    let connections: Vec<_> = fixture.log.requests().iter().map(|it| it.connection).collect();
    assert_eq!(connections, [1, 1, 2]);
}

#[test]
fn rules_choose_by_method_decoded_target_range_and_turn() {
    let fixture =
        serving_with(Rule::on("GET", "file one?a").skip(1).times(2).then(Fault::status(500)));
    let status = |method: &str| request(method, &fixture.url(), &[], "").status;
    let sequence = [status("GET"), status("HEAD"), status("GET"), status("GET"), status("GET")];
    assert_eq!(sequence, [200, 200, 500, 500, 200]);

    fixture.script.add(Rule::on("*", "").when_range_starts_at(10).then(Fault::status(429)));
    fixture.script.add(Rule::on("*", "").at("elsewhere").then(Fault::status(418)));
    assert_eq!(get_range(&fixture.url(), "bytes=9-").status, 206);
    assert_eq!(get_range(&fixture.url(), "bytes=10-11").status, 429);
    fixture.script.clear();
    assert_eq!(get_range(&fixture.url(), "bytes=10-11").status, 206);
    assert_eq!(fixture.script.applied(), 3);
}

#[test]
fn the_log_knows_requests_and_repeated_bytes() {
    let fixture = serving(Fault::status(500));
    request("GET", &fixture.url(), &[("Range", "bytes=0-9"), ("X-Canary", "yes")], "");
    get_range(&fixture.url(), "bytes=0-99");
    get_range(&fixture.url(), "bytes=50-149");
    request("HEAD", &fixture.url(), &[], "");
    let requests = fixture.log.requests();
    let statuses: Vec<u16> = requests.iter().map(|request| request.status).collect();
    assert_eq!(statuses, [500, 206, 206, 200]);
    assert_eq!(requests[0].header("x-canary"), Some("yes"));
    assert_eq!(requests[0].target, "/dir/file%20one?a=b");
    assert_eq!((requests[2].origin, requests[2].offset), ("test", Some(50)));
    assert_eq!(fixture.log.count("GET", "file one"), 3);
    assert_eq!(fixture.log.count("*", "file two"), 0);
    assert_eq!(fixture.log.body_bytes(), 200);
    assert_eq!(fixture.log.bytes_sent_for("file one"), 200);
    assert_eq!(fixture.log.bytes_sent_twice(), 50);
}

#[test]
fn a_request_body_reaches_the_handler() {
    let server =
        Server::start(|request| Response::text(200, &String::from_utf8_lossy(&request.body)));
    assert_eq!(request("POST", &server.url(), &[], "Action=Assume").text(), "Action=Assume");
    let (mut stream, _) = connect(&server.url());
    stream.write_all(b"nonsense\r\n\r\n").expect("bytes can be sent");
    assert_eq!(stream.read(&mut [0]).expect("an orderly end"), 0);
}
