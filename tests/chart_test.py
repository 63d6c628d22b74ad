#!/usr/bin/env python3
"""Renders charts/weightlift with Helm's own engine and holds it against the kustomize base.

    python3 tests/chart_test.py

Needs `helm-python-sdk`, `kubernetes-validate` and `jsonschema` (tests/real/requirements.txt); without
them the test says so and is skipped. `kubectl` builds the base; without it, plain kustomizations
are read here.
"""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path

try:
    import helm_python as helm
    import jsonschema
    import yaml
    from manifests import program, reading
    from manifests.reading import StrictLoader
    from manifests.schemas import schema_problem
except ImportError as missing:
    print(f"skipped: {missing.name} is not installed")
    sys.exit(1 if os.environ.get("WEIGHTLIFT_TEST_NO_SKIP") else 0)

KUBECTL = reading.find_kubectl()
if KUBECTL is None:
    print("skipped: kubectl is not installed")
    sys.exit(1 if os.environ.get("WEIGHTLIFT_TEST_NO_SKIP") else 0)

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "weightlift"
NAMESPACE = "model-storage"
KUBERNETES = ["1.35", "1.36", "1.37"]
PERMANENT = [2, 10, 11, 12, 13, 14, 15, 16]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = {"source": f"hf://org/name@{COMMIT}", "dest": "llama-3-8b"}
OTHER = {"source": "s3://bucket/adapters/", "dest": "adapters/one_two.v3"}
WAITING = {"download": {"kind": "none"}, "server": {"enabled": True, "waitOnly": True}}
PLACE = "/etc/weightlift"
# A models file and what `pin` makes of it; the second model is of a branch, and has no name there.
FILE = f"""version: 1
models:
  - name: llama-3-8b
    source: hf://org/name@{COMMIT}
  - source: hf://BAAI/BGE-M3@main
    exclude: [onnx/*]
"""
LOCK = (ROOT / "manifests" / "components" / "locked" / "models.lock").read_text()
SNAPSHOT = {"kind": "VolumeSnapshot", "name": "filled", "apiGroup": "snapshot.storage.k8s.io"}


def rox(source):
    return {**WAITING, "storage": {"mode": "rox", "dataSource": source}}


