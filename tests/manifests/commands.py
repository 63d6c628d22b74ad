"""The commands of the pages, run: against a copy of the files, or with a kubectl that only pretends."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from .program import blocks
from .reading import Manifests, after

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("manifests/README.md", "docs/kubernetes.md")


def the_command_that_waits_ends_when_the_job_has_ended(_):
    for page in PAGES:
        (command,) = [block for block in blocks(text(page), "sh") if "while state=$(kubectl" in block]
        for states, ends, asked in (
            (["", "", "SuccessCriteriaMet Complete"], 0, 3),
            (["", "FailureTarget", "FailureTarget Failed"], 1, 3),
            (["Suspended", "Complete"], 0, 2),
            (["Failed"], 1, 1),
            (["", None], 1, 2),  # the Job has gone
        ):
            assert run_waiting(command, states) == (ends, asked), f"{page}: {states}"
    for path in [*(ROOT / "manifests").rglob("*"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]:
        if path.is_file():
            for line in path.read_text().splitlines():
                hangs = re.search(r"kubectl -n .* wait .*condition=complete", line)
                assert not hangs, f"{path} hangs when the Job has failed: {line}"


def run_waiting(command, states):
    """The exit code, and how often it has asked."""
    with tempfile.TemporaryDirectory() as place:
        for n, state in enumerate(states, 1):
            if state is not None:
                Path(place, f"state{n}").write_text(state)
        fake = 'n=$(($(cat "$PLACE/n" 2>/dev/null || echo 0) + 1)); echo $n >"$PLACE/n"; cat "$PLACE/state$n"'
        pretend(place, "kubectl", fake)
        pretend(place, "sleep", "exit 0")
        run = shell(command, place)
        return run.returncode, int(Path(place, "n").read_text())


def the_log_is_asked_for_until_there_is_one(_):
    (command,) = re.findall(r"^(until kubectl .* logs -f .*)$", text(PAGES[0]), re.MULTILINE)
    with tempfile.TemporaryDirectory() as place:
        fake = 'echo x >>"$PLACE/asked"; test $(wc -l <"$PLACE/asked") -ge 3'
        pretend(place, "kubectl", fake)
        pretend(place, "sleep", "exit 0")
        assert shell(command, place).returncode == 0
        assert Path(place, "asked").read_text() == "x\nx\nx\n"


def one_command_changes_the_commit_everywhere(manifests):
    (command,) = re.findall(r"```sh\n(\s+old=.*?)```", text(PAGES[0]), re.DOTALL)
    old, new = re.search(r"old=([0-9a-f]{40}) new=([0-9a-f]{40})", command).groups()
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(manifests.directory, Path(place, "manifests"))
        run = shell(command, place)
        assert run.returncode == 0, run.stderr
        changed = Manifests(Path(place, "manifests"), manifests.kubectl)
    for name, each in changed.sets.items():
        assert len(each.resources) == len(manifests.sets[name].resources), name
        for pod in each.pods():
            for args in (c["args"] for c in pod.weightlift()):
                assert old not in " ".join(args), f"{pod.where}: {args}"
                for commit in after(args, "--expect-revision") + re.findall(r"@([0-9a-f]{40})", " ".join(args)):
                    assert commit == new, f"{pod.where}: {args}"
        for name in each.names("Job"):
            assert old[:12] not in name, name
    jobs = changed.sets["base"].names("Job")
    assert jobs == {f"download-weights-{new[:12]}"}, jobs
    assert old in str(changed.sets["overlays/job-many"].resources), "a list has commits of its own"


def a_failed_job_is_said_to_be_deleted(_):
    """`apply` says `unchanged` of it, and does nothing."""
    command = "delete job download-weights-0123456789ab"
    for page in (*PAGES, "manifests/base/20-job-download-weights.yaml"):
        assert command in text(page), f"{page} has no `{command}`"
    for name, job in (("job-many", "download-models"), ("job-indexed", "download-sweep-7")):
        said = text(f"manifests/overlays/{name}/kustomization.yaml")
        assert job in said and "delete" in said, f"{name} does not say that the Job must be deleted"


def every_cron_job_says_how_to_run_it_now(manifests):
    pages = text(PAGES[0]) + text(PAGES[1])
    for name in ("refresh", "verify", "prune"):
        cron = manifests.sets[f"overlays/{name}"].one("CronJob")["metadata"]["name"]
        command = f"create job --from=cronjob/{cron} "
        for where in (f"manifests/overlays/{name}/kustomization.yaml", f"manifests/components/{name}/kustomization.yaml"):
            assert command in text(where), f"{where} has no `{command}`"
        assert command in pages, f"no page has `{command}`"
    assert "create job --from=cronjob/refresh-weights " in text(PAGES[1])


def every_command_names_what_is_there(manifests):
    """Sets, Jobs and containers in the commands of the pages."""
    jobs = {name for each in manifests.sets.values() for name in each.names("Job") | each.names("CronJob")}
    made = set(re.findall(r"create job --from=\S+ (\S+)", text(PAGES[0]) + text(PAGES[1])))
    for page in PAGES:
        for name in re.findall(r"(?:delete job|job/|cronjob/)\s*([a-z0-9-]+)", text(page)):
            assert name in jobs | made or not name, f"{page}: there is no Job {name}"
        for path in re.findall(r"manifests/(?:storage|overlays|components)/[\w/-]*[\w]", text(page)):
            assert (ROOT / path / "kustomization.yaml").exists() or (ROOT / path).exists(), f"{page}: {path}"
        for container in re.findall(r"logs \S+ -c (\S+)", text(page)):
            assert container in ("weightlift", "storage-initializer"), f"{page}: -c {container}"


def text(page):
    return (ROOT / page).read_text()


def pretend(place, name, script):
    Path(place, name).write_text(f"#!/bin/sh\n{script}\n")
    Path(place, name).chmod(0o755)


def shell(command, place):
    environment = {"PATH": f"{place}:{os.environ['PATH']}", "PLACE": place}
    return subprocess.run(["sh", "-c", command], cwd=place, env=environment, capture_output=True, text=True, timeout=60)


TESTS = [
    the_command_that_waits_ends_when_the_job_has_ended,
    the_log_is_asked_for_until_there_is_one,
    one_command_changes_the_commit_everywhere,
    a_failed_job_is_said_to_be_deleted,
    every_cron_job_says_how_to_run_it_now,
    every_command_names_what_is_there,
]
