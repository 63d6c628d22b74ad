"""What holds for every pod: the restricted standard, with the exceptions named here, and what is ours."""

import re

from .reading import after, models_mount

PERMANENT = {2, 10, 11, 12, 13, 14, 15, 16}  # exit codes after which another attempt cannot succeed
SEEDING = ("node-disk", "daemonset", "dragonfly")  # in the name of the sets with host paths
API = ("CronJob", "snapshot-models")  # the one pod with an API token for all its containers
LEASE = "lock-kubernetes"  # a token for weightlift alone, in the sets with this component
PLACE = {"NODE_NAME": "spec.nodeName", "POD_NAME": "metadata.name"}
PINNED = r"hf://[\w.-]+/[\w.-]+@0123456789abcdef0123456789abcdef01234567"


def every_pod_is_restricted(manifests):
    for pod in manifests.pods():
        token = pod.spec.get("automountServiceAccountToken")
        named = (pod.owner["kind"], pod.owner["metadata"]["name"])
        assert token is (named == API), f"{pod.where}: API token: {token}"
        # Where the field goes in an update, the API server keeps the account of before (kubernetes#72519).
        assert pod.spec.get("serviceAccountName"), f"{pod.where} names no account"
        context = pod.spec["securityContext"]
        assert context.get("seccompProfile") == {"type": "RuntimeDefault"}, f"{pod.where}: seccomp"
        if pod.owner["kind"] != "DaemonSet":
            assert context.get("runAsNonRoot") is True, f"{pod.where} may be root"
            # OpenShift gives the user, the group and fsGroup, and refuses others.
            ids = [context.get(field) for field in ("runAsUser", "runAsGroup", "fsGroup")]
            expected = [None] * 3 if "openshift" in pod.objects.components else [65532] * 3
            if "persistentVolumeClaim" not in str(pod.volumes()):
                ids, expected = ids[:2], expected[:2]
            assert ids == expected, f"{pod.where} is another user: {ids}"
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            assert not pod.spec.get(field), f"{pod.where}: {field}"
        paths = [v["name"] for v in pod.spec.get("volumes", []) if "hostPath" in v]
        assert paths == (["models"] if seeding(pod.set) else []), f"{pod.where} mounts host paths {paths}"


def seeding(name):
    return any(word in name for word in SEEDING)


def every_container_is_restricted(manifests):
    for pod, container in manifests.containers():
        where, context = f"{pod.where}, {container['name']}", container.get("securityContext", {})
        assert context.get("allowPrivilegeEscalation") is False, f"{where} may escalate"
        assert context.get("readOnlyRootFilesystem") is True, f"{where} can write its image"
        assert context.get("capabilities") == {"drop": ["ALL"]}, f"{where} keeps capabilities"
        assert "privileged" not in context, where
        root = pod.owner["kind"] == "DaemonSet" and container["name"] == "weightlift"
        assert (context.get("runAsUser", 65532) == 0) == root, f"{where}: runAsUser"
        assert (context.get("runAsNonRoot") is False) == root, f"{where}: runAsNonRoot"
        policy = container.get("terminationMessagePolicy")
        assert policy == "FallbackToLogsOnError", f"{where} has no termination message"
        assert container["resources"]["requests"].get("cpu"), f"{where} requests no CPU"
        assert container["resources"]["limits"].get("memory"), f"{where} has no memory limit"
        fixed = re.fullmatch(r"[\w./-]+(:v?\d+\.\d+\.\d+|(:[\w.]+)?@sha256:[0-9a-f]{64})", container["image"])
        assert fixed, f"{where} runs {container['image']}"


def tokens_go_to_weightlift_alone(manifests):
    found = set()
    for pod, container in manifests.containers():
        volumes = pod.volumes()
        for mount in container.get("volumeMounts", []):
            sources = volumes[mount["name"]].get("projected", {}).get("sources", [])
            if any("serviceAccountToken" in source for source in sources):
                found.add(pod.set)
                leases = container in pod.weightlift() and LEASE in pod.objects.components
                assert leases, f"{pod.where}: {container['name']}"
                assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    expected = {name for name, each in manifests.sets.items() if LEASE in each.components}
    assert found == expected, f"tokens are mounted in {found}"


def namespaces_enforce_what_their_pods_meet(manifests):
    for where, namespace in ((w, r) for w, r in manifests.objects() if r["kind"] == "Namespace"):
        seeds = seeding(where.split(":")[0])
        labels, expected = namespace["metadata"]["labels"], "privileged" if seeds else "restricted"
        assert labels["pod-security.kubernetes.io/enforce"] == expected, where
        name = namespace["metadata"]["name"]
        assert name == ("model-seeding" if seeds else "model-storage"), where