# name: values, and the kinds that they render, in alphabetical order.
GOOD = {
    "one model": ({}, "Job PersistentVolumeClaim"),
    "two models": ({"models": [MODEL, OTHER]}, "Job Job PersistentVolumeClaim"),
    "two models, a name of one's own": (
        {"models": [MODEL, OTHER], "download": {"name": "get"}},
        "Job Job PersistentVolumeClaim",
    ),
    "every option of a model": (
        {
            "models": [
                {
                    **MODEL,
                    "include": ["*.json", "*.safetensors"],
                    "exclude": ["a b*"],
                    "all": True,
                    "denyPickle": True,
                    "expectRevision": COMMIT,
                    "args": ["--connections=4"],
                }
            ],
            "extraArgs": ["--retry-timeout=10m"],
        },
        "Job PersistentVolumeClaim",
    ),
    "a server": ({"server": {"enabled": True}}, "Deployment Job PersistentVolumeClaim Service"),
    "a server of the second model": (
        {"models": [MODEL, OTHER], "server": {"enabled": True, "model": OTHER["dest"]}},
        "Deployment Job Job PersistentVolumeClaim Service",
    ),
    "a server that waits for the Job": (
        {"server": {"enabled": True, "waitOnly": True}},
        "Deployment Job PersistentVolumeClaim Service",
    ),
    "a cronjob": ({"download": {"kind": "cronjob", "schedule": "@daily"}}, "CronJob PersistentVolumeClaim"),
    "a server that is recreated, on other GPUs": (
        {
            "server": {
                "enabled": True,
                "strategy": {"type": "Recreate"},
                "resources": {"limits": {"amd.com/gpu": 1, "nvidia.com/gpu": None}},
            }
        },
        "Deployment Job PersistentVolumeClaim Service",
    ),
    "a models file": ({"models": [], "modelsFile": FILE}, "ConfigMap Job PersistentVolumeClaim"),
    "a models file at night, and a server of it": (
        {
            "models": [],
            "modelsFile": FILE,
            "lock": "kubernetes",
            "download": {"kind": "cronjob"},
            "server": {"enabled": True, "model": "bge-m3"},
        },
        "ConfigMap CronJob Deployment PersistentVolumeClaim Role RoleBinding Service ServiceAccount",
    ),
    "a lock file": (
        {"models": [], "modelsLock": LOCK, "extraArgs": ["--retry-timeout=10m"]},
        "ConfigMap Job PersistentVolumeClaim",
    ),
    "a lock file, and a server of it": (
        {"models": [], "modelsLock": LOCK, "server": {"enabled": True, "model": "llama-3-8b"}},
        "ConfigMap Deployment Job PersistentVolumeClaim Service",
    ),
    "a lock file, and a server that waits": (
        {"models": [], "modelsLock": LOCK, "server": {"enabled": True, "model": "llama-3-8b", "waitOnly": True}},
        "ConfigMap Deployment Job PersistentVolumeClaim Service",
    ),
    "a server that waits for what a models file names, and nothing that fetches": (
        {"models": [], "modelsFile": FILE, **WAITING, "server": {**WAITING["server"], "model": "bge-m3"}},
        "Deployment PersistentVolumeClaim Service",
    ),
    "a lock file, and what is not listed goes": (
        {
            "models": [],
            "modelsFile": FILE,
            "modelsLock": LOCK,
            "prune": {"enabled": True, "unlisted": True},
            "extraEnv": [{"name": "BUCKET", "value": "acme-models"}],
        },
        "ConfigMap CronJob Job PersistentVolumeClaim",
    ),
    "prune": (
        {"prune": {"enabled": True, "keepRevisions": 0, "olderThan": "90d"}},
        "CronJob Job PersistentVolumeClaim",
    ),
    "prune that only tells": ({"prune": {"enabled": True, "dryRun": True}}, "CronJob Job PersistentVolumeClaim"),
    "a suspended job": ({"download": {"suspend": True}}, "Job PersistentVolumeClaim"),
    "rwo": ({"storage": {"mode": "rwo", "storageClassName": "gp3"}}, "Job PersistentVolumeClaim"),
    "rox": (rox(SNAPSHOT), "Deployment PersistentVolumeClaim Service"),
    "rox from a clone": (
        rox({"kind": "PersistentVolumeClaim", "name": "filled"}),
        "Deployment PersistentVolumeClaim Service",
    ),
    "an existing claim": ({"storage": {"mode": "existingClaim", "claimName": "mine"}}, "Job"),
    "an existing claim, read only": (
        {**WAITING, "storage": {"mode": "existingClaim", "readOnly": True}},
        "Deployment Service",
    ),
    "hostPath": (
        {"storage": {"mode": "hostPath", "hostPath": {"path": "/srv/models", "nodes": ["gpu-1"]}}},
        "Job PersistentVolume PersistentVolumeClaim",
    ),
    "local": (
        {"storage": {"mode": "local", "hostPath": {"path": "/srv/models", "nodes": ["gpu-1"]}}},
        "Job PersistentVolume PersistentVolumeClaim",
    ),
    "no token": ({"huggingface": {"secretName": ""}}, "Job PersistentVolumeClaim"),
    "a token as a file": (
        {"huggingface": {"asFile": True, "endpoint": "https://mirror.example"}, "server": {"enabled": True}},
        "Deployment Job PersistentVolumeClaim Service",
    ),
    "s3 by a secret": (
        {
            "models": [OTHER],
            "s3": {"secretName": "s3", "region": "eu-west-1", "endpoint": "http://minio:9000", "pathStyle": True},
        },
        "Job PersistentVolumeClaim",
    ),
    "s3, anonymous": ({"models": [OTHER], "s3": {"anonymous": True}}, "Job PersistentVolumeClaim"),
    "s3 by a role": (
        {
            "models": [OTHER],
            "serviceAccount": {"create": True, "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/m"}},
            "server": {"enabled": True, "podAnnotations": {"a": "b"}},
        },
        "Deployment Job PersistentVolumeClaim Service ServiceAccount",
    ),
    "a lease": (
        {"lock": "kubernetes", "server": {"enabled": True}},
        "Deployment Job PersistentVolumeClaim Role RoleBinding Service ServiceAccount",
    ),
    "a lease, a role": (
        {"lock": "kubernetes", "serviceAccount": {"annotations": {"a": "b"}}},
        "Job PersistentVolumeClaim Role RoleBinding ServiceAccount",
    ),
    "a lease, an account of one's own": (
        {"lock": "kubernetes", "serviceAccount": {"name": "mine"}},
        "Job PersistentVolumeClaim Role RoleBinding",
    ),
    "a lease that nobody takes": ({**WAITING, "lock": "kubernetes"}, "Deployment PersistentVolumeClaim Service"),
    "certificates, a proxy, places": (
        {
            "image": {"digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
            "imagePullSecrets": [{"name": "registry"}],
            "caBundle": {"configMapName": "ca"},
            "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
            "download": {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}], "podLabels": {"x": "y"}},
            "server": {"enabled": True, "extraArgs": ["--max-model-len", "8192"], "runtimeClassName": "nvidia"},
        },
        "Deployment Job PersistentVolumeClaim Service",
    ),
}

