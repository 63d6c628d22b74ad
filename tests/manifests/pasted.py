"""What README and docs/servers.md say to paste, put together as a person would. Judges nothing."""

import functools
import json
import re
import tempfile
from pathlib import Path

import yaml

from .reading import StrictLoader, find_kubectl, render

ROOT = Path(__file__).resolve().parents[2]
PASTE = "Paste it into a pod"
IMAGE = "ghcr.io/weightlift/weightlift:"
NAMED = ("initContainers", "containers", "volumes")
# What the patch for llm-d meets: two Deployments as its guides make them.
LLM_D = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: optimized-baseline-ROLE, labels: {llm-d.ai/role: ROLE}}
spec:
  selector: {matchLabels: {llm-d.ai/role: ROLE}}
  template:
    metadata: {labels: {llm-d.ai/role: ROLE}}
    spec:
      initContainers:
        - {name: routing-proxy, image: "ghcr.io/llm-d/llm-d-routing-sidecar:v0.8.0", restartPolicy: Always}
      containers:
        - name: modelserver
          image: vllm/vllm-openai:v0.30.0
          command: [vllm, serve]
          args: [Qwen/Qwen3-32B, --tensor-parallel-size=2]
          env: [{name: HF_TOKEN, valueFrom: {secretKeyRef: {name: llm-d-hf-token, key: HF_TOKEN}}}]
          volumeMounts: [{name: shm, mountPath: /dev/shm}]
      volumes: [{name: shm, emptyDir: {medium: Memory}}]
"""


def pages():
    return {page: (ROOT / page).read_text() for page in ("README.md", "docs/servers.md")}


def sections(text):
    """The YAML of each section, as text."""
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    return {title: blocks(part) for title, part in zip(["", *parts[1::2]], parts[::2])}


def blocks(text):
    return re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def pods(texts):
    """Every pod that comes of pasting."""
    init, rest, own_copy = map(load, sections(texts["README.md"])[PASTE])
    paste = init | rest
    found = [
        Pasted("README.md: a claim", deployment(paste)),
        Pasted("README.md: an emptyDir", deployment(merged(paste, own_copy))),
    ]
    for title, parts in sections(texts["docs/servers.md"]).items():
        objects = [part for part in map(load, parts) if part.get("kind") == "ConfigMap"]
        for n, text in enumerate(parts, 1):
            where, part = f"docs/servers.md, {title}, block {n}", load(text)
            if "servingEngineSpec" in part:
                found += [Pasted(where, made) for made in production_stack(part)]
            elif "modelArtifacts" in part:
                found.append(Pasted(where, modelservice(part)))
            elif part.get("kind") == "Deployment":
                found += [Pasted(where, made) for made in patched(text)]
            elif part not in objects:
                found.append(Pasted(where, deployment(merged(paste, part)), objects))
    return found


def load(text):
    return yaml.load(text, Loader=StrictLoader)


def merged(pod, part):
    """`part` in the place of what `pod` has: containers and volumes by their names, the rest key by key."""
    result = dict(pod)
    for key, value in part.items():
        if key in NAMED:
            named = {each["name"]: each for each in pod.get(key, [])}
            for new in value:
                old = named.get(new["name"], {})
                named[new["name"]] = new if key == "volumes" else old | new
            value = list(named.values())
        result[key] = value
    return result


def deployment(spec):
    labels = {"app": "server"}
    containers = [{"image": "server:1.0.0"} | each for each in spec["containers"]]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "server"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec | {"containers": containers}},
        },
    }


@functools.cache
def patched(text):
    """What kustomize makes of the patch, by the line of kustomization.yaml that stands above it."""
    (line,) = re.findall(r"^# kustomization.yaml: (.*)$", text, re.MULTILINE)
    with tempfile.TemporaryDirectory() as place:
        (patch,) = load(line)["patches"]
        Path(place, patch["path"]).write_text(text)
        Path(place, "llm-d.yaml").write_text("---".join(LLM_D.replace("ROLE", role) for role in ("decode", "prefill")))
        Path(place, "kustomization.yaml").write_text(f"resources: [llm-d.yaml]\n{line}\n")
        return render(find_kubectl(), place)


def production_stack(values):
    """As the chart's deployment-vllm-multi.yaml has it."""
    (spec,) = only(values, "servingEngineSpec")
    context, models = only(spec, "securityContext", "modelSpec")
    for model in models:
        resources = [model.pop(f"request{kind}") for kind in ("CPU", "Memory", "GPU")]
        assert all(resources) and model.pop("replicaCount"), model
        name, repository, tag, url, init, env, config, volumes, mounts = only(
            model, "name", "repository", "tag", "modelURL", "initContainer", "env", "vllmConfig", "extraVolumes", "extraVolumeMounts"
        )
        (arguments,) = only(config, "extraArgs")
        keys = ("name", "image", "args", "env", "resources", "extraVolumeMounts")
        init = dict(zip(keys, only(init, *keys)))
        server = {
            "name": "vllm",
            "image": f"{repository}:{tag}",
            "command": ["vllm", "serve", url, "--host", "0.0.0.0", "--port", "8000", *arguments],
            "env": [{"name": "HF_HOME", "value": "/tmp"}, *env],
            "volumeMounts": mounts,
        }
        init["volumeMounts"] = init.pop("extraVolumeMounts")
        yield deployment({"securityContext": context, "initContainers": [init], "containers": [server], "volumes": volumes})


