"""Pods run by podman, and a little of what controllers do.

A Job has one pod, and no retries of its own. A Deployment, StatefulSet or DaemonSet has its pods, which a
changed template replaces one after the other. A claim is a volume of podman.
"""

import copy
import json
import subprocess
import threading
import urllib.request
from pathlib import Path

from cluster import fitted
from cluster.hub import ARGUMENTS
from cluster.states import Broken, Container, Pod, equal, wait_until

RUNNABLE = ("Deployment", "StatefulSet", "DaemonSet", "Job", "Pod")


class Podman:
    def __init__(self, work, hub_binary):
        self.work, self.hub_binary = work, hub_binary
        self.port, self.hub_process, self.run = 0, None, {}
        self.configs = []

    # --- the hub

    def start_hub(self):
        if self.hub_process:
            return
        port_file = self.work / "hub.port"
        port_file.unlink(missing_ok=True)
        command = [self.hub_binary, *ARGUMENTS, "--port-file", port_file, "--hub-port", str(self.port)]
        self.hub_process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until("the fake Hub listens", port_file.exists, every=0.05)
        self.port = int(port_file.read_text())

    def stop_hub(self):
        if self.hub_process:
            self.hub_process.kill()
            self.hub_process.wait()
            self.hub_process = None

    def ask(self, path):
        with urllib.request.urlopen(self.endpoint() + path, timeout=20) as answer:
            return answer.read().decode()

    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    # --- objects

    def apply(self, documents):
        self.configs += [d for d in documents if d["kind"] == "ConfigMap"]
        for claim in (d for d in documents if d["kind"] == "PersistentVolumeClaim"):
            make_volume(self.work, volume_name(claim["metadata"]["namespace"], claim["metadata"]["name"]))
        for workload in (d for d in documents if d["kind"] in RUNNABLE):
            key = f"{workload['kind']}/{workload['metadata']['name']}"
            if key not in self.run:
                self.run[key] = Controller(self.work, workload, self.configs)
            elif self.run[key].workload != workload:
                self.run[key].replaced_by(workload)

    def remove(self, namespace, keys):
        for key in keys:
            if key in self.run:
                self.run.pop(key).remove()
            # A real claim goes when no pod has it any more.
            kind, name = key.split("/")
            if kind == "PersistentVolumeClaim":
                podman("volume", "rm", "--force", volume_name(namespace, name))

    def end(self):
        self.remove(None, list(self.run))
        podman("volume", "rm", "--all", "--force")
        self.configs = []

    # --- pods

    def pods(self, namespace):
        by_pod = {}
        for each in json.loads(podman("ps", "--all", "--pod", "--format", "json")):
            if each["PodName"] and not each["IsInfra"]:
                by_pod.setdefault(each["PodName"], {})[each["Names"][0]] = each
        found = []
        for owner, controller in list(self.run.items()):
            for pod in list(controller.pods):
                state = self.state(namespace, owner, pod, by_pod.get(pod.name, {}))
                pod.judge(state)
                if pod.name in by_pod:
                    found.append(state)
        return found

    def state(self, namespace, owner, pod, containers):
        state = Pod(pod.name, namespace, owner, pod.component, ready=False)
        for name in pod.containers:
            each = containers.get(f"{pod.name}-{name}", {"State": "created"})
            shown = {"running": "running", "exited": "exited", "stopped": "exited"}.get(each["State"], "waiting")
            state.containers[name] = Container(name, shown)
            if shown == "exited":
                state.containers[name].exit_code = each["ExitCode"]
                lines = self.logs(pod.name, name).splitlines() if each["ExitCode"] else []
                state.containers[name].message = lines[-1] if lines else ""
        last = state.containers[pod.containers[-1]]
        said = self.logs(pod.name, last.name) if last.state == "running" and last.name == "server" else ""
        state.ready = fitted.READY in said or (last.name != "server" and last.state == "running")
        return state

    def logs(self, pod, container):
        command = ["podman", "logs", f"{pod}-{container}"]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout

    def exec(self, pod, container, command):
        return podman("exec", f"{pod}-{container}", *command)

    def crash(self, pod):
        """SIGKILL, and another one of its owner."""
        self.run[pod.owner].again(pod.name)

    def check(self, pod):
        """Of our container: what the set asks for is what the container got."""
        spec = next(each.spec for each in self.run[pod.owner].pods if each.name == pod.name)
        ours = (spec.get("initContainers", []) + spec["containers"])[0]
        shown = json.loads(podman("inspect", f"{pod.name}-{ours['name']}"))[0]
        security = spec["securityContext"] | ours["securityContext"]
        wanted = {
            "memory": int(ours["resources"]["limits"]["memory"].removesuffix("Mi")) << 20,
            "read-only root": security["readOnlyRootFilesystem"],
            "capabilities": [],
            "user": f"{security['runAsUser']}:{security['runAsGroup']}",
        }
        found = {
            "memory": shown["HostConfig"]["Memory"],
            "read-only root": shown["HostConfig"]["ReadonlyRootfs"],
            "capabilities": shown["EffectiveCaps"] or [],
            "user": shown["Config"]["User"],
        }
        equal(f"{pod}: its locks", found, wanted)