# name: values, and what the refusal names. First what the schema refuses, then what the templates do.
BAD_FOR_SCHEMA = {
    "a misspelt key": ({"storge": {}}, "storge"),
    "a misspelt key below": ({"server": {"replica": 1}}, "replica"),
    "an unknown storage mode": ({"storage": {"mode": "ReadWriteMany"}}, "mode"),
    "a size in words": ({"storage": {"size": "100 GB"}}, "size"),
    "a source that is none": ({"models": [{"source": "https://a/b", "dest": "a"}]}, "source"),
    "a model without a dest": ({"models": [{"source": MODEL["source"]}]}, "dest"),
    "a dest that climbs": ({"models": [{**MODEL, "dest": "../etc"}]}, "dest"),
    "a dest that is absolute": ({"models": [{**MODEL, "dest": "/etc"}]}, "dest"),
    "a dest of weightlift's own": ({"models": [{**MODEL, "dest": ".weightlift"}]}, "dest"),
    "a pattern with a comma": ({"models": [{**MODEL, "include": ["a,b"]}]}, "include"),
    "a revision that is a branch": ({"models": [{**MODEL, "expectRevision": "main"}]}, "expectRevision"),
    "a lock of another kind": ({"lock": "lease"}, "lock"),
    "a word for a number": ({"server": {"replicas": "two"}}, "replicas"),
    "a port below 1024": ({"server": {"port": 80}}, "port"),
    "a timeout in words": ({"server": {"waitTimeout": "two hours"}}, "waitTimeout"),
    "a digest that is a tag": ({"image": {"digest": "latest"}}, "digest"),
    "an age without a unit": ({"prune": {"olderThan": "720"}}, "olderThan"),
    "a schedule of four fields": ({"download": {"schedule": "0 4 * *"}}, "schedule"),
    "a secret's name in capitals": ({"huggingface": {"secretName": "HF_TOKEN"}}, "secretName"),
    "a source of data without a kind": (rox({"name": "x"}), "'kind'"),
    "a source of data without a name": (rox({"kind": "PersistentVolumeClaim"}), "'name'"),
    "a snapshot without its group": (rox({"kind": "VolumeSnapshot", "name": "x"}), "'apiGroup'"),
    "a snapshot of another group": (rox({**SNAPSHOT, "apiGroup": "x"}), "snapshot.storage.k8s.io"),
    "claims of resources, which the pods would not have": ({"resources": {"claims": [{"name": "gpu"}]}}, "claims"),
    "claims of the server": ({"server": {"resources": {"claims": [{"name": "gpu"}]}}}, "claims"),
    "a token in the values": ({"huggingface": {"token": "hf_x"}}, "token"),
    "a models file that is no text": ({"models": [], "modelsFile": ["version: 1"]}, "modelsFile"),
    "a lock file that no ConfigMap can hold": ({"models": [], "modelsLock": " " * (1 << 20) + "{}"}, "modelsLock"),
    "a word for a boolean": ({"s3": {"anonymous": "yes"}}, "anonymous"),
}
BAD_FOR_TEMPLATES = {
    "no model": ({"models": []}, "models is empty"),
    "a list and a models file": ({"modelsFile": FILE}, "models is given beside"),
    "a list and a lock file": ({"modelsLock": LOCK}, "models is given beside"),
    "a models file and a lock file": (
        {"models": [], "modelsFile": FILE, "modelsLock": LOCK},
        "modelsFile is given beside modelsLock",
    ),
    "what is not listed goes, without a models file": (
        {"models": [], "modelsLock": LOCK, "prune": {"enabled": True, "unlisted": True}},
        "prune.unlisted needs modelsFile",
    ),
    "a models file that is no YAML": ({"models": [], "modelsFile": "models: [}"}, "modelsFile cannot be read"),
    "a lock file that is no JSON": ({"models": [], "modelsLock": FILE}, "modelsLock cannot be read"),
    "a models file of no model": ({"models": [], "modelsFile": "version: 1\n"}, "modelsFile names no models"),
    "a server of which model of the file": (
        {"models": [], "modelsFile": FILE, "server": {"enabled": True}},
        "server.model is empty",
    ),
    "a server of no model of the lock file": (
        {"models": [], "modelsLock": LOCK, "server": {"enabled": True, "model": "bge-m3"}},
        "is no dest of models.lock",
    ),
    "one dest twice": ({"models": [MODEL, MODEL]}, "two models have the dest"),
    "two dests, one name": (
        {"models": [{**MODEL, "dest": "a.b"}, {**MODEL, "dest": "a-b"}]},
        "too alike",
    ),
    "a server of no model": ({"server": {"enabled": True, "model": "other"}}, "is no dest"),
    "prune on a volume that is read-only": (
        {**rox(SNAPSHOT), "prune": {"enabled": True}},
        "nothing can be removed",
    ),
    "rox without a source": ({**WAITING, "storage": {"mode": "rox"}}, "dataSource"),
    "rox that a Job fills": ({"storage": {"mode": "rox", "dataSource": SNAPSHOT}}, "read-only"),
    "a read-only claim that a server fills": (
        {
            "storage": {"mode": "existingClaim", "readOnly": True},
            "download": {"kind": "none"},
            "server": {"enabled": True},
        },
        "read-only",
    ),
    "a new claim that is read-only": ({**WAITING, "storage": {"readOnly": True}}, "existingClaim"),
    "a snapshot for another mode": ({"storage": {"dataSource": SNAPSHOT}}, "rox"),
    "hostPath without a path": ({"storage": {"mode": "hostPath", "hostPath": {"nodes": ["a"]}}}, "hostPath.path"),
    "a host's path for another mode": ({"storage": {"hostPath": {"path": "/srv"}}}, "hostPath is for"),
    "a host's nodes for another mode": ({"storage": {"mode": "rwo", "hostPath": {"nodes": ["a"]}}}, "hostPath is for"),
    "a role without an account": (
        {"serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/m"}}},
        "serviceAccount.create",
    ),
    "a role for somebody else's account": (
        {"lock": "kubernetes", "serviceAccount": {"name": "mine", "annotations": {"a": "b"}}},
        "serviceAccount.create",
    ),
    "local without a node": ({"storage": {"mode": "local", "hostPath": {"path": "/srv"}}}, "hostPath.nodes"),
}


