"""A real cluster, asked through kubectl. The fake Hub runs in it, in a namespace of its own."""

import copy
import json
import re

from cluster import fitted
from cluster.hub import ARGUMENTS, Hub
from cluster.states import Broken, Container, Pod, wait_until

PORT, CDN_PORT = 8080, 8081
LOCKED_DOWN = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
NOBODY = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "fsGroup": 65532,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}


class Kubectl:
    """`run(arguments, stdin)` runs one kubectl, and answers its standard output or raises `Broken`."""

    def __init__(self, run, prefix, images, storage_class=None, access_mode=None, keep=False):
        self.run, self.prefix, self.keep = run, prefix, keep
        self.image, self.hub_image, self.server_image = images
        self.storage_class, self.access_mode = storage_class, access_mode
        self.hub_namespace, self.there = f"{prefix}hub", False
        # Of each node, for the sets that keep models there.
        self.host_directory = "/var/tmp"
        # What else is looked at in a pod that has fetched; a site may know more.
        self.check = lambda pod: None

    # --- the hub

    def set_up(self):
        self.there = True
        self.apply(hub_objects(self.hub_namespace, self.hub_image))
        self.start_hub()

    def tear_down(self):
        if self.there:
            self.end(self.hub_namespace)

    def start_hub(self):
        self.scale(1)
        wait_until("the fake Hub answers", self.hub_answers, every=1)

    def stop_hub(self):
        self.scale(0)
        wait_until("the fake Hub is gone", lambda: not self.pods(self.hub_namespace), every=1)

    def scale(self, replicas):
        self.run(["-n", self.hub_namespace, "scale", "deployment/fake-hub", f"--replicas={replicas}"], None)

    def hub_answers(self):
        try:
            return self.hub().counts()
        except (Broken, ValueError):
            return None

    def hub(self):
        proxy = f"/api/v1/namespaces/{self.hub_namespace}/services/http:fake-hub:{PORT}/proxy"
        return Hub(lambda path: self.run(["get", "--raw", proxy + path], None))

    def fit(self, namespace, commit, **changes):
        return fitted.Fit(
            namespace=namespace,
            commit=commit,
            endpoint=f"http://fake-hub.{self.hub_namespace}.svc:{PORT}",
            image=self.image,
            server_image=self.server_image,
            host_directory=f"{self.host_directory}/{namespace}",
            storage_class=self.storage_class,
            access_mode=self.access_mode,
            **changes,
        )

    # --- objects

    def begin(self, namespace, documents):
        """As manifests/ ask for it: restricted, but where a set has paths of the host."""
        level = "privileged" if '"hostPath"' in json.dumps(documents) else "restricted"
        labels = {"pod-security.kubernetes.io/enforce": level}
        metadata = {"name": namespace, "labels": labels}
        self.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}])
        self.apply(secrets(namespace, documents))

    def end(self, namespace):
        if not self.keep:
            self.run(["delete", "namespace", namespace, "--wait=false", "--ignore-not-found"], None)

    def apply(self, documents):
        # Server-side: a second copy of a lock file does not fit into an annotation.
        if documents:
            self.run(["apply", "--server-side", "--force-conflicts", "-f", "-"], as_list(documents))

    def remove(self, documents):
        self.run(["delete", "--ignore-not-found", "--timeout=120s", "-f", "-"], as_list(documents))

    def run_now(self, documents, kind):
        (found,) = [d for d in fitted.workloads(documents, kind) if kind == "CronJob" or d["spec"].get("suspend")]
        name, namespace = found["metadata"]["name"], found["metadata"]["namespace"]
        on = ["-n", namespace]
        job = f"{name}-now" if kind == "CronJob" else name
        self.run([*on, "delete", "job", job, "--ignore-not-found", "--timeout=120s"], None)
        wait_until(f"the pods of {job} are gone", lambda: not self.pods_of(namespace, f"Job/{job}"))
        if kind == "CronJob":
            self.run([*on, "create", "job", job, f"--from=cronjob/{name}"], None)
        else:
            self.apply([found])
            self.run([*on, "patch", "job", job, "--type=merge", "--patch", '{"spec":{"suspend":false}}'], None)

    # --- pods

    def pods(self, namespace):
        return pods_of_list(json.loads(self.run(["-n", namespace, "get", "pods", "-o", "json"], None)))

    def pods_of(self, namespace, owner):
        return [pod for pod in self.pods(namespace) if pod.owner == owner]

    def nodes(self, namespace):
        """On how many the DaemonSets of a namespace run."""

        def wanted():
            sets = json.loads(self.run(["-n", namespace, "get", "daemonsets", "-o", "json"], None))["items"]
            return sum(s.get("status", {}).get("desiredNumberScheduled", 0) for s in sets)

        return wait_until("the DaemonSet has nodes", wanted)

    def logs(self, pod, container):
        """Both streams: Kubernetes keeps them together."""
        try:
            return self.run(["-n", pod.namespace, "logs", pod.name, "-c", container], None)
        except Broken as problem:
            return str(problem)

    def read_again(self, pod):
        on = ["-n", pod.namespace, "exec", pod.name, "-c", "server", "--"]
        return self.run([*on, "sh", "-c", fitted.READ_AGAIN], None)

    def crash(self, pod):
        self.run(["-n", pod.namespace, "delete", "pod", pod.name, "--force", "--grace-period=0"], None)

    def once(self, namespace, arguments):
        """A pod by itself on the claim `models`, and what it has said."""
        name = f"once-{arguments[0]}"
        self.apply([one_pod(namespace, name, self.image, arguments)])
        on = ["-n", namespace]

        def ended():
            return next((p for p in self.pods(namespace) if p.name == name and p.ours().exit_code is not None), None)

        pod = wait_until(f"{name} has ended", ended)
        said = self.logs(pod, "weightlift")
        self.run([*on, "delete", "pod", name, "--timeout=120s"], None)
        if pod.ours().exit_code != 0:
            raise Broken(f"{' '.join(arguments)}: exit {pod.ours().exit_code}: {said}")
        return said


