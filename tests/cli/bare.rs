//! What a container without a shell, a home and a name for its user has: the binary, its arguments, and a volume
//! that a group may write.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::support::*;

/// As OpenShift gives them: no account has this number, and the group is root's.
const ANY_USER: u32 = 1_000_650_000;

#[test]
fn each_command_runs_as_a_user_that_has_no_name_with_nothing_in_its_environment() {
    if !is_root() {
        return;
    }
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    // The binary may lie where this user cannot look.
    let copy = volume.path("weightlift");
    copy_binary(&copy);
    open(&volume.path(""), 0o755);
    std::fs::create_dir(volume.root()).unwrap();
    chown(volume.root(), Some(0), Some(0)).unwrap();
    open(&volume.root(), 0o2775);
    let root = volume.root();
    let (root, family) = (root.to_str().unwrap(), volume.family("tiny"));
    let family = family.to_str().unwrap();
    let lock = format!("{root}/models.lock");
    for arguments in [
        &["plan", "hf://org/tiny", "--root", root][..],
        &["fetch", "hf://org/tiny", "--root", root],
        &["fetch", "hf://org/tiny", "--root", root],
        &["verify", family],
        &["wait", family, "--timeout", "1s"],
        &["list", "--root", root],
        &["prune", "--root", root, "--yes"],
        &["pin", "hf://org/tiny", "tiny", "--locked", &lock],
        &["fetch", "--locked", &lock, "--root", root],
        &["fetch", "hf://org/tiny", "--root", root, "--layout", "hf-cache"],
    ] {
        let mut command = Command::new(&copy);
        command.args(arguments).env_clear().env("HF_ENDPOINT", hub.url());
        command.uid(ANY_USER).gid(0).current_dir("/");
        command.run().assert_success();
    }
    volume.assert_holds("tiny", &tiny_selected());
}