def the_chart_renders_the_kustomize_base():
    base, chart = named(kustomize(ROOT / "manifests")), named(render(base_values()))
    assert len(base) >= 5, f"the base has only {sorted(base)}"
    assert base.keys() == chart.keys(), f"base {sorted(base)}, chart {sorted(chart)}"
    for key, resource in base.items():
        difference = first_difference(without_helm(resource), without_helm(chart[key]))
        assert not difference, f"{key}: {difference}"


def the_comparison_sees_a_small_difference():
    """Guards the test above."""
    base = named(render(base_values()))
    other = base_values()
    other["resources"] = {"limits": {"memory": "129Mi"}}
    chart = named(render(other))
    assert first_difference(without_helm(base["Job/download-weights"]), without_helm(chart["Job/download-weights"]))


def helm_lints_the_chart():
    of_ci = [yaml.safe_load(path.read_text()) for path in sorted((CHART / "ci").glob("*-values.yaml"))]
    assert len(of_ci) == 2, "where are the values for CI?"
    for values in of_ci + [good(values) for values, _ in GOOD.values()]:
        report = helm.lint(CHART, {**values, "namespace": {"create": False}}, namespace=NAMESPACE, strict=True)
        assert not report["errors"], report["errors"]


def good_values_render_what_they_should():
    for name, (values, kinds) in GOOD.items():
        found = " ".join(sorted(resource["kind"] for resource in render(good(values))))
        assert found == kinds, f"{name}: {found}"


def everything_rendered_fits_the_schemas():
    for where, resource in everything():
        for version in KUBERNETES:
            problem = schema_problem(resource, version)
            assert problem is None, f"{where}, Kubernetes {version}: {problem}"


def a_misspelt_field_is_noticed():
    """Guards the test above."""
    broken = copy.deepcopy(named(render(base_values()))["Deployment/llama-3-8b"])
    broken["spec"]["template"]["spec"]["volume"] = []
    for version in KUBERNETES:
        assert schema_problem(broken, version), f"{version} accepts the field `volume`"


def good_values_fit_the_schema():
    validator = schema()
    for name, (values, _) in GOOD.items():
        for problem in validator.iter_errors(merged(good(values))):
            raise AssertionError(f"{name}: {problem.json_path}: {problem.message}")


def wrong_values_are_refused_by_schema_and_helm():
    validator = schema()
    for name, (values, word) in BAD_FOR_SCHEMA.items():
        problems = [f"{p.json_path}: {p.message}" for p in validator.iter_errors(merged(good(values)))]
        assert any(word in problem for problem in problems), f"{name}: jsonschema says {problems}"
        said = refusal(good(values))
        assert said and word in said, f"{name}: helm says {said}"


def values_that_do_not_fit_each_other_are_refused():
    for name, (values, words) in BAD_FOR_TEMPLATES.items():
        said = refusal(good(values))
        assert said and words in said, f"{name}: helm says {said}"


def every_value_is_in_schema_and_readme():
    defaults, readme = helm.Chart.load(CHART).values, (CHART / "README.md").read_text()
    known = helm.Chart.load(CHART).schema
    for path in leaves(defaults, known):
        assert f"`{path}`" in readme, f"README.md does not name `{path}`"
    for path in re.findall(r"^\| `([\w.]+)` \|", readme.partition("## Values")[2], re.MULTILINE):
        at = known
        for part in path.replace("[]", "").split("."):
            at = (at.get("items") or at)["properties"]
            assert part in at, f"README.md names `{path}`, which the schema does not know"
            at = at[part]


def every_pod_is_restricted():
    for where, pod in every_pod():
        assert pod["automountServiceAccountToken"] is False, where
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] == 65532 == context["fsGroup"], where
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, where
        for container in containers(pod):
            context = container["securityContext"]
            assert context == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, where
            assert container["terminationMessagePolicy"] == "FallbackToLogsOnError", where
        kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
        allowed = {"persistentVolumeClaim", "emptyDir", "secret", "configMap", "projected"}
        assert kinds <= allowed, f"{where} mounts {kinds - allowed}"


def every_mount_has_its_volume_and_the_other_way_round():
    for where, pod in every_pod():
        volumes = {volume["name"] for volume in pod["volumes"]}
        mounts = {mount["name"] for container in containers(pod) for mount in container["volumeMounts"]}
        assert volumes == mounts, f"{where}: volumes {volumes}, mounts {mounts}"


def the_server_gets_no_secret_and_cannot_write():
    for where, pod in every_pod():
        for container in containers(pod):
            if container["name"] not in ("server", "wait-for-weights"):
                continue
            mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
            assert set(mounts) <= {"models", "model", "shm", "scratch"}, f"{where}: {set(mounts)}"
            assert mounts["models"]["readOnly"] is True, where
            text = str(container.get("env", []))
            assert "HF_TOKEN" not in text and "AWS" not in text and "secretKeyRef" not in text, where


def only_the_lease_brings_a_token():
    for name, (values, _) in GOOD.items():
        locked = values.get("lock") == "kubernetes" and "a lease that nobody takes" != name
        for where, pod in pods(render(good(values))):
            projected = any("projected" in volume for volume in pod["volumes"])
            args = [c["args"] for c in containers(pod) if c["args"][0] == "fetch"]
            assert projected == locked == any("--lock" in a for a in args), f"{name}, {where}"
            assert ("POD_NAME" in str(pod)) == locked and ("serviceAccountName" in pod) >= locked, f"{name}, {where}"
    resources = named(render(good(GOOD["a lease"][0])))
    (rule,) = resources["Role/demo-weightlift-lease"]["rules"]
    assert rule == {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}
    (subject,) = resources["RoleBinding/demo-weightlift-lease"]["subjects"]
    assert f"ServiceAccount/{subject['name']}" in resources
    assert resources["Job/" + job_name(resources)]["spec"]["template"]["spec"]["serviceAccountName"] == subject["name"]


