"""Runs what is pasted: the program as an init container would, and then the server's path, link by link.

The container is a directory that the program is locked into (`chroot`), with its mounts and its user; the
volumes are as a kubelet leaves them: a claim belongs to root and the pod's fsGroup, an emptyDir to everybody.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path

from . import program
from .pasted import ROOT, pods
from .reading import after

ENGINES = {"llama/config.pbtxt": "max_batch_size: 8", "llama/1/rank0.engine": "an engine", "tokenizer/1/model.py": "x"}
GGUFS = {f"Qwen3-1.7B-{kind}.gguf": kind for kind in ("Q4_0", "Q4_K_M", "Q8_0", "UD-Q4_K_XL")} | {"config.json": "{}"}


def the_server_finds_what_was_fetched(texts):
    binary = program.binary()
    if not binary:
        print("skipped: WEIGHTLIFT_TEST_BIN is not set")
    if not binary or not can_run():
        return
    with tempfile.TemporaryDirectory() as place, fakes(Path(place), pods(texts)) as endpoints:
        for n, pod in enumerate([*pods(texts), *in_other_words(texts)]):
            root = Path(place, f"pod-{n}")
            directories = run_init(pod, binary, root, endpoints)
            found = seen(pod, pod.loads(), directories)
            assert_right(pod, found)


# What the prose of both pages says that works as well, and what has to be written for it.
OTHER_WORDS = {
    "the pod's own fsGroup": [("fsGroup: 65532", "fsGroup: 1000")],
    "without the link": [
        ("llama-3-8b, --link, /model/current]", "llama-3-8b]"),
        ("args: [/model/current", "args: [/data/models/llama-3-8b"),
        ("      - {name: model, mountPath: /model}\n", ""),
        ("      - {name: model, mountPath: /model, readOnly: true}\n", ""),
    ],
    "the volume at another path": [
        ("--link, /model/current]", "--link, /model/current, --link-root, /models]"),
        ("- {name: models, mountPath: /data/models, readOnly", "- {name: models, mountPath: /models, readOnly"),
    ],
}


def in_other_words(texts):
    for name, changes in OTHER_WORDS.items():
        text = texts["README.md"]
        for old, new in changes:
            assert old in text, f"README.md has no {old}"
            text = text.replace(old, new)
        for pod in pods(texts | {"README.md": text}):
            if pod.where.startswith("README"):
                pod.where += f", {name}"
                yield pod


def can_run():
    lacks = "root" if os.geteuid() else "" if fake("fake-hub") and fake("fake-s3") else "the fake Hub and S3"
    if lacks and os.environ.get("WEIGHTLIFT_TEST_NO_SKIP"):
        raise AssertionError(f"{lacks} is missing: cargo build -p weightlift-fakes --bins")
    if lacks:
        print(f"skipped: what is pasted is not run: {lacks} is missing")
    return not lacks


def fake(name):
    there = [ROOT / "target", Path(os.environ.get("WEIGHTLIFT_TEST_FAKES", "/nowhere"))]
    found = [path for at in there for path in (*at.glob(f"*/*/{name}"), *at.glob(name))]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def sources(pod):
    """Of the pod; where it only waits, of the Job that it waits for."""
    args = pod.weightlift()["args"]
    if args[0] == "fetch":
        return args[1]
    (name,) = after(pod.server()["command"], "--served-model-name")
    return f"hf://{name}@main"


@contextlib.contextmanager
def fakes(place, all_pods):
    """A Hub that has every repo that is named, and the bucket. Gives their variables."""
    for directory, files in (("ggufs", GGUFS), ("bucket", {f"triton/{path}": text for path, text in ENGINES.items()})):
        for path, text in files.items():
            (place / directory / path).parent.mkdir(parents=True, exist_ok=True)
            (place / directory / path).write_text(text)
    found = sorted({re.fullmatch(r"hf://([\w.-]+/[\w.-]+)@\w+", s)[1] for s in map(sources, all_pods) if s.startswith("hf:")})
    hub = [fake("fake-hub")]
    for repo in found:
        hub += ["--repo", f"{repo}={place / 'ggufs' if repo.endswith('-GGUF') else ROOT / 'fixtures/tiny'}"]
    with contextlib.ExitStack() as stack:
        endpoints = {}
        for command in (hub, [fake("fake-s3"), "--bucket", f"acme-models={place / 'bucket'}"]):
            started = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(started.kill)
            name, _, url = started.stdout.readline().strip().partition("=")
            endpoints[name] = url
        endpoints |= {"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
        yield endpoints


def run_init(pod, binary, root, endpoints):
    """Gives the directory of each volume."""
    ours, directories, group = pod.weightlift(), {}, pod.spec.get("securityContext", {}).get("fsGroup")
    root.mkdir()
    shutil.copy(binary, root / "weightlift")
    for mount in ours["volumeMounts"]:
        directory = root / mount["mountPath"].lstrip("/")
        directory.mkdir(parents=True)
        if "emptyDir" in pod.volumes()[mount["name"]]:
            directory.chmod(0o777)
        elif group:
            os.chown(directory, 0, group)
            directory.chmod(0o2775)
        directories[mount["name"]] = directory
    source, dest = pinned(sources(pod), endpoints), ours["args"][2:]
    if ours["args"][0] == "wait":
        # The Job's own pod mounts the claim to write.
        directories["model-storage"].chmod(0o777)
        call(root, endpoints, pod, ["fetch", source, Path(ours["args"][1]).name])
        call(root, endpoints, pod, [*ours["args"], "--timeout", "10s"])
    else:
        for mount in (mount for mount in ours["volumeMounts"] if mount.get("readOnly")):
            directories[mount["name"]].chmod(0o555)
        call(root, endpoints, pod, ["fetch", source, *dest])
    return directories


def pinned(source, endpoints):
    """With the commit that the fake has in place of the one that the real Hub has."""
    repo, commit, digits = source.removeprefix("hf://").partition("@")
    if not source.startswith("hf://") or len(digits) != 40:
        return source
    with urllib.request.urlopen(f"{endpoints['HF_ENDPOINT']}/api/models/{repo}/revision/main", timeout=30) as answer:
        return f"hf://{repo}@{json.load(answer)['sha']}"


def call(root, endpoints, pod, args):
    context, group = pod.weightlift().get("securityContext", {}), pod.spec.get("securityContext", {}).get("fsGroup")
    user = context.get("runAsUser", 65532)  # the image's own
    groups = [f"--groups={group}"] if group else ["--groups="]
    chroot = shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin:/bin")
    command = [chroot, f"--userspec={user}:65532", *groups, root, "/weightlift", *args]
    done = subprocess.run(command, env=endpoints, capture_output=True, text=True, timeout=120, umask=0o022)
    assert done.returncode == 0, f"{pod.where}: {args}: {done.returncode}: {done.stderr}"


def seen(pod, path, directories):
    """Where a path of the server lies, by its mounts alone."""
    mounts = {m["mountPath"]: directories[m["name"]] for m in pod.server()["volumeMounts"] if m["name"] in directories}
    for _ in range(8):
        at = max((at for at in mounts if f"{path}/".startswith(f"{at}/")), key=len, default=None)
        assert at, f"{pod.where}: the server has no {path}"
        here, inside = mounts[at], at
        for n, part in enumerate(parts := Path(path).relative_to(at).parts):
            here, outside, inside = here / part, inside, f"{inside}/{part}"
            if here.is_symlink():
                path = os.path.normpath(Path(outside, os.readlink(here), *parts[n + 1 :]))
                break
        else:
            assert here.exists(), f"{pod.where}: there is no {path}"
            return here
    raise AssertionError(f"{pod.where}: {path} leads nowhere")


def assert_right(pod, found):
    if found.suffix == ".gguf":
        assert found.read_text() == "Q4_K_M" and found.name in GGUFS, f"{pod.where}: {found}"
        others = [path.name for path in found.parent.iterdir() if path.suffix == ".gguf" and path != found]
        assert not others, f"{pod.where}: {others} as well"
        return assert_readable(pod, [found])
    source = sources(pod)
    if source.startswith("s3://"):
        expected = {path: text.encode() for path, text in ENGINES.items()}
    else:
        model = ROOT / "fixtures/tiny"
        expected = {p.name: p.read_bytes() for p in model.iterdir() if p.suffix in (".json", ".safetensors")}
        assert len(expected) > 6, sorted(expected)
    for path, content in expected.items():
        assert (found / path).read_bytes() == content, f"{pod.where}: {found / path}"
    names = {path.name for path in found.iterdir()}
    assert ".weightlift" not in names, f"{pod.where}: Triton would take it for a model"
    assert_readable(pod, [found, *(found / path for path in expected)])


def assert_readable(pod, paths):
    """By a server of any user."""
    for path in paths:
        wanted = 0o005 if path.is_dir() else 0o004
        assert path.stat().st_mode & wanted == wanted, f"{pod.where}: {path}: {path.stat().st_mode:o}"
