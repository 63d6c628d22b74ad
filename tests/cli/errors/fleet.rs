//! Models files and lock files.

use std::process::Command;

use super::*;
use weightlift_fakes::{FakeHub, Tree};

#[test]
fn a_models_file_or_a_lock_file_is_wrong_or_out_of_date() {
    let tree = |text: &str| Tree::new().with("config.json", text);
    let hub = FakeHub::builder().repo(REPO, tree("{}")).repo("org/other", tree("[]")).start();
    let volume = Volume::new();
    let mut page = Page::new("fleet");
    page.place(hub.url(), "https://hub.example");
    page.volume(&volume);
    let command = |arguments: &[&str]| -> Command {
        let mut command = weightlift();
        command.args(arguments).current_dir(volume.path("")).env("HF_ENDPOINT", hub.url());
        command
    };
    let list = |text: &str| std::fs::write(volume.path("models.yaml"), text).unwrap();
    let models = ["fetch", "--models", "models.yaml"];

    page.case("no models file", 2, &mut command(&models));
    list("version: 1\nmodels:\n  - source: hf://org/tiny\n    nme: tiny\n");
    page.case("a field with a typo", 2, &mut command(&models));
    list("version: 2\nmodels:\n  - source: hf://org/tiny\n");
    page.case("another version", 2, &mut command(&models));
    list("version: 1\nmodels:\n  - source: hf://org/tiny\n  name: tiny\n");
    page.case("wrong indentation", 2, &mut command(&models));
    list("version: 1\nmodels:\n  - source: hf://org/tiny@${BRANCH}\n");
    page.case("a variable that is not set", 2, &mut command(&models));
    list(
        "version: 1\nmodels:\n  - source: hf://org/tiny\n  - source: hf://org/other\n    name: tiny\n",
    );
    page.case("two models with one name", 2, &mut command(&models));

    list("version: 1\nmodels:\n  - source: hf://org/tiny\n");
    page.case(
        "a model that is not in the file",
        2,
        &mut command(&[&models[..], &["--only", "llama"]].concat()),
    );
    page.case(
        "a flag that the file has for each model",
        2,
        &mut command(&[&models[..], &["--all"]].concat()),
    );
    page.case("no lock file", 2, &mut command(&["fetch", "--locked", "models.lock"]));
    page.case(
        "a check against no lock file",
        2,
        &mut command(&["pin", "--models", "models.yaml", "--check"]),
    );
    page.case("nothing to pin", 2, &mut command(&["pin"]));
    command(&["pin", "--models", "models.yaml"]).run().assert_success();
    let moved = hub.commit(REPO);
    hub.move_branch(REPO, "main", tree("{\"moved\": true}"));
    assert_ne!(hub.commit(REPO), moved);
    page.case(
        "the source has moved since it was pinned",
        16,
        &mut command(&["pin", "--models", "models.yaml", "--check"]),
    );
    std::fs::write(volume.path("models.lock"), "{\"version\": 7}").unwrap();
    page.case(
        "a lock file of another version",
        2,
        &mut command(&["fetch", "--locked", "models.lock"]),
    );
    page.compare();
}
