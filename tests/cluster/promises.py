"""What the README promises of each kind of set, played at a site: podman, or a real cluster.

A promise is a function of a `Play`: a set, rendered, in a namespace of its own.
"""

import json
from dataclasses import dataclass

import yaml

from cluster import fitted
from cluster.states import DEADLINE, equal, holds, wait_until

# Bytes per second of each connection: slow enough to be killed in the middle.
SLOW = 1 << 20
NO_COMMIT = "f" * 40
VARIANT = "-other"


@dataclass
class Play:
    site: object
    namespace: str
    documents: list
    older: object
    newer: object

    def fit(self, commit, **changes):
        return fitted.fit(self.documents, self.site.fit(self.namespace, commit, **changes))

    def hub(self):
        return self.site.hub()

    def pods(self, of=None):
        return [p for p in self.site.pods(self.namespace) if of in (None, p.component)]

    def wait_for(self, what, true, deadline=DEADLINE):
        try:
            return wait_until(what, true, deadline)
        except Exception:
            for pod in self.pods():
                print(f"   {pod}")
                for name in pod.containers:
                    print("".join(f"     {line}\n" for line in self.site.logs(pod, name).splitlines()[-5:]), end="")
            raise

    # --- what is waited for

    def fetched(self, count=1):
        """The pods of the Job (or of the DaemonSet) have fetched."""

        def true():
            pods = self.pods("download")
            done = [p for p in pods if p.ours().exit_code == 0]
            holds("the fetch has failed", not [p for p in pods if p.ours().exit_code])
            return pods if len(done) >= count else None

        pods = self.wait_for("the fetch has ended well", true)
        for pod in pods:
            self.site.check(pod)
        return pods

    def served(self, commit, count):
        """So many servers are ready, and each has read this commit's files, and could not write."""

        def true():
            pods = self.pods("inference")
            ready = [p for p in pods if p.ready and self.reads(p, commit)]
            return ready if len(ready) == count == len(pods) else None

        pods = self.wait_for(f"{count} servers read {commit.name[:12]}", true)
        for pod in pods:
            self.site.check(pod)
            said = self.site.logs(pod, "server")
            holds(f"{pod.name}: {said}", "Read-only file system" in said and "could write" not in said)
        return pods

    def reads(self, pod, commit):
        return commit.sums() in self.site.logs(pod, "server")

    def sent(self, models, what):
        """So many whole models have come from the CDN, and no byte twice."""
        counts = self.hub().counts()
        size = self.newer.large()
        equal(f"bytes of the CDN, {what}", counts["cdn_bytes"], models * size)
        if models <= 1:
            equal(f"bytes sent twice, {what}", counts["bytes_sent_twice"], 0)

    def replicas(self):
        servers = fitted.workloads(self.documents, of="inference")
        return sum(w["spec"].get("replicas", 1) for w in servers if w["kind"] != "DaemonSet")


def one_download_for_all(play):
    """The Job and the servers' pods start together on an empty volume."""
    play.site.apply(play.fit(play.older.name))
    if fitted.workloads(play.documents, of="download"):
        play.fetched()
    play.served(play.older, play.replicas())
    seeded = fitted.workloads(play.documents, "DaemonSet")
    play.sent(play.site.nodes(play.namespace) if seeded else 1, "one download for all")


def a_download_for_each_replica(play):
    play.site.apply(play.fit(play.older.name))
    play.served(play.older, play.replicas())
    play.sent(play.replicas(), "each replica has its own volume")


def another_pod_asks_nobody(play):
    """A pinned model that is there costs no request, and needs no Hub."""
    play.hub().clear()
    pods = play.pods("inference")
    play.site.crash(pods[0])
    play.served(play.older, play.replicas())
    equal("requests of a warm start", play.hub().counts()["requests"], 0)
    play.site.stop_hub()
    try:
        play.site.crash(play.pods("inference")[-1])
        play.served(play.older, play.replicas())
    finally:
        play.site.start_hub()


def servers_wait_for_the_first_model(play):
    """They are there before anyone fetches, write nothing, and go on when the Job is done."""
    documents = play.fit(play.older.name)
    jobs = fitted.workloads(documents, of="download")
    play.site.apply([d for d in documents if d not in jobs])
    play.wait_for("the servers wait", lambda: waiting(play, play.replicas()))
    equal("requests of those who wait", play.hub().counts()["requests"], 0)
    play.site.apply(documents)
    play.fetched()
    play.served(play.older, play.replicas())
    play.sent(1, "one fetches, all read")