class Started:
    """One pod, with the `podman play kube` that starts it: it ends once the init containers have."""

    def __init__(self, name, spec, labels, work, configs):
        self.name, self.component = name, labels.get(fitted.COMPONENT)
        self.containers = [c["name"] for c in spec.get("initContainers", []) + spec["containers"]]
        self.spec, self.file = spec, work / f"{name}.yaml"
        # Init containers that have ended stay, so that their logs and exit codes can be read.
        annotations = {"io.podman.annotations.init.container.type": "always"}
        metadata = {"name": name, "labels": labels, "annotations": annotations}
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        self.file.write_text("\n---\n".join(json.dumps(each) for each in [*configs, document]))
        self.log = work / f"{name}.log"
        with open(self.log, "w") as log:
            self.play = subprocess.Popen(["podman", "play", "kube", self.file], stdout=log, stderr=log)

    def judge(self, state):
        """podman may only have failed because an init container has."""
        if self.play.poll() and not any(c.exit_code for c in state.containers.values()):
            raise Broken(f"{self.name} was not started: {self.log.read_text()}")

    def remove(self):
        # `--time 0` is SIGKILL at once. Once more after the `play`: it may have been about to make what is removed.
        for _ in range(2):
            podman("pod", "rm", "--force", "--time", "0", self.name, check=False)
            self.play.wait()


class Controller:
    """What has the pods of one workload."""

    def __init__(self, work, workload, configs):
        self.work, self.workload, self.configs = work, workload, configs
        self.stopped, self.rolling, self.made = False, None, 0
        single = workload["kind"] in ("Job", "DaemonSet", "Pod")
        replicas = 1 if single else workload["spec"].get("replicas", 1)
        self.pods = [self.start(n) for n in range(replicas)]

    def start(self, replica):
        self.made += 1
        metadata, template = self.workload["metadata"], fitted.pod_template(self.workload)
        name = metadata["name"]
        if self.workload["kind"] != "Pod":
            name = f"{metadata['namespace']}-{name}-{replica}-{self.made}"
        spec = played(template["spec"], self.workload, replica, name, self.work)
        return Started(name, spec, template["metadata"].get("labels", {}), self.work, self.configs)

    def again(self, name):
        (n,) = [n for n, pod in enumerate(self.pods) if pod.name == name]
        self.pods[n].remove()
        self.pods[n] = self.start(n)
        return self.pods[n]

    def replaced_by(self, workload):
        if workload["kind"] in ("Job", "Pod"):
            raise Broken(f"{workload['kind']}/{workload['metadata']['name']}: its template cannot be changed")
        self.workload = workload
        self.rolling = threading.Thread(target=self.roll, daemon=True)
        self.rolling.start()

    def roll(self):
        for pod in list(self.pods):
            if not self.stopped:
                self.again(pod.name).play.wait()

    def remove(self):
        self.stopped = True
        for pod in self.pods:
            pod.remove()
        if self.rolling:
            self.rolling.join(timeout=60)
            for pod in self.pods:
                pod.remove()


def played(spec, workload, replica, pod_name, work):
    """The spec of a pod as podman takes it, which has no API server to ask."""
    spec, namespace = copy.deepcopy(spec), workload["metadata"]["namespace"]
    # The fake Hub listens on 127.0.0.1. What has ended is not started again by podman.
    spec |= {"hostNetwork": True, "restartPolicy": "Never"}
    for container in spec.get("initContainers", []) + spec["containers"]:
        container["imagePullPolicy"] = "Never"
        container.pop("readinessProbe", None)
        container.pop("ports", None)  # the network is the host's
        container["env"] = [v for v in map(lambda v: variable(v, pod_name), container.get("env", [])) if v]
    for template in workload["spec"].get("volumeClaimTemplates", []):
        name = template["metadata"]["name"]
        claim = {"claimName": f"{name}-{workload['metadata']['name']}-{replica}"}
        make_volume(work, volume_name(namespace, claim["claimName"]))
        spec.setdefault("volumes", []).append({"name": name, "persistentVolumeClaim": claim})
    for volume in spec.get("volumes", []):
        if "persistentVolumeClaim" in volume:
            # podman knows no `readOnly` here; it stands with the mounts as well.
            claim = volume["persistentVolumeClaim"]["claimName"]
            volume["persistentVolumeClaim"] = {"claimName": volume_name(namespace, claim)}
        if "emptyDir" in volume:
            private(volume, spec, pod_name)
        if "hostPath" in volume:
            Path(volume["hostPath"]["path"]).mkdir(exist_ok=True)
    return spec


def private(volume, spec, pod_name):
    """podman 4.3 makes a volume of the bare name of an emptyDir, which pods would share."""
    for container in spec.get("initContainers", []) + spec["containers"]:
        for mount in container.get("volumeMounts", []):
            if mount["name"] == volume["name"]:
                mount["name"] = f"{pod_name}-{volume['name']}"
    volume["name"] = f"{pod_name}-{volume['name']}"


def variable(entry, pod_name):
    source = entry.get("valueFrom", {})
    if "secretKeyRef" in source:
        return None  # the fake Hub asks for no token
    if "fieldRef" in source:
        known = {"metadata.name": pod_name, "spec.nodeName": "here", "metadata.namespace": "here"}
        return {"name": entry["name"], "value": known[source["fieldRef"]["fieldPath"]]}
    return entry


def volume_name(namespace, claim):
    return f"{namespace}-{claim}"


def make_volume(work, name):
    """podman knows no fsGroup: the owner stands in the claim."""
    if subprocess.run(["podman", "volume", "exists", name]).returncode == 0:
        return
    owner = {"volume.podman.io/uid": "65532", "volume.podman.io/gid": "65532"}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "annotations": owner}}
    claim["spec"] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    file = work / f"{name}.yaml"
    file.write_text(json.dumps(claim))
    podman("play", "kube", str(file))


def podman(*arguments, check=True):
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True, timeout=120)
    if check and done.returncode != 0:
        raise Broken(f"podman {' '.join(arguments)}: {done.stderr}")
    return done.stdout
