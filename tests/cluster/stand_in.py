"""What kubectl would answer, had it podman for a cluster: so much of it as `kubectl.py` asks.

So the promises, and the program that asks a real cluster, are run where there is none. There is no
scheduler, no probe, no admission: what these do is not shown here.
"""

import copy
import json

from cluster import fitted
from cluster.states import Broken

KINDS = {"pod": "Pod", "job": "Job"}


class StandIn:
    """Called as `Kubectl.run` is: arguments and standard input, standard output."""

    def __init__(self, podman):
        self.podman, self.namespaces, self.parked = podman, set(), {}
        self.hub_namespace = None
        # Namespace, kind and name of what pods do not start without.
        self.there = set()

    def __call__(self, arguments, stdin):
        namespace, arguments = (arguments[1], arguments[2:]) if arguments[0] == "-n" else (None, arguments)
        words = [word for word in arguments if not word.startswith("-")]
        answer = getattr(self, words[0], None)
        if not answer:
            raise Broken(f"the stand-in knows no `kubectl {' '.join(arguments)}`")
        objects = json.loads(stdin)["items"] if stdin else None
        return answer(namespace, words[1:], arguments, objects) or ""

    # --- objects

    def apply(self, _, __, ___, objects):
        for each in objects:
            if each["kind"] == "Namespace":
                self.namespaces.add(each["metadata"]["name"])
            elif each["metadata"].get("namespace", "") not in self.namespaces | {""}:
                raise Broken(f"{each['kind']}: there is no namespace {each['metadata']['namespace']}")
        self.there |= {key_of(each) for each in objects}
        if any(each["metadata"]["name"] == "fake-hub" for each in objects):
            self.hub_namespace = objects[0]["metadata"]["name"]
            return
        # No names of services here: the pods are on the network of the host.
        name = f"http://fake-hub.{self.hub_namespace}.svc:8080"
        objects = fitted.strings(objects, lambda text: text.replace(name, self.podman.endpoint()))
        for each in objects:
            suspended = each["kind"] == "Job" and each["spec"].get("suspend")
            if each["kind"] == "CronJob" or suspended:
                self.parked[f"{each['kind'].lower()}/{each['metadata']['name']}"] = each
        parked = list(self.parked.values())
        self.start([each for each in objects if each not in parked])

    def start(self, objects):
        for each in fitted.workloads(objects):
            metadata = each["metadata"]
            for kind, name in fitted.required(each):
                if (metadata["namespace"], kind, name) not in self.there:
                    raise Broken(f"{each['kind']}/{metadata['name']} does not start: there is no {kind} {name}")
        self.podman.apply(objects)

    def create(self, namespace, words, arguments, _):
        """`create job NAME --from=cronjob/…`"""
        (source,) = [a.removeprefix("--from=") for a in arguments if a.startswith("--from=")]
        cronjob = copy.deepcopy(self.parked[source])
        metadata = {"name": words[1], "namespace": namespace}
        self.start([{"kind": "Job", "metadata": metadata, "spec": cronjob["spec"]["jobTemplate"]["spec"]}])

    def patch(self, _, words, arguments, __):
        if arguments[-1] != '{"spec":{"suspend":false}}':
            raise Broken(f"the stand-in knows no patch {arguments[-1]}")
        job = copy.deepcopy(self.parked[f"job/{words[1]}"])
        job["spec"]["suspend"] = False
        self.start([job])

    def delete(self, namespace, words, _, objects):
        if objects is not None:
            self.there -= {key_of(each) for each in objects}
            for each in objects:
                self.podman.remove(each["metadata"].get("namespace"), [f"{each['kind']}/{each['metadata']['name']}"])
        elif words[0] == "namespace":
            self.namespaces.discard(words[1])
            self.parked.clear()
            self.there = {key for key in self.there if key[0] != words[1]}
            self.podman.end()
        else:
            pods = {pod.name: pod for pod in self.podman.pods(namespace)}
            owned = words[0] == "pod" and not pods[words[1]].owner.startswith("Pod/")
            if owned:
                self.podman.crash(pods[words[1]])
            else:
                self.podman.remove(namespace, [f"{KINDS[words[0]]}/{words[1]}"])

    def scale(self, _, __, arguments, ___):
        if arguments[-1] == "--replicas=0":
            self.podman.stop_hub()
        else:
            self.podman.start_hub()

    # --- what is asked

    def get(self, namespace, words, arguments, _):
        if arguments[1] == "--raw":
            return self.podman.ask(arguments[2].split("/proxy")[1])
        if words[0] == "daemonsets":
            return json.dumps({"items": [{"status": {"desiredNumberScheduled": 1}}]})
        if namespace == self.hub_namespace:
            return json.dumps({"items": []})
        return json.dumps({"items": [as_api(pod) for pod in self.podman.pods(namespace)]})

    def logs(self, _, words, arguments, __):
        return self.podman.logs(words[0], arguments[-1])

    def exec(self, _, words, arguments, __):
        return self.podman.exec(words[0], arguments[arguments.index("-c") + 1], arguments[arguments.index("--") + 1 :])


def key_of(each):
    return each["metadata"].get("namespace"), each["kind"], each["metadata"]["name"]


def as_api(pod):
    """A pod as the API server shows it."""
    kind, name = pod.owner.split("/")
    owner = {"kind": "ReplicaSet", "name": f"{name}-5d59d67564"} if kind == "Deployment" else {"kind": kind, "name": name}
    return {
        "metadata": {
            "name": pod.name,
            "namespace": pod.namespace,
            "labels": {fitted.COMPONENT: pod.component},
            "ownerReferences": [] if kind == "Pod" else [owner],
        },
        "spec": {"containers": [{"name": name} for name in pod.containers]},
        "status": {
            "conditions": [{"type": "Ready", "status": str(pod.ready)}],
            "containerStatuses": [{"name": c.name, "state": state_of(c)} for c in pod.containers.values()],
        },
    }


def state_of(container):
    if container.state == "exited":
        return {"terminated": {"exitCode": container.exit_code, "message": container.message}}
    return {container.state: {}}
