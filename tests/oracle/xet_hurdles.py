"""What can stand in the way of an update that copies what lies on the volume."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from xet_lab import Lab


def nothing(lab: Lab, repo: str, root: Path) -> None:
    pass


def old_commit_gone(lab: Lab, repo: str, root: Path) -> None:
    """As when the history of a repo is squashed."""
    del lab.world.commits[repo][:-1]


def old_file_damaged(lab: Lab, repo: str, root: Path) -> None:
    """A byte that the new file has as well, and the time stays as it was."""
    old = lab.model().resolve() / "model.bin"
    times = old.stat()
    with old.open("r+b") as file:
        file.seek(10_000_000)
        byte = file.read(1)[0]
        file.seek(10_000_000)
        file.write(bytes([byte ^ 1]))
    os.utime(old, ns=(times.st_atime_ns, times.st_mtime_ns))


def old_file_cut(lab: Lab, repo: str, root: Path) -> None:
    with (lab.model().resolve() / "model.bin").open("r+b") as file:
        file.truncate(60_000_000)


def hashes_not_told(lab: Lab, repo: str, root: Path) -> None:
    """As in what was published by versions that did not write them down."""
    path = lab.model().resolve() / ".weightlift-complete.json"
    sentinel = json.loads(path.read_text())
    for file in sentinel["files"]:
        file.pop("xet_hash", None)
    path.chmod(0o644)
    path.write_text(json.dumps(sentinel))


@dataclass(frozen=True)
class Hurdle:
    name: str
    raised: Callable[[Lab, str, Path], None] = nothing
    # How the servers behave during the update.
    habits: dict = field(default_factory=dict)
    flags: tuple = ()
    # Whether only new bytes are fetched all the same; else the file as a whole, once.
    is_passed: bool = False
    # Whether the user is told.
    is_said: bool = False


HURDLES = (
    Hurdle("in a cache of the Hub's clients", flags=("--layout", "hf-cache"), is_passed=True),
    Hurdle("by Xet alone, in whole ranges", habits={"whole_ranges": True, "bridge_refuses": True},
           flags=("--xet", "always"), is_passed=True),
    Hurdle("a store of the first version, without batches", is_passed=True,
           habits={"cas_is_v1": True, "no_batch": True}),
    Hurdle("the sentinel without Xet hashes", hashes_not_told, is_passed=True),
    Hurdle("the store refuses", habits={"cas_refuses": True}, is_said=True),
    Hurdle("the old commit is gone", old_commit_gone),
    Hurdle("the old file is damaged", old_file_damaged),
    Hurdle("the old file is cut", old_file_cut),
    Hurdle("--xet never", flags=("--xet", "never")),
)
