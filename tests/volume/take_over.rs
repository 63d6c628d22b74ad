//! `--adopt DEST`: a directory that somebody else has filled becomes a model, and nothing of it is lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::adopt_dir::{adopting, filled, hub, model, seen, sent, write};
use crate::support::process::straced;
use crate::support::*;
use weightlift_fakes::{Fault, Rule};

#[test]
fn dest_itself_is_taken_over_and_what_was_there_is_kept_aside() {
    let (hub, volume) = (hub(), Volume::new());
    let family = volume.family("tiny");
    filled(&family, &model());
    write(&family.join("notes.txt"), b"mine");
    let before = seen(&family);
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(16);
    assert!(seen(&family) == before);
    hub.log().clear();
    let run = adopting(&hub, &volume, &family).run().assert_success();
    volume.assert_holds("tiny", &model());
    volume.assert_clean();
    assert_eq!(sent(&hub), 0);
    let aside = aside(&volume);
    assert!(
        run.stderr.contains(&format!("what was here before is kept at `{}`", aside.display())),
        "{}",
        run.stderr
    );
    let moved = |all: BTreeMap<PathBuf, _>, from: &Path| -> BTreeMap<PathBuf, _> {
        all.into_iter()
            .map(|(path, it)| (path.strip_prefix(from).unwrap().to_owned(), it))
            .collect()
    };
    assert!(moved(seen(&aside), &aside) == moved(before, &family), "what was there has changed");
    // The next start finds a model; updates and their limits leave what is kept aside alone.
    adopting(&hub, &volume, &family).run().assert_success().assert_says("nothing to do");
    hub.move_branch(REPO, "main", model().with("config.json", "[]"));
    let limits = ["--keep-revisions", "0", "--keep-for", "0s"];
    adopting(&hub, &volume, &family).args(limits).run().assert_success();
    volume.assert_holds("tiny", &model().with("config.json", "[]"));
    assert!(aside.join("notes.txt").is_file() && aside.join("weights/1.bin").is_file());
}

/// What the model directory was before.
fn aside(volume: &Volume) -> PathBuf {
    let all = list(&volume.root().join(".weightlift/revisions/tiny"));
    let is_aside =
        |path: &&PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("before-");
    all.iter().find(is_aside).unwrap_or_else(|| panic!("{all:?}")).clone()
}

#[test]
fn dest_is_not_taken_over_for_another_directory() {
    let (hub, volume) = (hub(), Volume::new());
    let (family, other) = (volume.family("tiny"), volume.path("other"));
    filled(&family, &model());
    filled(&other, &model());
    let before = seen(&family);
    adopting(&hub, &volume, &other).run().assert_code(16);
    adopting(&hub, &volume, &family.join("weights")).run().assert_code(16);
    adopting(&hub, &volume, &volume.root()).run().assert_code(16);
    assert!(seen(&family) == before);
}

#[test]
fn a_kill_while_dest_is_taken_over_loses_nothing() {
    if !has("strace") {
        return;
    }
    for call in ["linkat", "symlinkat", "renameat", "renameat2", "unlinkat"] {
        for when in 1.. {
            let (hub, volume) = (hub(), Volume::new());
            let family = volume.family("tiny");
            filled(&family, &model());
            write(&family.join("notes.txt"), b"mine");
            let inject = format!("inject={call}:signal=KILL:when={when}");
            let trace = format!("trace={call}");
            let wrapper = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
            let code = under(&wrapper, &adopting(&hub, &volume, &family)).run().code;
            assert!(family.join("weights/1.bin").is_file(), "{call} {when}: no model at all");
            let again = adopting(&hub, &volume, &family).run().assert_success();
            volume.assert_holds("tiny", &model());
            assert_eq!(sent(&hub), 0);
            if code != 0 && again.stderr.contains("nothing to do") {
                // Killed after the exchange: the next one that has something to do puts away what is left.
                hub.move_branch(REPO, "main", model().with("config.json", "[]"));
                adopting(&hub, &volume, &family).run().assert_success();
            }
            volume.assert_clean();
            assert_eq!(
                std::fs::read(aside(&volume).join("notes.txt")).unwrap(),
                b"mine",
                "{call} {when}"
            );
            if code == 0 {
                break;
            }
            assert!(when < 40, "{call}: no end");
        }
    }
}

