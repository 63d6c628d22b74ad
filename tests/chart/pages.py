"""What people read and paste: README.md and NOTES.txt."""

import copy
import os
import re
import subprocess
import tempfile
import textwrap
from pathlib import Path

import yaml

from chart.fake_api import DOWN, FakeApi, serving
from chart.rendering import containers, good, named, notes, pods, refusal, render, schema_problems
from chart.values import CHART, COMMIT, KUBERNETES, LOCK, MODEL, OTHER
from manifests.reading import find_kubectl

SIX = [
    {"source": f"hf://meta-llama/Llama-3.1-8B-Instruct@{COMMIT}", "dest": "llama-3-8b"},
    OTHER,
    {"source": "hf://BAAI/bge-m3@main", "dest": "embeddings/bge-m3"},
    {"source": "oci://ghcr.io/acme/qwen:v1@sha256:" + "a" * 64, "dest": "qwen"},
    {"source": "gs://acme/whisper/", "dest": "whisper-large-v3"},
    {"source": "https://host.example/one.gguf#sha256=" + "b" * 64, "dest": "one"},
]
LISTED = {"models": [], "modelsLock": LOCK}


def the_examples_of_the_readme_render():
    """Each by itself, or with a model if it has none, and in all that the text says of it."""
    examples = [yaml.safe_load(block.replace("<the 40 digits of a commit>", COMMIT)) for block in blocks("yaml")]
    assert len(examples) == 7, f"{len(examples)} examples"
    for values in examples:
        resources = render(good(values))
        for version in KUBERNETES:
            assert not schema_problems(resources, version), f"{values}, Kubernetes {version}"
    _, one_node, empty_dir, openshift, closed, at_night, registry = examples
    ((_, pod),) = pods(render(registry))
    (secret,) = [volume for volume in pod["volumes"] if "secret" in volume]
    mount = {"name": secret["name"], "mountPath": "/var/run/secrets/registry", "readOnly": True}
    assert mount in pod["containers"][0]["volumeMounts"], pod["containers"]
    kinds = sorted(resource["kind"] for resource in render(one_node))
    assert kinds == ["Deployment", "PersistentVolumeClaim", "Service"], kinds
    claim = named(render(one_node))["PersistentVolumeClaim/models"]["spec"]
    assert claim["accessModes"] == ["ReadWriteOnce"] and "storageClassName" not in claim, claim
    assert [r["spec"]["replicas"] for r in render(one_node) if r["kind"] == "Deployment"] == [1]
    ((_, pod),) = pods(render(empty_dir))
    assert {"name": "models", "emptyDir": {"sizeLimit": "20Gi"}} in pod["volumes"], pod["volumes"]
    assert "persistentVolumeClaim" not in str(pod), pod
    for _, pod in pods(render(good({**openshift, "server": {"enabled": True}}))):
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & pod["securityContext"].keys(), pod["securityContext"]
    a_closed_network_is_nowhere_left(closed)
    assert {key for key in named(render(good(at_night))) if key.startswith("CronJob/")} == {
        "CronJob/demo-weightlift-prune",
        "CronJob/demo-weightlift-verify",
    }


def a_closed_network_is_nowhere_left(closed):
    closed = copy.deepcopy(closed)
    closed["server"]["enabled"] = True
    closed.update(prune={"enabled": True}, verify={"enabled": True})
    fetching = 0
    for where, pod in pods(render(good(closed))):
        assert pod["imagePullSecrets"] == [{"name": "registry"}], where
        for container in containers(pod):
            assert container["image"].startswith("registry.acme.example/"), f"{where}: {container['image']}"
            if container["args"][0] != "fetch":
                assert "PROXY" not in str(container) and "CERT" not in str(container), f"{where}: {container['env']}"
                continue
            fetching += 1
            env = {variable["name"]: variable.get("value") for variable in container["env"]}
            expected = {
                "HF_ENDPOINT": "https://hub.acme.example",
                "HTTPS_PROXY": "http://proxy.acme.example:3128",
                "NO_PROXY": ".svc,.acme.example,10.0.0.0/8",
                "SSL_CERT_FILE": "/etc/weightlift-ca/ca.crt",
            }
            assert expected.items() <= env.items() and "HTTP_PROXY" not in env, f"{where}: {env}"
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounts["ca-bundle"] == "/etc/weightlift-ca", mounts
            (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "ca-bundle"]
            assert volume["configMap"]["name"] == "acme-ca", volume
    assert fetching == 2, fetching


