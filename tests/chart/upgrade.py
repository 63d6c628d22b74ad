"""What `helm upgrade` does with what is there: Jobs cannot be changed, and some parts of other kinds neither."""

import copy

import helm_python as helm

from chart.rendering import deployment, good, leaves, named, notes, pods, render
from chart.values import CHART, COMMIT, FILE, GOOD, LOCK, MODEL, OTHER, SNAPSHOT, SOURCES, WAITING, rox

SERVER = {"server": {"enabled": True}}
LOCAL = {"storage": {"mode": "local", "hostPath": {"path": "/srv", "nodes": ["a"]}}}
AT_NIGHT = {"download": {"kind": "cronjob"}}
PRUNING = {"prune": {"enabled": True}}
# Every value of the chart: another value of it and, where nothing is made of it else, the values beside it.
CHANGES = {
    "image.repository": ("registry.acme.example/weightlift", {}),
    "image.tag": ("9.9.9", {}),
    "image.digest": ("sha256:" + "0" * 64, {}),
    "image.pullPolicy": ("Always", {}),
    "imagePullSecrets": ([{"name": "registry"}], {}),
    "namespace.create": (True, {}),
    "models[].source": ("hf://org/name@main", {}),
    "models[].dest": ("other", {}),
    "models[].include": (["*.json"], {}),
    "models[].exclude": (["*.bin"], {}),
    "models[].all": (True, {}),
    "models[].denyPickle": (True, {}),
    "models[].expectRevision": ("1" * 40, {}),
    "models[].args": (["--connections=4"], {}),
    "models": ([MODEL, OTHER], {}),
    "modelsFile": (FILE.replace("main", "v2"), {"models": [], "modelsFile": FILE}),
    "modelsLock": (LOCK.replace(COMMIT, "1" * 40), {"models": [], "modelsLock": LOCK}),
    "storage.mode": ("rwo", {}),
    "storage.claimName": ("mine", {}),
    "storage.size": ("200Gi", {}),
    "storage.storageClassName": ("nfs", {}),
    "storage.keep": (False, {}),
    "storage.readOnly": (True, {**WAITING, "storage": {"mode": "existingClaim"}}),
    "storage.dataSource": ({**SNAPSHOT, "name": "other"}, rox(SNAPSHOT)),
    "storage.hostPath.path": ("/data", LOCAL),
    "storage.hostPath.nodes": (["b"], LOCAL),
    "huggingface.secretName": ("other", {}),
    "huggingface.secretKey": ("other", {}),
    "huggingface.optional": (False, {}),
    "huggingface.asFile": (True, {}),
    "huggingface.endpoint": ("https://hub.acme.example", {}),
    "s3.secretName": ("s3", {}),
    "s3.region": ("eu-west-1", {}),
    "s3.endpoint": ("http://minio:9000", {}),
    "s3.pathStyle": (True, {}),
    "s3.anonymous": (True, {}),
    "serviceAccount.create": (True, {}),
    "serviceAccount.name": ("mine", {}),
    "serviceAccount.annotations": ({"a": "b"}, {"serviceAccount": {"create": True}}),
    "lock": ("kubernetes", {}),
    "caBundle.configMapName": ("ca", {}),
    "caBundle.key": ("other.crt", {"caBundle": {"configMapName": "ca"}}),
    "proxy.https": ("http://proxy:3128", {}),
    "proxy.http": ("http://proxy:3128", {}),
    "proxy.noProxy": (".svc", {}),
    "extraArgs": (["--connections=4"], {}),
    "extraEnv": ([{"name": "A", "value": "b"}], {}),
    "extraVolumes": ([{"name": "a", "emptyDir": {}}], {}),
    "extraVolumeMounts": ([{"name": "a", "mountPath": "/a"}], {}),
    "resources.requests": ({"cpu": "1"}, {}),
    "resources.limits": ({"cpu": "1"}, {}),
    "openshift": (True, {}),
    "podSecurityContext.runAsUser": (1000, {}),
    "podSecurityContext.runAsGroup": (1000, {}),
    "podSecurityContext.fsGroup": (1000, {}),
    "podSecurityContext.fsGroupChangePolicy": ("Always", {}),
    "podSecurityContext.supplementalGroups": ([1000], {}),
    "download.kind": ("cronjob", {}),
    "download.name": ("get", {}),
    "download.schedule": ("@daily", AT_NIGHT),
    "download.suspend": (True, {}),
    "download.backoffLimit": (1, {}),
    "download.activeDeadlineSeconds": (3600, {}),
    "download.ttlSecondsAfterFinished": (60, {}),
    "download.podAnnotations": ({"a": "b"}, {}),
    "download.podLabels": ({"a": "b"}, {}),
    "download.nodeSelector": ({"a": "b"}, {}),
    "download.tolerations": ([{"operator": "Exists"}], {}),
    "download.affinity": ({"nodeAffinity": {}}, {}),
    "prune.enabled": (True, {}),
    "prune.schedule": ("@daily", PRUNING),
    "prune.dryRun": (True, PRUNING),
    "prune.keepRevisions": (2, PRUNING),
    "prune.olderThan": ("90d", PRUNING),
    "prune.unlisted": (True, {"models": [], "modelsFile": FILE, **PRUNING}),
    "verify.enabled": (True, {}),
    "verify.schedule": ("@daily", {"verify": {"enabled": True}}),
    "server.enabled": (True, {}),
    "server.name": ("llama", SERVER),
    "server.model": (OTHER["dest"], {"models": [MODEL, OTHER], **SERVER}),
    "server.servedModelName": ("llama", SERVER),
    "server.waitOnly": (True, SERVER),
    "server.waitTimeout": ("1h", {"server": {"enabled": True, "waitOnly": True}}),
    "server.image": ("registry.acme.example/vllm:1", SERVER),
    "server.replicas": (3, SERVER),
    "server.strategy": ({"type": "Recreate"}, SERVER),
    "server.progressDeadlineSeconds": (60, SERVER),
    "server.startupSeconds": (60, SERVER),
    "server.port": (9000, SERVER),
    "server.servicePort": (9000, SERVER),
    "server.extraArgs": (["--seed=1"], SERVER),
    "server.extraEnv": ([{"name": "A", "value": "b"}], SERVER),
    "server.resources.requests": ({"cpu": "1"}, SERVER),
    "server.resources.limits": ({"cpu": "1"}, SERVER),
    "server.shmSize": ("1Gi", SERVER),
    "server.scratchSize": ("1Gi", SERVER),
    "server.runtimeClassName": ("nvidia", SERVER),
    "server.priorityClassName": ("high", SERVER),
    "server.podAnnotations": ({"a": "b"}, SERVER),
    "server.podLabels": ({"a": "b"}, SERVER),
    "server.nodeSelector": ({"a": "b"}, SERVER),
    "server.tolerations": ([{"operator": "Exists"}], SERVER),
    "server.affinity": ({"nodeAffinity": {}}, SERVER),
}
# These are of the claim, which cannot be changed: README says to take another claimName.
OF_THE_CLAIM = [
    "storage.mode", "storage.storageClassName", "storage.dataSource", "storage.hostPath.path", "storage.hostPath.nodes",
]  # fmt: skip
# Of a Job these alone can be changed.
MUTABLE_OF_JOBS = {"suspend", "backoffLimit", "ttlSecondsAfterFinished", "parallelism", "activeDeadlineSeconds"}


