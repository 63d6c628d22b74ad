//! What a person reads before anything runs: help in short and in full, hints for what was mistyped, and what packages
//! have of the command line: completions, man pages, docs/cli.md.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use weightlift::environment::{Part, VARIABLES};
use weightlift::exit::TABLE;

use crate::support::terminal::AtTerminal;
use crate::support::*;

const COMMANDS: [&str; 9] =
    ["fetch", "plan", "pin", "mirror", "verify", "wait", "list", "prune", "doctor"];

fn help(arguments: &[&str]) -> String {
    let run = weightlift().args(arguments).run().assert_success();
    assert_eq!(run.stderr, "");
    run.stdout
}

/// Standard output of a program on the machine.
fn of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let (said, wrong) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success() && wrong.is_empty(), "{program}: {wrong}");
    String::from_utf8(said).unwrap()
}

#[test]
fn short_help_has_one_line_for_each_flag_and_points_to_the_rest() {
    for command in COMMANDS {
        let text = help(&[command, "-h"]);
        assert!(text.lines().count() < 70, "{command}: {text}");
        assert!(text.contains("`--help` has all flags"), "{command}: {text}");
        assert!(!text.contains("WEIGHTLIFT_") && !text.contains("possible values"), "{text}");
        // A flag that is one line begins with its dashes; what is wrapped does not.
        let (_, flags) = text.split_once("\nOutput:\n").unwrap_or_else(|| panic!("{text}"));
        for line in flags.split("\n\n").next().unwrap().lines() {
            assert!(line.trim_start().starts_with('-'), "{command}: {line}");
        }
        for section in text.split("\n\n").filter(|it| it.contains("\n      --")) {
            let lines = section.lines().skip(1);
            let wrapped = lines.filter(|it| !it.trim_start().starts_with('-')).count();
            assert_eq!(wrapped, 0, "{command}: {section}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{command}: {text}");
    }
}

#[test]
fn no_line_of_help_is_wider_than_the_terminal() {
    for command in COMMANDS.iter().map(Some).chain([None]) {
        for flag in ["-h", "--help"] {
            let mut asks = weightlift();
            let asks = asks.args(command).arg(flag).env("NO_COLOR", "1");
            let terminal = AtTerminal::start_both(asks, 80, 24);
            let (code, _, bytes) = terminal.wait();
            let wide = bytes.lines().map(|line| line.trim_end());
            let wide: Vec<&str> = wide.filter(|line| line.chars().count() > 80).collect();
            assert!(code == 0 && wide.is_empty(), "{command:?} {flag}: {wide:#?}");
        }
    }
}

#[test]
fn examples_come_before_flags_and_flags_stand_in_groups() {
    for command in COMMANDS {
        for flag in ["-h", "--help"] {
            let text = help(&[command, flag]);
            let at = |word: &str| text.find(word).unwrap_or_else(|| panic!("{word}: {text}"));
            assert!(at("Usage: ") < at("Examples:\n") && at("Examples:\n") < at("Output:\n"));
            assert!(!text.contains("\nOptions:\n"), "{text}");
        }
    }
    let text = help(&["fetch", "--help"]);
    for heading in ["Models", "Files", "Source", "Volume", "Publication", "Transfer"] {
        assert_eq!(text.matches(&format!("\n{heading}:\n")).count(), 1, "{heading}");
    }
}

#[test]
fn full_help_has_every_flag_with_its_variable_and_default() {
    let all: String = COMMANDS.iter().map(|command| help(&[command, "--help"])).collect();
    let hidden = ["WEIGHTLIFT_RETRY_DELAY"];
    let flags = VARIABLES.iter().filter(|it| it.part == Part::Flags).map(|it| it.name);
    for variable in flags.filter(|name| !hidden.contains(name)) {
        assert!(all.contains(&format!("[env: {variable}]")), "{variable}");
    }
    let text = help(&["fetch", "--help"]);
    for part in ["[default: 64MiB]", "[default: 5m]", "- hf-cache: ", "- kubernetes: "] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("--retry-delay"));
}

#[test]
fn the_exit_codes_stand_in_the_full_help_of_the_program_alone() {
    let (short, full) = (help(&["-h"]), help(&["--help"]));
    let words = full.split_whitespace().collect::<Vec<_>>().join(" ");
    for facts in &TABLE {
        let named = format!("{} {}", facts.code, facts.name.replace('_', " "));
        assert!(words.contains(&named), "{named}: {full}");
    }
    assert!(!short.contains("12 integrity") && short.contains("`weightlift --help`"), "{short}");
    assert_eq!(help(&["help", "fetch"]), help(&["fetch", "--help"]));
}