def the_server_loads_what_is_fetched():
    for name, (values, _) in GOOD.items():
        for where, pod in pods(render(good(values))):
            server = [c for c in pod["containers"] if c["name"] == "server"]
            for init in pod.get("initContainers", []):
                dest, flag, link = init["args"][-3:]
                assert flag == "--link" and dest.endswith(server[0]["args"][2]), f"{name}, {where}: {init['args']}"
                assert server[0]["args"][0] == link, f"{name}, {where}: {server[0]['args']} after {init['args']}"
                mounts = [{m["name"]: m["mountPath"] for m in c["volumeMounts"]} for c in (init, server[0])]
                for volume in ("models", "model"):
                    assert len({m[volume] for m in mounts}) == 1, f"{name}, {where}: {mounts}"


def the_arguments_are_those_of_weightlift():
    resources = named(render(good(GOOD["every option of a model"][0])))
    (container,) = resources["Job/" + job_name(resources)]["spec"]["template"]["spec"]["containers"]
    assert container["args"] == [
        "fetch", "--include=*.json", "--include=*.safetensors", "--exclude=a b*", "--all", "--deny-pickle",
        f"--expect-revision={COMMIT}", "--retry-timeout=10m", "--connections=4", MODEL["source"], MODEL["dest"],
    ]  # fmt: skip
    for name, expected in (
        ("prune", ["prune", "--yes", "--keep-revisions=0", "--older-than=90d"]),
        ("prune that only tells", ["prune", "--keep-revisions=1", "--older-than=720h"]),
    ):
        (cron,) = [r for r in render(good(GOOD[name][0])) if r["kind"] == "CronJob"]
        (container,) = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        assert container["args"] == expected, f"{name}: {container['args']}"
        assert not container["volumeMounts"][0].get("readOnly") and "env" not in container, name
    (deployment,) = [r for r in render(good(GOOD["rox"][0])) if r["kind"] == "Deployment"]
    (waiting,) = deployment["spec"]["template"]["spec"]["initContainers"]
    assert waiting["args"] == [
        "wait", "--timeout", "2h", "--expect-revision", COMMIT, "/data/models/llama-3-8b",
        "--link", "/model/current",
    ]  # fmt: skip


def the_real_program_parses_every_command_line():
    """With WEIGHTLIFT_TEST_BIN: a wrong argument is exit 2; an unreachable Hub and offline are not."""
    path = program.binary()
    if not path:
        return "WEIGHTLIFT_TEST_BIN is not set"
    seen = set()
    for name, (values, _) in [("base", (base_values(), "")), *GOOD.items()]:
        resources = render(good(values))
        for _, pod in pods(resources):
            for container in containers(pod):
                if "weightlift/weightlift:" in container["image"]:
                    variables = [(v["name"], v["value"]) for v in container.get("env", []) if v["name"] == "BUCKET"]
                    program.parse(path, container["args"], variables, mounted(resources, pod, container))
                    seen.add(tuple(container["args"]))
    assert {args[0] for args in seen} == {"fetch", "wait", "prune"}, f"only {seen} are there"


def lists_are_mounted_where_they_are_named():
    """With the arguments, and the file as it was given."""
    expected = {
        "a models file": [["fetch", "--models", f"{PLACE}/models.yaml"]],
        "a models file at night, and a server of it": [
            ["fetch", "--lock", "kubernetes", "--models", f"{PLACE}/models.yaml"],
            ["fetch", "--lock", "kubernetes", "--models", f"{PLACE}/models.yaml", "--only", "bge-m3",
             "--link", "/model/current"],
        ],
        "a lock file": [["fetch", "--retry-timeout=10m", "--locked", f"{PLACE}/models.lock"]],
        "a lock file, and a server of it": [
            ["fetch", "--locked", f"{PLACE}/models.lock"],
            ["fetch", "--locked", f"{PLACE}/models.lock", "--only", "llama-3-8b", "--link", "/model/current"],
        ],
        "a lock file, and a server that waits": [["fetch", "--locked", f"{PLACE}/models.lock"]],
        "a server that waits for what a models file names, and nothing that fetches": [],
        "a lock file, and what is not listed goes": [
            ["fetch", "--locked", f"{PLACE}/models.lock"],
            ["prune", "--yes", "--keep-revisions=1", "--older-than=720h", f"--models={PLACE}/models.yaml"],
        ],
    }  # fmt: skip
    for name, (values, _) in GOOD.items():
        resources, found = render(good(values)), []
        for where, pod in pods(resources):
            for container in containers(pod):
                files = mounted(resources, pod, container)
                for path in re.findall(r"/etc/weightlift/[\w.]+", " ".join(container["args"])):
                    found.append(container["args"])
                    given = {f"{PLACE}/models.yaml": "modelsFile", f"{PLACE}/models.lock": "modelsLock"}[path]
                    assert files[path] == values[given], f"{name}, {where}: {path} is {files.get(path)}"
                    (mount,) = [m for m in container["volumeMounts"] if m["name"] == "models-list"]
                    assert mount["readOnly"] is True, f"{name}, {where}: {mount}"
                assert bool(files) == (PLACE in str(container["args"])), f"{name}, {where}: {container['args']}"
        assert sorted(found) == expected.get(name, []), f"{name}: {found}"