def an_upgrade_changes_no_job():
    """Each value by itself: what is in the Job stays, or the Job has another name."""
    chart = helm.Chart.load(CHART)
    of_models = [f"models[].{key}" for key in chart.schema["properties"]["models"]["items"]["properties"]]
    assert sorted([*leaves(chart.values, chart.schema), *of_models]) == sorted(CHANGES), "a value is missing above"
    other, refused = set(), set()
    for path, (value, beside) in CHANGES.items():
        for name in ("", "get-"):
            before = both(good(beside), {"download": {"name": name.rstrip("-")}} if name else {})
            if path == "download.name" and name:
                continue
            old, new = named(render(before)), named(render(changed(before, path, value)))
            assert old != new, f"{path} changes nothing"
            if jobs(old) != jobs(new):
                other.add(path)
            for key in old.keys() & new.keys():
                if unchangeable(old[key]) != unchangeable(new[key]):
                    assert key.partition("/")[0].startswith("PersistentVolume"), f"{path} changes {key}, which is refused"
                    refused.add(path)
    assert refused == set(OF_THE_CLAIM), f"the claim is changed by {refused}"
    readme = (CHART / "README.md").read_text()
    (told,) = [line for line in readme.split("\n- ") if "another `storage.claimName`" in line]
    assert all(f"`{path}`" in told for path in OF_THE_CLAIM), f"README.md does not name {OF_THE_CLAIM}"
    # Guards the above.
    assert {"image.tag", "extraArgs", "huggingface.secretName", "resources.limits", "modelsLock", "openshift"} <= other
    assert not {"server.image", "download.suspend", "prune.schedule", "storage.size"} & other, other


def both(one, two):
    """Values in values."""
    merged = {**one, **two}
    for key in one.keys() & two.keys():
        if isinstance(one[key], dict) and isinstance(two[key], dict):
            merged[key] = both(one[key], two[key])
    return merged


def changed(values, path, value):
    if path.startswith("models[]."):
        (model,) = values["models"]
        return {**values, "models": [{**model, path.partition(".")[2]: value}]}
    for key in reversed(path.split(".")):
        value = {key: value}
    return both(copy.deepcopy(values), value)