#[test]
fn help_shows_no_value_of_a_variable() {
    for flag in ["-h", "--help"] {
        let mut command = weightlift();
        command.env("WEIGHTLIFT_P2P", "dragonfly=http://user:hunter2@127.0.0.1:4001");
        let run = command.args(["fetch", flag]).run().assert_success();
        assert!(!run.stdout.contains("hunter2"), "{}", run.stdout);
    }
}

#[test]
fn weightlift_alone_says_what_there_is_and_fails() {
    let run = weightlift().run().assert_code(2);
    assert_eq!(run.stdout, "");
    for command in COMMANDS {
        assert!(run.stderr.contains(&format!("\n  {command} ")), "{}", run.stderr);
    }
    assert!(!run.stderr.contains("generate"), "{}", run.stderr);
    assert!(run.last_line().starts_with("error: no command is given;"), "{}", run.stderr);
}

#[test]
fn a_word_of_another_tool_is_answered_with_ours() {
    for (arguments, hint) in [
        (&["fecth", "hf://org/name"][..], "did you mean `fetch`?"),
        (&["download", "org/name"], "did you mean `fetch`?"),
        (&["pull"], "did you mean `fetch`?"),
        (&["get"], "did you mean `fetch`?"),
        (&["status"], "did you mean `list`?"),
        (&["gc"], "did you mean `prune`?"),
        (&["clean"], "did you mean `prune`?"),
        (
            &["check"],
            "did you mean `verify` (a model on the volume) or `doctor` (the surroundings)?",
        ),
        (&["fetch", "hf://org/name", "--conections", "4"], "did you mean `--connections`?"),
        (&["fetch", "hf://org/name", "--revision", "main"], "as in hf://org/name@main"),
        (&["fetch", "hf://org/name", "--local-dir", "x"], "as DEST"),
        (&["fetch", "hf://org/name", "--local_dir", "x"], "as DEST"),
        (&["fetch", "hf://org/name", "--token=hunter2"], "HF_TOKEN"),
        (&["fetch", "hf://org/name", "--token", "hunter2"], "HF_TOKEN"),
        (&["fetch", "hf://org/name", "--max-workers", "8"], "`--connections`"),
        (&["fetch", "hff://org/name"], "did you mean `hf://org/name`?"),
        (&["fetch", "org/name"], "did you mean `hf://org/name`?"),
        (&["fetch", "https://huggingface.co/org/name"], "did you mean `hf://org/name`?"),
        (&["plan", "s3n://bucket/prefix/"], "did you mean `s3://bucket/prefix/`?"),
        (&["pin", "docker://ghcr.io/org/name:tag"], "did you mean `oci://ghcr.io/org/name:tag`?"),
    ] {
        let run = weightlift().args(arguments).run().assert_code(2);
        assert!(run.last_line().contains(hint), "{arguments:?}: {}", run.stderr);
        assert!(run.last_line().ends_with("[exit 2, usage]"), "{}", run.stderr);
        assert_eq!(run.stderr.matches(hint).count(), 1, "{}", run.stderr);
        assert!(!run.stderr.contains("hunter2") && !run.stderr.contains("tip:"), "{}", run.stderr);
    }
}

