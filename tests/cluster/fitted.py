"""Makes of a rendered set what a rig can run: small models, a fake Hub, a server that only reads.

What a reader of the README would change is changed here, and nothing else: the commit, the endpoint,
the image, the storage class, the namespace. Of the server its image goes, and with it what only that
image needs (GPU, memory, probes over HTTP). Objects are found by kind, label and image, not by name.
"""

import copy
import re
from dataclasses import dataclass, field

from manifests.reading import OUR_IMAGE, TEMPLATES

EXAMPLE_COMMIT = "0123456789abcdef0123456789abcdef01234567"
# The namespaces of manifests/.
NAMESPACES = ("model-storage", "model-seeding")
# Where a DaemonSet of manifests/ keeps its models on each node.
HOST_DIRECTORY = "/var/lib/models"
COMPONENT = "app.kubernetes.io/component"

# $0 is the first argument of the set's own server: the path that it would load. It reads every file
# of the model, tries to write there, and then stays, as a server does.
SERVER = """\
cd "$0" || exit 1
for file in config.json model.safetensors; do sha256sum "$file" || exit 1; done
if (: >"$0/written") 2>/tmp/refused; then echo "the server could write to $0"; else cat /tmp/refused >&2; fi
echo "has read $0"
echo "$0" >/tmp/ready
trap 'exit 0' TERM
while :; do sleep 1; done
"""

READY = "has read /"
READ_AGAIN = 'cd "$(cat /tmp/ready)" && sha256sum config.json model.safetensors'


@dataclass(frozen=True)
class Fit:
    """What a rig puts in place of what stands in manifests/."""

    namespace: str
    commit: str
    endpoint: str
    image: str
    server_image: str
    host_directory: str
    # None: the default class of the cluster.
    storage_class: str | None = None
    # None: the modes of the set.
    access_mode: str | None = None
    env: dict = field(default_factory=dict)
    # Keys of ConfigMaps with another text, given the fitted one.
    config: dict = field(default_factory=dict)


def fit(documents, site):
    """The objects of one set, for `kubectl apply`."""
    return [fit_one(d, site) for d in documents if d["kind"] != "StorageClass"]


def fit_one(document, site):
    fitted = strings(copy.deepcopy(document), lambda text: text_of(text, site))
    if fitted["kind"] == "PersistentVolumeClaim":
        claim(fitted["spec"], site)
    for template in fitted["spec"].get("volumeClaimTemplates", []) if "spec" in fitted else []:
        claim(template["spec"], site)
    if fitted["kind"] == "ConfigMap":
        fitted["data"] = {k: site.config.get(k, lambda text: text)(text) for k, text in fitted["data"].items()}
    if fitted["kind"] in TEMPLATES:
        pod(pod_template(fitted)["spec"], site)
    return fitted


def pod_template(workload):
    for key in TEMPLATES.get(workload["kind"], ()):
        workload = workload[key]
    return workload


def component(workload):
    """`download` or `inference`."""
    return pod_template(workload)["metadata"]["labels"].get(COMPONENT)


def workloads(documents, kind=None, of=None):
    found = [d for d in documents if d["kind"] in TEMPLATES]
    return [d for d in found if kind in (None, d["kind"]) and of in (None, component(d))]


def required_secrets(documents):
    """Of variables: the keys that must be there, by the name of the Secret."""
    found = {}
    for container in containers(documents):
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef", {"optional": True})
            if not reference.get("optional"):
                found.setdefault(reference["name"], set()).add(reference["key"])
    return found


def containers(documents):
    specs = [pod_template(each)["spec"] for each in workloads(documents)]
    return [c for spec in specs for c in spec.get("initContainers", []) + spec["containers"]]


def required(workload):
    """What a pod does not start without: kinds and names."""
    spec = pod_template(workload)["spec"]
    found = {("Secret", name) for name in required_secrets([workload])}
    found |= {("ServiceAccount", spec.get("serviceAccountName", "default"))}
    for volume in spec.get("volumes", []):
        for kind, key, name in (("Secret", "secret", "secretName"), ("ConfigMap", "configMap", "name")):
            if key in volume and not volume[key].get("optional"):
                found.add((kind, volume[key][name]))
    return found - {("ServiceAccount", "default")}


def text_of(text, site):
    if text in NAMESPACES:
        return site.namespace
    if text == HOST_DIRECTORY:
        return site.host_directory
    # As the README says it: the commit everywhere, and the twelve digits that names end in.
    text = text.replace(EXAMPLE_COMMIT, site.commit)
    return re.sub(rf"\b{EXAMPLE_COMMIT[:12]}\b", site.commit[:12], text)


def strings(value, change):
    if isinstance(value, dict):
        return {key: strings(each, change) for key, each in value.items()}
    if isinstance(value, list):
        return [strings(each, change) for each in value]
    return change(value) if isinstance(value, str) else value


def claim(spec, site):
    spec.pop("storageClassName", None)
    if site.storage_class:
        spec["storageClassName"] = site.storage_class
    if site.access_mode:
        spec["accessModes"] = [site.access_mode]
    spec["resources"] = {"requests": {"storage": "1Gi"}}


def pod(spec, site):
    for name in ("nodeSelector", "tolerations", "affinity", "topologySpreadConstraints"):
        spec.pop(name, None)
    for container in spec.get("initContainers", []) + spec["containers"]:
        if container["image"].startswith(OUR_IMAGE):
            ours(container, site)
        elif container["name"] == "server":
            server(container, site)
        else:
            container["image"] = site.server_image
            container["command"] = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"]


def ours(container, site):
    container["image"] = site.image
    container["imagePullPolicy"] = "IfNotPresent"
    named = {v["name"]: v for v in container.get("env", [])}
    changed = {"HF_ENDPOINT": site.endpoint} | site.env
    container["env"] = list((named | {k: {"name": k, "value": v} for k, v in changed.items()}).values())


def server(container, site):
    model = next((arg for arg in container["args"] if arg.startswith("/")), None)
    container |= {"image": site.server_image, "imagePullPolicy": "IfNotPresent"}
    container |= {"command": ["sh", "-c", SERVER], "args": [model]}
    for name in ("startupProbe", "livenessProbe", "env"):
        container.pop(name, None)
    container["readinessProbe"] = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}
    container["resources"] = {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "128Mi"}}
