#!/usr/bin/env python3
"""Runs what the pages show in `console` boxes, and compares what is printed with what they say.

    WEIGHTLIFT_TEST_BIN=… python3 tests/pages_test.py

WEIGHTLIFT_TEST_HUB names the fake Hub (`cargo build -p weightlift-fakes --bin fake-hub`); without it the one beside the
debug build is taken. Without either program the test says so and is skipped, or fails where WEIGHTLIFT_TEST_NO_SKIP is
set. A line that begins with `$ ` is run; the lines behind it are what it prints, standard output and error as they
come. Digests, rates, times and free space may differ.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["docs/quickstart.md", "docs/scripting.md"]
FIXTURE = ROOT / "fixtures/tiny"
EXAMPLE = "/home/ada"  # where the reader of the pages is
MAY_DIFFER = [
    (r"\b[0-9a-f]{12,64}\b", "<digest>"),
    (r"\b\d+\.\d [kMGT]?B free\b", "<room> free"),
    (r"\b\d+\.\d [kMGT]?B/s\b", "<rate>"),
    (r"\bin \d+\.\ds\b", "in <time>"),
]


def steps(text):
    """Of each box the commands with the lines that they print, in order."""
    for box in re.findall(r"(?ms)^```console\n(.*?)^```$", text):
        for step in re.split(r"(?m)^\$ ", box)[1:]:
            command, _, printed = step.partition("\n")
            yield command, printed.splitlines()


def alike(line):
    for pattern, word in MAY_DIFFER:
        line = re.sub(pattern, word, line)
    return line


def differences(text, binary, hub, planted=""):
    """Runs the boxes of a page in an empty directory; what differs, with `planted` behind each line that is expected."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory).resolve()
        (home / "bin").mkdir()
        (home / "bin/weightlift").symlink_to(binary)
        # Nothing of the caller's settings but PATH: what a page shows follows from what it says.
        env = {"HOME": str(home), "PATH": f"{home}/bin:{os.environ['PATH']}", "NO_PROXY": "127.0.0.1", "LC_ALL": "C.UTF-8"}
        server = subprocess.Popen([hub, "--repo", f"org/tiny={FIXTURE}"], stdout=subprocess.PIPE, text=True)
        try:
            name, _, url = server.stdout.readline().strip().partition("=")
            assert name == "HF_ENDPOINT", name
            env[name] = url
            for command, expected in steps(text):
                run = subprocess.run(["bash", "-c", command], cwd=home, env=env, text=True, timeout=120,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
                printed = run.stdout.replace(str(home), EXAMPLE).splitlines()
                if [alike(line) for line in printed] != [alike(line) + planted for line in expected]:
                    yield "\n  ".join([f"$ {command}", "is said to print", *expected, "and prints", *printed])
        finally:
            server.kill()
            server.wait()


def programs():
    binary = os.environ.get("WEIGHTLIFT_TEST_BIN") or shutil.which("weightlift")
    builds = sorted(ROOT.glob("target/*/debug/fake-hub"))
    hub = os.environ.get("WEIGHTLIFT_TEST_HUB") or (str(builds[0]) if builds else None)
    return binary and Path(binary).resolve(), hub


def main():
    binary, hub = programs()
    if not binary or not hub:
        print("skipped: the binary or the fake Hub is missing")
        return 1 if os.environ.get("WEIGHTLIFT_TEST_NO_SKIP") else 0
    failed = 0
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        found = list(differences(text, binary, hub))
        count = len(list(steps(text)))
        assert count >= 5, f"{page}: {count} commands"
        # A page that says something else is noticed, at each command.
        noticed = list(differences(text, binary, hub, planted="!"))
        if found or len(noticed) != count:
            failed += 1
            print(f"FAILED  {page}: {len(noticed)} of {count} planted faults are noticed", *found, sep="\n")
        else:
            print(f"ok      {page}: {count} commands")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
