//! What a person at a terminal sees of reading, waiting and resizing.

use std::process::Command;
use std::time::Duration;

use crate::support::process::{in_shell, straced};
use crate::support::terminal::AtTerminal;
use crate::support::*;
use crate::terminal::{fetch_in_utf8, has_track, slow_hub};
use weightlift_fakes::{Blob, FakeHub, Tree};

#[test]
fn a_wait_without_a_holder_says_what_is_missing_and_when_it_gives_up() {
    let volume = Volume::new();
    std::fs::create_dir_all(volume.root()).unwrap();
    let mut wait = weightlift();
    wait.args(["wait", "--timeout", "4s"]).arg("/none").env("LANG", "C.UTF-8");
    let terminal = AtTerminal::start(&mut wait, 80, 24);
    terminal.eventually("what is missing", |line| {
        line.starts_with("waiting ") && line.contains("s: `/none` does not exist  gives up in ")
    });
    let (code, lines, _) = terminal.wait();
    assert!(code == 23 && !lines.contains("gives up in"), "{code} {lines}");
}

/// A published model of one large file, and one small.
fn published(bytes: u64) -> (FakeHub, Volume) {
    let tree =
        Tree::new().with_blob("big.dat", Blob::synthetic(bytes, 1)).with("config.json", "{}");
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    (hub, volume)
}

#[test]
fn verify_shows_how_far_it_is_and_for_how_long() {
    if !has("strace") {
        return;
    }
    let (_hub, volume) = published(24 << 20);
    let slowly = |arguments: &[&str], delay: &str| {
        let mut verify = weightlift();
        verify.arg("verify").arg(volume.family("tiny")).args(arguments).env("LANG", "C.UTF-8");
        straced(&verify, "pread64", &[&format!("pread64:delay_exit={delay}")])
    };
    for columns in [60, 80, 200] {
        let terminal = AtTerminal::start(&mut slowly(&[], "50000"), columns, 24);
        let whole = terminal.eventually("the whole", |line| {
            line.contains('━') && line.contains("/s ") && !line.starts_with("  ")
        });
        assert!(whole.contains('─'), "{whole}");
        assert!(columns == 60 || whole.contains("verifying"), "{whole}");
        terminal.eventually("its time", |line| {
            !line.starts_with("  ") && line.ends_with(if columns == 200 { "s left" } else { "s" })
        });
        terminal.eventually("a file", |line| line.starts_with("  big.dat"));
        let (code, lines, _) = terminal.wait();
        assert!(code == 0 && lines.contains("complete: ") && !has_track(&lines), "{lines}");
    }
    // In a log it is a line, and one that is over soon says no more than its end.
    let run = slowly(&["--log-format", "json"], "150000").run().assert_success();
    let is_progress = |line: &&str| line.contains(r#""event":"progress""#);
    let line = run.stderr.lines().find(is_progress).expect("a line of progress").to_owned();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["phase"], &line["total_bytes"]), (&"verifying".into(), &25_165_826.into()));
    assert!(line["done_bytes"].as_u64() > Some(0), "{line}");
    let run = weightlift().arg("verify").arg(volume.family("tiny")).run().assert_success();
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
}

#[test]
fn the_last_line_tells_size_time_and_average_rate() {
    let (hub, volume) = (slow_hub(6 << 20), Volume::new());
    let run = fetch_in_utf8(&hub, &volume, &[]).run().assert_success();
    let line = run.last_line();
    assert!(line.contains("(3 files, 25.2 MB; 25.2 MB over the network in "), "{line}");
    let (_, moved) = line.split_once(" over the network in ").unwrap();
    let (time, rest) = moved.split_once("s, ").unwrap();
    let (rate, _) = rest.split_once(" MB/s; all verified").unwrap();
    let (time, rate): (f64, f64) = (time.parse().unwrap(), rate.parse().unwrap());
    // Of the whole run, and not of its last seconds.
    assert!((time * rate / 25.2 - 1.0).abs() < 0.1, "{line}");
}

#[test]
fn what_adopt_reads_is_shown_before_the_fetch() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = published(24 << 20);
    let by_hand = volume.family("by-hand");
    std::fs::create_dir_all(&by_hand).unwrap();
    // A name that tells nothing of the content, and no sentinel.
    std::fs::copy(volume.family("tiny").join("big.dat"), by_hand.join("weights.dat")).unwrap();
    let other = Volume::new();
    let adopt = by_hand.display().to_string();
    let command = fetch_in_utf8(&hub, &other, &["--adopt", &adopt]);
    let mut command = straced(&command, "pread64", &["pread64:delay_exit=40000"]);
    let terminal = AtTerminal::start(&mut command, 200, 24);
    let line = terminal.eventually("what is read", |line| {
        line.starts_with("reading what is here ") && has_track(line) && line.ends_with("s left")
    });
    assert!(line.contains(" of 25.2 MB") && line.contains("/s "), "{line}");
    let (code, lines, _) = terminal.wait();
    // The last line tells that all but the small file was here.
    let joined = lines.replace('\n', "");
    assert!(joined.contains("reused 25.2 MB of 25.2 MB, fetched 2 B in "), "{lines}");
    assert!(code == 0 && lines.contains("complete: ") && !has_track(&lines), "{lines}");
}

/// A terminal that wraps its lines again when it is resized.
struct Tmux(String);

impl Tmux {
    /// `command` below a screen that is full already.
    fn start(name: &str, columns: u16, rows: u16, command: &Command) -> Self {
        let tmux = Self(format!("weightlift-{name}-{}", std::process::id()));
        let size = [columns.to_string(), rows.to_string()];
        let start = ["tmux", "-L", &tmux.0, "-f", "/dev/null", "-u", "new-session", "-d"];
        let start = [&start[..], &["-x", &size[0], "-y", &size[1]]].concat();
        under(&start, &in_shell("seq 100", command)).run().assert_success();
        tmux
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let mut tmux = Command::new("tmux");
        let output = tmux.args(["-L", &self.0]).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Lines with a track, also those that have left the screen.
    fn tracks(&self) -> Vec<String> {
        let all = self.ask(&["capture-pane", "-p", "-S", "-500"]);
        all.lines().filter(|line| has_track(line)).map(str::to_owned).collect()
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.ask(&["kill-server"]);
    }
}

#[test]
fn a_terminal_that_wraps_its_lines_again_keeps_no_old_picture() {
    if !has("tmux") {
        return;
    }
    let (hub, volume) = (slow_hub(1 << 20), Volume::new());
    let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--connections", "3"]);
    command.env("LANG", "C.UTF-8").env_remove("TMUX");
    let tmux = Tmux::start("resize", 100, 5, &command);
    // The whole, above a line that counts the files: with both files it would be higher than the screen, once wrapped.
    eventually("a picture", || tmux.tracks().len() == 1);
    for columns in ["60", "100"] {
        tmux.ask(&["resize-window", "-x", columns, "-y", "5"]);
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(tmux.tracks().len(), 1, "{columns}: {:#?}", tmux.tracks());
    }
}