#[test]
fn the_page_on_the_command_line_is_what_the_program_writes() {
    let written = of(binary().to_str().unwrap(), &["generate", "reference"]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(page == written, "run `weightlift generate reference > docs/cli.md`");
    let flags = VARIABLES.iter().filter(|it| it.part == Part::Flags).map(|it| it.name);
    for variable in flags.filter(|name| *name != "WEIGHTLIFT_RETRY_DELAY") {
        assert!(page.contains(&format!("Variable: `{variable}`.")), "{variable}");
    }
}

/// The completion script of `shell`, in a file.
fn script(volume: &Volume, shell: &str) -> String {
    let path = volume.path(shell);
    let text = help_of_generate(&["completions", shell]);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn help_of_generate(arguments: &[&str]) -> String {
    weightlift().arg("generate").args(arguments).run().assert_success().stdout
}

#[test]
fn bash_completes_commands_flags_values_and_files() {
    if !has("bash") {
        return;
    }
    let volume = Volume::new();
    let path = script(&volume, "bash");
    of("bash", &["-n", &path]);
    std::fs::write(volume.path("models.yaml"), "").unwrap();
    let dir = volume.path("");
    let played = |words: &[&str]| -> BTreeSet<String> {
        let line = format!(
            "cd '{}' && source '{path}' && COMP_WORDS=({}) && COMP_CWORD={} && \
             _weightlift weightlift '{}' '{}' 2>/dev/null; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            dir.display(),
            words.join(" "),
            words.len() - 1,
            words[words.len() - 1].trim_matches('\''),
            words[words.len() - 2],
        );
        of("bash", &["--norc", "-c", &line]).lines().map(str::to_owned).collect()
    };
    assert_eq!(played(&["weightlift", "fe"]), ["fetch".to_owned()].into());
    let commands = played(&["weightlift", "''"]);
    assert!(COMMANDS.iter().all(|it| commands.contains(*it)), "{commands:?}");
    assert!(!commands.contains("generate"), "{commands:?}");
    let flags = played(&["weightlift", "fetch", "--"]);
    for flag in ["--include", "--root", "--output", "--connections", "--s3-endpoint"] {
        assert!(flags.contains(flag), "{flag}: {flags:?}");
    }
    assert!(!flags.contains("--retry-delay"), "{flags:?}");
    assert_eq!(played(&["weightlift", "fetch", "--models", "mod"]), ["models.yaml".into()].into());
    let layouts = ["plain".to_owned(), "hf-cache".to_owned()].into();
    assert_eq!(played(&["weightlift", "fetch", "--layout", "''"]), layouts);
}

#[test]
fn other_shells_can_read_their_completions() {
    let volume = Volume::new();
    for (shell, check) in [("zsh", "-n"), ("fish", "--no-execute")] {
        let path = script(&volume, shell);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("s3-endpoint") && !text.contains("retry-delay"), "{shell}");
        if has(shell) {
            of(shell, &[check, &path]);
        }
    }
    // No package of Debian runs these two without a person at the terminal.
    for shell in ["elvish", "powershell"] {
        assert!(help_of_generate(&["completions", shell]).contains("s3-endpoint"), "{shell}");
    }
    if has("fish") {
        let path = volume.path("fish").to_str().unwrap().to_owned();
        let line = format!("source '{path}'; complete -C 'weightlift fe'");
        assert!(of("fish", &["--no-config", "-c", &line]).starts_with("fetch\t"), "fish");
    }
    if has("zsh") {
        let path = volume.path("zsh").to_str().unwrap().to_owned();
        let line =
            format!("autoload -U compinit; compinit -D -u; source '{path}'; which _weightlift");
        assert!(of("zsh", &["-f", "-c", &line]).contains("_arguments"), "zsh");
    }
}

#[test]
fn man_pages_are_there_for_each_command_and_without_mistakes() {
    let volume = Volume::new();
    let dir = volume.path("man");
    let run = weightlift().args(["generate", "man"]).arg(&dir).run().assert_success();
    assert_eq!(run.stdout, "");
    let found: BTreeSet<String> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut expected: BTreeSet<String> =
        COMMANDS.iter().map(|command| format!("weightlift-{command}.1")).collect();
    expected.insert("weightlift.1".into());
    assert_eq!(found, expected);
    let page = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let fetch = std::fs::read_to_string(dir.join("weightlift-fetch.1")).unwrap();
    for part in [".SH EXAMPLES", ".SH PUBLICATION", "\\-\\-s3\\-endpoint", "WEIGHTLIFT_ROOT"] {
        assert!(fetch.contains(part), "{part}: {fetch}");
    }
    let program = std::fs::read_to_string(dir.join("weightlift.1")).unwrap();
    assert!(program.contains("EXIT STATUS") && program.contains("weightlift\\-fetch(1)"));
    for name in &expected {
        if has("man") {
            let output = Command::new("man")
                .args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", &page(name)])
                .envs([("MANROFFSEQ", ""), ("LC_ALL", "C.UTF-8"), ("MANWIDTH", "80")])
                .output()
                .unwrap();
            assert!(output.status.success(), "{name}: {output:?}");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{name}");
        }
        if has("mandoc") {
            let output = Command::new("mandoc").args(["-Tlint", "-Wwarning", &page(name)]).output();
            let said = String::from_utf8(output.unwrap().stdout).unwrap();
            // The same commit gives the same pages, whatever the day. The other is clap_mangen's, and harmless.
            let is_known =
                |it: &&str| it.contains("missing date") || it.contains("paragraph macro");
            let wrong: Vec<&str> = said.lines().filter(|line| !is_known(line)).collect();
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
    }
}
