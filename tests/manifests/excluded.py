"""What does not combine: the README names it, and what would render and never start is refused by kustomize."""

from . import combined
from .reading import render_combined

NEEDS_THE_CLAIM = ["refresh", "prune", "verify", "doctor", "job-many", "job-indexed", "snapshots", "restore-snapshot"]
WAITS = ["wait-only", "network-policy", "refresh"]
OF_MODEL_STORAGE = ["lock-kubernetes", "network-policy", "quota"]
# For each set of which ELSEWHERE plays a part: what it does not go with, and how README calls it.
EXCLUDED = {
    "overlays/statefulset": [(NEEDS_THE_CLAIM, "`per-replica`"), (WAITS, "`statefulset`")],
    "components/empty-dir": [(NEEDS_THE_CLAIM, "an emptyDir"), (WAITS, "`empty-dir`"), (["lock-kubernetes"], "`empty-dir`")],
    "overlays/daemonset": [(NEEDS_THE_CLAIM, "`node-disk`"), (["wait-only"], "`daemonset`"), (OF_MODEL_STORAGE, "`daemonset`")],
    "overlays/dragonfly": [(NEEDS_THE_CLAIM, "`node-disk`"), (["wait-only"], "`dragonfly`"), (OF_MODEL_STORAGE, "`dragonfly`")],
    "overlays/read-only-many/fill": [(NEEDS_THE_CLAIM + WAITS, "`read-only-many`")],
    "overlays/read-only-many/serve": [(NEEDS_THE_CLAIM + WAITS + ["lock-kubernetes"], "`read-only-many`")],
}
# Resources and components in an order that kustomize must refuse, and a word of the reason.
REFUSED = [
    *((["overlays/statefulset"], [each], "must fetch") for each in WAITS),
    *((["base"], ["empty-dir", each], "only the servers fetch") for each in WAITS),
    *((["base"], [each, "empty-dir"], "must fetch") for each in WAITS),
    *((["base"], ["one-node", each], "put one-node after") for each in WAITS),
]


def every_pair_is_played_or_named_as_excluded(manifests):
    singles = [operation[0] for operation in combined.OPERATIONS if len(operation) == 1]
    places = {}
    for _, workloads, last, operations, _ in combined.ELSEWHERE:
        place = next((f"components/{each}" for each in last if each == "empty-dir"), workloads)
        places.setdefault(place, set()).update(operation[0] for operation in operations if len(operation) == 1)
    places.pop("base")  # every operation: OPERATIONS
    assert places.keys() == EXCLUDED.keys(), places.keys() ^ EXCLUDED.keys()
    for place, played in places.items():
        excluded = {each for names, _ in EXCLUDED[place] for each in names}
        assert not played & excluded, f"{place}: {played & excluded} are played and excluded"
        assert not (left := set(singles) - played - excluded), f"{place}: nothing is said of {left}"


def the_readme_names_what_is_excluded(manifests):
    text = (manifests.directory / "README.md").read_text()
    points = text.partition("Some pairs do not combine:\n")[2].partition("\n\nThese are components only")[0].split("\n- ")
    assert len(points) > 5, points
    for place, exclusions in EXCLUDED.items():
        for names, called in exclusions:
            for name in names:
                said = [p for p in points if called in p and (f"`{name}`" in p or called == "`read-only-many`")]
                assert said, f"README.md does not say that `{name}` does not go with {place}, called {called}"


def what_would_never_start_is_refused(manifests):
    for resources, components, reason in REFUSED:
        try:
            render_combined(manifests.kubectl, manifests.directory, resources, components)
        except ValueError as refusal:
            assert reason in str(refusal), f"{resources} with {components}: {refusal}"
            continue
        raise AssertionError(f"{resources} with {components} renders, and the servers wait for ever")


TESTS = [
    every_pair_is_played_or_named_as_excluded,
    the_readme_names_what_is_excluded,
    what_would_never_start_is_refused,
]
