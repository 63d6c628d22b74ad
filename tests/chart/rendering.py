"""Renders the chart with Helm's own engine, and finds what is in it. Judges nothing."""

import copy
import functools
import json
import re

import helm_python as helm
import jsonschema
import yaml
from manifests import reading
from manifests.reading import StrictLoader
from manifests.schemas import schema_problem

from chart.values import CHART, GOOD, MODEL, NAMESPACE


def render(values, release="demo", namespace=NAMESPACE):
    texts = rendered(json.dumps(values), release, namespace)
    return copy.deepcopy([d for path, found in texts.items() if not path.endswith("NOTES.txt") for d in found])


@functools.cache
def rendered(values, release, namespace):
    """By file: the objects, and the text of NOTES.txt. Many tests look at the same values."""
    values = json.loads(values)
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name=release, namespace=namespace)
    return {
        path: text if path.endswith("NOTES.txt") else [d for d in yaml.load_all(text, Loader=StrictLoader) if d]
        for path, text in files.items()
    }


def deployment(values):
    (resource,) = [resource for resource in render(good(values)) if resource["kind"] == "Deployment"]
    return resource["spec"]


def notes(values, release="demo", namespace=NAMESPACE):
    return rendered(json.dumps(values), release, namespace)["weightlift/templates/NOTES.txt"]


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


def schema_problems(resources, version):
    return [problem for resource in resources if (problem := schema_problem(resource, version))]


def every_pod():
    for where, resource in everything():
        yield from ((where, pod) for _, pod in pods([resource]))


def pods(resources):
    for kind, template in pod_templates(resources):
        yield kind, template["spec"]


def pod_templates(resources):
    for resource in resources:
        spec = resource.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            yield resource["kind"], spec["template"]


def containers(pod):
    return pod.get("initContainers", []) + pod["containers"]


def is_ours(container):
    return "weightlift/weightlift" in container["image"]


def job_name(resources):
    (name,) = [key.partition("/")[2] for key in resources if key.startswith("Job/")]
    return name


def kustomize(directory):
    return reading.render(reading.find_kubectl(), directory)


def named(resources):
    resources = list(resources)
    keys = {f"{resource['kind']}/{resource['metadata']['name']}": resource for resource in resources}
    assert len(keys) == len(resources), "two resources have one name"
    return keys


HELMS = ("helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/instance")


def without_helm(resource):
    """Without Helm's labels and annotations, the namespace, what the Job's name ends in, and the order of variables."""
    resource = copy.deepcopy(resource)
    spec = resource.get("spec", {})
    if "template" in spec:
        for label in HELMS:
            spec["template"]["metadata"]["labels"].pop(label, None)
        for container in containers(spec["template"]["spec"]):
            container.get("env", []).sort(key=lambda variable: variable["name"])
    if resource["kind"] == "Job":
        resource["metadata"]["name"] = re.sub(r"-[0-9a-f]{8,12}$", "", resource["metadata"]["name"])
    metadata = resource["metadata"]
    metadata.pop("namespace", None)
    for label in HELMS:
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
