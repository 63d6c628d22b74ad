"""What is put together takes effect: the README's combinations, and every storage × operation × credentials."""

import json
import re

from . import lists, pods, schemas, sets
from .reading import Set, after, render_combined

# The variables by which each component shows in a container that fetches.
SHOWS = {
    "hf-token-file": "HF_TOKEN_PATH",
    "lock-kubernetes": "WEIGHTLIFT_LOCK",
    "s3-source": "AWS_REGION",
    "s3-secret": "AWS_SECRET_ACCESS_KEY",
    "mirror": "HF_ENDPOINT",
    "proxy": "HTTPS_PROXY",
    "private-ca": "SSL_CERT_FILE",
    "metrics": "WEIGHTLIFT_METRICS_LISTEN",
}
# Those that bring an object, and its name.
BRINGS = {
    "prune": ("CronJob", "prune-models"),
    "verify": ("CronJob", "verify-models"),
    "refresh": ("CronJob", "refresh-weights"),
    "snapshots": ("CronJob", "snapshot-models"),
    "doctor": ("Job", "doctor"),
    "job-many": ("Job", "download-models"),
    "job-indexed": ("Job", "download-sweep-7"),
    "lock-kubernetes": ("Role", "weightlift-lock"),
    "network-policy": ("NetworkPolicy", "default-deny"),
    "quota": ("ResourceQuota", "model-storage"),
    "restore-snapshot": ("PersistentVolumeClaim", "models-restored"),
}
# The Jobs that fetch no commit, by the word behind `fetch`.
OTHER_JOBS = {
    "s3://acme-models/llama-3-8b/": "download-weights-s3",
    "s3://acme-models/sweep-7/$(JOB_COMPLETION_INDEX)/": "download-sweep-7",
    "--models": "download-models",
    "--locked": "download-models",
}
WAITING = {"wait-only", "network-policy", "refresh"}
NO_SERVERS = {"job-many", "job-indexed", "no-servers"}

# The matrix. Storage: the set, the workloads on it, and what must come last there.
STORAGES = [
    ("rwx-default-class", "base", []),
    ("rwx", "base", []),
    ("rwo", "base", ["one-node"]),
    ("rwo-default-class", "base", ["one-node"]),
    ("static-pv", "base", []),
]
OPERATIONS = [
    [],
    ["wait-only"],
    ["refresh"],
    ["prune"],
    ["verify"],
    ["job-many"],
    ["job-many", "locked"],
    ["job-indexed"],
    ["snapshots"],
    ["restore-snapshot"],
    ["wait-only", "restore-snapshot"],
    ["network-policy"],
    ["lock-kubernetes"],
    ["quota"],
    ["doctor"],
    ["refresh", "prune", "snapshots"],
    ["job-many", "prune", "prune-unlisted", "verify", "verify-list"],
    ["refresh", "prune", "verify", "restore-snapshot"],
    ["job-many", "snapshots", "restore-snapshot"],
]
CREDENTIALS = [[], ["hf-token-file"], ["s3-irsa"], ["s3-pod-identity"], ["s3-secret"]]
# Where only some of it can be: no claim that all share. What can not is in excluded.py.
ELSEWHERE = [
    ("per-replica", "overlays/statefulset", [], [[], ["lock-kubernetes"], ["quota"]], CREDENTIALS),
    ("namespace", "base", ["empty-dir"], [[], ["quota"]], CREDENTIALS),
    ("node-disk", "overlays/daemonset", [], [[]], CREDENTIALS),
    ("node-disk", "overlays/dragonfly", [], [[]], CREDENTIALS),
    ("read-only-many/fill", "overlays/read-only-many/fill", [], [[], ["lock-kubernetes"], ["quota"]], CREDENTIALS),
    ("read-only-many/fill", "base", ["no-servers"], [["job-many"], ["job-many", "locked"]], CREDENTIALS),
    ("read-only-many/serve", "overlays/read-only-many/serve", [], [[], ["quota"]], [[]]),
    ("rwx", "base", ["image-registry", "image-pull-secret", "openshift"], OPERATIONS, [["s3-irsa"]]),
    ("rwx", "base", ["mirror", "proxy", "private-ca", "metrics"], OPERATIONS, [["hf-token-file"]]),
]


def matrix():
    for storage, workloads, last, operations, credentials in [(*s, OPERATIONS, CREDENTIALS) for s in STORAGES] + ELSEWHERE:
        for operation in operations:
            for credential in credentials:
                # Numbered prefixes are in a bucket; a local disk has no snapshots.
                if "job-indexed" in operation and not str(credential).startswith("['s3-"):
                    continue
                if storage == "static-pv" and {"snapshots", "restore-snapshot"} & set(operation):
                    continue
                yield storage, workloads, operation + credential + last