def the_readme_says_how_the_service_is_called():
    table = (CHART / "README.md").read_text().partition("## The name of the Service")[2].partition("\n\nThe release")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE)[1:]
    assert len(rows) == 7, rows
    for release, shown in rows:
        (release,) = re.findall(r"`(.+?)`", release)
        values = good({"server": {"enabled": True}})
        if release.startswith("server.name"):
            values["server"]["name"], release = release.partition(": ")[2], "demo"
        if shown.startswith("none"):
            said = refusal(values, release=release)
            assert said and "server.name" in said, f"{release}: {said}"
            continue
        resources = [resource for resource in render(values, release=release)]
        names = {r["kind"]: r["metadata"]["name"] for r in resources}
        assert f"`{names['Service']}`" == shown and names["Deployment"] == names["Service"], f"{release}: {names}"
        said = notes(values, release=release, namespace="other")
        assert f"http://{names['Service']}.other.svc/v1/models" in said, said
        assert f"deployment/{names['Service']}" in said and f"service/{names['Service']} 8000:80" in said, said


def the_notes_name_a_port_of_ones_own():
    assert "demo-weightlift.model-storage.svc:9000/v1" in notes(good({"server": {"enabled": True, "servicePort": 9000}}))


def the_notes_are_readable_with_six_models():
    for values in ({"models": SIX}, {"models": SIX, "server": {"enabled": True}}, LISTED):
        said = notes(values)
        lines = said.splitlines()
        rows = lines[1 : lines.index("")]
        count = len(values["models"]) or 3
        assert len(rows) == count and all(len(row) < 100 for row in rows), rows
        assert len({len(re.match(r"  \S+ +", row)[0]) for row in rows}) == 1, f"not one column: {rows}"
        assert not re.search(r"[0-9a-f]{40}", said), said
        prose = [line for line in lines if not line.startswith("  ")]
        assert all(len(line) <= 130 for line in prose), max(prose, key=len)
        assert len(lines) <= 40 and "\n\n\n" not in said and "<no value>" not in said, said
    said = notes({"models": SIX})
    assert "llama-3-8b           hf://meta-llama/Llama-3.1-8B-Instruct at 0123456789ab\n" in said, said
    assert "qwen                 oci://ghcr.io/acme/qwen:v1 at aaaaaaaaaaaa\n" in said, said
    assert "embeddings/bge-m3    hf://BAAI/bge-m3@main\n" in said, said


def the_commands_of_the_notes_are_right_for_every_number_of_jobs():
    """By kubectl, against a fake of the API; Jobs of another release beside them."""
    for values in ({"models": [MODEL]}, {"models": SIX}, LISTED):
        names = [r["metadata"]["name"] for r in render(values, namespace="ns") if r["kind"] == "Job"]
        said = notes(values, namespace="ns")
        ours = {"app.kubernetes.io/instance": "demo", "app.kubernetes.io/component": "download"}
        theirs = [("other", {**ours, "app.kubernetes.io/instance": "other"}, [["FailureTarget", "Failed"]])]
        running, done, failed, away = [[]], [[], ["Complete"]], [[], ["FailureTarget"], ["FailureTarget", "Failed"]], [[], DOWN, ["Complete"]]

        def api(first, rest, names=names, ours=ours, theirs=theirs):
            return FakeApi([(names[0], ours, first), *((name, ours, rest) for name in names[1:]), *theirs])

        assert sorted(shell(api(running, running), command(said, "logs"))[1].splitlines()) == sorted(
            f"[pod/{name}-pod/weightlift] says {name}-pod" if len(names) > 1 else f"says {name}-pod" for name in names
        )
        wait = command(said, "until")
        for first, rest, code in ((done, done, 0), (away, done, 0), (failed, done, 1), (done, failed, int(len(names) > 1))):
            found = shell(api(first, rest), wait)
            assert found[0] == code, f"{len(names)} Jobs, {first}, {rest}: {found}"
            assert (names[0] in found[1]) == (first == failed), f"{len(names)} Jobs, {first}, {rest}: {found}"
        still = shell(api(running, done), wait)
        assert still[0] == 124, f"ends while a Job runs: {still}"
        fake = api([["FailureTarget", "Failed"]], [["Complete"]])
        found = shell(fake, command(said, "delete"))
        assert found[0] == 0 and fake.deleted == names[:1], f"{found}, {fake.deleted}"


