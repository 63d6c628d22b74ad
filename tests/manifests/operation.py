"""What sets of operation may do: rights, the network, snapshots."""

import os
import subprocess
import tempfile
from pathlib import Path

import yaml


def rights_are_the_smallest(manifests):
    overlays = [each for each in manifests.sets.values() if each.of("Role") and each.name.startswith("overlays/")]
    rules = {each.name: [r["rules"] for r in each.of("Role")] for each in overlays}
    assert rules == {
        "overlays/lock-kubernetes": [[rule("coordination.k8s.io", "leases", "get create update")]],
        "overlays/snapshots": [[rule("snapshot.storage.k8s.io", "volumesnapshots", "create get list watch delete")]],
    }, rules
    assert not [w for w, r in manifests.objects() if r["kind"].startswith("ClusterRole")]


def rule(group, resource, verbs):
    return {"apiGroups": [group], "resources": [resource], "verbs": verbs.split()}


def the_network_is_closed_but_for_fetches(manifests):
    each = manifests.sets["overlays/network-policy"]
    policies = {p["metadata"]["name"]: p["spec"] for p in each.of("NetworkPolicy")}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    egress = [p["spec"] for p in each.of("NetworkPolicy") if "egress" in p["spec"]]
    assert egress == [policies["download-egress"]]
    labels = policies["download-egress"]["podSelector"]["matchLabels"].items()
    closed = [s for s in manifests.sets.values() if s.of("NetworkPolicy")]
    assert len(closed) > 2, f"closed: {[s.name for s in closed]}"
    for pod in (pod for s in closed for pod in s.pods()):
        fetches = any(c["args"][0] == "fetch" for c in pod.weightlift())
        assert (labels <= pod.labels.items()) == fetches, f"{pod.where}: egress"
    # No address of it is known here, so whoever needs it is told.
    assert not [s.name for s in closed if s.of("Role")], "has no way to the API server"
    text = (manifests.directory / "components/network-policy/networkpolicy.yaml").read_text()
    for told in (text, (manifests.directory / "README.md").read_text()):
        for word in ("API server", "lock-kubernetes", "snapshots"):
            assert word in told.replace("\n", " "), f"says nothing about {word}"
    ports = [p["port"] for rule in policies["download-egress"]["egress"] for p in rule["ports"]]
    assert ports == [53, 53, 443], ports


def the_metrics_are_scraped_where_they_are_served(manifests):
    """The PodMonitor finds the port and the pods of what listens."""
    path = manifests.directory / "components/metrics/podmonitor.example.yaml"
    monitor = yaml.safe_load(path.read_text())["spec"]
    ((key, operator, labels),) = [(m["key"], m["operator"], m["values"]) for m in monitor["selector"]["matchExpressions"]]
    assert (key, operator) == ("app.kubernetes.io/component", "In"), monitor
    (endpoint,) = monitor["podMetricsEndpoints"]
    listening = 0
    for each in (s for s in manifests.sets.values() if "metrics" in s.components):
        for pod in each.pods():
            for ours in pod.weightlift():
                env = {v["name"]: v.get("value") for v in ours["env"]}
                ports = {port["name"]: str(port["containerPort"]) for port in ours.get("ports", [])}
                expected = {endpoint["port"]: env["WEIGHTLIFT_METRICS_LISTEN"]} if ours["args"][0] == "fetch" else {}
                assert ports == expected, f"{pod.where}: {ports}"
                assert not ports or pod.labels[key] in labels, f"{pod.where} is not found"
                listening += bool(ports)
    assert listening, "no set listens"


def the_snapshot_script_keeps_the_newest(manifests):
    """Runs it with a kubectl that only pretends."""
    config = manifests.sets["overlays/snapshots"].one("ConfigMap")["data"]
    assert "kind: VolumeSnapshot\n" in config["snapshot.yaml"] and "generateName: models-" in config["snapshot.yaml"]
    script = config["snapshot.sh"]
    # Each letter is a snapshot, the oldest first: r is ready, n is not. The last is the new one.
    for snapshots, gone in (
        ("rrrrrrrrr", ["s1", "s2"]),
        ("rrrrrrr", []),
        ("r", []),
        ("nnrrrrrrr", []),  # never ready: no reason to remove one that is
        ("rrnrrrrrnrr", ["s1", "s2"]),
    ):
        assert run_snapshots(script, snapshots) == (0, gone), snapshots
    # A new one that is not ready in time is a failure, and counts for nothing.
    for snapshots, gone in (("rrrrrrrn", []), ("rrrrrrrrrn", ["s1", "s2"]), ("n", [])):
        code, removed = run_snapshots(script, snapshots)
        assert code != 0 and removed == gone, f"{snapshots}: {code}, {removed}"


def run_snapshots(script, snapshots):
    ready = {"r": "true", "n": ""}
    lines = "".join(f"{ready[one]} s{n}\\n" for n, one in enumerate(snapshots, 1))
    fake = f"""#!/bin/sh
case "$1" in
  create) echo volumesnapshot.snapshot.storage.k8s.io/s{len(snapshots)} ;;
  wait) exit {0 if snapshots[-1] == "r" else 1} ;;
  get) printf '{lines}' ;;
  delete) shift 3; echo "$1" >>"$TMPDIR/deleted" ;;
esac
"""
    with tempfile.TemporaryDirectory() as place:
        Path(place, "kubectl").write_text(fake)
        Path(place, "kubectl").chmod(0o755)
        environment = {"PATH": f"{place}:{os.environ['PATH']}", "TMPDIR": place, "KEEP": "7"}
        run = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=30)
        deleted = Path(place, "deleted")
        return run.returncode, deleted.read_text().split() if deleted.exists() else []


TESTS = [
    rights_are_the_smallest,
    the_network_is_closed_but_for_fetches,
    the_metrics_are_scraped_where_they_are_served,
    the_snapshot_script_keeps_the_newest,
]
