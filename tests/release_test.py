#!/usr/bin/env python3
"""Checks what makes a release: `.ci/version`, `.ci/pack` and the workflows, in copies of the project.

    python3 tests/release_test.py

WEIGHTLIFT_TEST_JACTIONLINT names the checker of workflows (`pip install jactionlint`); without it that part says so
and is skipped, or fails where WEIGHTLIFT_TEST_NO_SKIP is set.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import running

ROOT = Path(__file__).resolve().parent.parent
COPIED = (".ci", ".github", "charts", "docs", "manifests", "Cargo.lock", "Cargo.toml", "CHANGELOG.md", "Dockerfile",
          "LICENSE", "README.md", "SECURITY.md", "rust-toolchain.toml")  # fmt: skip
RELEASE = ".github/workflows/release.yaml"
CI = ".github/workflows/ci.yaml"


class Project:
    """A copy that may be broken."""

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory()
        self.root = Path(self.directory.name)
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, self.root / name)
        self.version = self.run("version").stdout.strip()
        return self

    def __exit__(self, *_):
        self.directory.cleanup()

    def run(self, program, *arguments):
        return subprocess.run([self.root / ".ci" / program, *arguments], text=True, capture_output=True, timeout=60)

    def read(self, path):
        return (self.root / path).read_text()

    def replace(self, path, old, new):
        text = self.read(path)
        assert old in text, f"{path} has no {old!r}"
        (self.root / path).write_text(text.replace(old, new, 1))


def every_place_has_the_version_of_cargo_toml():
    with Project() as project:
        assert re.fullmatch(r"\d+\.\d+\.\d+(-.+)?", project.version), project.version
        run = project.run("version", "--check")
        assert run.returncode == 0, run.stderr


def a_place_that_is_forgotten_is_named():
    image = "ghcr.io/weightlift/weightlift:"
    with Project() as project:
        version = project.version
    broken = [
        ("Cargo.toml", f'version = "{version}"', 'version = "9.9.9"', "README.md"),
        ("Cargo.lock", f'name = "weightlift"\nversion = "{version}"', 'name = "weightlift"\nversion = "9.9.9"', "Cargo.lock"),
        ("charts/weightlift/Chart.yaml", f"\nversion: {version}", "\nversion: 9.9.9", "charts/weightlift/Chart.yaml"),
        ("charts/weightlift/Chart.yaml", f"appVersion: {version}", "appVersion: 9.9.9", "charts/weightlift/Chart.yaml"),
        ("charts/weightlift/Chart.yaml", "appVersion:", "appversion:", "charts/weightlift/Chart.yaml"),
        ("charts/weightlift/README.md", f"{image}{version}", f"{image}9.9.9", "charts/weightlift/README.md"),
        ("Dockerfile", f"ARG VERSION={version}", "ARG VERSION=9.9.9", "Dockerfile"),
        ("SECURITY.md", f"\nversion={version}", "\nversion=9.9.9", "SECURITY.md"),
        ("Dockerfile", f"{image[:-1]}:{version}", f"{image}9.9.9", "Dockerfile"),
        ("README.md", f"{image}{version}", f"{image}{version}1", "README.md"),
        ("README.md", f"{image}{version}", image[:-1], "README.md"),
        ("docs/servers.md", f"{image}{version}", f"{image}latest", "docs/servers.md"),
        ("manifests/base/20-job-download-weights.yaml", f"{image}{version}", f"{image}9.9.9", "manifests/base/20-job-download-weights.yaml"),
        ("manifests/components/prune/cronjob.yaml", f"{image}{version}", f"{image}9.9.9", "manifests/components/prune/cronjob.yaml"),
        ("rust-toolchain.toml", 'channel = "1.', 'channel = "9.', "Dockerfile"),
        ("Dockerfile", "library/rust:1.", "library/rust:9.", "Dockerfile"),
        (CI, "library/rust:1.", "library/rust:9.", CI),
        ("Cargo.toml", 'rust-version = "1.', 'rust-version = "9.', "Cargo.toml"),
    ]
    for path, old, new, named in broken:
        with Project() as project:
            project.replace(path, old, new)
            run = project.run("version", "--check")
            assert run.returncode == 1 and named in run.stderr, f"{path}, {new}: {run.returncode} {run.stderr}"


def a_new_version_is_written_to_every_place():
    with Project() as project:
        old = project.version
        for wanted in ["1.2.3", "1.3.0-rc.1", "10.0.0"]:
            run = project.run("version", "--set", wanted)
            assert run.returncode == 0, run.stderr
            assert project.run("version").stdout == f"{wanted}\n"
            assert project.run("version", "--check").returncode == 0
        mine = [path for path in project.root.rglob("*") if path.is_file() and path.name not in ("Cargo.lock", "CHANGELOG.md")]
        left = [path for path in mine if f"weightlift:{old}" in path.read_text(errors="ignore")]
        assert not left, left
        for wrong in ["1.2", "v1.2.3", "01.2.3", "latest", "1.2.3\n"]:
            assert project.run("version", "--set", wrong).returncode != 0, wrong
        assert project.run("version").stdout == "10.0.0\n"


def a_tag_is_released_only_with_its_version_and_its_notes():
    with Project() as project:
        version = project.version
        refused = project.run("version", "--check", f"v{version}")
        assert (refused.returncode == 0) == (f"\n## {version}" in project.read("CHANGELOG.md")), refused.stderr
        project.replace("CHANGELOG.md", "## Unreleased\n", f"## Unreleased\n\n## {version} (2026-12-01)\n\n- It lifts.\n\n## 0.0.1\n\n")
        assert project.run("version", "--check", f"v{version}").returncode == 0
        assert project.run("version", "--notes").stdout == "- It lifts.\n"
        for tag in [version, f"v{version}.1", "v9.9.9", ""]:
            assert project.run("version", "--check", tag).returncode == 1, tag
        project.replace("CHANGELOG.md", "- It lifts.\n", "")
        assert project.run("version", "--notes").returncode == 1, "notes without a word"


def elf(machine, interpreter=False):
    """A program of 64 bits without content, and with the header of a dynamic loader if asked for."""
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + (3).to_bytes(2, "little") + machine.to_bytes(2, "little")
    header += (1).to_bytes(4, "little") + bytes(8) + (64).to_bytes(8, "little") + bytes(8) + bytes(4)
    header += b"".join(n.to_bytes(2, "little") for n in (64, 56, 1, 0, 0, 0))
    kind = 3 if interpreter else 1
    program = kind.to_bytes(4, "little") + (4).to_bytes(4, "little") + (120).to_bytes(8, "little") * 3
    program += (28).to_bytes(8, "little") * 2 + (1).to_bytes(8, "little")
    return header + program + b"/lib64/ld-linux-x86-64.so.2\0"


# Stands in for the program, as far as .ci/pack runs it.
GENERATOR = """#!/bin/sh
case "$1 $2" in
  "generate completions") echo "script for $3" ;;
  "generate man") mkdir -p "$3" && echo page >"$3/weightlift.1" ;;
  *) exit 1 ;;
