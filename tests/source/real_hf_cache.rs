//! The Hub's own Python client, as servers have it, reads the cache that `--layout hf-cache` has filled, and
//! goes on with it. Two versions of it: see `tests/real/requirements.txt` and `requirements-old-hub.txt`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::*;
use weightlift_fakes::{FakeHub, Tree};

/// The clients that are there: what each is called, and its Python.
fn clients() -> Vec<(&'static str, OsString)> {
    let new = std::env::var_os("WEIGHTLIFT_TEST_PYTHON").unwrap_or("python3".into());
    let old = std::env::var_os("WEIGHTLIFT_TEST_PYTHON_OLD_HUB");
    let mut found = Vec::new();
    for (name, python) in [("new", Some(new)), ("old", old)] {
        let has = |python: &OsString| {
            let run = Command::new(python).args(["-c", "import huggingface_hub"]).output();
            run.is_ok_and(|run| run.status.success())
        };
        match python.filter(has) {
            Some(python) => found.push((name, python)),
            None => _ = skip(&format!("no Python with the {name} huggingface_hub; see tests/real")),
        }
    }
    found
}

/// A Python with `home` as its `HF_HOME` and the Hub at `hub`.
fn python(python: &OsString, home: &Path, hub: &FakeHub) -> Command {
    let mut command = Command::new(python);
    command.env("HF_HOME", home).env("HF_ENDPOINT", hub.url());
    command.env("HF_HUB_DISABLE_XET", "1").env("HF_HUB_DISABLE_TELEMETRY", "1");
    command
}

#[track_caller]
fn lines(mut command: Command) -> Vec<String> {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout).lines().map(str::to_owned).collect()
}

struct Home {
    hub: FakeHub,
    volume: Volume,
}

impl Home {
    /// `tiny` in a cache, every file of it.
    fn filled() -> Self {
        let home = Self { hub: FakeHub::serving(REPO, tiny()), volume: Volume::new() };
        home.fetch(&["hf://org/tiny", "--all"]);
        home
    }

    fn fetch(&self, arguments: &[&str]) {
        let mut command = fetch(&self.hub, &self.volume, arguments);
        command.args(["--layout", "hf-cache"]).run().assert_success();
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.volume.root().join("hub/models--org--tiny/snapshots").join(commit)
    }

    /// What the client finds without the network.
    #[track_caller]
    fn assert_found(&self, client: &OsString, home: &Path, commit: &str, tree: &Tree) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/hf_cache.py");
        let mut command = python(client, home, &self.hub);
        command.env("HF_HUB_OFFLINE", "1").arg(script).arg(REPO);
        command.args(tree.iter().map(|(path, _)| path));
        let snapshot = home.join("hub/models--org--tiny/snapshots").join(commit);
        let mut expected = vec![snapshot.display().to_string()];
        expected.extend(tree.iter().map(|(path, _)| snapshot.join(path).display().to_string()));
        expected.push(format!("{REPO} {commit} main {}", tree.len()));
        assert_eq!(lines(command), expected);
        assert!(files_below(&snapshot) == files_of(tree), "the trees differ");
    }
}

fn files_of(tree: &Tree) -> std::collections::BTreeMap<String, Vec<u8>> {
    tree.iter().map(|(path, blob)| (path.to_owned(), blob.to_vec())).collect()
}

#[test]
fn the_hubs_own_client_finds_the_model_offline_and_on_a_read_only_mount() {
    for (name, client) in clients() {
        let home = Home::filled();
        let commit = home.hub.commit(REPO);
        home.hub.log().clear();
        home.assert_found(&client, &home.volume.root(), &commit, &tiny());
        assert_eq!(home.hub.requests().len(), 0, "{name}");
        if !is_root() {
            continue;
        }
        let at = home.volume.path("mounted");
        std::fs::create_dir(&at).unwrap();
        let run = |arguments: &[&str]| {
            Command::new(arguments[0]).args(&arguments[1..]).arg(&at).status().unwrap().success()
        };
        assert!(run(&["mount", "--bind", home.volume.root().to_str().unwrap()]));
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert!(run(&["mount", "-o", "remount,bind,ro"]));
            home.assert_found(&client, &at, &commit, &tiny());
        }));
        assert!(run(&["umount"]));
        if let Err(failure) = checked {
            std::panic::resume_unwind(failure);
        }
    }
}

