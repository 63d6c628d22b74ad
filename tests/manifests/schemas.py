"""Every object against the schemas of Kubernetes; what has none, against rules written here."""

import copy
import json
import re

import kubernetes_validate

# The three newest minor versions that the schemas know, and the oldest release where
# podReplacementPolicy and podFailurePolicy are on by default.
NEWEST = int(kubernetes_validate.latest_version().split(".")[1])
VERSIONS = [f"1.{NEWEST - n}" for n in range(3)] + ["1.29"]
# Kinds of others, without a schema. Anything else that has none fails.
CUSTOM = ["ClusterStorageContainer", "InferenceService", "VolumeSnapshot", "VolumeSnapshotClass"]


def every_object_fits_the_schemas(manifests):
    # Equal objects of many sets once.
    objects = {json.dumps(r, sort_keys=True): (w, r) for w, r in manifests.objects() if r["kind"] not in CUSTOM}
    for where, resource in objects.values():
        for version in VERSIONS:
            problem = schema_problem(resource, version)
            assert problem is None, f"{where}, Kubernetes {version}: {problem}"


def examples_that_are_not_applied_fit_too(manifests):
    found = [(w, r) for w, r in manifests.raw() if w.endswith(".example.yaml")]
    # A PodMonitor has no schema here; operation.py reads its fields.
    found = [(where, resource) for where, resource in found if resource["kind"] != "PodMonitor"]
    assert len(found) == 2, f"examples: {[w for w, _ in found]}"
    for where, resource in found:
        for version in VERSIONS:
            assert schema_problem(resource, version) is None, f"{where}: {schema_problem(resource, version)}"


def a_misspelt_field_is_noticed(manifests):
    """Guards the tests above: without strict schemas an unknown field passes in silence."""
    broken = copy.deepcopy(manifests.sets["base"].one("Deployment"))
    server = broken["spec"]["template"]["spec"]["containers"][0]
    server["volumeMount"] = server.pop("volumeMounts")
    for version in VERSIONS:
        assert schema_problem(broken, version), f"{version} accepts the field `volumeMount`"


def kinds_without_a_schema_are_these(manifests):
    """Says which, so that nothing is left out in silence."""
    found = {r["kind"] for _, r in manifests.objects() if r["kind"] in CUSTOM}
    print(f"        no schema, checked by rules of our own: {', '.join(sorted(found))}")
    assert found == set(CUSTOM), f"not there: {set(CUSTOM) - found}"
    for where, resource in manifests.objects():
        if resource["kind"] in CUSTOM:
            assert schema_problem(resource, VERSIONS[0]) is not None, f"{where} has a schema now: use it"


def snapshots_have_their_fields(manifests):
    for where, resource in manifests.objects():
        if resource["kind"] == "VolumeSnapshotClass":
            only(where, resource, "apiVersion", "kind", "metadata", "driver", "deletionPolicy")
            assert resource["deletionPolicy"] in ("Retain", "Delete"), where
        elif resource["kind"] == "VolumeSnapshot":
            snapshot_is_right(where, resource)


def a_claim_from_a_snapshot_names_its_group(manifests):
    claims = [(w, r) for w, r in manifests.objects() if "dataSource" in r.get("spec", {})]
    names = {claim["metadata"]["name"] for _, claim in claims}
    assert names == {"models-read-only", "models-restored"}, f"claims from snapshots: {names}"
    for where, claim in claims:
        source = claim["spec"]["dataSource"]
        # Without the group it is taken for a claim, and dropped in silence.
        assert (source["apiGroup"], source["kind"]) == ("snapshot.storage.k8s.io", "VolumeSnapshot"), where


def kserve_is_called_as_it_calls(manifests):
    container = manifests.sets["overlays/kserve"].one("ClusterStorageContainer")
    assert container["apiVersion"] == "serving.kserve.io/v1alpha1"
    only("ClusterStorageContainer", container, "apiVersion", "kind", "metadata", "spec")
    only("its spec", container["spec"], "container", "supportedUriFormats", "supportsMultiModelDownload")
    assert container["spec"]["supportsMultiModelDownload"] is True
    assert "namespace" not in container["metadata"], "it belongs to the cluster"
    formats = container["spec"]["supportedUriFormats"]
    prefixes = [each["prefix"] for each in formats if "prefix" in each]
    assert prefixes == ["hf://", "s3://", "gs://", "ms://"], formats
    (azure,) = [each["regex"] for each in formats if "regex" in each]
    assert re.fullmatch(azure, "https://acme.blob.core.windows.net/models/llama-3-8b/"), azure
    ours = container["spec"]["container"]
    assert ours["name"] == "storage-initializer", "KServe does not know this name"
    # Its args, SOURCE and DEST, come from KServe; ours would replace them.
    assert "args" not in ours and ours["command"] == ["/weightlift", "fetch"], "no room for SOURCE DEST"
    assert ours["resources"]["limits"] == {"cpu": "1", "memory": "1Gi"}
    assert fits_a_pod(ours) is None, fits_a_pod(ours)


def the_inference_service_has_its_fields(manifests):
    service = manifests.sets["overlays/kserve"].one("InferenceService")
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    only("its spec", service["spec"], "predictor")
    predictor = dict(service["spec"]["predictor"])
    model = dict(predictor.pop("model"))
    assert model.pop("modelFormat") == {"name": "huggingface"}
    assert model.pop("storageUri").startswith("hf://")
    assert "--model_dir=/mnt/models" in model["args"]
    assert predictor.pop("minReplicas") <= predictor.pop("maxReplicas")
    # What is left of both are fields of a container and of a pod.
    problem = fits_a_pod(model | {"name": "kserve-container", "image": "x"}, predictor)
    assert problem is None, problem


def snapshot_is_right(where, resource):
    assert resource["apiVersion"] == "snapshot.storage.k8s.io/v1", where
    only(where, resource, "apiVersion", "kind", "metadata", "spec")
    only(where, resource["spec"], "volumeSnapshotClassName", "source")
    only(where, resource["spec"]["source"], "persistentVolumeClaimName")
    assert resource["spec"]["source"]["persistentVolumeClaimName"] == "models", where


def fits_a_pod(container, pod=()):
    """The schema of Kubernetes for what a custom resource embeds."""
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
    return schema_problem(body | {"spec": {"containers": [container], **dict(pod)}}, VERSIONS[0])


def only(where, mapping, *keys):
    assert set(mapping) == set(keys), f"{where} has the fields {sorted(mapping)}"


def schema_problem(resource, version):
    try:
        kubernetes_validate.validate(resource, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        return error.message
    return None


TESTS = [
    every_object_fits_the_schemas,
    examples_that_are_not_applied_fit_too,
    a_misspelt_field_is_noticed,
    kinds_without_a_schema_are_these,
    snapshots_have_their_fields,
    a_claim_from_a_snapshot_names_its_group,
    kserve_is_called_as_it_calls,
    the_inference_service_has_its_fields,
]