#[test]
fn what_was_taken_over_is_kept_also_where_a_power_cut_has_taken_the_journal() {
    let (hub, volume) = (hub(), Volume::new());
    let attempt = volume.root().join(".weightlift/attempts/tiny~0123456789abcdef");
    write(&attempt.join("link/notes.txt"), b"mine");
    let long_ago = Command::new("find")
        .arg(&attempt)
        .args(["-depth", "-exec", "touch", "-h", "-d", "2001-01-01", "{}", "+"])
        .status();
    assert!(long_ago.unwrap().success());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_clean();
    assert_eq!(std::fs::read(aside(&volume).join("notes.txt")).unwrap(), b"mine");
}

/// A directory with a working area in it, as a mount point gets one: it stays the directory that it is.
fn filled_in_place(volume: &Volume) -> PathBuf {
    let family = volume.family("tiny");
    filled(&family, &model());
    write(&family.join("config.json"), b"my own");
    write(&family.join("notes.txt"), b"mine");
    std::fs::create_dir(family.join(".weightlift")).unwrap();
    family
}

/// Files of a user that were in the way of the model, wherever they were put.
fn put_aside(family: &Path) -> Vec<Vec<u8>> {
    let all = list(&family.join(".weightlift/revisions/self"));
    all.iter().filter_map(|aside| std::fs::read(aside.join("config.json")).ok()).collect()
}

#[test]
fn a_dest_that_must_stay_the_directory_it_is_is_taken_over_in_place() {
    let (hub, volume) = (hub(), Volume::new());
    let family = filled_in_place(&volume);
    let before = seen(&family);
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(16);
    assert!(
        seen(&family)
            .iter()
            .filter(|(path, _)| !path.starts_with(family.join(".weightlift")))
            .all(|(path, it)| before.get(path) == Some(it))
    );
    hub.log().clear();
    let run = adopting(&hub, &volume, &family).run().assert_success();
    assert!(run.stderr.contains("what was here before is kept at `"), "{}", run.stderr);
    assert_eq!(hub.bytes_sent_for("xet-bridge"), 0);
    assert!(!family.is_symlink());
    weightlift().arg("verify").arg(&family).run().assert_success();
    let now = files_below(&family);
    for (path, blob) in model().iter() {
        assert!(now[path] == blob.to_vec(), "{path}");
    }
    // What is no part of the model stays, and what was in its way is kept.
    assert_eq!(now["notes.txt"], b"mine");
    assert!(now.contains_key(".cache/huggingface/.gitignore"));
    assert_eq!(put_aside(&family), [b"my own"]);
    let shard = family.join("weights/1.bin");
    assert_eq!(seen(&family)[&shard].1, before[&shard].1, "the file that was right is another one");
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata(shard).unwrap()), 1);
    adopting(&hub, &volume, &family).run().assert_success().assert_says("nothing to do");
    hub.move_branch(REPO, "main", model().with("new.json", "[1]"));
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    assert_eq!(std::fs::read(family.join("notes.txt")).unwrap(), b"mine");
    assert_eq!(std::fs::read(family.join("new.json")).unwrap(), b"[1]");
    assert_eq!(put_aside(&family), [b"my own"]);
}

#[test]
fn a_kill_while_dest_is_taken_over_in_place_loses_nothing() {
    if !has("strace") {
        return;
    }
    for call in ["linkat", "renameat", "unlinkat", "mkdirat"] {
        for when in 1.. {
            let (hub, volume) = (hub(), Volume::new());
            let family = filled_in_place(&volume);
            let inject = format!("inject={call}:signal=KILL:when={when}");
            let trace = format!("trace={call}");
            let wrapper = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
            let code = under(&wrapper, &adopting(&hub, &volume, &family)).run().code;
            let is_mine = |bytes: &Vec<u8>| bytes == b"my own";
            let there = std::fs::read(family.join("config.json")).unwrap_or_default();
            assert!(is_mine(&there) || put_aside(&family).iter().any(is_mine), "{call} {when}");
            adopting(&hub, &volume, &family).run().assert_success();
            weightlift().arg("verify").arg(&family).run().assert_success();
            assert_eq!(std::fs::read(family.join("notes.txt")).unwrap(), b"mine");
            assert!(put_aside(&family).iter().any(is_mine), "{call} {when}");
            assert_eq!(hub.bytes_sent_for("xet-bridge"), 0, "{call} {when}");
            if code == 0 {
                break;
            }
            assert!(when < 60, "{call}: no end");
        }
    }
}