def jobs(resources):
    return {key for key in resources if key.startswith("Job/")}


def unchangeable(resource):
    """What the API server refuses to change. Of a claim only the request may grow."""
    spec = resource.get("spec", {})
    return {
        "Job": {key: value for key, value in spec.items() if key not in MUTABLE_OF_JOBS},
        "Deployment": spec.get("selector"),
        "PersistentVolumeClaim": {key: value for key, value in spec.items() if key != "resources"},
        "PersistentVolume": {key: value for key, value in spec.items() if key != "capacity"},
        "ConfigMap": resource.get("data"),
        "RoleBinding": resource.get("roleRef"),
    }.get(resource["kind"])


def a_job_that_failed_can_be_made_new_by_a_value():
    """For GitOps, where nobody deletes by hand: README says so."""
    first, second = (
        jobs(named(render(good({"download": {"podAnnotations": {"try": number}}})))) for number in ("1", "2")
    )
    assert first != second, first
    assert "download.podAnnotations.try=2" in (CHART / "README.md").read_text(), "README.md does not say how"


def releases_of_one_namespace_do_not_share_jobs():
    """The commands of NOTES.txt select by these labels."""
    values = {"models": [MODEL, OTHER], **PRUNING, "verify": {"enabled": True}}
    for release in ("one", "two.v3"):
        for resource in render(values, release=release):
            assert resource["metadata"]["labels"]["app.kubernetes.io/instance"] == release, resource["kind"]
            spec = resource.get("spec", {})
            template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
            if template:
                assert template["metadata"]["labels"]["app.kubernetes.io/instance"] == release, resource["kind"]


def who_waits_beside_a_pinned_fetch_waits_for_that_commit():
    """Else a pod of an update is content with the old revision. By each way to name a model."""
    for source, revision, name in SOURCES:
        model = {"source": source, "dest": "name"}
        listed = f"version: 1\nmodels:\n  - source: {source}\n"
        lock = LOCK.replace(f'"revision": "{COMMIT}"', f'"revision": "{"3" * 40}"')
        for values, expected in (
            ({"models": [model]}, revision),
            ({"models": [{**model, "expectRevision": "2" * 40}]}, "2" * 40),
            ({"models": [OTHER, model], "server": {"model": "name"}}, revision),
            ({"models": [], "modelsFile": listed, "server": {"model": name}}, revision),
            (
                {"models": [], "modelsFile": f"{listed}    expect: {'a4' * 20}\n", "server": {"model": name}},
                "a4" * 20,
            ),
            ({"models": [], "modelsLock": lock, "server": {"model": "llama-3-8b"}}, "3" * 40),
        ):
            values = both({"server": {"enabled": True, "waitOnly": True}}, values)
            args = waiting(values)
            found = [args[n + 1] for n, arg in enumerate(args) if arg == "--expect-revision"]
            assert found == [expected] * bool(expected), f"{values}: {args}"
            said = notes(values)
            assert ("names no commit" in said) == (not expected), f"{values}: {said}"
            if expected:
                assert expected.removeprefix("sha256:")[:12] in said, f"{values}: {said}"


def another_commit_replaces_the_pods():
    for values in ({}, {"waitOnly": True}):
        old, new = (
            deployment({"models": [{**MODEL, "source": f"hf://org/name@{commit}"}], "server": {"enabled": True, **values}})
            for commit in (COMMIT, "1" * 40)
        )
        assert old["template"] != new["template"] and "1" * 40 in str(new["template"]), values


def waiting(values):
    (container,) = deployment(values)["template"]["spec"]["initContainers"]
    assert container["args"][0] == "wait", container["args"]
    return container["args"]


def servers_load_through_a_link_of_their_own():
    """So a rolling update does not show an old pod the new revision, and nothing on the volume flips back."""
    count = 0
    for name, (values, _) in GOOD.items():
        for kind, pod in pods(render(good(values))):
            if kind != "Deployment":
                continue
            count += 1
            (init,), (server,) = pod["initContainers"], pod["containers"]
            assert init["args"][-2:] == ["--link", "/model/current"] and server["args"][0] == "/model/current", name
            (link,) = [volume for volume in pod["volumes"] if volume["name"] == "model"]
            assert "emptyDir" in link, f"{name}: {link}"
    assert count > 10, count


TESTS = [
    an_upgrade_changes_no_job,
    a_job_that_failed_can_be_made_new_by_a_value,
    releases_of_one_namespace_do_not_share_jobs,
    who_waits_beside_a_pinned_fetch_waits_for_that_commit,
    another_commit_replaces_the_pods,
    servers_load_through_a_link_of_their_own,
]