def another_list_is_another_config_map_and_job():
    for key, text in (("modelsFile", FILE), ("modelsLock", LOCK)):
        names = []
        for models in (text, text, text.replace(COMMIT, "1" * 40)):
            resources = render({"models": [], key: models})
            (config,) = [r for r in resources if r["kind"] == "ConfigMap"]
            assert config["immutable"] is True, config
            names.append((config["metadata"]["name"], job_name(named(resources))))
        assert names[0] == names[1], names
        assert names[0][0] != names[2][0] and names[0][1] != names[2][1], names


def who_waits_for_a_list_waits_for_its_commit():
    for name, model, commit in (
        ("a lock file, and a server that waits", "llama-3-8b", COMMIT),
        ("a server that waits for what a models file names, and nothing that fetches", "llama-3-8b", COMMIT),
        ("a server that waits for what a models file names, and nothing that fetches", "bge-m3", None),
    ):
        values = copy.deepcopy(GOOD[name][0])
        values["server"]["model"] = model
        (waiting,) = deployment(values)["template"]["spec"]["initContainers"]
        args = waiting["args"]
        found = [args[n + 1] for n, arg in enumerate(args) if arg == "--expect-revision"]
        assert args[0] == "wait" and f"/data/models/{model}" in args and found == [commit] * bool(commit), args


def what_is_not_listed_stays_unless_asked_for():
    for name, (values, _) in GOOD.items():
        for where, pod in pods(render(good(values))):
            for container in (c for c in containers(pod) if c["args"][0] == "prune"):
                asked = values["prune"].get("unlisted", False)
                assert ("--models" in " ".join(container["args"])) == asked, f"{name}, {where}: {container['args']}"
                env = container.get("env", [])
                assert env == (values["extraEnv"] if asked else []), f"{name}, {where}: {env}"
    assert "WARNING: at night" in notes(GOOD["a lock file, and what is not listed goes"][0])
    assert "WARNING" not in notes(GOOD["a lock file"][0])


def mounted(resources, pod, container):
    """What a container finds of the ConfigMaps that are rendered, by path."""
    maps = {r["metadata"]["name"]: r["data"] for r in resources if r["kind"] == "ConfigMap"}
    volumes = {v["name"]: v.get("configMap", {}).get("name") for v in pod["volumes"]}
    return {
        f"{mount['mountPath']}/{key}": text
        for mount in container["volumeMounts"]
        for key, text in maps.get(volumes[mount["name"]], {}).items()
    }


def a_job_gives_up_on_permanent_failures_only():
    for where, resource in everything():
        job = {"Job": resource, "CronJob": resource.get("spec", {}).get("jobTemplate")}.get(resource["kind"])
        if job:
            disruption, permanent = job["spec"]["podFailurePolicy"]["rules"]
            assert disruption["action"] == "Ignore" and permanent["action"] == "FailJob", where
            assert permanent["onExitCodes"]["values"] == PERMANENT, where
            (container,) = job["spec"]["template"]["spec"]["containers"]
            assert container["name"] == permanent["onExitCodes"]["containerName"], where


def an_upgrade_with_another_model_is_another_job():
    first, again = (job_name(named(render(good({})))) for _ in range(2))
    other = job_name(named(render(good({"models": [{**MODEL, "source": "hf://org/name@main"}]}))))
    assert first == again != other, f"{first}, {again}, {other}"


def long_names_stay_valid():
    values = good({"models": [{**MODEL, "dest": "a/" + "Long_" * 38}], "server": {"enabled": True}})
    for kind in ("job", "cronjob"):
        values["download"] = {"kind": kind}
        for resource in render(values, release="r" * 53):
            assert_valid_name(resource)


def names_with_dots_and_dashes_stay_valid():
    values = {"lock": "kubernetes", "server": {"enabled": True}, "models": [{**MODEL, "dest": "a.b_"}, OTHER]}
    for release in ("llama-3.1-8b", "weightlift.v2", "r" + "-" * 40 + "r", "a" * 39 + ".b"):
        for download in ({}, {"name": "get"}):
            for resource in render({**good(values), "download": download}, release=release):
                assert_valid_name(resource)


def assert_valid_name(resource):
    """As a Service's must be, the strictest: no dot, and a letter first."""
    name, longest = resource["metadata"]["name"], 52 if resource["kind"] == "CronJob" else 63
    assert len(name) <= longest and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name), f"{resource['kind']} {name}"


def a_release_whose_name_begins_with_a_digit_names_its_server():
    values = good({"server": {"enabled": True}})
    said = refusal(values, release="3-llama")
    assert said and "server.name" in said, said
    assert refusal(good({}), release="3-llama") is None, "a Job may have that name"
    values["server"]["name"] = "llama"
    assert refusal(values, release="3-llama") is None


