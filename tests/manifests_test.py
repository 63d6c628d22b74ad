#!/usr/bin/env python3
"""Checks manifests/ against the Kubernetes schemas, then what the schemas cannot know.

    python3 tests/manifests_test.py [DIRECTORY]

Needs `kubernetes-validate`, which brings the schemas; without it the test says so and is skipped.
"""

import copy
import re
import sys
from pathlib import Path

try:
    import kubernetes_validate
    import yaml
except ImportError:
    print("skipped: kubernetes-validate is not installed")
    sys.exit(0)

NAMESPACE = "model-storage"
OUR_IMAGE = "ghcr.io/weightlift/weightlift"
# The oldest release where podReplacementPolicy and podFailurePolicy are on by default, and the
# newest one that the schemas know.
KUBERNETES = ["1.29", kubernetes_validate.latest_version()]
# Exit codes after which another attempt cannot succeed.
PERMANENT = {2, 10, 11, 12, 13, 14, 15, 16}


def every_manifest_fits_the_schemas(manifests):
    for where, resource in manifests.resources:
        for version in KUBERNETES:
            problem = schema_problem(resource, version)
            assert problem is None, f"{where}, Kubernetes {version}: {problem}"


def a_misspelt_field_is_noticed(manifests):
    """Guards the test above: without strict schemas an unknown field passes in silence."""
    broken = copy.deepcopy(manifests.one("Deployment"))
    server = broken["spec"]["template"]["spec"]["containers"][0]
    server["volumeMount"] = server.pop("volumeMounts")
    for version in KUBERNETES:
        assert schema_problem(broken, version), f"{version} accepts the field `volumeMount`"


def everything_is_in_one_namespace(manifests):
    for where, resource in manifests.resources:
        metadata = resource["metadata"]
        if resource["kind"] == "Namespace":
            assert metadata["name"] == NAMESPACE, where
        else:
            assert metadata.get("namespace") == NAMESPACE, f"{where} is not in {NAMESPACE}"


def kustomize_applies_everything_but_the_secret(manifests):
    listed = manifests.kustomization["resources"]
    files = {where.partition(":")[0] for where, _ in manifests.resources}
    assert set(listed) == files - {"40-secret.example.yaml"}, f"kustomization.yaml lists {listed}"
    assert manifests.kustomization["namespace"] == NAMESPACE


def every_pod_is_restricted(manifests):
    for where, pod in manifests.pods():
        assert pod.get("automountServiceAccountToken") is False, f"{where} gets an API token"
        context = pod.get("securityContext", {})
        for key, value in {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "fsGroup": 65532,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        }.items():
            assert context.get(key) == value, f"{where}: securityContext.{key} is not {value}"
        for volume in pod["volumes"]:
            assert "hostPath" not in volume, f"{where} mounts a host path"


def every_container_is_restricted(manifests):
    for where, container in manifests.containers():
        context = container.get("securityContext", {})
        assert context.get("allowPrivilegeEscalation") is False, f"{where} may escalate"
        assert context.get("readOnlyRootFilesystem") is True, f"{where} can write its image"
        assert context.get("capabilities") == {"drop": ["ALL"]}, f"{where} keeps capabilities"
        assert "privileged" not in context and "runAsUser" not in context, where
        policy = container.get("terminationMessagePolicy")
        assert policy == "FallbackToLogsOnError", f"{where} has no termination message"
        assert container["resources"].get("requests", {}).get("cpu"), f"{where} requests no CPU"
        assert container["resources"].get("limits", {}).get("memory"), f"{where} has no memory limit"


def every_image_has_a_fixed_version(manifests):
    for where, container in manifests.containers():
        tag = container["image"].rpartition(":")[2]
        assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag), f"{where} runs {container['image']}"


def the_volume_can_be_shared_by_nodes(manifests):
    claim = manifests.one("PersistentVolumeClaim")["spec"]
    assert claim["accessModes"] == ["ReadWriteMany"], f"the claim is {claim['accessModes']}"


def every_mounted_volume_exists(manifests):
    claims = {r["metadata"]["name"] for _, r in manifests.resources if r["kind"] == "PersistentVolumeClaim"}
    for where, pod in manifests.pods():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in all_containers(pod):
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= set(volumes), f"{where}: no volume {mounted - set(volumes)}"
        claimed = {v["persistentVolumeClaim"]["claimName"] for v in volumes.values() if "persistentVolumeClaim" in v}
        assert claimed == {"models"} <= claims, f"{where} claims {claimed}"


def the_server_cannot_write_to_the_models(manifests):
    server = manifests.server()
    mount = models_mount(server)
    assert mount.get("readOnly") is True, "the server mounts the models writable"
    assert "subPath" not in mount, "a subPath does not follow an update"


def weightlift_writes_to_its_default_root(manifests):
    for where, container in manifests.weightlift():
        mount = models_mount(container)
        assert mount["mountPath"] == "/data/models", f"{where} mounts at {mount['mountPath']}"
        assert not mount.get("readOnly"), f"{where} cannot write"
        assert "command" not in container, f"{where} replaces the entry point"