#[test]
fn the_hubs_own_client_goes_on_with_the_cache_and_so_do_we() {
    for (name, client) in clients() {
        let home = Home::filled();
        let one = home.hub.commit(REPO);
        let download = || {
            let mut command = python(&client, &home.volume.root(), &home.hub);
            command.args([
                "-c",
                "from huggingface_hub import snapshot_download as d; print(d('org/tiny'))",
            ]);
            lines(command)
        };
        home.hub.log().clear();
        assert_eq!(download(), [home.snapshot(&one).display().to_string()]);
        let fetched = || home.hub.count("GET", "resolve");
        assert_eq!(fetched(), 0, "{name}: what is there is not downloaded again");
        // The next revision is theirs: one file is new to the cache.
        let next = tiny().with("config.json", "{\"next\": true}");
        let two = home.hub.move_branch(REPO, "main", next.clone());
        assert_eq!(download(), [home.snapshot(&two).display().to_string()]);
        assert_eq!(fetched(), 1, "{name}");
        home.assert_found_both(&client, [&one, &two]);
        // What they have downloaded is hashed, and counts from then on.
        home.hub.log().clear();
        home.fetch(&["hf://org/tiny", "--all"]);
        assert_eq!(fetched(), 0, "{name}");
        weightlift().arg("verify").arg(home.snapshot(&two)).run().assert_success();
        assert!(files_below(&home.snapshot(&two)) == files_of(&next), "{name}");
        assert!(files_below(&home.snapshot(&one)) == files_of(&tiny()), "{name}");
        // The third is ours, and theirs to read.
        let third = tiny().with("config.json", "{\"third\": true}").without("onnx/model.onnx");
        let three = home.hub.move_branch(REPO, "main", third.clone());
        home.fetch(&["hf://org/tiny", "--all"]);
        home.hub.log().clear();
        assert_eq!(download(), [home.snapshot(&three).display().to_string()]);
        assert_eq!(fetched(), 0, "{name}");
    }
}

impl Home {
    /// Both commits are in the cache as the client sees it.
    #[track_caller]
    fn assert_found_both(&self, client: &OsString, commits: [&str; 2]) {
        let code = "from huggingface_hub import scan_cache_dir\n\
            cache = scan_cache_dir()\n\
            assert not cache.warnings, cache.warnings\n\
            [print(r.commit_hash) for repo in cache.repos for r in repo.revisions]";
        let mut command = python(client, &self.volume.root(), &self.hub);
        command.args(["-c", code]);
        let mut found = lines(command);
        found.sort();
        let mut expected = commits.map(str::to_owned);
        expected.sort();
        assert_eq!(found, expected);
    }
}

#[test]
fn the_hubs_own_check_of_a_cache_agrees() {
    let Some((_, client)) = clients().into_iter().find(|(name, _)| *name == "new") else { return };
    let home = Home::filled();
    let verify = || {
        let code =
            "import sys; from huggingface_hub.cli.hf import main; sys.argv[0] = 'hf'; main()";
        let mut command = python(&client, &home.volume.root(), &home.hub);
        let arguments =
            ["cache", "verify", REPO, "--fail-on-missing-files", "--fail-on-extra-files"];
        command.args(["-c", code]).args(arguments).output().unwrap()
    };
    let agreed = verify();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(agreed.status.success(), "{}{}", text(&agreed.stdout), text(&agreed.stderr));
    // It sees what it is asked to see.
    let file = home.snapshot(&home.hub.commit(REPO)).join("config.json");
    let blob = std::fs::canonicalize(file).unwrap();
    std::fs::remove_file(&blob).unwrap();
    std::fs::write(&blob, "{}").unwrap();
    assert!(!verify().status.success());
    weightlift().arg("verify").arg(home.snapshot(&home.hub.commit(REPO))).run().assert_code(12);
}
