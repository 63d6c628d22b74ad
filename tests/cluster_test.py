#!/usr/bin/env python3
"""Checks, without a cluster, what tests/cluster/run would apply to one, and how it reads what a cluster says.

    python3 tests/cluster_test.py

Needs what tests/manifests_test.py needs, and is skipped as that is.
"""

import json
import re
import sys
from pathlib import Path

import running
from manifests_test import skip

SITE = ("a weightlift:test", "a hub:test", "a server:test")


def rendered():
    from cluster import kubectl, main, promises

    site = kubectl.Kubectl(None, "prefix-", SITE, storage_class="some-class", access_mode="ReadWriteOnce")
    return main.rendered(site, list(promises.SETS))


def every_object_fits_the_schemas(shown):
    from manifests import schemas

    for name, documents in shown.items():
        for each in documents:
            for version in schemas.VERSIONS:
                problem = schemas.schema_problem(each, version)
                assert problem is None, f"{name}: {each['kind']}, Kubernetes {version}: {problem}"


def no_image_class_or_namespace_of_the_set_is_left(shown):
    for name, documents in shown.items():
        text = json.dumps(documents)
        for word in ("ghcr.io", "vllm", "nvidia", "model-storage", "model-seeding", "models-gp3", "/var/lib/models"):
            assert word not in text, f"{name}: {word} is left"
        for each in documents:
            assert each["kind"] != "StorageClass", name
            if each["kind"] != "Namespace":
                assert each["metadata"]["namespace"].startswith("prefix-"), f"{name}: {each['metadata']}"


def every_pod_asks_the_fake_hub(shown):
    from cluster import fitted

    for name, documents in shown.items():
        for each in fitted.workloads(documents):
            for container in fitted.pod_template(each)["spec"].get("initContainers", []):
                values = {v["name"]: v.get("value") for v in container["env"]}
                assert values["HF_ENDPOINT"] == "http://fake-hub.prefix-hub.svc:8080", f"{name}: {values}"


def servers_read_what_their_set_names(shown):
    from cluster import fitted

    seen = 0
    for name, documents in shown.items():
        for each in fitted.workloads(documents, of="inference"):
            (server,) = [c for c in fitted.pod_template(each)["spec"]["containers"] if c["name"] == "server"]
            assert server["args"] == ["/model/current"], f"{name}: {server['args']}"
            assert server["command"][:2] == ["sh", "-c"] and server["image"] == "a server:test", name
            seen += 1
    assert seen > 5, f"only {seen} servers"


