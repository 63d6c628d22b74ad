"""Models files and lock files: where they are mounted, and what they say."""

import json
import re
import shutil
import tempfile
from pathlib import Path

import yaml

from .reading import after, find_kubectl, render


def lists_are_mounted_where_they_are_named(manifests):
    """And the name of a ConfigMap changes with what it holds, so that pods get what was applied with them."""
    seen = set()
    for pod in manifests.pods():
        for ours in pod.weightlift():
            files = pod.files(ours)
            named = after(ours["args"], "--models") + after(ours["args"], "--locked")
            for path in named:
                assert path in files, f"{pod.where}: there is no {path}, only {sorted(files)}"
                seen.add((ours["args"][0], path))
            assert bool(files) == bool(named), f"{pod.where}: {sorted(files)} is mounted, {ours['args']}"
            for mount in ours["volumeMounts"]:
                config = pod.volumes()[mount["name"]].get("configMap")
                if config and config["name"] not in ("dragonfly-ca", "private-ca"):
                    assert mount["readOnly"] is True, f"{pod.where}: {mount}"
                    assert re.fullmatch(r"models-list-[a-z0-9]{10}", config["name"]), f"{pod.where}: {config}"
            assert sum(len(text) for text in files.values()) < 1 << 20, f"{pod.where}: more than a ConfigMap holds"
    place = "/etc/weightlift"
    assert seen == {
        ("fetch", f"{place}/models.yaml"),
        ("fetch", f"{place}/models.lock"),
        ("prune", f"{place}/models.yaml"),
    }, seen


def another_list_is_another_name(manifests):
    with tempfile.TemporaryDirectory() as place:
        copy = shutil.copytree(manifests.directory, Path(place, "manifests"))
        for list_file, name in (("components/job-many/models.yaml", "job-many"), ("components/locked/models.lock", "job-locked")):
            listed = copy / list_file
            listed.write_text(listed.read_text().replace("whisper-large-v3@", "whisper-large-v2@"))
            (config,) = [r for r in render(find_kubectl(), copy / "overlays" / name) if r["kind"] == "ConfigMap"]
            before = manifests.sets[f"overlays/{name}"].names("ConfigMap")
            assert {config["metadata"]["name"]} != before, f"{name}: {before}"


def what_is_locked_is_what_is_listed(manifests):
    """As `weightlift pin --check` would find it."""
    locked = [p for p in manifests.pods() for c in p.weightlift() if "--locked" in c["args"]]
    assert len(locked) > 2, f"locked are {[p.where for p in locked]}"
    for pod in locked:
        (ours,) = pod.weightlift()
        assert ours["args"] == ["fetch", "--locked", "/etc/weightlift/models.lock"], f"{pod.where}: {ours['args']}"
        files = pod.files(ours)
        lock = json.loads(files["/etc/weightlift/models.lock"])["models"]
        found = {model["name"]: model["source"] for model in lock}
        assert found == models_of(files["/etc/weightlift/models.yaml"]), f"{pod.where}: {found}"
        for model in lock:
            assert model["source"].endswith(f"@{model['revision']}"), f"{pod.where}: {model['name']}"


def models_of(text):
    return {model["name"]: model["source"] for model in yaml.safe_load(text)["models"]}


def models_that_are_not_listed_go_only_if_asked_for(manifests):
    for each in manifests.sets.values():
        for pod in each.pods():
            for args in (c["args"] for c in pod.weightlift() if c["args"][0] == "prune"):
                listed, asked = after(args, "--models"), "prune-unlisted" in each.components
                assert bool(listed) == asked, f"{pod.where}: {args}"
                if asked:
                    assert "--yes" in args and int(after(args, "--older-than")[0].removesuffix("h")) >= 24 * 7, args


def what_is_listed_is_verified(manifests):
    """By paths that stand in the component: `verify` reads no list."""
    found = 0
    for each in (each for each in manifests.sets.values() if "verify-list" in each.components):
        (list_file,) = [config["data"]["models.yaml"] for config in each.of("ConfigMap") if "models.yaml" in config["data"]]
        (verified,) = [c["args"] for p in each.pods() for c in p.weightlift() if c["args"][0] == "verify"]
        assert verified == ["verify", *(f"/data/models/{name}" for name in models_of(list_file))], f"{each.name}: {verified}"
        found += 1
    assert found, "no set has it"
    said = (manifests.directory / "README.md").read_text()
    assert "`verify-list` goes after `job-many` and `verify`" in said and "kept revisions" in said


TESTS = [
    what_is_listed_is_verified,
    lists_are_mounted_where_they_are_named,
    another_list_is_another_name,
    what_is_locked_is_what_is_listed,
    models_that_are_not_listed_go_only_if_asked_for,
]