def exceptions_are_marked(manifests):
    marked = {str(p.relative_to(manifests.directory)) for p, text in manifests.text().items() if "EXCEPTION" in text}
    expected = {f"overlays/daemonset/{name}.yaml" for name in ("kustomization", "daemonset", "deployment")}
    expected |= {f"storage/node-disk/{name}.yaml" for name in ("kustomization", "namespace")}
    expected |= {f"components/lock-kubernetes/{name}.yaml" for name in ("job", "cronjob", "servers")}
    assert marked == expected | {"components/snapshots/cronjob.yaml"}, f"marked: {sorted(marked)}"


def every_mount_exists(manifests):
    for pod in manifests.pods():
        for container in pod.containers():
            names = [mount["name"] for mount in container.get("volumeMounts", [])]
            assert len(set(names)) == len(names), f"{pod.where}: {names}"
            assert set(names) <= set(pod.volumes()), f"{pod.where}: no volume for {names}"
        used = {m["name"] for c in pod.containers() for m in c.get("volumeMounts", [])}
        assert used == set(pod.volumes()), f"{pod.where} mounts {used} of {set(pod.volumes())}"


def weightlift_is_called_as_it_can_be(manifests):
    for pod in manifests.pods():
        for container in pod.weightlift():
            where = f"{pod.where}, {container['name']}"
            command, first = container["args"][:2]
            mount = models_mount(container)
            assert command in ("fetch", "wait", "prune", "verify", "doctor"), f"{where} runs {command}"
            assert mount["mountPath"] == "/data/models" and "subPath" not in mount, where
            assert bool(mount.get("readOnly")) == (command in ("wait", "verify")), f"{where}: {command}, {mount}"
            assert "command" not in container, f"{where} replaces the entry point"
            names = {variable["name"] for variable in container.get("env", [])}
            if command not in ("fetch", "doctor"):
                assert names == PLACE.keys(), f"{where} knows too much: {names}"
            if command in ("wait", "verify"):
                assert first.startswith("/data/models/"), f"{where}: {container['args']}"
            for name in re.findall(r"\$\((\w+)\)", " ".join(container["args"])):
                assert name in names, f"{where}: $({name}) is not set"


def every_container_of_ours_has_one_name(manifests):
    """So that `logs POD -c weightlift` works wherever it runs."""
    for pod, container in manifests.containers():
        ours = container in pod.weightlift()
        assert (container["name"] == "weightlift") == ours, f"{pod.where}: {container['name']}, {container['image']}"
    for where, document in manifests.raw():
        for container in find_containers(document):
            if container.get("image", "").startswith("ghcr.io/weightlift/weightlift:"):
                assert container["name"] == "weightlift", f"{where}: {container['name']}"


def every_container_of_ours_knows_its_pod_and_node(manifests):
    """Who waits for it says both."""
    for pod in manifests.pods():
        for container in pod.weightlift():
            named = {v["name"]: v["valueFrom"]["fieldRef"]["fieldPath"] for v in container["env"] if v["name"] in PLACE}
            assert named == PLACE, f"{pod.where}: {named}"
    kserve = manifests.sets["overlays/kserve"].one("ClusterStorageContainer")["spec"]["container"]
    assert PLACE.keys() <= {variable["name"] for variable in kserve["env"]}, kserve["env"]


def the_time_is_bounded_at_the_pod(manifests):
    """A deadline of the Job removes its pods, and with them the log and the termination message."""
    bounded = 0
    for pod in manifests.pods():
        if pod.owner["kind"] in ("Job", "CronJob"):
            assert "activeDeadlineSeconds" not in pod.job(), f"{pod.where}: a deadline at the Job"
        for ours in pod.weightlift():
            seconds = [int(value.removesuffix("m")) * 60 for value in after(ours["args"], "--deadline")]
            limit = pod.spec.get("activeDeadlineSeconds")
            assert bool(limit) == bool(seconds), f"{pod.where}: {limit}, {ours['args']}"
            assert not limit or seconds[0] <= limit - 60, f"{pod.where}: {seconds} of {limit}"
            bounded += bool(limit)
    assert bounded > 0, "nothing is bounded"


def every_source_is_pinned_or_a_branch_on_purpose(manifests):
    branches = set()
    for where, document in manifests.raw():
        for source in find_strings(document, "hf://"):
            if source == "hf://" or re.fullmatch(PINNED, source):
                continue
            assert source.endswith("@main"), f"{where}: {source}"
            branches.add(where)
    assert branches == {"components/refresh/cronjob.yaml", "components/doctor/job.yaml"}, f"branches in {branches}"
    for pod in manifests.pods():
        for container in pod.weightlift():
            for path, text in pod.files(container).items():
                for source in re.findall(r"hf://[^\s\"]+", text):
                    assert re.fullmatch(PINNED, source), f"{pod.where}, {path}: {source}"


def a_patch_with_args_shows_its_image(manifests):
    """So that whoever walks the files, as the test of the command line does, finds every call."""
    for where, document in manifests.raw():
        for container in find_containers(document):
            if "args" in container and container.get("name") not in ("server",):
                assert "image" in container or "storageUri" in container, f"{where}: {container['name']}"