def what_is_combined_takes_effect(manifests):
    """A patch with a target is silent where it meets nothing."""
    combined = [each for each in manifests.sets.values() if each.name.startswith("combined/")]
    assert len(combined) > 10, "where are the combinations?"
    for each in combined:
        listed = set(each.components)
        for component in listed & BRINGS.keys():
            kind, name = BRINGS[component]
            assert name in each.names(kind), f"{each.name}: no {kind} {name}, only {each.names(kind)}"
        none = NO_SERVERS & listed or "overlays/doctor" in each.name
        assert bool(each.of("Deployment") + each.of("StatefulSet")) != bool(none), f"{each.name}: servers"
        for pod in each.pods():
            the_pod_is_as_listed(each, listed, pod)


def the_pod_is_as_listed(each, listed, pod):
    """What changes every pod, and which command of weightlift runs in it."""
    if "image-pull-secret" in listed:
        assert pod.spec.get("imagePullSecrets") == [{"name": "registry"}], f"{pod.where}: no pull secret"
    if "image-registry" in listed:
        foreign = [c["image"] for c in pod.containers() if not c["image"].startswith("registry.example.com/")]
        assert not foreign, f"{pod.where}: {foreign}"
    claims = [v["persistentVolumeClaim"]["claimName"] for v in pod.volumes().values() if "persistentVolumeClaim" in v]
    if "restore-snapshot" in listed:
        assert claims in ([], ["models-restored"]), f"{pod.where} mounts {claims}"
    if "empty-dir" in listed:
        assert not claims and pod.volumes()["models"]["emptyDir"], pod.where
    if "one-node" in listed and claims:
        (term,) = pod.spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        wanted = term["labelSelector"]["matchLabels"]
        assert (term["topologyKey"], wanted) == ("kubernetes.io/hostname", {"weightlift-volume": "models"}), pod.where
        assert wanted.items() <= pod.labels.items(), f"{pod.where}: no node fits the first"
    component = pod.labels["app.kubernetes.io/component"]
    waits = WAITING & listed or any(name in pod.set for name in ("daemonset", "dragonfly"))
    for ours in pod.weightlift():
        expected = component if component in ("prune", "verify") else "fetch"
        if pod.owner["metadata"]["name"] == "doctor":
            expected = "doctor"
        if waits and pod.owner["kind"] == "Deployment":
            expected = "wait"
        assert ours["args"][0] == expected, f"{pod.where}: {ours['args']}"
        if expected in ("fetch", "doctor"):
            the_fetch_is_as_listed(listed, pod, ours)


def the_fetch_is_as_listed(listed, pod, ours):
    args, variables = ours["args"], {v["name"] for v in ours["env"]}
    for name, variable in SHOWS.items():
        if (name, "dragonfly" in pod.set) != ("private-ca", True):  # it has an authority of its own
            assert (variable in variables) == (name in listed), f"{pod.where}: {name}, {variables}"
    assert not {"s3-source"} & listed or "HF_TOKEN" not in variables, f"{pod.where}: a token for the Hub"
    account = "weightlift" if "service-account" in listed else "default"
    assert pod.spec.get("serviceAccountName") == account, f"{pod.where}: {pod.spec.get('serviceAccountName')}"
    assert ("--locked" in args) == ("locked" in listed), f"{pod.where}: {args}"
    if not {"job-many", "job-indexed"} & listed:
        assert (args[1] == "s3://acme-models/llama-3-8b/") == ("s3-source" in listed), f"{pod.where}: {args}"
        assert args[2:3] == (["llama-3-8b"] if args[0] == "fetch" else ["--deadline"]), f"{pod.where}: {args}"
        follows = pod.owner["metadata"]["name"] == "refresh-weights"
        assert bool(after(args, "--keep-for")) == follows, f"{pod.where}: {args}"


def whoever_waits_waits_for_what_is_fetched(manifests):
    """For the commit, if there is one: what an earlier revision has left is complete, too. A change of it rolls the pods."""
    pins, others = 0, 0
    for each in manifests.sets.values():
        # Their Job is in the step before.
        fills = [s for name, s in manifests.sets.items() if "overlays/read-only-many/fill" in name and "with s3" not in name]
        fill = fills[0] if "read-only-many/serve" in each.name else each
        fetching = [(p, c["args"]) for s in (each, fill) for p in s.pods() for c in p.weightlift() if c["args"][0] == "fetch"]
        for pod in each.pods():
            fetched = [args for other, args in fetching if fill is not each or shared(other, pod)]
            for args in (c["args"] for c in pod.weightlift() if c["args"][0] == "wait"):
                dest = args[1].removeprefix("/data/models/")
                sources = {a[a.index(dest) - 1] for a in fetched if dest in a}
                if not sources and "models-restored" in each.names("PersistentVolumeClaim"):
                    continue  # the README: the snapshot holds it
                assert sources, f"{pod.where}: nobody fetches {dest} onto its volume, it waits for ever"
                (commit,) = {source.partition("@")[2] for source in sources}
                pinned = len(commit) == 40
                expected = after(args, "--expect-revision")
                assert expected == ([commit] if pinned else []), f"{pod.where}: {args}, fetched is {sources}"
                pins, others = pins + pinned, others + (not pinned)
    assert pins > 4 and others > 2, f"{pins} wait for a commit, {others} do not"