def two_models_are_two_jobs_whatever_the_name():
    for length in (1, 51, 52):
        for kind in ("job", "cronjob"):
            download = {"name": "n" * length, "kind": kind}
            names = [
                resource["metadata"]["name"]
                for resource in render({"models": [MODEL, OTHER], "download": download})
                if resource["kind"] in ("Job", "CronJob")
            ]
            assert len(set(names)) == 2 and all(len(name) <= 52 for name in names), names


def names_and_numbers_stay_what_they_are():
    """In YAML 123 is a number, `on` a boolean, 2024-01-02 a date, and 1e+07 no integer."""
    values = good(
        {
            "namespace": {"create": True},
            "storage": {"mode": "hostPath", "claimName": "01-02", "hostPath": {"path": "/srv", "nodes": ["2"]}},
            "huggingface": {"secretName": "123", "secretKey": "4", "asFile": True},
            "s3": {"secretName": "0x5", "region": "6"},
            "caBundle": {"configMapName": "7", "key": "8"},
            "serviceAccount": {"create": True, "name": "9"},
            "lock": "kubernetes",
            "imagePullSecrets": [{"name": "1e3"}],
            "download": {"name": "off", "backoffLimit": 10000000, "ttlSecondsAfterFinished": 10000000},
            "server": {
                "enabled": True,
                "name": "on",
                "model": MODEL["dest"],
                "servedModelName": "10",
                "runtimeClassName": "11",
                "priorityClassName": "12",
                "replicas": 10000000,
                "progressDeadlineSeconds": 10000000,
                "startupSeconds": 10000000,
            },
        }
    )
    other = good(
        {
            "models": [{**MODEL, "expectRevision": "1" * 40}],
            "storage": {"claimName": "1", "storageClassName": "13"},
            "huggingface": {"secretName": "123", "secretKey": "4"},
            "server": {"enabled": True, "waitOnly": True, "waitTimeout": "14"},
        }
    )
    for resource in render(values, namespace="2024") + render(other, namespace="2024"):
        for version in KUBERNETES:
            problem = schema_problem(resource, version)
            assert problem is None, f"{resource['kind']}, Kubernetes {version}: {problem}"


def a_server_finds_its_own_pods_only():
    resources = named(render(good({"server": {"enabled": True}}), release="weightlift"))
    server, service = resources["Deployment/weightlift"]["spec"], resources["Service/weightlift"]["spec"]
    (job,) = [resource for key, resource in resources.items() if key.startswith("Job/")]
    for selector in (server["selector"]["matchLabels"], service["selector"]):
        assert selector.items() <= server["template"]["metadata"]["labels"].items(), selector
        assert not selector.items() <= job["spec"]["template"]["metadata"]["labels"].items(), selector


def a_server_that_is_recreated_has_no_rolling_update():
    for strategy, expected in (
        ({}, {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}),
        (None, {}),
        ({"type": "Recreate"}, {"type": "Recreate"}),
        ({"rollingUpdate": {"maxSurge": 1}}, {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}),
    ):
        found = deployment({"server": {"enabled": True, "strategy": strategy}})["strategy"]
        assert found == expected, f"{strategy} renders {found}"


def a_gpu_of_another_kind_takes_the_place_of_the_default():
    limits = {"amd.com/gpu": 1, "nvidia.com/gpu": None}
    spec = deployment({"server": {"enabled": True, "resources": {"limits": limits}}})
    found = spec["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert found == {"memory": "24Gi", "amd.com/gpu": 1}, found
    for page in ("values.yaml", "README.md"):
        assert "nvidia.com/gpu: null" in (CHART / page).read_text(), f"{page} does not say how"


def uninstalling_leaves_the_models():
    for where, resource in everything():
        if resource["kind"].startswith("PersistentVolume"):
            policy = resource["metadata"]["annotations"]["helm.sh/resource-policy"]
            assert policy == "keep", where
        if resource["kind"] == "PersistentVolume":
            assert resource["spec"]["persistentVolumeReclaimPolicy"] == "Retain", where


def the_access_mode_is_that_of_the_storage():
    expected = {"rwo": "ReadWriteOnce", "rox": "ReadOnlyMany", "hostPath": "ReadWriteOnce", "local": "ReadWriteOnce"}
    for name, (values, _) in GOOD.items():
        for resource in render(good(values)):
            if resource["kind"].startswith("PersistentVolume"):
                mode = values.get("storage", {}).get("mode", "rwx")
                assert resource["spec"]["accessModes"] == [expected.get(mode, "ReadWriteMany")], name


def the_role_stays_away_from_the_server():
    (deployment,) = [r for r in render(good(GOOD["s3 by a role"][0])) if r["kind"] == "Deployment"]
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"a": "b", "eks.amazonaws.com/skip-containers": "server"}


def the_notes_warn():
    values = good({"storage": {"mode": "rwo"}, "server": {"enabled": True}})
    assert "must run on one node" in notes(values)
    assert "must run on one node" not in notes(good({"server": {"enabled": True}}))
    assert "nothing here fetches" in notes(good(WAITING))


# --- rendering ----------------------------------------------------------------------------------


def render(values, release="demo", namespace=NAMESPACE):
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name=release, namespace=namespace)
    texts = [text for path, text in files.items() if not path.endswith("NOTES.txt")]
    return [d for text in texts for d in yaml.load_all(text, Loader=StrictLoader) if d]


def deployment(values):
    (resource,) = [resource for resource in render(good(values)) if resource["kind"] == "Deployment"]
    return resource["spec"]


