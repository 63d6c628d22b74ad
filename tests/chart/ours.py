"""The containers of weightlift: their names, variables, limits of time, and what checks the volume."""

import re

from chart.rendering import containers, every_pod, good, is_ours, pod_templates, pods, render
from chart.values import COMMIT, GOOD, LOCK, MODEL, OTHER, ROOT


def every_container_of_ours_is_called_weightlift():
    """So one command finds its log, in a Job's pod and in a server's."""
    seen = set()
    for where, pod in every_pod():
        names = [container["name"] for container in containers(pod)]
        assert len(names) == len(set(names)), f"{where}: {names}"
        for container in containers(pod):
            assert (container["name"] == "weightlift") == is_ours(container), f"{where}: {container['name']}"
            seen.add(container["args"][0])
    assert {"fetch", "wait", "prune", "verify"} <= seen, seen


def who_is_waited_for_is_named():
    for where, pod in every_pod():
        for container in filter(is_ours, containers(pod)):
            fields = {v["name"]: v["valueFrom"]["fieldRef"]["fieldPath"] for v in container["env"] if "fieldRef" in str(v)}
            expected = {"NODE_NAME": "spec.nodeName", "POD_NAME": "metadata.name"}
            assert expected.items() <= fields.items(), f"{where}: {fields}"


def every_variable_is_one_that_weightlift_reads():
    known = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "environment.md").read_text(), re.MULTILINE)
    found = set()
    for where, pod in every_pod():
        for container in filter(is_ours, containers(pod)):
            names = [variable["name"] for variable in container["env"]]
            assert len(names) == len(set(names)), f"{where}: {names}"
            found |= set(names)
    # That of a models file.
    assert found - {"BUCKET"} <= set(known), found - set(known)
    assert {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_FILE", "NODE_NAME"} <= found, found


def a_deadline_is_of_the_pod_and_weightlift_ends_before():
    """That of a Job, and the kubelet's alone, leave no message."""
    for name, (values, _) in GOOD.items():
        for resource in render(good(values)):
            spec = resource.get("spec", {})
            spec = spec.get("jobTemplate", {}).get("spec", spec)
            assert "activeDeadlineSeconds" not in spec, f"{name}: of the {resource['kind']}"
    for kind in ("job", "cronjob"):
        for beside, flag in (
            ({}, ["--deadline=3540s"]),
            ({"extraArgs": ["--deadline=30m"]}, ["--deadline=30m"]),
            ({"models": [{**MODEL, "args": ["--deadline", "30m"]}]}, ["--deadline"]),
            ({"models": [], "modelsLock": LOCK}, ["--deadline=3540s"]),
        ):
            values = {**good(beside), "download": {"kind": kind, "activeDeadlineSeconds": 3600}}
            values["server"] = {"enabled": True, "model": "llama-3-8b"}
            for where, pod in pods(render(values)):
                (container,) = filter(is_ours, containers(pod))
                found = [arg for arg in container["args"] if arg.startswith("--deadline")]
                if where == "Deployment":
                    # What the Job must do in time, a server's pod may take longer for: the kubelet starts it again.
                    assert "activeDeadlineSeconds" not in pod and "--deadline=3540s" not in found, f"{beside}: {found}"
                else:
                    assert pod["activeDeadlineSeconds"] == 3600 and found == flag, f"{where}, {beside}: {found}"


def verify_reads_every_model_and_writes_nothing():
    listed = f"version: 1\nmodels:\n  - source: hf://org/One@{COMMIT}\n  - name: /data/models/a/b\n    source: hf://org/two\n"
    for values, paths in (
        ({"models": [MODEL, OTHER]}, ["adapters/one_two.v3", "llama-3-8b"]),
        ({"models": [], "modelsLock": LOCK}, ["embeddings/bge-m3", "llama-3-8b", "whisper-large-v3"]),
        ({"models": [], "modelsFile": listed}, ["a/b", "one"]),
    ):
        resources = render({**values, "verify": {"enabled": True}})
        (cron,) = [r for r in resources if r["kind"] == "CronJob"]
        assert cron["metadata"]["name"] == "demo-weightlift-verify", cron["metadata"]
        pod = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert container["args"] == ["verify", *(f"/data/models/{path}" for path in paths)], container["args"]
        assert container["volumeMounts"] == [{"name": "models", "mountPath": "/data/models", "readOnly": True}]
        assert "secret" not in str(pod).lower().replace("imagepullsecrets", ""), pod


def pods_of_a_volume_of_one_node_go_to_one_node():
    """The scheduler does not see that a ReadWriteOnce claim is attached elsewhere."""
    values = good({"server": {"enabled": True}, "prune": {"enabled": True}, "verify": {"enabled": True}})
    for mode, beside in (("rwo", {}), ("rwo", {"claimName": "x" + "a.b-" * 20 + "c"}), ("rwx", {})):
        values["storage"] = {"mode": mode, **beside}
        templates = [template for _, template in pod_templates(render(values))]
        assert len(templates) == 4, templates
        for template in templates:
            if mode == "rwx":
                assert "affinity" not in template["spec"] and "weightlift-volume" not in template["metadata"]["labels"]
                continue
            (term,) = template["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            assert term["topologyKey"] == "kubernetes.io/hostname", term
            wanted = term["labelSelector"]["matchLabels"]
            (value,) = wanted.values()
            assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", value), value
            # The first finds nobody, and may go anywhere only because it is such a pod itself.
            assert all(wanted.items() <= other["metadata"]["labels"].items() for other in templates), wanted
    own = {"nodeAffinity": {}}
    values.update(storage={"mode": "rwo"}, download={"affinity": own})
    values["server"]["affinity"] = own
    for _, template in pod_templates(render(values)):
        assert template["spec"]["affinity"] == own, template["spec"]["affinity"]


def jobs_may_follow_a_volume_of_one_node_to_a_gpu_node():
    """Servers that only wait may be the first there, and a taint would keep the Job that they wait for away."""
    usual = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    own = [{"operator": "Exists"}]
    values = good({"server": {"enabled": True, "waitOnly": True}, "prune": {"enabled": True}, "verify": {"enabled": True}})
    for mode, tolerations, expected in (("rwo", [], usual), ("rwo", own, own), ("rwx", [], None), ("rwx", own, own)):
        for kind in ("job", "cronjob"):
            values.update(storage={"mode": mode}, download={"kind": kind, "tolerations": tolerations})
            jobs = [t["spec"] for _, t in pod_templates(render(values)) if "initContainers" not in t["spec"]]
            found = [job.get("tolerations") for job in jobs]
            assert found == [expected] * 3, f"{mode}, {kind}, {tolerations}: {found}"


TESTS = [
    jobs_may_follow_a_volume_of_one_node_to_a_gpu_node,
    pods_of_a_volume_of_one_node_go_to_one_node,
    every_container_of_ours_is_called_weightlift,
    who_is_waited_for_is_named,
    every_variable_is_one_that_weightlift_reads,
    a_deadline_is_of_the_pod_and_weightlift_ends_before,
    verify_reads_every_model_and_writes_nothing,
]