def pods_of_list(found):
    """Those that are not on their way out."""
    return [state_of(pod) for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]


def state_of(pod):
    metadata, status = pod["metadata"], pod.get("status", {})
    conditions = {c["type"]: c["status"] for c in status.get("conditions", [])}
    state = Pod(
        name=metadata["name"],
        namespace=metadata["namespace"],
        owner=owner_of(metadata),
        component=metadata.get("labels", {}).get(fitted.COMPONENT),
        ready=conditions.get("Ready") == "True",
    )
    known = {c["name"]: c for c in status.get("initContainerStatuses", []) + status.get("containerStatuses", [])}
    for container in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]:
        state.containers[container["name"]] = container_of(container["name"], known.get(container["name"], {}))
    return state


def owner_of(metadata):
    for owner in metadata.get("ownerReferences", []):
        if owner["kind"] == "ReplicaSet":
            return f"Deployment/{re.sub('-[^-]+$', '', owner['name'])}"
        return f"{owner['kind']}/{owner['name']}"
    return f"Pod/{metadata['name']}"


def container_of(name, status):
    state, last = status.get("state", {}), status.get("lastState", {})
    # One that is tried again waits, and its end stands under `lastState`.
    ended = state.get("terminated") or (last.get("terminated") if "waiting" in state else None)
    shown = "exited" if "terminated" in state else "running" if "running" in state else "waiting"
    if not ended:
        return Container(name, shown)
    return Container(name, shown, ended["exitCode"], ended.get("message", ""))


def secrets(namespace, documents):
    """As the README says to make them, for the sets whose pods do not start without. The fake Hub takes any token."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "stringData": dict.fromkeys(sorted(keys), "hf_test"),
        }
        for name, keys in fitted.required_secrets(documents).items()
    ]


def as_list(documents):
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})


def one_pod(namespace, name, image, arguments):
    container = {
        "name": "weightlift",
        "image": image,
        "args": arguments,
        "securityContext": LOCKED_DOWN,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "models", "mountPath": "/data/models"}],
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": NOBODY,
        "containers": [container],
        "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def hub_objects(namespace, image):
    labels = {"app.kubernetes.io/name": "fake-hub"}
    metadata = {"name": "fake-hub", "namespace": namespace, "labels": labels}
    ports = {"hub": PORT, "cdn": CDN_PORT}
    arguments = ["--everywhere", "--hub-port", str(PORT), "--cdn-port", str(CDN_PORT)]
    arguments += ["--public-cdn", f"http://fake-hub.{namespace}.svc:{CDN_PORT}", *ARGUMENTS]
    container = {
        "name": "fake-hub",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments,
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        "securityContext": copy.deepcopy(LOCKED_DOWN),
    }
    template = {
        "metadata": {"labels": labels},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {k: v for k, v in NOBODY.items() if not k.startswith("fsGroup")},
            "containers": [container],
        },
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "selector": labels,
                "ports": [{"name": n, "port": p, "targetPort": n} for n, p in ports.items()],
            },
        },
    ]