esac
"""


def the_archives_are_the_same_each_time_and_hold_the_right_binaries():
    made, sums = {"amd64": elf(0x3E), "arm64": elf(0xB7)}, []
    with Project() as project:

        def pack(into, **changed):
            for arch, binary in {**made, **changed}.items():
                path = project.root / "made" / f"linux_{arch}" / "weightlift"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(binary)
                path.chmod(0o700)
            program = project.root / "program"
            program.write_text(GENERATOR)
            program.chmod(0o700)
            return project.run("pack", project.root / "made", project.root / into, "1.2.3", "1750000000", program)

        for into in ["one", "two"]:
            run = pack(into)
            assert run.returncode == 0, run.stderr
            names = sorted(path.name for path in (project.root / into).iterdir())
            assert names == [f"weightlift-1.2.3-linux-{arch}.tar.gz" for arch in ("amd64", "arm64")], names
            sums.append([hashlib.sha256((project.root / into / name).read_bytes()).digest() for name in names])
            shutil.rmtree(project.root / "made")
        assert sums[0] == sums[1]
        listed = subprocess.run(["tar", "--list", "--verbose", "-zf", project.root / "one" / "weightlift-1.2.3-linux-arm64.tar.gz"],
                                text=True, capture_output=True, check=True).stdout.splitlines()  # fmt: skip
        assert [(line.split()[0], line.split()[1], line.split()[-1]) for line in listed] == [
            ("drwxr-xr-x", "0/0", "weightlift-1.2.3-linux-arm64/"),
            ("-rw-r--r--", "0/0", "weightlift-1.2.3-linux-arm64/LICENSE"),
            ("drwxr-xr-x", "0/0", "weightlift-1.2.3-linux-arm64/completions/"),
            ("-rw-r--r--", "0/0", "weightlift-1.2.3-linux-arm64/completions/_weightlift"),
            ("-rw-r--r--", "0/0", "weightlift-1.2.3-linux-arm64/completions/weightlift.bash"),
            ("-rw-r--r--", "0/0", "weightlift-1.2.3-linux-arm64/completions/weightlift.fish"),
            ("drwxr-xr-x", "0/0", "weightlift-1.2.3-linux-arm64/man/"),
            ("-rw-r--r--", "0/0", "weightlift-1.2.3-linux-arm64/man/weightlift.1"),
            ("-rwxr-xr-x", "0/0", "weightlift-1.2.3-linux-arm64/weightlift"),
        ], listed
        shown = subprocess.run(["tar", "--to-stdout", "-xzf", project.root / "one" / "weightlift-1.2.3-linux-arm64.tar.gz",
                                "weightlift-1.2.3-linux-arm64/completions/_weightlift"],
                               text=True, capture_output=True, check=True).stdout  # fmt: skip
        assert shown == "script for zsh\n", shown
        for wrong, word in [(elf(0x3E), "not for arm64"), (elf(0xB7, interpreter=True), "not static"), (b"no program", "not for arm64")]:
            run = pack("three", arm64=wrong)
            assert run.returncode != 0 and word in run.stderr, f"{word}: {run.returncode} {run.stderr}"


def workflows(project):
    program = os.environ.get("WEIGHTLIFT_TEST_JACTIONLINT") or shutil.which("jactionlint")
    if program is None:
        return None
    # The compiler's image is named by its version, which `.ci/version` compares. A job with a token takes it by digest.
    found = subprocess.run([program, "--ignore=unpinned-images", ".github/workflows/ci.yaml", RELEASE],
                           cwd=project.root, text=True, capture_output=True, timeout=120)  # fmt: skip
    return found.returncode, found.stdout


def the_workflows_are_sound():
    with Project() as project:
        found = workflows(project)
        if found is None:
            if os.environ.get("WEIGHTLIFT_TEST_NO_SKIP"):
                raise AssertionError("jactionlint is missing")
            return "jactionlint is missing: pip install jactionlint"
        assert found[0] == 0, found[1]
    broken = [
        (RELEASE, "needs: [version, image]", "needs: [version, imag]", "imag"),
        (RELEASE, "steps.push.outputs.digest", "steps.pushed.outputs.digest", "pushed"),
        (RELEASE, "de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2", "v6.0.2", "unpinned-uses"),
        (RELEASE, "    shell: bash # with pipefail\n", "    shell: sh\n", "helm"),
        (RELEASE, "tags: [", "tag: [", "tag"),
        (CI, "contents: read", "contents: wrote", "wrote"),
        (CI, "    timeout-minutes: 180\n", "", "timeout"),
        (CI, "persist-credentials: false", "persist-credential: false", "persist-credential"),
    ]
    for path, old, new, word in broken:
        with Project() as project:
            project.replace(path, old, new)
            code, said = workflows(project)
            assert code != 0 and word in said, f"{path}, {new!r}: {code} {said}"
    return None


# Stands in for cargo: `deny fetch db` cannot reach the database, or finds it; the check finds nothing.
CARGO = """#!/bin/sh
case "$2" in
  fetch) test -n "$REACHED" || { echo "fatal: unable to access 'https://github.com/'" >&2; exit 1; } ;;
