//! What a person at a terminal sees of a picture while the terminal is resized.

use std::process::Command;
use std::time::Duration;

use crate::support::process::in_shell;
use crate::support::*;
use crate::terminal::{fetch_in_utf8, has_track, slow_hub};

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
    let mut command = fetch_in_utf8(&hub, &volume, &[]);
    command.env_remove("TMUX");
    let tmux = Tmux::start("resize", 100, 8, &command);
    // The whole and one file, above a line that counts the others.
    eventually("a picture", || tmux.tracks().len() == 2);
    for columns in ["60", "100"] {
        tmux.ask(&["resize-window", "-x", columns, "-y", "8"]);
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(tmux.tracks().len(), 2, "{columns}: {:#?}", tmux.tracks());
    }
}