def notes(values):
    with helm.Chart.load(CHART) as chart:
        files = chart.render(values, name="demo", namespace=NAMESPACE)
    return files["weightlift/templates/NOTES.txt"]


def refusal(values, release="demo"):
    try:
        render(values, release=release)
    except helm.HelmError as error:
        return str(error)
    return None


def good(values):
    return {"models": [copy.deepcopy(MODEL)], **copy.deepcopy(values)}


def base_values():
    return yaml.safe_load((CHART / "ci" / "base-values.yaml").read_text())


def merged(values):
    with helm.Chart.load(CHART) as chart:
        return chart.merge_values(values)


def schema():
    with helm.Chart.load(CHART) as chart:
        text = chart.schema
    jsonschema.Draft7Validator.check_schema(text)
    return jsonschema.Draft7Validator(text)


def everything():
    yield from ((f"base, {r['kind']}", r) for r in render(base_values()))
    for name, (values, _) in GOOD.items():
        yield from ((f"{name}, {r['kind']}", r) for r in render(good(values)))


def every_pod():
    for where, resource in everything():
        yield from ((where, pod) for _, pod in pods([resource]))


def pods(resources):
    for resource in resources:
        spec = resource.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            yield resource["kind"], spec["template"]["spec"]


def containers(pod):
    return pod.get("initContainers", []) + pod["containers"]


def job_name(resources):
    (name,) = [key.partition("/")[2] for key in resources if key.startswith("Job/")]
    return name


# --- comparing ----------------------------------------------------------------------------------


def kustomize(directory):
    return reading.render(KUBECTL, directory)


def named(resources):
    keys = {f"{resource['kind']}/{resource['metadata']['name']}": resource for resource in resources}
    assert len(keys) == len(resources), "two resources have one name"
    return keys


def without_helm(resource):
    """Without Helm's labels and annotations, and the namespace."""
    resource = copy.deepcopy(resource)
    metadata = resource["metadata"]
    metadata.pop("namespace", None)
    for label in ("helm.sh/chart", "app.kubernetes.io/managed-by"):
        metadata.get("labels", {}).pop(label, None)
    metadata.get("annotations", {}).pop("helm.sh/resource-policy", None)
    for empty in ("labels", "annotations"):
        if metadata.get(empty) == {}:
            del metadata[empty]
    return resource


def first_difference(one, other, path=""):
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            if key not in one or key not in other:
                return f"{path}.{key} is only in the {'base' if key in one else 'chart'}"
            if found := first_difference(one[key], other[key], f"{path}.{key}"):
                return found
        return None
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = (first_difference(a, b, f"{path}[{n}]") for n, (a, b) in enumerate(zip(one, other)))
        return next((found for found in pairs if found), None)
    return None if one == other and type(one) is type(other) else f"{path}: base {one!r}, chart {other!r}"


def leaves(values, known, path=""):
    for key, value in values.items():
        below = known["properties"][key]
        where = f"{path}.{key}" if path else key
        if isinstance(value, dict) and value and below.get("properties"):
            yield from leaves(value, below, where)
        else:
            yield where


TESTS = [
    the_chart_renders_the_kustomize_base,
    the_comparison_sees_a_small_difference,
    helm_lints_the_chart,
    good_values_render_what_they_should,
    everything_rendered_fits_the_schemas,
    a_misspelt_field_is_noticed,
    good_values_fit_the_schema,
    wrong_values_are_refused_by_schema_and_helm,
    values_that_do_not_fit_each_other_are_refused,
    every_value_is_in_schema_and_readme,
    every_pod_is_restricted,
    every_mount_has_its_volume_and_the_other_way_round,
    the_server_gets_no_secret_and_cannot_write,
    only_the_lease_brings_a_token,
    the_server_loads_what_is_fetched,
    the_arguments_are_those_of_weightlift,
    the_real_program_parses_every_command_line,
    lists_are_mounted_where_they_are_named,
    another_list_is_another_config_map_and_job,
    who_waits_for_a_list_waits_for_its_commit,
    what_is_not_listed_stays_unless_asked_for,
    a_job_gives_up_on_permanent_failures_only,
    an_upgrade_with_another_model_is_another_job,
    long_names_stay_valid,
    names_with_dots_and_dashes_stay_valid,
    a_release_whose_name_begins_with_a_digit_names_its_server,
    two_models_are_two_jobs_whatever_the_name,
    names_and_numbers_stay_what_they_are,
    a_server_finds_its_own_pods_only,
    a_server_that_is_recreated_has_no_rolling_update,
    a_gpu_of_another_kind_takes_the_place_of_the_default,
    uninstalling_leaves_the_models,
    the_access_mode_is_that_of_the_storage,
    the_role_stays_away_from_the_server,
    the_notes_warn,
]


def main():
    failed = 0
    for test in TESTS:
        name = test.__name__.replace("_", " ")
        try:
            skipped = test()
            print(f"skipped {name}: {skipped}" if skipped else f"ok      {name}")
        except (AssertionError, LookupError, TypeError, ValueError, helm.HelmError, yaml.YAMLError, subprocess.SubprocessError) as problem:
            failed += 1
            print(f"FAILED  {name}: {type(problem).__name__}: {problem}")
    print(f"{len(TESTS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
