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
import sys

import running

try:
    import helm_python as helm
    import yaml
    from manifests import program, reading
    from manifests.schemas import schema_problem

    from chart import ours, pages, upgrade
    from chart.rendering import (
        base_values, containers, deployment, every_pod, everything, first_difference, good, is_ours,
        job_name, kustomize, leaves, merged, named, notes, pods, refusal, render, schema, without_helm,
    )  # fmt: skip
    from chart.values import (
        BAD_FOR_SCHEMA, BAD_FOR_TEMPLATES, CHART, COMMIT, FILE, GOOD, KUBERNETES, LOCK, MODEL, NAMESPACE, OTHER, PERMANENT,
        PLACE, ROOT, SOURCES, WAITING,
    )  # fmt: skip
except ImportError as missing:
    print(f"skipped: {missing.name} is not installed")
    sys.exit(1 if os.environ.get("WEIGHTLIFT_TEST_NO_SKIP") else 0)

if reading.find_kubectl() is None:
    print("skipped: kubectl is not installed")
    sys.exit(1 if os.environ.get("WEIGHTLIFT_TEST_NO_SKIP") else 0)


def the_chart_renders_the_kustomize_base():
    """And its volume. The base's ServiceAccount is for components; the chart makes one where it is asked to."""
    places = [ROOT / "manifests" / each for each in ("", "storage/namespace", "storage/rwx-default-class")]
    objects = [each for place in places for each in kustomize(place)]
    base = named(without_helm(each) for each in objects if each["kind"] != "ServiceAccount")
    chart = named(map(without_helm, render(base_values())))
    assert len(base) >= 5, f"the base has only {sorted(base)}"
    assert base.keys() == chart.keys(), f"base {sorted(base)}, chart {sorted(chart)}"
    for key, resource in base.items():
        difference = first_difference(resource, chart[key])
        assert not difference, f"{key}: {difference}"


def the_comparison_sees_a_small_difference():
    """Guards the test above."""
    base = named(map(without_helm, render(base_values())))
    for changed in ({"resources": {"limits": {"memory": "129Mi"}}}, {"huggingface": {"secretName": "other"}}):
        chart = named(map(without_helm, render({**base_values(), **changed})))
        for key in ("Job/download-weights", "Deployment/llama-3-8b"):
            assert first_difference(base[key], chart[key]), f"{key}, {changed}"


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
        # Where the field goes in an upgrade, the API server keeps the account of before (kubernetes#72519).
        assert pod.get("serviceAccountName"), f"{where} names no account"
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, where
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


def the_user_is_that_of_the_values():
    """In every pod, the server's too."""
    usual = {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "fsGroupChangePolicy": "OnRootMismatch"}
    others = {
        "OpenShift": {"fsGroupChangePolicy": "OnRootMismatch"},
        "users of one's own": {"runAsUser": 1000650000, "runAsGroup": 0, "supplementalGroups": [1000650000, 0]},
    }
    always = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    for name, (values, _) in GOOD.items():
        for where, pod in pods(render(good(values))):
            assert pod["securityContext"] == {**always, **others.get(name, usual)}, f"{name}, {where}"


def every_mount_has_its_volume_and_the_other_way_round():
    for where, pod in every_pod():
        volumes = {volume["name"] for volume in pod["volumes"]}
        mounts = {mount["name"] for container in containers(pod) for mount in container["volumeMounts"]}
        assert volumes == mounts, f"{where}: volumes {volumes}, mounts {mounts}"


def the_server_gets_no_secret_and_cannot_write():
    for where, pod in every_pod():
        for container in containers(pod):
            if is_ours(container) and container["args"][0] != "wait":
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
            assert ("POD_NAMESPACE" in str(pod)) == locked, f"{name}, {where}"
            assert (pod["serviceAccountName"] != "default") >= locked, f"{name}, {where}"
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
        assert not container["volumeMounts"][0].get("readOnly"), name
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
                if is_ours(container):
                    variables = [(v["name"], v["value"]) for v in container.get("env", []) if v["name"] == "BUCKET"]
                    program.parse(path, container["args"], variables, mounted(resources, pod, container))
                    seen.add(tuple(container["args"]))
    assert {args[0] for args in seen} == {"fetch", "wait", "prune", "verify"}, f"only {seen} are there"


def the_real_program_takes_the_sources_and_gives_these_names():
    """With WEIGHTLIFT_TEST_BIN: `--only` of another name is exit 2."""
    path = program.binary()
    if not path:
        return "WEIGHTLIFT_TEST_BIN is not set"
    for source, _, name in SOURCES:
        files = {f"{PLACE}/models.yaml": f"version: 1\nmodels:\n  - source: {source}\n"}
        nobody = [("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x"), ("WEIGHTLIFT_DEADLINE", "1s")]
        program.parse(path, ["fetch", "--models", f"{PLACE}/models.yaml", "--only", name], nobody, files)
        found = render({"models": [{"source": source, "dest": "name"}]})
        assert source in str(found), source
    readme = (ROOT / "README.md").read_text()
    forms = set(re.findall(r"^\| `([a-z0-9]+)://", readme, re.MULTILINE))
    assert forms == {source.partition(":")[0] for source, *_ in SOURCES}, f"README.md has {sorted(forms)}"


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
        "verify, of a lock file": [["fetch", "--locked", f"{PLACE}/models.lock"]],
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
                env = container["env"][2:]
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
    expected = {"rwx": "ReadWriteMany", "rwo": "ReadWriteOnce", "rox": "ReadOnlyMany", "hostPath": "ReadWriteOnce", "local": "ReadWriteOnce"}
    for name, (values, _) in GOOD.items():
        for resource in render(good(values)):
            if resource["kind"].startswith("PersistentVolume"):
                mode = values.get("storage", {}).get("mode", "rwx")
                assert resource["spec"]["accessModes"] == [expected[mode]], name


def the_role_stays_away_from_the_server():
    (deployment,) = [r for r in render(good(GOOD["s3 by a role"][0])) if r["kind"] == "Deployment"]
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"a": "b", "eks.amazonaws.com/skip-containers": "server"}


def the_notes_warn():
    values = good({"storage": {"mode": "rwo"}, "server": {"enabled": True}})
    assert "must run on one node" in notes(values)
    assert "must run on one node" not in notes(good({"server": {"enabled": True}}))
    assert "nothing here fetches" in notes(good(WAITING))


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
    the_user_is_that_of_the_values,
    every_mount_has_its_volume_and_the_other_way_round,
    the_server_gets_no_secret_and_cannot_write,
    only_the_lease_brings_a_token,
    the_server_loads_what_is_fetched,
    the_arguments_are_those_of_weightlift,
    the_real_program_parses_every_command_line,
    the_real_program_takes_the_sources_and_gives_these_names,
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
    *ours.TESTS,
    *upgrade.TESTS,
    *pages.TESTS,
]


def main():
    return running.run(TESTS)


if __name__ == "__main__":
    sys.exit(main())