def the_same_pinned_model_is_fetched_and_served(manifests):
    fetches = {tuple(container["args"]) for _, container in manifests.weightlift()}
    assert len(fetches) == 1, f"Job and init container differ: {fetches}"
    command, source, family = fetches.pop()
    assert command == "fetch"
    assert re.fullmatch(r"hf://[\w.-]+/[\w.-]+@[0-9a-f]{40}", source), f"{source} is not pinned"
    server = manifests.server()
    options = dict(zip(server["args"][::2], server["args"][1::2]))
    served, expected = options["--model"], f"{models_mount(server)['mountPath']}/{family}"
    assert served == expected, f"the server loads {served}, the model is at {expected}"


def the_server_stays_away_from_the_hub(manifests):
    names = {variable["name"]: variable for variable in manifests.server()["env"]}
    assert names.get("HF_HUB_OFFLINE", {}).get("value") == "1", "the server may ask the Hub"
    assert "HF_TOKEN" not in names, "the server is given a token"


def the_token_comes_from_an_optional_secret(manifests):
    secret = manifests.one("Secret")
    for where, container in manifests.weightlift():
        (token,) = [variable for variable in container["env"] if variable["name"] == "HF_TOKEN"]
        reference = token["valueFrom"]["secretKeyRef"]
        assert reference["name"] == secret["metadata"]["name"], where
        assert reference["key"] in secret["stringData"], where
        assert reference["optional"] is True, f"{where} does not start without a token"


def the_job_gives_up_on_permanent_failures_only(manifests):
    job = manifests.one("Job")["spec"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert job["podReplacementPolicy"] == "Failed", "two pods may fetch side by side"
    disruption, permanent = job["podFailurePolicy"]["rules"]
    assert disruption["action"] == "Ignore"
    assert [c["type"] for c in disruption["onPodConditions"]] == ["DisruptionTarget"]
    assert permanent["action"] == "FailJob"
    rule = permanent["onExitCodes"]
    assert rule["operator"] == "In"
    assert set(rule["values"]) == PERMANENT, f"FailJob on {rule['values']}"
    names = [container["name"] for container in job["template"]["spec"]["containers"]]
    assert rule["containerName"] in names, f"no container {rule['containerName']}"


def labels_probes_and_ports_meet(manifests):
    deployment, service = manifests.one("Deployment")["spec"], manifests.one("Service")["spec"]
    labels = deployment["template"]["metadata"]["labels"].items()
    assert deployment["selector"]["matchLabels"].items() <= labels, "the Deployment finds no pod"
    assert service["selector"].items() <= labels, "the Service finds no pod"
    server = manifests.server()
    ports = {port["name"] for port in server["ports"]}
    assert {port["targetPort"] for port in service["ports"]} <= ports, "the Service has no target"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["httpGet"]["port"] in ports, f"{probe} asks another port"


# --- reading ------------------------------------------------------------------------------------


class Manifests:
    def __init__(self, directory):
        self.resources = []
        for path in sorted(directory.glob("*.yaml")):
            documents = [d for d in yaml.load_all(path.read_text(), Loader=StrictLoader) if d]
            if path.name == "kustomization.yaml":
                (self.kustomization,) = documents
            else:
                self.resources += [(f"{path.name}: {d['kind']}", d) for d in documents]

    def one(self, kind):
        (resource,) = [r for _, r in self.resources if r["kind"] == kind]
        return resource

    def pods(self):
        return [(w, r["spec"]["template"]["spec"]) for w, r in self.resources if r["kind"] in ("Job", "Deployment")]

    def containers(self):
        return [(f"{w}, container {c['name']}", c) for w, pod in self.pods() for c in all_containers(pod)]

    def weightlift(self):
        ours = [(w, c) for w, c in self.containers() if c["image"].startswith(f"{OUR_IMAGE}:")]
        assert len(ours) == 2, "expected a Job and an init container"
        return ours

    def server(self):
        (server,) = self.one("Deployment")["spec"]["template"]["spec"]["containers"]
        return server


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, as the API server does."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"`{key}` stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def all_containers(pod):
    return pod.get("initContainers", []) + pod["containers"]


def models_mount(container):
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "models"]
    return mount


def schema_problem(resource, version):
    try:
        kubernetes_validate.validate(resource, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        return error.message
    return None


TESTS = [
    every_manifest_fits_the_schemas,
    a_misspelt_field_is_noticed,
    everything_is_in_one_namespace,
    kustomize_applies_everything_but_the_secret,
    every_pod_is_restricted,
    every_container_is_restricted,
    every_image_has_a_fixed_version,
    the_volume_can_be_shared_by_nodes,
    every_mounted_volume_exists,
    the_server_cannot_write_to_the_models,
    weightlift_writes_to_its_default_root,
    the_same_pinned_model_is_fetched_and_served,
    the_server_stays_away_from_the_hub,
    the_token_comes_from_an_optional_secret,
    the_job_gives_up_on_permanent_failures_only,
    labels_probes_and_ports_meet,
]


def main(arguments):
    here = Path(__file__).resolve().parent
    manifests = Manifests(Path(arguments[0]) if arguments else here.parent / "manifests")
    failed = 0
    for test in TESTS:
        name = test.__name__.replace("_", " ")
        try:
            test(manifests)
            print(f"ok      {name}")
        except (AssertionError, LookupError, TypeError, ValueError) as problem:
            failed += 1
            print(f"FAILED  {name}: {type(problem).__name__}: {problem}")
    print(f"{len(TESTS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