def pods_are_read_as_the_api_server_shows_them(_):
    """A retried init container waits, and its end stands elsewhere; a pod on its way out is none."""
    from cluster import kubectl

    ended = {"terminated": {"exitCode": 10, "message": "why"}}
    pod = {
        "metadata": {
            "name": "llama-3-8b-5d59d67564-x2x4z",
            "namespace": "n",
            "labels": {"app.kubernetes.io/component": "inference"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "llama-3-8b-5d59d67564"}],
        },
        "spec": {"initContainers": [{"name": "weightlift"}], "containers": [{"name": "server"}]},
        "status": {
            "conditions": [{"type": "Ready", "status": "False"}],
            "initContainerStatuses": [{"name": "weightlift", "state": {"waiting": {}}, "lastState": ended}],
        },
    }
    leaving = {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    (seen,) = kubectl.pods_of_list({"items": [pod, leaving]})
    ours = seen.ours()
    assert (seen.owner, seen.component, seen.ready) == ("Deployment/llama-3-8b", "inference", False), seen
    assert (ours.name, ours.state, ours.exit_code, ours.message) == ("weightlift", "waiting", 10, "why"), ours
    assert seen.containers["server"].state == "waiting", seen
    again = {"name": "weightlift", "state": {"running": {}}, "lastState": ended}
    pod["status"]["initContainerStatuses"] = [again]
    (seen,) = kubectl.pods_of_list({"items": [pod]})
    assert (seen.ours().state, seen.ours().exit_code) == ("running", None), seen
    pod["metadata"]["ownerReferences"] = [{"kind": "Job", "name": "download"}]
    pod["status"]["initContainerStatuses"] = [{"name": "weightlift", "state": ended}]
    (seen,) = kubectl.pods_of_list({"items": [pod]})
    assert (seen.owner, seen.ours().state, seen.ours().exit_code) == ("Job/download", "exited", 10), seen


def what_pods_do_not_start_without_is_made(shown):
    """And the stand-in refuses a pod where it is missing, as a kubelet would."""
    from cluster import fitted, kubectl, main, promises, stand_in, states

    made = {name: begun(main.documents_of(name)[1]) for name in promises.SETS}
    made = {name: secrets for name, secrets in made.items() if secrets}
    assert made == {"overlays/daemonset": ["hf-token"]}, made
    documents = shown["overlays/daemonset"]
    namespace = next(each["metadata"]["name"] for each in documents if each["kind"] == "Namespace")
    for secrets, refused in (([], "Secret hf-token"), (kubectl.secrets(namespace, documents), None)):
        podman = Started()
        place = stand_in.StandIn(podman)
        said = None
        try:
            place(["apply", "-f", "-"], kubectl.as_list([*documents, *secrets]))
        except states.Broken as problem:
            said = str(problem)
        assert (said is None) == (refused is None) and (said or "").endswith(refused or ""), said
        assert bool(podman.seen) == (refused is None), podman.seen
    lists = shown["overlays/job-many"]
    (job,) = fitted.workloads(lists, "Job")
    assert {kind for kind, _ in fitted.required(job)} == {"ConfigMap"}, fitted.required(job)


def every_overlay_is_played_or_named(_):
    """In `unplayed.py` with the reason, and in the README."""
    from cluster import main, promises, unplayed

    there = {str(path.parent.relative_to(main.DIRECTORY)) for path in main.DIRECTORY.glob("overlays/**/kustomization.yaml")}
    played = {name.split(",")[0] for name in promises.SETS} - {"base"}
    assert len(there) > 20 and not played & unplayed.UNPLAYED.keys(), played & unplayed.UNPLAYED.keys()
    assert played | unplayed.UNPLAYED.keys() == there, (played | unplayed.UNPLAYED.keys()) ^ there
    page = (main.DIRECTORY.parent / "tests/cluster/README.md").read_text()
    (table,) = [part for part in page.split("\n\n") if part.startswith("| overlay | why |")]
    named = {f"overlays/{name}" for name in re.findall(r"`([\w/-]+)`", table)}
    assert named == unplayed.UNPLAYED.keys(), named ^ unplayed.UNPLAYED.keys()


def begun(documents):
    """The Secrets that a play makes before it applies a set."""
    from cluster import kubectl

    applied = []
    site = kubectl.Kubectl(lambda _, stdin: applied.extend(json.loads(stdin)["items"]), "prefix-", SITE)
    site.begin("prefix-0", documents)
    return [each["metadata"]["name"] for each in applied if each["kind"] == "Secret"]


class Started:
    def __init__(self):
        self.seen = []

    def apply(self, documents):
        self.seen += documents

    def endpoint(self):
        return "http://127.0.0.1:1"


TESTS = [
    every_object_fits_the_schemas,
    no_image_class_or_namespace_of_the_set_is_left,
    every_pod_asks_the_fake_hub,
    servers_read_what_their_set_names,
    pods_are_read_as_the_api_server_shows_them,
    what_pods_do_not_start_without_is_made,
    every_overlay_is_played_or_named,
]


def main():
    try:
        from cluster import promises
        from manifests import reading, schemas
    except ImportError as problem:
        return skip(f"{problem.name} is not installed")
    if reading.find_kubectl() is None:
        return skip("kubectl is not installed")
    shown = rendered()
    print(f"{len(promises.SETS)} plays, {sum(map(len, shown.values()))} objects, Kubernetes {schemas.VERSIONS}")
    return running.run(TESTS, shown)


if __name__ == "__main__":
    sys.exit(main())
