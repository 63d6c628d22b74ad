"""As much of the Kubernetes API as `kubectl get`, `wait`, `logs` and `delete` ask for: Jobs and their pods."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

RESOURCES = {
    "/api/v1": [("pods", "Pod"), ("namespaces", "Namespace")],
    "/apis/batch/v1": [("jobs", "Job"), ("cronjobs", "CronJob")],
}
NOT_FOUND = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
# In place of the conditions of a look: the API server does not answer that one.
DOWN = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "ServiceUnavailable", "code": 503}


class FakeApi:
    """Holds `jobs`, as (name, labels, conditions); each has one pod. `conditions` may be a list of lists: one for each look."""

    def __init__(self, jobs):
        self.jobs = {name: (labels, conditions) for name, labels, conditions in jobs}
        self.looks, self.deleted = {}, []
        # When each Job was made, and how often the log of a pod is empty before it is there.
        self.made, self.silent = {}, {}

    def job(self, name):
        labels, conditions = self.jobs[name]
        look = self.looks[name] = self.looks.get(name, -1) + 1
        conditions = conditions[min(look, len(conditions) - 1)]
        if conditions is DOWN:
            return DOWN
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": name,
                "namespace": "ns",
                "labels": labels,
                "uid": name,
                "resourceVersion": "1",
                "creationTimestamp": self.made.get(name, "2026-01-01T00:00:00Z"),
            },
            "spec": {"selector": {"matchLabels": {"job-name": name}}, "template": {}},
            "status": {
                "conditions": [{"type": kind, "status": "True"} for kind in conditions],
                "succeeded": int("Complete" in conditions),
            },
        }

    def pod(self, job):
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{job}-pod",
                "namespace": "ns",
                "labels": {**self.jobs[job][0], "job-name": job},
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {"containers": [{"name": "weightlift", "image": "x"}]},
            "status": {"phase": "Running"},
        }

    def answer(self, method, path, query):
        """An object, a text, or None for 404."""
        if path in ("/api", "/apis"):
            groups = [{"name": "batch", "versions": [{"groupVersion": "batch/v1", "version": "v1"}]}]
            if path == "/api":
                return {"kind": "APIVersions", "versions": ["v1"]}
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        if path in RESOURCES:
            verbs = ["get", "list", "watch", "delete", "deletecollection", "create"]
            found = [
                {"name": name, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": verbs}
                for name, kind in RESOURCES[path]
            ]
            group = path.removeprefix("/apis/").removeprefix("/api/")
            return {"kind": "APIResourceList", "groupVersion": group, "resources": found}
        parts = path.strip("/").split("/")
        below = parts[parts.index("ns") + 1 :] if "ns" in parts else []
        match below:
            case ["jobs"]:
                names = [name for name in self.jobs if self.is_selected(self.jobs[name][0], query)]
                items = [self.job(name) for name in names]
                if DOWN in items:
                    return DOWN
                if "successful=0" in query.get("fieldSelector", ""):
                    items = [item for item in items if not item["status"]["succeeded"]]
                if "metadata.name=" in query.get("fieldSelector", ""):
                    items = [i for i in items if i["metadata"]["name"] == query["fieldSelector"].partition("=")[2]]
                return {"kind": "JobList", "apiVersion": "batch/v1", "metadata": {"resourceVersion": "1"}, "items": items}
            case ["jobs", name] if name in self.jobs:
                found = self.job(name)
                if method == "DELETE":
                    self.deleted.append(name)
                    del self.jobs[name]
                return found
            case ["pods"]:
                pods = [self.pod(job) for job in self.jobs]
                items = [pod for pod in pods if self.is_selected(pod["metadata"]["labels"], query)]
                return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}
            case ["pods", name]:
                return self.pod(name.removesuffix("-pod"))
            case ["pods", name, "log"] if self.silent.get(name):
                self.silent[name] -= 1
                return ""
            case ["pods", name, "log"]:
                return f"says {name}\n"
        return None

    @staticmethod
    def is_selected(labels, query):
        asked = [term.split("=") for term in query.get("labelSelector", "").split(",") if term]
        return all(labels.get(key) == value for key, value in asked)


@contextmanager
def serving(api, directory):
    """Yields the path of a kubeconfig."""

    class Handler(BaseHTTPRequestHandler):
        def respond(self):
            address = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(address.query).items()}
            found = api.answer(self.command, address.path, query)
            body = found if isinstance(found, str) else json.dumps(found or {**NOT_FOUND, "message": f"no {address.path}"})
            self.send_response(404 if found is None else 503 if found is DOWN else 200)
            self.send_header("Content-Type", "text/plain" if isinstance(found, str) else "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_DELETE = respond

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = directory / "kubeconfig"
    config.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "a", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                "users": [{"name": "a", "user": {}}],
                "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
                "current-context": "a",
            }
        )
    )
    try:
        yield config
    finally:
        server.shutdown()
        server.server_close()