def waiting(play, count):
    pods = play.pods("inference")
    return len(pods) == count and all(p.ours().state == "running" and not p.ready for p in pods)


def servers_wait_for_the_new_commit(play):
    """A changed commit rolls them, and they do not take what was there before."""
    documents = play.fit(play.newer.name)
    jobs = fitted.workloads(documents, of="download")
    play.hub().clear()
    play.site.remove(fitted.workloads(play.fit(play.older.name), of="download"))
    play.site.apply([d for d in documents if d not in jobs])
    one = lambda: [p for p in play.pods("inference") if p.ours().state == "running"]
    (pod, *_) = play.wait_for("a pod waits for the new commit", one)
    holds(f"{pod} has gone on with the old model", not pod.ready)
    play.site.apply(documents)
    play.fetched()
    play.served(play.newer, play.replicas())
    play.sent(1, "a new commit")


def a_new_commit_is_fetched_once(play):
    play.hub().clear()
    play.site.remove([d for d in play.fit(play.older.name) if d["kind"] == "Job"])
    play.site.apply(play.fit(play.newer.name))
    play.served(play.newer, play.replicas())
    play.sent(1, "a new commit")


def two_commits_are_served_side_by_side(play):
    """As in the middle of a rolling update: pods of both, restarted in turn."""
    newer = other(play.fit(play.newer.name))
    play.hub().clear()
    play.site.apply(fitted.workloads(newer, of="inference"))

    def both():
        mine = {p.name: p for p in play.pods("inference")}
        pods = [p for p in mine.values() if p.ready]
        olds = [p for p in pods if VARIANT not in p.owner and play.reads(p, play.older)]
        news = [p for p in pods if VARIANT in p.owner and play.reads(p, play.newer)]
        return (olds, news) if len(olds) == len(news) == play.replicas() else None

    olds, news = play.wait_for("both commits are served", both)
    play.sent(1, "the second commit")
    for pod in (olds[0], news[0], olds[-1]):
        play.site.crash(pod)
        olds, news = play.wait_for(f"both are served after {pod.owner} has been restarted", both)
        # Those that were there before still read their own.
        for commit, pods in ((play.older, olds), (play.newer, news)):
            for each in pods:
                equal(f"{each.name} reads again", play.site.read_again(each), commit.sums())
    play.sent(1, "after restarts of both")
    play.site.remove(fitted.workloads(newer, of="inference"))


def other(documents):
    """The same under another name: the second ReplicaSet."""
    for each in fitted.workloads(documents, of="inference"):
        each["metadata"]["name"] += VARIANT
        label = {"app.kubernetes.io/instance": "other"}
        each["spec"]["selector"]["matchLabels"] |= label
        fitted.pod_template(each)["metadata"]["labels"] |= label
    return documents


def a_killed_fetch_goes_on(play):
    """SIGKILL in the middle. The pod after it continues what is on the volume."""
    documents = play.fit(play.older.name)
    play.hub().speed(SLOW)
    job = fitted.workloads(documents, of="download")
    play.site.apply([d for d in documents if d not in fitted.workloads(documents)] + job)
    size = play.older.large()
    play.wait_for("half of it is fetched", lambda: play.hub().counts()["cdn_bytes"] > size / 2)
    (pod,) = play.pods("download")
    play.site.crash(pod)
    before = play.hub().counts()["cdn_bytes"]
    holds(f"killed in the middle: {before} of {size}", before < size)
    play.hub().speed(0)
    pods = play.fetched()
    said = "".join(play.site.logs(p, p.ours().name) for p in pods)
    print(f"   {last_line(said, 'complete')}")
    counts = play.hub().counts()
    print(f"   {before} bytes before the kill, {counts['cdn_bytes']} in all, {counts['bytes_sent_twice']} twice, of {size}")
    # What was on its way to the killed one may come again: some MiB for each connection.
    holds("too much was fetched again", counts["cdn_bytes"] - before < size * 0.85)


def lines_of(text, beginning):
    return [line for line in text.splitlines() if line.startswith(beginning)]


def last_line(text, word):
    found = [line for line in text.splitlines() if word in line]
    return found[-1] if found else f"no line with `{word}`"


def a_failed_fetch_says_why(play):
    """The exit code and the message stand in the pod's status, and no server starts."""
    play.site.apply(play.fit(NO_COMMIT))

    def failed():
        pods = [p for p in play.pods() if p.ours().exit_code]
        return pods or None

    for pod in play.wait_for("the fetch has failed", failed):
        ours = pod.ours()
        equal(f"{pod}: exit code", ours.exit_code, 10)
        holds(f"{pod}: message `{ours.message}`", NO_COMMIT[:12] in ours.message)
    holds("a server has started", not [p for p in play.pods("inference") if p.ready])