def the_commands_of_the_readme_are_right():
    ours = {"app.kubernetes.io/instance": "llama", "app.kubernetes.io/component": "download"}
    (wait,) = [block for block in blocks("sh") if block.startswith("until")]
    (delete,) = [block for block in blocks("sh") if " delete job " in block]
    wait, delete = (text.replace("model-storage", "ns") for text in (wait, delete.partition("\n")[0]))
    for conditions, code in (([[], ["Complete"]], 0), ([[], ["Failed"]], 1), ([[], DOWN, ["Complete"]], 0), ([[]], 124)):
        found = shell(FakeApi([("a", ours, conditions), ("b", ours, [["Complete"]])]), wait)
        assert found[0] == code, f"{conditions}: {found}"
    fake = FakeApi([("a", ours, [["Failed"]]), ("b", {**ours, "app.kubernetes.io/instance": "x"}, [["Failed"]])])
    found = shell(fake, delete)
    assert found[0] == 0 and fake.deleted == ["a"], f"{found}, {fake.deleted}"


def a_first_run_of_what_runs_at_night_has_a_name():
    values = {"models": SIX, "download": {"kind": "cronjob"}, "prune": {"enabled": True}, "verify": {"enabled": True}}
    for release in ("demo", "r" * 53):
        there = {r["metadata"]["name"] for r in render(values, release=release) if r["kind"] == "CronJob"}
        found = re.findall(r"create job --from=cronjob/(\S+) (\S+)$", notes(values, release=release), re.MULTILINE)
        gone = re.findall(r"delete job (\S+) --ignore-not-found$", notes(values, release=release), re.MULTILINE)
        assert gone == [job for _, job in found], f"AlreadyExists at the second time: {found}, deleted are {gone}"
        assert {cron for cron, _ in found} == there and len(there) == 8, f"{found}, there are {there}"
        assert len({job for _, job in found}) == 8, found
        for _, job in found:
            assert len(job) <= 63 and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", job), job


def the_example_of_metrics_renders():
    page = (CHART.parents[1] / "docs/monitoring.md").read_text()
    (values,) = [yaml.safe_load(block) for block in re.findall(r"(?ms)^```yaml\n(.*?)^```", page)]
    ((_, pod),) = pods(render(good(values)))
    (ours,) = containers(pod)
    assert values["extraEnv"][0] in ours["env"], ours["env"]
    (job,) = [resource for resource in render(good(values)) if resource["kind"] == "Job"]
    annotations = job["spec"]["template"]["metadata"]["annotations"]
    assert values["download"]["podAnnotations"].items() <= annotations.items(), annotations


def the_notes_say_what_an_uninstall_takes():
    kept, lost = notes(good({})), notes(good({"storage": {"keep": False}}))
    assert "leaves the claim `models`, the models and the namespace" in kept and "WARNING" not in kept, kept
    assert "WARNING: `helm uninstall demo -n model-storage` deletes the claim `models`" in lost, lost
    theirs = notes(good({"storage": {"mode": "existingClaim", "claimName": "mine", "keep": False}}))
    assert "leaves the claim `mine`" in theirs and "WARNING" not in theirs, theirs


def the_notes_of_an_empty_dir_name_no_claim():
    said = notes(good({"storage": {"mode": "emptyDir"}, "download": {"kind": "none"}, "server": {"enabled": True}}))
    assert "goes with the pod" in said and "claim" not in said and "uninstall" not in said, said


def command(said, word):
    """The command of the notes that has `word`, with the line that it goes on in, and for the wait the verdict."""
    more = r"\n.*\n.*" if word == "until" else ""
    (found,) = re.findall(rf"^  ((?:kubectl .* )?{word} .*{more})$", said, re.MULTILINE)
    return found


def shell(api, text):
    """Exit code and output; 124 if it does not end by itself."""
    with tempfile.TemporaryDirectory() as place, serving(api, Path(place)) as config:
        bin = Path(place, "bin")
        bin.mkdir()
        (bin / "kubectl").symlink_to(find_kubectl())
        # A look every tenth of a second.
        text = text.replace("sleep 5", "sleep 0.1")
        env = {**os.environ, "KUBECONFIG": str(config), "HOME": place, "PATH": f"{bin}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["timeout", "6" if "until" in text else "60", "sh", "-c", text], env=env, capture_output=True, text=True, timeout=90
        )
        return done.returncode, done.stdout, done.stderr


def blocks(language):
    text = (CHART / "README.md").read_text()
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for block in found]


TESTS = [
    the_examples_of_the_readme_render,
    the_readme_says_how_the_service_is_called,
    the_notes_name_a_port_of_ones_own,
    the_notes_are_readable_with_six_models,
    the_commands_of_the_notes_are_right_for_every_number_of_jobs,
    the_commands_of_the_readme_are_right,
    a_first_run_of_what_runs_at_night_has_a_name,
    the_example_of_metrics_renders,
    the_notes_say_what_an_uninstall_takes,
    the_notes_of_an_empty_dir_name_no_claim,
]
