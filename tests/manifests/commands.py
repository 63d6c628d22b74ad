"""The commands of the pages, run: against a copy of the files, or with a kubectl that only pretends."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from chart.fake_api import FakeApi, serving

from .program import blocks
from .reading import Manifests, after, find_kubectl

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("manifests/README.md", "docs/kubernetes.md")


def the_command_that_waits_ends_when_the_job_has_ended(_):
    for page in (*PAGES, "docs/doctor.md"):
        (command,) = [block for block in blocks(text(page), "sh") if "state=$(kubectl" in block]
        for states, ends, asked in (
            (["one ", "one ", "one SuccessCriteriaMet Complete"], 0, 3),
            (["one ", "one FailureTarget", "one FailureTarget Failed"], 1, 3),
            (["one Suspended", "one Complete"], 0, 2),
            (["one Failed"], 1, 1),
            (["one ", ""], 1, 2),  # the Job has gone
            (["one ", None, None, "one Complete"], 0, 4),  # kubectl fails: the Job has not
            ([None, "one Failed"], 1, 2),
        ):
            # The doctor's ends with the log, whatever has become of the Job.
            ends = 0 if page == "docs/doctor.md" else ends
            assert run_waiting(command, states) == (ends, asked), f"{page}: {states}"
        if "tail -n 1" in command:
            assert run_waiting(command, [], jobs="") == (1, 0), f"{page}: without a Job"


def run_waiting(command, states, jobs="job.batch/one"):
    """The exit code, and how often it has asked."""
    with tempfile.TemporaryDirectory() as place:
        for n, state in enumerate(states, 1):
            if state is not None:
                Path(place, f"state{n}").write_text(state)
        fake = f'case "$*" in *"-o name"*) echo {jobs}; exit ;; *logs*) exit ;; *--ignore-not-found*) ;; *) exit 2 ;; esac; '
        fake += 'n=$(($(cat "$PLACE/n" 2>/dev/null || echo 0) + 1)); echo $n >"$PLACE/n"; cat "$PLACE/state$n"'
        pretend(place, "kubectl", fake)
        pretend(place, "sleep", "exit 0")
        run = shell(command, place)
        return run.returncode, int(Path(place, "n").read_text()) if Path(place, "n").exists() else 0


def no_command_waits_for_a_job_that_has_failed(_):
    """`kubectl wait` takes the last `--for` or all of them, never one of them; and for a condition that cannot come, for ever."""
    for path in files_that_say_commands():
        for paragraph in re.split(r"\n[ #]*\n", path.read_text()):
            assert not (problem := hangs(paragraph)), f"{path}: {problem}"
    for wrong in (
        "kubectl -n a wait --for=condition=complete --for=condition=failed job/x",
        "kubectl wait --for condition=complete \\\n  --for condition=failed job/x",
        "kubectl -n a wait --for=condition=complete --timeout=1h job/x",
    ):
        assert hangs(wrong), f"not noticed: {wrong}"


def hangs(paragraph):
    for command in re.findall(r"kubectl (?:-n \S+ )?wait [^`\n]*", paragraph.replace("\\\n", " ")):
        said = "failed" in paragraph.replace(command, "") or "--timeout=0" in command
        if command.count("--for") > 1 or ("condition=complete" in command and not said):
            return command
    return None


def files_that_say_commands():
    places = [ROOT / "manifests", ROOT / "charts", ROOT / "docs", ROOT / "tests/cluster"]
    found = [path for place in places for path in place.rglob("*") if path.suffix in (".md", ".yaml", ".txt", ".sh")]
    return [*found, ROOT / "README.md"]


OURS = {"app.kubernetes.io/name": "weightlift", "app.kubernetes.io/component": "download"}
NEW, OLD = "download-weights-0e9e39f249a1", "download-weights-ffffffffffff"


def the_newest_job_is_found_whatever_its_commit(_):
    """By the real kubectl, against a fake of the API: the reader has changed the commit, and an old Job is still there."""
    commands = {(page, n): block for page in PAGES for n, block in enumerate(blocks(text(page), "sh")) if "job=$(" in block}
    assert len(commands) == 5, f"found {sorted(commands)}"
    for (page, n), block in commands.items():
        # Only what concerns the Job: the rest of the block is applied to a cluster.
        command = re.search(r"^job=.*", block, re.MULTILINE | re.DOTALL)[0].replace("kubectl apply -k manifests/\n", "")
        api = FakeApi([(NEW, OURS, [["Complete"]]), (OLD, OURS, [["Failed"]]), ("other", {}, [["Failed"]])])
        api.made = {NEW: "2026-02-01T00:00:00Z", OLD: "2026-01-01T00:00:00Z", "other": "2026-03-01T00:00:00Z"}
        api.silent = {f"{NEW}-pod": 2}  # its pod has no node yet
        found = against(api, command)
        assert found.returncode == 0, f"{page}, block {n}: {found}"
        if "delete" in command:
            assert api.deleted == [NEW], f"{page}: deletes {api.deleted}"
        elif " logs " in command:
            assert found.stdout == f"says {NEW}-pod\n", f"{page}: {found.stdout}"
        else:
            assert found.stdout == "complete\n", f"{page}: {found.stdout}"
        # Without any Job they say so, and end.
        found = against(FakeApi([]), command)
        assert found.returncode != 124 and (found.stderr or "there is no Job" in found.stdout) and not found.stdout.startswith("complete"), f"{page}: {found}"


def against(api, command):
    with tempfile.TemporaryDirectory() as place, serving(api, Path(place)) as config:
        Path(place, "kubectl").symlink_to(find_kubectl())
        pretend(place, "sleep", "exit 0")
        command = command.replace("model-storage", "ns")
        environment = {"PATH": f"{place}:{os.environ['PATH']}", "KUBECONFIG": str(config), "HOME": place}
        return subprocess.run(["timeout", "20", "sh", "-c", command], cwd=place, env=environment, capture_output=True, text=True)


def a_log_that_is_not_there_yet_is_asked_for_again(_):
    """Of a pod without a node `logs -f` prints nothing, and ends well: that is no log."""
    for path in files_that_say_commands():
        for line in path.read_text().replace("\\\n", " ").splitlines():
            if re.search(r"(until|while) .*kubectl .* logs -f", line):
                assert re.search(r"logs -f [^|]*\| grep --line-buffered \.", line), f"{path}: {line}"


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
    """`apply` says `unchanged` of it, and does nothing; so also of one that is complete."""
    command = "delete job download-weights-0123456789ab"
    for page in (*PAGES, "manifests/base/20-job-download-weights.yaml"):
        expected = 'delete "$job"' if page in PAGES else command
        assert expected in text(page), f"{page} has no `{expected}`"
        assert "does not run a Job again that has failed or is complete" in " ".join(text(page).split()), page
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


def a_run_by_hand_works_a_second_time(_):
    """A Job of that name may be there from the last time: `create` says AlreadyExists."""
    made = 0
    for path in files_that_say_commands():
        shown = path.read_text()
        for job in re.findall(r"create job --from=\S+ ([a-z][a-z-]*)", shown):
            made += 1
            assert f"delete job {job} --ignore-not-found" in shown, f"{path}: the second `create job … {job}` fails"
    assert made > 9, made


def every_command_names_what_is_there(manifests):
    """Sets, Jobs and containers in the commands of the pages."""
    jobs = {name for each in manifests.sets.values() for name in each.names("Job") | each.names("CronJob")}
    made = set(re.findall(r"create job --from=\S+ (\S+)", text(PAGES[0]) + text(PAGES[1])))
    for page in PAGES:
        for name in re.findall(r"(?:delete job|job/|cronjob/)\s*([a-z0-9][a-z0-9-]*)", text(page)):
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
    no_command_waits_for_a_job_that_has_failed,
    the_newest_job_is_found_whatever_its_commit,
    a_log_that_is_not_there_yet_is_asked_for_again,
    one_command_changes_the_commit_everywhere,
    a_failed_job_is_said_to_be_deleted,
    every_cron_job_says_how_to_run_it_now,
    a_run_by_hand_works_a_second_time,
    every_command_names_what_is_there,
]