esac
"""


def advisories_are_required_where_a_release_depends_on_them():
    with Project() as project:
        (project.root / "bin").mkdir()
        (project.root / "bin/cargo").write_text(CARGO)
        (project.root / "bin/cargo").chmod(0o700)
        path = f"{project.root}/bin:{os.environ['PATH']}"
        for reached, wanted, code, word in [
            ("", "", 0, "skipped: "),
            ("", "required", 1, "cannot be reached, and WEIGHTLIFT_ADVISORIES is `required`"),
            ("1", "required", 0, ""),
        ]:
            env = {**os.environ, "PATH": path, "REACHED": reached, "WEIGHTLIFT_ADVISORIES": wanted}
            run = subprocess.run([project.root / ".ci/advisories"], env=env, text=True, capture_output=True, timeout=60)
            assert (run.returncode, word in run.stdout + run.stderr) == (code, True), f"{reached!r}, {wanted!r}: {run}"
    text = (ROOT / CI).read_text()
    assert re.search(r"(?m)^  schedule:\n    - cron: ", text), "nothing runs without a commit"
    (required,) = re.findall(r"WEIGHTLIFT_ADVISORIES: \$\{\{ \((.*?)\) && 'required' \|\| '' \}\}", text)
    assert required == "github.event_name == 'schedule' || github.ref_type == 'tag'", required
    assert "WEIGHTLIFT_CI_LONG: ${{ github.event_name == 'schedule' && '1' || '' }}" in text
    assert "uses: ./.github/workflows/ci.yaml" in (ROOT / RELEASE).read_text() and "tags:" in (ROOT / RELEASE).read_text()


def an_image_that_a_reader_builds_names_its_commit():
    for page in ["README.md", "docs/quickstart.md", "manifests/README.md", "charts/weightlift/README.md"]:
        for build in re.findall(r"(?m)^docker build .*$", (ROOT / page).read_text()):
            assert '--build-arg REVISION="$(git rev-parse HEAD)"' in build, f"{page}: {build}"


def every_job_has_the_least_rights():
    """Who may write what; a job that is added has to be added here."""
    text = (ROOT / RELEASE).read_text()
    for each in [text, (ROOT / CI).read_text()]:
        assert "\npermissions: {}\n" in each, "what a job does not ask for, it does not have"
    jobs = re.split(r"(?m)^  (\w+):\n", text[text.index("\njobs:\n") + 7 :])[1:]
    found = {name: re.findall(r"(?m)^      ([a-z-]+): (read|write)\b", body.split("steps:")[0])
             for name, body in zip(jobs[::2], jobs[1::2], strict=True)}  # fmt: skip
    read, sign = ("contents", "read"), ("id-token", "write")
    push = ("packages", "write")
    assert found == {
        "version": [read],
        "checks": [read],
        "image": [read, push, sign],
        "chart": [read, push, sign],
        "page": [("contents", "write"), sign],
    }, found


TESTS = [
    every_place_has_the_version_of_cargo_toml,
    a_place_that_is_forgotten_is_named,
    a_new_version_is_written_to_every_place,
    a_tag_is_released_only_with_its_version_and_its_notes,
    the_archives_are_the_same_each_time_and_hold_the_right_binaries,
    the_workflows_are_sound,
    advisories_are_required_where_a_release_depends_on_them,
    an_image_that_a_reader_builds_names_its_commit,
    every_job_has_the_least_rights,
]


def main():
    return running.run(TESTS)


if __name__ == "__main__":
    sys.exit(main())