def modelservice(values):
    """As the templates of llm-d-modelservice have it: the claim of `uri`, read-only, at /model-cache."""
    artifacts, decode = only(values, "modelArtifacts", "decode")
    name, uri = only(artifacts, "name", "uri")
    claim, path = uri.removeprefix("pvc://").split("/", 1)
    inits, (server,) = only(decode, "initContainers", "containers")
    keys = ("name", "image", "modelCommand", "mountModelVolume", "env")
    server = dict(zip(keys, only(server, *keys)))
    assert server.pop("modelCommand") == "vllmServe" and server.pop("mountModelVolume") is True
    server["command"] = ["vllm", "serve", f"/model-cache/{path}", "--port", "8200", "--served-model-name", name]
    server["volumeMounts"] = [{"name": "model-storage", "mountPath": "/model-cache", "readOnly": True}]
    volume = {"name": "model-storage", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    return deployment({"initContainers": inits, "containers": [server], "volumes": [volume]})


def only(mapping, *keys):
    """The values of exactly these keys: the chart would pass over any other in silence."""
    assert set(mapping) == set(keys), f"{sorted(mapping)}, not {sorted(keys)}"
    return [mapping[key] for key in keys]


class Pasted:
    def __init__(self, where, made, objects=()):
        self.where, self.made, self.objects = f"{where} ({made['metadata']['name']})", made, objects
        self.spec = made["spec"]["template"]["spec"]

    def containers(self):
        return self.spec["initContainers"] + self.spec["containers"]

    def weightlift(self):
        ours = [each for each in self.containers() if each["image"].startswith(IMAGE)]
        assert len(ours) == 1, f"{self.where} has weightlift {len(ours)} times"
        return ours[0]

    def server(self):
        (server,) = self.spec["containers"]
        return server

    def volumes(self):
        return {volume["name"]: volume for volume in self.spec["volumes"]}

    def loads(self):
        """The path that the server is told, by its own flags."""
        words = self.server().get("command", []) + self.server().get("args", [])
        for flag in ("--model-path", "--model-id", "-m"):
            if flag in words:
                return words[words.index(flag) + 1]
        for word in words:
            if word.startswith("--model-repository="):
                repository = word.partition("=")[2]
                return self.told_by_triton(repository) or repository
        return next(word for word in words if word.startswith("/"))

    def told_by_triton(self, repository):
        """What the vLLM backend reads: `model.json` of version 1 of the one model."""
        for mount in self.server()["volumeMounts"]:
            config = self.volumes()[mount["name"]].get("configMap")
            if config and re.fullmatch(f"{repository}/[^/]+", mount["mountPath"]):
                (data,) = [o["data"] for o in self.objects if o["metadata"]["name"] == config["name"]]
                files = {item["path"]: data[item["key"]] for item in config["items"]}
                assert set(files) == {"config.pbtxt", "1/model.json"} and 'backend: "vllm"' in files["config.pbtxt"], files
                return json.loads(files["1/model.json"])["model"]
        return None
