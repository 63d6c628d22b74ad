//! What the process takes from itself: `--sandbox`.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use weightlift_fakes::{Blob, FakeHub, FakeS3};

use crate::support::process::{signal, straced, worker_on};
use crate::support::*;

/// What `doctor` says of the sandbox: verdict and value.
fn told(command: &mut Command) -> (String, String) {
    let run = command.args(["--output", "json"]).run();
    let checks = run.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let check = checks.into_iter().find(|it| it["check"] == "sandbox");
    let check = check.unwrap_or_else(|| panic!("{}{}", run.stdout, run.stderr));
    let text = |name: &str| check[name].as_str().unwrap().to_owned();
    (text("verdict"), text("value"))
}

fn doctor(volume: &Volume, sandbox: &str) -> Command {
    std::fs::create_dir_all(volume.root()).unwrap();
    let mut command = weightlift();
    command.args(["doctor", "--sandbox", sandbox]).env("WEIGHTLIFT_ROOT", volume.root());
    command.env("HF_HUB_OFFLINE", "1");
    command
}

fn has_landlock() -> bool {
    let (verdict, value) = told(&mut doctor(&Volume::new(), "files"));
    verdict == "ok" && value.starts_with("Landlock") || skip(&format!("no Landlock: {value}"))
}

fn confined(hub: &FakeHub, volume: &Volume, arguments: &[&str]) -> Command {
    let mut command = fetch(hub, volume, &["hf://org/tiny", "--sandbox", "files"]);
    command.args(arguments);
    command
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_confined_fetch_is_a_fetch() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    for file in ["log", "out/progress.json", "out/metrics.prom", "pod/x"] {
        let path = volume.path(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    let arguments = [
        ("--termination-log", "log"),
        ("--progress-file", "out/progress.json"),
        ("--metrics-file", "out/metrics.prom"),
        ("--link", "pod/current"),
    ];
    let mut command = confined(&hub, &volume, &[]);
    for (flag, file) in arguments {
        command.arg(flag).arg(volume.path(file));
    }
    command.run().assert_success();
    volume.assert_holds("tiny", &tiny_selected());
    for (_, file) in arguments {
        let path = volume.path(file);
        assert!(path.is_dir() || std::fs::metadata(&path).unwrap().len() > 0, "{file}");
    }
}

#[test]
fn a_confined_run_writes_through_no_link_that_leads_out_of_its_places() {
    if !has_landlock() {
        return;
    }
    for (sandbox, is_refused) in [("files", true), ("privileges", false)] {
        let (hub, volume) = (hub_of_tiny(), Volume::new());
        let (out, victim) = (volume.path("out"), volume.path("elsewhere/victim"));
        for dir in [volume.root().as_path(), &out, victim.parent().unwrap()] {
            std::fs::create_dir_all(dir).unwrap();
        }
        std::fs::write(&victim, "precious").unwrap();
        let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--sandbox", sandbox]);
        command.arg("--progress-file").arg(out.join("p"));
        // A co-tenant that may write to that directory.
        std::os::unix::fs::symlink(&victim, out.join("p")).unwrap();
        command.run();
        let is_whole = std::fs::read_to_string(&victim).unwrap() == "precious";
        assert_eq!(is_whole, is_refused, "{sandbox}");
    }
}

#[test]
fn a_profile_that_starts_a_program_can_do_so_and_the_program_is_not_confined() {
    let s3 = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
    let s3 = s3.object("models", "p/config.json", Blob::bytes("{}")).start();
    for (sandbox, no_new_privileges) in [("files", "1"), ("privileges", "1"), ("off", "0")] {
        let volume = Volume::new();
        let (tool, seen) = (volume.path("tool"), volume.path("elsewhere/seen"));
        std::fs::create_dir_all(seen.parent().unwrap()).unwrap();
        let script = format!(
            "#!/bin/sh\ngrep NoNewPrivs /proc/self/status > '{}'\n\
             echo '{{\"Version\": 1, \"AccessKeyId\": \"{ACCESS_KEY}\", \"SecretAccessKey\": \"{SECRET_KEY}\"}}'\n",
            shown(&seen)
        );
        std::fs::write(&tool, script).unwrap();
        std::fs::set_permissions(&tool, PermissionsExt::from_mode(0o755)).unwrap();
        let config = volume.path("config");
        std::fs::write(&config, format!("[default]\ncredential_process = {}\n", shown(&tool)))
            .unwrap();
        let mut command = fetch_s3(&s3, &volume, &["s3://models/p/", "x", "--sandbox", sandbox]);
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        command.env("AWS_CONFIG_FILE", &config).env("PATH", "/usr/bin:/bin");
        // Where the tests have it themselves, it cannot be given back.
        let given = std::fs::read_to_string("/proc/self/status").unwrap();
        let is_given = given.contains("NoNewPrivs:\t1");
        command.run().assert_success();
        let seen = std::fs::read_to_string(&seen).unwrap();
        let expected = if is_given { "1" } else { no_new_privileges };
        assert_eq!(seen.trim(), format!("NoNewPrivs:\t{expected}"), "{sandbox}");
        let mut command = doctor(&volume, "files");
        let (verdict, value) = told(command.env("AWS_CONFIG_FILE", &config));
        assert!(verdict == "warning" && value.contains("credential_process"), "{value}");
    }
}

#[test]
fn where_the_kernel_refuses_or_is_too_old_the_run_is_as_without() {
    if !has("strace") || !has_landlock() {
        return;
    }
    // None, switched off, refused by a filter, and one that could rename nothing.
    for answer in ["error=ENOSYS", "error=EOPNOTSUPP", "error=EPERM", "retval=1"] {
        let (hub, volume) = (hub_of_tiny(), Volume::new());
        let inject = format!("landlock_create_ruleset:{answer}");
        let calls = "landlock_create_ruleset";
        straced(&confined(&hub, &volume, &[]), calls, &[&inject]).run().assert_success();
        volume.assert_holds("tiny", &tiny_selected());
        let mut command = straced(&doctor(&volume, "files"), calls, &[&inject]);
        let (verdict, value) = told(&mut command);
        assert_eq!(verdict, "warning", "{answer}: {value}");
        assert!(value.contains("refuses Landlock 2"), "{answer}: {value}");
    }
}

#[test]
fn a_directory_that_does_not_answer_holds_up_no_run() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let out = volume.path("out");
    std::fs::create_dir_all(&out).unwrap();
    let metrics = out.join("m.prom");
    let wrapped = |command: &Command| {
        let path = shown(&out);
        let inject = "inject=?open,openat:delay_enter=60s";
        let wrapper = [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=?open,openat",
            "-e",
            inject,
            "-P",
            path,
        ];
        under(&wrapper, command)
    };
    let mut command = doctor(&volume, "files");
    command.arg("--metrics-file").arg(&metrics);
    let (verdict, value) = told(&mut wrapped(&command));
    assert!(verdict == "warning" && value.contains("does not answer"), "{value}");
    wrapped(&confined(&hub, &volume, &["--metrics-file", shown(&metrics)])).run().assert_success();
}

/// The paths that a run makes rules of, as the kernel is asked for them.
fn places(command: &Command) -> Vec<PathBuf> {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let wrapper = [
        "strace",
        "-f",
        "-qq",
        "-s",
        "4096",
        "-o",
        shown(trace.path()),
        "-e",
        "trace=?open,openat",
    ];
    under(&wrapper, command).output().unwrap();
    let text = std::fs::read_to_string(trace.path()).unwrap();
    let asked = text.lines().filter(|line| line.contains("O_PATH"));
    asked.filter_map(|line| line.split('"').nth(1).map(PathBuf::from)).collect()
}

#[test]
fn a_command_asks_for_what_its_flags_models_and_variables_name() {
    if !has("strace") {
        return;
    }
    let volume = Volume::new();
    let path = |name: &str| volume.path(name);
    for dir in ["root", "other", "adopted", "home/.aws", "secret/..1", "account"] {
        std::fs::create_dir_all(path(dir)).unwrap();
    }
    let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
    // As the kubelet mounts a Secret.
    write("secret/..1/token", TOKEN);
    symlink("..1", path("secret/..data")).unwrap();
    symlink("..data/token", path("secret/token")).unwrap();
    write("home/.netrc", "");
    write("other/web-identity", "");
    write("account/token", "");
    let identity = shown(&path("other/web-identity")).to_owned();
    write("home/.aws/config", &format!("[default]\nweb_identity_token_file = {identity}\n"));
    let other = format!("file://{}", shown(&path("other")));
    write("models.yaml", &format!("version: 1\nmodels:\n- source: {other}\n  name: a\n"));
    let run = |arguments: &[&str]| {
        let mut command = weightlift();
        command.args(arguments).args(["--sandbox", "files", "--retry-timeout", "1s"]);
        command.env("HOME", path("home")).env("WEIGHTLIFT_ROOT", path("root/new/er"));
        command.env("HF_TOKEN_PATH", path("secret/token")).env("HF_HUB_OFFLINE", "1");
        command.current_dir(path("other"));
        places(&command)
    };
    let (models, account) = (path("models.yaml"), path("account"));
    let (root, adopted) = (path("root"), path("adopted"));
    let secrets = ["secret", "home/.aws", "home/.netrc", "other/web-identity"].map(path);
    let rows: [(&[&str], Vec<PathBuf>, Vec<PathBuf>); 5] = [
        (
            &["fetch", "hf://org/x", "--adopt", shown(&adopted)],
            [vec![root.clone(), adopted.clone()], secrets.to_vec()].concat(),
            vec![path("home"), path(""), account.clone()],
        ),
        (
            &[
                "fetch",
                "--models",
                shown(&models),
                "--lock",
                "kubernetes",
                "--service-account",
                shown(&account),
            ],
            vec![root.clone(), path("other"), account.clone(), models.clone()],
            vec![path("home"), adopted.clone()],
        ),
        (&["plan", &other], vec![path("other")], vec![path("home")]),
        (
            &["doctor", &other],
            vec![root.clone(), path("other")],
            vec![path("home"), adopted.clone()],
        ),
        (&["list"], vec![], vec![root, path("secret"), path("home/.netrc")]),
    ];
    for (arguments, asked, unasked) in rows {
        let arguments: Vec<&str> = match arguments[0] {
            // It has no sources, and asks nothing twice.
            "list" => vec!["list", "--deadline", "20s"],
            _ => arguments.to_vec(),
        };
        let mut command = weightlift();
        command.args(&arguments);
        let found = match arguments[0] {
            "list" => {
                command.args(["--sandbox", "files"]).env("WEIGHTLIFT_ROOT", path("root"));
                places(&command)
            }
            _ => run(&arguments),
        };
        for path in asked {
            assert!(found.contains(&path), "{arguments:?}: {} is not in {found:?}", path.display());
        }
        for path in unasked {
            assert!(!found.contains(&path), "{arguments:?}: {} is in {found:?}", path.display());
        }
    }
}

const SUSPECTED: &str =
    "so weightlift's own sandbox may have refused it; if so, set --sandbox off and report it";

#[test]
fn a_file_that_the_sandbox_refuses_is_told_as_such() {
    if !has("strace") || !has_landlock() {
        return;
    }
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    std::fs::create_dir(volume.root()).unwrap();
    let key = volume.path("late/signer.pub");
    let policy = format!("key={}", shown(&key));
    let command = confined(&hub, &volume, &["--verify-signature", &policy]);
    // The process stops when it has its rules, and the directory of the key is made only then.
    let stop = "landlock_restrict_self:signal=SIGSTOP";
    let running = straced(&command, "landlock_restrict_self", &[stop]).start();
    let pid = worker_on(&volume);
    let status = || std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    eventually("the process stops", || status().to_lowercase().contains("state:\tt"));
    std::fs::create_dir(key.parent().unwrap()).unwrap();
    std::fs::copy(fixture("signed/p256.pub"), &key).unwrap();
    signal(pid, "-CONT");
    let run = running.wait().assert_code(2);
    let lines: Vec<&str> = run.stderr.lines().collect();
    let [.., suspicion, last] = lines[..] else { panic!("{}", run.stderr) };
    assert!(last.contains("Permission denied"), "{}", run.stderr);
    assert!(suspicion.contains(SUSPECTED), "{}", run.stderr);
    assert!(suspicion.contains(&format!("`{}` is not one of", shown(&key))), "{}", run.stderr);
}

#[test]
fn the_sandbox_is_not_suspected_where_it_can_have_refused_nothing() {
    if !has("strace") || !has_landlock() {
        return;
    }
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let key = volume.path("signer.pub");
    std::fs::copy(fixture("signed/p256.pub"), &key).unwrap();
    let policy = format!("key={}", shown(&key));
    // The key is one of the places of a confined run; otherwise there are no places.
    for sandbox in ["files", "privileges", "off"] {
        let arguments = ["hf://org/tiny", "--verify-signature", &policy, "--sandbox", sandbox];
        let command = fetch(&hub, &volume, &arguments);
        let run = refused(&command, &key).run().assert_code(2).assert_says("Permission denied");
        assert!(!run.stderr.contains("sandbox"), "{sandbox}: {}", run.stderr);
    }
}

/// `command` under strace, which lets it read nothing of the file at `path`.
fn refused(command: &Command, path: &Path) -> Command {
    let calls = ["-e", "trace=read", "-e", "inject=read:error=EACCES", "-P", shown(path)];
    under(&[&["strace", "-f", "-qq", "-o", "/dev/null"], &calls[..]].concat(), command)
}