def servers_load_what_is_there_and_cannot_write(manifests):
    servers = [pod for pod in manifests.pods() if pod.server()]
    assert len(servers) > 15, "where are the servers?"
    for pod in servers:
        server = pod.server()
        mount = models_mount(server)
        assert mount.get("readOnly") is True, f"{pod.where}: the server mounts the models writable"
        assert "subPath" not in mount, f"{pod.where}: a subPath does not follow an update"
        (ours,) = pod.weightlift()
        # Behind the `vllm serve` of the image; `--model` is going to be removed.
        loaded, link = server["args"][0], ours["args"][ours["args"].index("--link") + 1]
        assert loaded == link, f"{pod.where} loads {loaded}, the link is at {link}"
        assert mount["mountPath"] == models_mount(ours)["mountPath"], f"{pod.where}: the link leads elsewhere"
        assert "emptyDir" in pod.volumes()["model"], f"{pod.where}: the link is not the pod's own"
        own = {c["name"]: m for c in (ours, server) for m in c["volumeMounts"] if m["name"] == "model"}
        assert {m["mountPath"] for m in own.values()} == {link.rpartition("/")[0]}, f"{pod.where}: {own}"
        assert own["server"].get("readOnly") and not own[ours["name"]].get("readOnly"), f"{pod.where}: {own}"
        tainted = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        assert tainted in pod.spec.get("tolerations", []), f"{pod.where}: no GPU node with a taint takes it"
        variables = {variable["name"]: variable.get("value") for variable in server["env"]}
        assert variables.get("HF_HUB_OFFLINE") == "1", f"{pod.where}: the server may ask the Hub"
        assert not {"HF_TOKEN", "HF_TOKEN_PATH", "AWS_SECRET_ACCESS_KEY"} & set(variables), pod.where
        ports = {port["name"] for port in server["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert server[probe]["httpGet"]["port"] in ports, f"{pod.where}: {probe} asks another port"
        assert server["startupProbe"]["failureThreshold"] * server["startupProbe"]["periodSeconds"] >= 600


def jobs_give_up_on_permanent_failures_only(manifests):
    jobs = [pod for pod in manifests.pods() if pod.owner["kind"] in ("Job", "CronJob") and pod.weightlift()]
    assert len(jobs) > 10, "where are the Jobs?"
    for pod in jobs:
        job, indexed = pod.job(), pod.job().get("completionMode") == "Indexed"
        assert pod.spec["restartPolicy"] == "Never", pod.where
        assert job["podReplacementPolicy"] == "Failed", f"{pod.where}: two pods may fetch side by side"
        # The first answer of the doctor is the answer.
        assert (job["backoffLimit"] > 0) == (pod.owner["metadata"]["name"] != "doctor"), pod.where
        disruption, permanent = job["podFailurePolicy"]["rules"]
        assert disruption["action"] == "Ignore", pod.where
        assert [c["type"] for c in disruption["onPodConditions"]] == ["DisruptionTarget"], pod.where
        assert permanent["action"] == ("FailIndex" if indexed else "FailJob"), pod.where
        assert ("backoffLimitPerIndex" in job) == indexed, pod.where
        rule = permanent["onExitCodes"]
        assert rule["operator"] == "In" and set(rule["values"]) == PERMANENT, f"{pod.where}: {rule}"
        assert rule["containerName"] in [c["name"] for c in pod.containers()], f"{pod.where}: {rule}"
        memory = pod.weightlift()[0]["resources"]
        assert (memory["requests"]["memory"], memory["limits"]["memory"]) == ("64Mi", "128Mi"), pod.where
        if pod.owner["kind"] == "Job":
            assert job["ttlSecondsAfterFinished"] > 0, pod.where


def find_strings(value, prefix):
    if isinstance(value, str):
        return [value] if value.startswith(prefix) else []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [found for each in inner for found in find_strings(each, prefix)]


def find_containers(value):
    if isinstance(value, list):
        return [c for each in value for c in find_containers(each)]
    if not isinstance(value, dict):
        return []
    here = [c for key in ("containers", "initContainers") for c in value.get(key, [])]
    return here + [c for each in value.values() for c in find_containers(each)]


TESTS = [
    every_pod_is_restricted,
    every_container_is_restricted,
    tokens_go_to_weightlift_alone,
    namespaces_enforce_what_their_pods_meet,
    exceptions_are_marked,
    every_mount_exists,
    weightlift_is_called_as_it_can_be,
    every_container_of_ours_has_one_name,
    every_container_of_ours_knows_its_pod_and_node,
    the_time_is_bounded_at_the_pod,
    every_source_is_pinned_or_a_branch_on_purpose,
    a_patch_with_args_shows_its_image,
    servers_load_what_is_there_and_cannot_write,
    jobs_give_up_on_permanent_failures_only,
]