#[test]
fn a_model_behind_very_many_files_is_not_taken_away() {
    let (hub, volume) = (hub(), Volume::in_memory());
    fetch(&hub, &volume, &["hf://org/tiny", "d/z/m"]).run().assert_success();
    let many = volume.family("d/a");
    std::fs::create_dir(&many).unwrap();
    for n in 0..25_000 {
        std::fs::File::create(many.join(n.to_string())).unwrap();
    }
    let family = volume.family("d").display().to_string();
    let run = fetch(&hub, &volume, &["hf://org/tiny", "d", "--adopt", &family]).run();
    run.assert_code(16).assert_says("holds the model `d/z/m`");
    volume.assert_holds("d/z/m", &model());
}

#[test]
fn a_directory_of_other_models_is_never_taken_for_one() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    for (dest, is_directory) in [
        ("llama/9f44", false),
        ("llama/0450", false),
        ("llama/a/b", true),
        ("llama/c", false),
        ("pair/one", false),
        ("pair/two", false),
    ] {
        let mut command = fetch(&hub, &volume, &["hf://org/tiny", dest]);
        match is_directory {
            // As where there are no links.
            true => straced(&command, "symlinkat", &["symlinkat:error=EPERM"]).run(),
            false => command.run(),
        }
        .assert_success();
    }
    write(&volume.family("llama/notes.txt"), b"mine");
    let before = seen(&volume.root());
    hub.log().clear();
    let refused = |dest: &str, models: &str| {
        let says = format!(
            "error: `{}` holds the {models}; choose another DEST [exit 16, conflict]",
            volume.family(dest).display()
        );
        let family = volume.family(dest);
        for more in
            [&[][..], &["--adopt", family.to_str().unwrap()], &["--replace"], &["--dry-run"]]
        {
            let arguments = [&["hf://org/tiny", dest], more].concat();
            let run = fetch(&hub, &volume, &arguments).run().assert_code(16);
            assert_eq!(run.last_line(), says, "{more:?}");
        }
    };
    refused("llama", "models `llama/0450`, `llama/9f44`, `llama/c` and others");
    refused("pair", "models `pair/one`, `pair/two`");
    refused("llama/a", "model `llama/a/b`");
    assert_eq!(hub.requests().len(), 0);
    assert!(seen(&volume.root()) == before, "something has changed");
    for dest in ["llama/9f44", "llama/0450", "llama/a/b"] {
        volume.assert_holds(dest, &model());
    }
}

#[test]
fn a_model_that_comes_below_a_directory_while_that_is_taken_over_stays() {
    let (hub, volume) = (hub(), Volume::new());
    let family = volume.family("llama");
    write(&family.join("notes.txt"), b"mine");
    let stall = Fault::StallAfter(1000, Duration::from_secs(4));
    hub.script(Rule::on("GET", "").at("cdn").once().then(stall));
    let adopt = ["hf://org/tiny", "llama", "--adopt", family.to_str().unwrap()];
    let running = fetch(&hub, &volume, &adopt).start();
    eventually("a file is asked for", || hub.count("GET", "xet-bridge") > 0);
    fetch(&hub, &volume, &["hf://org/tiny", "llama/other"]).run().assert_success();
    running.wait().assert_code(16).assert_says("holds the model `llama/other`");
    volume.assert_holds("llama/other", &model());
    assert_eq!(std::fs::read(family.join("notes.txt")).unwrap(), b"mine");
}
