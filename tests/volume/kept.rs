//! What is kept serves the pod that asks for it, whatever has become of the model directory.

use std::path::PathBuf;

use super::link::{Pod, revision};
use crate::support::*;
use weightlift_fakes::FakeHub;

fn pinned(commit: &str) -> String {
    format!("hf://org/tiny@{commit}")
}

/// A volume that shows the second revision and keeps the first, and the commits of both. The Hub has another
/// model as well.
fn two() -> (Pod, [String; 2]) {
    let hub = FakeHub::builder().repo(REPO, revision(1)).repo("org/other", revision(9)).start();
    let pod = Pod { hub, ..Pod::new() };
    let (one, two) = (pod.publish(1), pod.publish(2));
    pod.hub.log().clear();
    (pod, [one, two])
}

fn link(pod: &Pod, name: &str) -> PathBuf {
    pod.volume.path(&format!("pod/{name}"))
}

/// Where nobody answers.
const NO_HUB: (&str, &str) = ("HF_ENDPOINT", "http://127.0.0.1:9");

/// A fetch that leads the link `name` to what it has found.
fn linked(pod: &Pod, name: &str, arguments: &[&str]) -> std::process::Command {
    let link = link(pod, name);
    pod.fetch(&[arguments, &["--link", link.to_str().unwrap()]].concat())
}

#[test]
fn a_pod_finds_its_revision_also_where_another_model_is_shown() {
    let (pod, [one, _]) = two();
    let (pin, other) = (pinned(&one), "hf://org/other");
    linked(&pod, "old", &[&pin]).run().assert_success();
    linked(&pod, "new", &[other, "tiny", "--replace"]).run().assert_success();
    pod.volume.assert_holds("tiny", &revision(9));
    let shown = std::fs::read_link(pod.volume.family("tiny")).unwrap();
    pod.hub.log().clear();
    for more in [&[][..], &["--recheck"]] {
        std::fs::remove_file(link(&pod, "old")).unwrap();
        let run = linked(&pod, "old", &[&[pin.as_str(), "tiny"], more].concat()).run();
        run.assert_success().assert_says("nothing to do");
        assert_tree(&link(&pod, "old"), &revision(1));
        assert_eq!(std::fs::read_link(pod.volume.family("tiny")).unwrap(), shown);
    }
    assert_eq!(pod.hub.requests().len(), 0);
    // Whoever would read the directory, follows a branch, or wants what is not kept, is told of the other model.
    pod.fetch(&[&pin, "tiny"]).run().assert_code(16);
    linked(&pod, "old", &["hf://org/tiny", "tiny"]).run().assert_code(16);
    linked(&pod, "old", &[&pinned(&"c".repeat(40)), "tiny"]).run().assert_code(16);
    linked(&pod, "old", &[&pin, "tiny", "--include", "none.bin"]).run().assert_code(16);
    // A kept revision that is damaged is none.
    let kept = std::fs::read_link(link(&pod, "old")).unwrap().join("config.json");
    std::fs::write(&kept, "{\"revision\": 3}").unwrap();
    linked(&pod, "old", &[&pin, "tiny", "--recheck"]).run().assert_code(16);
    std::fs::remove_file(&kept).unwrap();
    linked(&pod, "old", &[&pin, "tiny"]).run().assert_code(16);
    pod.volume.assert_holds("tiny", &revision(9));
}

#[test]
fn a_pinned_revision_that_is_kept_serves_where_the_name_of_the_model_is_gone() {
    let (pod, [one, two]) = two();
    let family = pod.volume.family("tiny");
    let remove = || std::fs::remove_file(&family).unwrap();
    let wait = |expected: &str, more: &[&str]| {
        let mut command = weightlift();
        command.arg("wait").arg(&family).args(["--timeout", "1s", "--expect-revision", expected]);
        command.args(more).run()
    };
    let waiting = link(&pod, "waiting");
    let led = ["--link", waiting.to_str().unwrap()];
    remove();
    wait(&one, &led).assert_success();
    assert_tree(&waiting, &revision(1));
    wait(&"c".repeat(40), &led).assert_code(23).assert_says("does not exist");
    // Whoever is not led to it would find nothing at PATH.
    wait(&one, &[]).assert_code(23);
    for (commit, n, is_linked) in [(&one, 1, true), (&two, 2, false), (&one, 1, false)] {
        let pin = pinned(commit);
        let command = match is_linked {
            true => linked(&pod, "server", &[&pin]),
            false => pod.fetch(&[&pin]),
        };
        let run = { command }.env(NO_HUB.0, NO_HUB.1).run().assert_success();
        run.assert_says("kept on the volume, nothing fetched");
        pod.volume.assert_holds("tiny", &revision(n));
        if is_linked {
            assert_tree(&link(&pod, "server"), &revision(n));
        }
        remove();
    }
    assert_eq!(pod.hub.requests().len(), 0);
    pod.volume.assert_clean();
    // Somebody may have removed what was wrong: what is kept is hashed before it serves.
    let all = list(&pod.volume.root().join(".weightlift/revisions/tiny"));
    let weights = all.iter().map(|it| it.join("weights.bin"));
    weights.for_each(|path| {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[7] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    });
    pod.fetch(&[&pinned(&one)]).run().assert_success().assert_says("is damaged");
    pod.volume.assert_holds("tiny", &revision(1));
}

#[test]
fn a_damaged_model_does_not_keep_a_pod_from_the_pinned_revision_that_is_kept() {
    let (pod, [one, _]) = two();
    std::fs::remove_file(pod.volume.family("tiny").join("weights.bin")).unwrap();
    let mut command = linked(&pod, "server", &[&pinned(&one)]);
    command.env(NO_HUB.0, NO_HUB.1).run().assert_success();
    assert_tree(&link(&pod, "server"), &revision(1));
}

#[test]
fn going_back_to_a_kept_revision_removes_those_that_are_let_go() {
    let (pod, [one, _]) = two();
    assert_eq!(pod.kept().len(), 1);
    let run = pod.fetch(&[&pinned(&one), "--keep-revisions", "0"]).run().assert_success();
    run.assert_says("removed 1 kept revision of ");
    pod.volume.assert_holds("tiny", &revision(1));
    assert_eq!(pod.kept(), Vec::<PathBuf>::new());
    pod.volume.assert_clean();
    // Who is led beside what is shown takes nothing from the others.
    pod.publish(2);
    linked(&pod, "server", &[&pinned(&one), "--keep-revisions", "0"]).run().assert_success();
    assert_eq!(pod.kept().len(), 1);
}
