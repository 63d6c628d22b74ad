"""Plays the promises of the README at a site, each set in a namespace of its own.

    python3 tests/cluster/main.py podman WORK HUB IMAGE SERVER_IMAGE [SET…]
    python3 tests/cluster/main.py kubectl [SET…]
    python3 tests/cluster/main.py render [SET…]
    python3 tests/cluster/main.py list

`run` beside this file says what the second needs. The first is called by `tests/image/run`.
"""

import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cluster import fitted
from cluster.kubectl import Kubectl, hub_objects
from cluster.podman import Podman
from cluster.promises import SETS, Play
from cluster.stand_in import StandIn
from cluster.states import Broken
from cluster.unplayed import UNPLAYED
from manifests import reading

DIRECTORY = Path(os.environ.get("WEIGHTLIFT_TEST_MANIFESTS") or Path(__file__).resolve().parents[2] / "manifests")


def main(where, *arguments):
    if where == "podman":
        work, hub, image, server_image, *names = arguments
        return with_podman(Path(work), hub, image, server_image, chosen(names))
    if where == "kubectl":
        return with_kubectl(chosen(arguments))
    if where == "render":
        return render_all(chosen(arguments))
    if where == "list":
        for name, promises in SETS.items():
            print(f"{name}: {'; '.join(promise.__name__.replace('_', ' ') for promise in promises)}")
        for name, reason in UNPLAYED.items():
            print(f"{name}: not played: {reason}")
        return 0
    raise SystemExit(__doc__)


def chosen(names):
    """The sets to play. A name alone stands for all that is played of it."""
    wanted = {key for key in SETS for name in names if name in (key, key.split(",")[0])}
    unknown = [name for name in names if not any(name in (key, key.split(",")[0]) for key in SETS)]
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are: {'; '.join(SETS)}")
    return [key for key in SETS if not names or key in wanted]


def documents_of(name):
    """What is applied before a set, and stays when it goes; and the set."""
    kubectl, name = reading.find_kubectl(), name.split(",")[0]
    before = [r for each in reading.applied_before(name) for r in reading.render(kubectl, DIRECTORY / each)]
    return before, reading.render(kubectl, DIRECTORY / name)


def play_all(site, names):
    failed = []
    for number, name in enumerate(names):
        namespace = f"{site.prefix}{number}"
        storage, documents = documents_of(name)
        site.begin(namespace, documents)
        try:
            older, newer = site.hub().commits()
            site.apply(fitted.fit(storage, site.fit(namespace, older.name)))
            play = Play(site, namespace, documents, older, newer)
            for promise in SETS[name]:
                if not kept(play, name, promise):
                    failed.append(f"{name}: {promise.__name__}")
                    break
        finally:
            site.end(namespace)
    promises = sum(len(SETS[name]) for name in names)
    print(f"{promises} promises of {len(names)} sets, {len(failed)} not kept")
    return 1 if failed else 0


def kept(play, name, promise):
    began, said = time.monotonic(), promise.__name__.replace("_", " ")
    try:
        play.hub().speed(0)
        play.hub().clear()
        promise(play)
    except Exception as problem:
        print(f"FAILED  {name}: {said}: {problem}", flush=True)
        if not isinstance(problem, Broken):
            traceback.print_exc()
        return False
    print(f"ok      {name}: {said} ({time.monotonic() - began:.0f} s)", flush=True)
    return True


def with_podman(work, hub, image, server_image, names):
    podman = Podman(work, hub)
    site = Kubectl(StandIn(podman), "set", (image, hub, server_image))
    site.check = podman.check
    site.host_directory = str(work)
    try:
        site.set_up()
        return play_all(site, names)
    finally:
        podman.end()
        podman.stop_hub()


def with_kubectl(names):
    site = from_environment(run_kubectl)
    # What is interrupted cleans up as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        print(f"context {run_kubectl(['config', 'current-context'], None).strip()}, namespaces {site.prefix}*")
        site.set_up()
        return play_all(site, names)
    except Broken as problem:
        print(f"FAILED  {problem}")
        return 1
    finally:
        site.tear_down()


def from_environment(run):
    images = os.environ["IMAGE"], os.environ["HUB_IMAGE"], os.environ["SERVER_IMAGE"]
    prefix = os.environ.get("NAMESPACE_PREFIX") or f"weightlift-test-{os.getpid():x}-"
    return Kubectl(
        run,
        prefix,
        images,
        storage_class=os.environ.get("STORAGE_CLASS"),
        access_mode=os.environ.get("ACCESS_MODE"),
        keep=bool(os.environ.get("KEEP")),
    )


def run_kubectl(arguments, stdin):
    command = [reading.find_kubectl(), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise Broken(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def render_all(names):
    """What would be applied, as YAML on standard output; nothing is asked of a cluster."""
    for name, documents in rendered(from_environment(run_kubectl), names).items():
        print(f"# {name}")
        print(yaml.safe_dump_all(documents, explicit_start=True, sort_keys=False), end="")
    return 0


def rendered(site, names):
    shown = {"the fake Hub": hub_objects(site.hub_namespace, site.hub_image)}
    for number, name in enumerate(names):
        fit = site.fit(f"{site.prefix}{number}", fitted.EXAMPLE_COMMIT)
        storage, documents = documents_of(name)
        shown[name] = fitted.fit(storage + documents, fit)
    return shown


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) > 1 else main("help"))