def shared(one, other):
    """The volume that both pods mount, if it is one volume."""
    volumes = [pod.volumes().get("models", {}) for pod in (one, other)]
    kinds = [volume.get("persistentVolumeClaim") or volume.get("hostPath") for volume in volumes]
    names = [kind and (kind.get("claimName") or kind["path"]) for kind in kinds]
    return names[0] is not None and names[0] == names[1]


def a_job_is_named_by_what_it_fetches(manifests):
    """A Job cannot be changed: another commit must be another name."""
    pinned = 0
    for pod in manifests.pods():
        if pod.owner["kind"] == "Job" and pod.weightlift()[0]["args"][0] == "fetch":
            name, args = pod.owner["metadata"]["name"], pod.weightlift()[0]["args"]
            commits = re.findall(r"@([0-9a-f]{40})$", args[1])
            digits = re.findall(r"^download-weights-([0-9a-f]{12})$", name)
            assert digits == [commit[:12] for commit in commits], f"{pod.where}: {args}"
            assert commits or OTHER_JOBS[args[1]] == name, f"{pod.where}: {args}"
            pinned += len(commits)
    assert pinned > 5, f"{pinned} Jobs are pinned"


def the_order_of_credentials_and_waiting_is_free(manifests):
    """Who only waits gets no credentials, whichever comes first."""
    pairs = [(w, c) for w in sorted(WAITING) for c in ("s3-irsa", "hf-token-file", "lock-kubernetes")]
    orders = [("rwx", "base", list(order)) for pair in pairs for order in (pair, pair[::-1])]
    found = list(manifests.combined(manifests.kubectl, orders).values())
    for one, other in zip(found[::2], found[1::2]):
        for kind in ("Deployment", "Job"):
            assert one.of(kind) == other.of(kind), f"{one.name} and {other.name}: {kind}"


def what_is_restored_is_mounted_by_all(manifests):
    """Without the storage in the same build: there, kustomize follows the new name of the claim by itself."""
    for components in (["refresh", "prune", "verify"], ["job-many", "prune"], ["wait-only", "snapshots"], []):
        made = render_combined(manifests.kubectl, manifests.directory, ["base"], [*components, "restore-snapshot"])
        pods = [pod for pod in Set(f"restored with {components}", made).pods() if pod.weightlift()]
        assert pods, f"{components}: where are the pods?"
        for pod in pods:
            claim = pod.volumes()["models"]["persistentVolumeClaim"]
            assert claim == {"claimName": "models-restored"}, f"{pod.where} mounts {claim}"


def the_matrix_of_storage_operation_and_credentials(manifests):
    combinations = list(matrix())
    assert len(combinations) > 300, f"only {len(combinations)} combinations"
    found = manifests.of(manifests.combined(manifests.kubectl, combinations))
    objects = {json.dumps(r, sort_keys=True) for _, r in found.objects()}
    print(f"        {len(combinations)} combinations, {len(found.objects())} objects, {len(objects)} different ones")
    assert len(found.sets) == len(combinations), "two combinations have one name"
    for check in CHECKS:
        check(found)
    schemas.every_object_fits_the_schemas(found)


CHECKS = [
    what_is_combined_takes_effect,
    whoever_waits_waits_for_what_is_fetched,
    a_job_is_named_by_what_it_fetches,
    pods.every_pod_is_restricted,
    pods.every_container_is_restricted,
    pods.tokens_go_to_weightlift_alone,
    pods.every_mount_exists,
    pods.weightlift_is_called_as_it_can_be,
    pods.servers_load_what_is_there_and_cannot_write,
    pods.jobs_give_up_on_permanent_failures_only,
    sets.everything_is_in_its_namespace,
    sets.labels_and_selectors_meet,
    sets.what_is_referred_to_is_there,
    lists.models_that_are_not_listed_go_only_if_asked_for,
]
TESTS = [
    what_is_combined_takes_effect,
    whoever_waits_waits_for_what_is_fetched,
    a_job_is_named_by_what_it_fetches,
    the_order_of_credentials_and_waiting_is_free,
    what_is_restored_is_mounted_by_all,
    the_matrix_of_storage_operation_and_credentials,
]