def what_is_deleted_leaves_the_models(play):
    """The whole set, but not its storage; then the same again, without a Hub."""
    documents = play.fit(play.older.name)
    play.site.remove(documents)
    play.wait_for("the pods are gone", lambda: not play.pods())
    play.site.stop_hub()
    try:
        play.site.apply(documents)
        play.served(play.older, play.replicas())
    finally:
        play.site.start_hub()


def a_list_is_fetched_once(play):
    """Every model of the list, and a second Job asks nobody."""
    documents = lists(play)
    play.site.apply(documents)
    play.site.run_now(documents, "Job")
    pods = play.fetched()
    said = play.site.logs(pods[0], pods[0].ours().name)
    equal(f"the paths of {said}", len(lines_of(said, "/data/models/")), 3)
    counts = play.hub().counts()
    holds(f"more than the models: {counts['cdn_bytes']}", counts["cdn_bytes"] <= 3 * play.older.large())
    holds(f"less than one model: {counts['cdn_bytes']}", counts["cdn_bytes"] >= play.older.large())
    play.hub().clear()
    play.site.run_now(documents, "Job")
    play.fetched()
    equal("requests of the second Job", play.hub().counts()["requests"], 0)


def lists(play):
    """With a lock file as `weightlift pin` would write it of the fake Hub's models."""
    site = play.site
    config = {}
    listed = [d["data"] for d in play.documents if d["kind"] == "ConfigMap" and "models.lock" in d["data"]]
    if listed:
        models = fitted.text_of(listed[0]["models.yaml"], site.fit(play.namespace, play.older.name))
        config = {"models.lock": lambda _: lock_file(models, play.older)}
    return play.fit(play.older.name, config=config)


def lock_file(models, commit):
    files = [
        {"path": path, "size": file["size"], "sha256": file["sha256"]}
        | ({"published": f"git-sha1:{file['git_sha1']}"} if "git_sha1" in file else {})
        for path, file in sorted(commit.files.items())
    ]
    locked = [
        {"name": m["name"], "source": m["source"], "revision": commit.name, "files": files}
        for m in sorted(yaml.safe_load(models)["models"], key=lambda m: m["name"])
    ]
    return json.dumps({"version": 1, "models": locked}, indent=2) + "\n"


def a_branch_is_followed_at_night(play):
    """The servers wait; the first run of the CronJob fetches what `main` is."""
    documents = play.fit(play.older.name)
    play.site.apply(documents)
    play.wait_for("the servers wait", lambda: waiting(play, play.replicas()))
    play.site.run_now(documents, "CronJob")
    play.served(play.newer, play.replicas())
    play.sent(1, "the first run")
    play.hub().clear()
    play.site.run_now(documents, "CronJob")
    play.fetched()
    play.sent(0, "the second run")


def what_is_published_is_intact(play):
    """`verify` and `list` as pods of their own; and what `prune` leaves."""
    root = "/data/models"
    shown = play.site.once(play.namespace, ["list", "--output", "json"])
    names = [json.loads(line)["path"] for line in lines_of(shown, "{")]
    holds(f"list shows {shown}", names and all(name.startswith(root) for name in names))
    for _ in ("before", "after"):
        said = play.site.once(play.namespace, ["verify", *names])
        equal("what is intact", lines_of(said, root), names)
        play.site.once(play.namespace, ["prune", "--keep-revisions", "0", "--yes"])


# Of each set what is played, in this order, in one namespace.
SETS = {
    "base": [
        one_download_for_all,
        another_pod_asks_nobody,
        what_is_deleted_leaves_the_models,
        two_commits_are_served_side_by_side,
        what_is_published_is_intact,
    ],
    "base, new commit": [one_download_for_all, a_new_commit_is_fetched_once],
    "base, killed": [a_killed_fetch_goes_on],
    "base, wrong commit": [a_failed_fetch_says_why],
    "overlays/wait-only": [servers_wait_for_the_first_model, servers_wait_for_the_new_commit],
    "overlays/rwo": [one_download_for_all],
    "overlays/job-many": [a_list_is_fetched_once, what_is_published_is_intact],
    "overlays/job-locked": [a_list_is_fetched_once],
    "overlays/empty-dir": [one_download_for_all],
    "overlays/statefulset": [a_download_for_each_replica, another_pod_asks_nobody],
    "overlays/daemonset": [one_download_for_all],
    "overlays/refresh": [a_branch_is_followed_at_night],
}
