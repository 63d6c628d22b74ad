"""The Job that docs/doctor.md says to paste: whole, restricted as the Job that fetches, and its words are known."""

import copy

from . import program
from .pasted import ROOT, blocks, load
from .schemas import VERSIONS, schema_problem

PAGE = "docs/doctor.md"


def job(text):
    (block,) = blocks(text)
    return load(block)


def of_base(manifests):
    """The Job that fetches."""
    path = manifests.directory / "base" / "20-job-download-weights.yaml"
    return load(path.read_text())


def pod_of(made):
    spec = made["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


def the_job_of_the_doctor_fits_the_schemas(manifests, text):
    for version in VERSIONS:
        problem = schema_problem(job(text), version)
        assert problem is None, f"{PAGE}, Kubernetes {version}: {problem}"


def the_doctor_runs_as_the_fetch_does(manifests, text):
    """Or it would find what the fetch does not meet."""
    (spec, ours), (other, fetch) = pod_of(job(text)), pod_of(of_base(manifests))
    for field in ("securityContext", "enableServiceLinks", "serviceAccountName", "automountServiceAccountToken", "volumes"):
        assert spec.get(field) == other.get(field), f"{field}: {spec.get(field)}"
    for field in ("image", "securityContext", "volumeMounts", "terminationMessagePolicy"):
        assert ours.get(field) == fetch.get(field), f"{field}: {ours.get(field)}"
    env = {each["name"]: each for each in ours["env"]}
    assert all(env[each["name"]] == each for each in fetch["env"]), env
    assert {"POD_NAME", "NODE_NAME"} <= set(env), set(env)
    labels = job(text)["spec"]["template"]["metadata"]["labels"]
    assert labels == of_base(manifests)["spec"]["template"]["metadata"]["labels"], "another NetworkPolicy"
    assert job(text)["spec"]["backoffLimit"] == 0


def the_overlay_is_the_same_job(manifests, text):
    """But for the rules of failure, which a Job to paste does without."""
    (made,) = manifests.sets["overlays/doctor"].of("Job")
    made = copy.deepcopy(made)
    for rule in ("podFailurePolicy", "podReplacementPolicy"):
        assert made["spec"].pop(rule), rule
    assert made == job(text), f"{made} is not {job(text)}"


def the_real_program_parses_the_doctors_job(manifests, text):
    path = program.binary()
    if not path:
        print("skipped: WEIGHTLIFT_TEST_BIN is not set")
        return
    # It asks where nobody answers, and fails.
    program.parse(path, pod_of(job(text))[1]["args"], [("HF_HUB_OFFLINE", "0")])


CHECKS = [
    the_job_of_the_doctor_fits_the_schemas,
    the_doctor_runs_as_the_fetch_does,
    the_overlay_is_the_same_job,
    the_real_program_parses_the_doctors_job,
]
# What must be noticed, and by what.
BREAKS = [
    ("backoffLimit: 0", "backofLimit: 0", the_job_of_the_doctor_fits_the_schemas),
    ("runAsUser: 65532", "runAsUser: 1000", the_doctor_runs_as_the_fetch_does),
    ("drop: [ALL]", "drop: []", the_doctor_runs_as_the_fetch_does),
    ("mountPath: /data/models", "mountPath: /models", the_doctor_runs_as_the_fetch_does),
    ("key: token", "key: HF_TOKEN", the_doctor_runs_as_the_fetch_does),
    ("component: download", "component: doc", the_doctor_runs_as_the_fetch_does),
    ("- 5m", "- 6m", the_overlay_is_the_same_job),
    ("Instruct@main", "Instruct@0123456789abcdef0123456789abcdef01234567", the_overlay_is_the_same_job),
    ("backoffLimit: 0", "backoffLimit: 6", the_doctor_runs_as_the_fetch_does),
]


def whatever_is_wrong_with_the_doctors_job_is_noticed(manifests, text):
    for old, new, check in BREAKS:
        assert old in text, f"{PAGE} has no {old}"
        try:
            check(manifests, text.replace(old, new))
        except AssertionError:
            continue
        raise AssertionError(f"{check.__name__} does not notice {new!r}")


def test(check):
    def run(manifests):
        check(manifests, (ROOT / PAGE).read_text())

    run.__name__ = check.__name__
    return run


TESTS = [test(check) for check in [*CHECKS, whatever_is_wrong_with_the_doctors_job_is_noticed]]
