"""What the pages say of the sets is so."""

import re

import yaml

from .program import blocks
from .reading import Set, render_combined
from .sets import ROOT


def components_that_need_the_claim_are_named(manifests):
    """They do not go with a storage where each replica, node or pod has its own copy."""
    readme = said(manifests.directory / "README.md")
    (named,) = re.findall(r"([^.]*?) need the claim `models`: they do not go with ([^.]*?), where", readme)
    found = {
        where.split("/")[1]
        for where, document in manifests.raw()
        if where.startswith("components/") and "models'" in str(claims_of(document)) and document["metadata"]["name"] != "any"
    }
    # These take the claim by its name.
    found |= {"snapshots", "restore-snapshot"}
    assert set(re.findall(r"`([a-z-]+)`", named[0].rpartition("| ")[2])) == found, f"{named[0]}: {sorted(found)}"
    assert set(re.findall(r"`([a-z-]+)`", named[1])) == {"per-replica", "node-disk"} and "emptyDir" in named[1], named[1]


def claims_of(value):
    if isinstance(value, list):
        return [found for each in value for found in claims_of(each)]
    if not isinstance(value, dict):
        return []
    here = [value["claimName"]] if isinstance(value.get("claimName"), str) else []
    return here + [found for each in value.values() for found in claims_of(each)]


def an_image_that_no_registry_has_is_built_first(manifests):
    """Until a release: a reader of each page gets an image to the nodes, and no page says that they pull it."""
    pages = [ROOT / "README.md", manifests.directory / "README.md", ROOT / "charts/weightlift/README.md"]
    if "There is no release yet" not in pages[0].read_text():
        return
    for page in pages:
        text = page.read_text()
        assert "There is no release yet" in text, f"{page} does not say that there is no image"
        builds = re.findall(r"^docker build .*$", text, re.MULTILINE)
        assert builds and all("REVISION=" in build for build in builds), f"{page}: {builds}"
        assert "docker pull" not in text and "pulls the image itself" not in text, page
        if page != pages[0]:
            applied = re.search(r"^(kubectl apply|helm install)", text, re.MULTILINE).start()
            assert text.index("docker build") < applied, f"{page}: applies what has no image"
            assert "kind load docker-image" in text, page
    (example,) = [block for block in blocks(pages[1].read_text(), "yaml") if "images:" in block]
    (image,) = yaml.safe_load(example)["images"]
    made = render_combined(manifests.kubectl, manifests.directory, ["base"], [], images=[image])
    images = [container["image"] for pod in Set("with an image", made).pods() for container in pod.containers()]
    assert images.count("registry.example.com/weightlift:my-build") == 2, images
    assert "The image, until there is a release" in pages[1].read_text().partition("## Change before you apply")[2]
    assert "newTag" in (manifests.directory / "components/image-registry/kustomization.yaml").read_text()


def what_changes_nothing_of_kserve_says_so(manifests):
    plain = manifests.sets["overlays/kserve"].own
    for name in ("openshift", "image-registry", "image-pull-secret"):
        made = render_combined(manifests.kubectl, manifests.directory, ["overlays/kserve"], [name])
        assert made == plain, f"{name} changes something of kserve"
        for path in (manifests.directory / "README.md", manifests.directory / "components" / name / "kustomization.yaml"):
            assert re.search(r"nothing of `?kserve|[Nn]or of `kserve`", said(path)), f"{path} does not say so of {name}"
    seeds = manifests.sets["overlays/daemonset"].one("DaemonSet")
    made = render_combined(manifests.kubectl, manifests.directory, ["overlays/daemonset"], ["openshift"])
    assert seeds in made, "openshift changes the DaemonSet"


def components_of_one_namespace_are_named(manifests):
    """Their objects are in model-storage, whatever they are put together with."""
    readme = said(manifests.directory / "README.md")
    (named,) = re.findall(r"([^.]*) are for the namespace `model-storage`, hence not for `daemonset`", readme)
    bring = {"RoleBinding", "ResourceQuota", "NetworkPolicy"}
    kinds = {where.split("/")[1] for where, d in manifests.raw() if where.startswith("components/") and d.get("kind") in bring}
    assert set(re.findall(r"`([a-z-]+)`", named)) == kinds - {"snapshots"}, f"{named}: {kinds}"
    assert "Not for `daemonset`" in said(manifests.directory / "components/lock-kubernetes/kustomization.yaml")


def kserve_is_told_whose_image_to_take(manifests):
    """A step with a number, and the line that it names is right when its sign is taken away."""
    path = manifests.directory / "overlays/kserve/inferenceservice.yaml"
    (line,) = re.findall(r"^ +# (storageContainerName: .*)$", path.read_text(), re.MULTILINE)
    assert line == f"storageContainerName: {manifests.sets['overlays/kserve'].one('ClusterStorageContainer')['metadata']['name']}"
    for page in (path.parent / "kustomization.yaml", manifests.directory / "README.md"):
        assert re.search(r"1\. .{0,60}take the comment sign away from `storageContainerName", said(page)), page
        assert "in practice it is `default`" in said(page), page
    for page in ("docs/kubernetes.md", "docs/moving.md"):
        assert "`storageContainerName: weightlift` under `spec.predictor`" in said(ROOT / page), page


def a_move_from_kserve_changes_one_line(manifests):
    """The example is of the field and the name that the set has, and the version is that of the pictures."""
    text = (ROOT / "docs/moving.md").read_text()
    (example,) = [block for block in blocks(text, "yaml") if "storageUri" in block]
    before, after = (document["spec"]["predictor"] for document in yaml.safe_load_all(example))
    name = manifests.sets["overlays/kserve"].one("ClusterStorageContainer")["metadata"]["name"]
    assert after == {**before, "storageContainerName": name}, after
    measured = re.search(r'"KServe": "kserve-storage ([\d.]+)"', (ROOT / "benches/peers/published.json").read_text())[1]
    assert f"KServe {measured}," in text, f"docs/moving.md names another KServe than {measured}"


def a_job_that_is_suspended_is_suspended_again(manifests):
    """By every `apply`, because it stands in the set."""
    suspended = {pod.owner["metadata"]["name"] for pod in manifests.pods() if pod.owner["spec"].get("suspend")}
    assert suspended == {"download-models"}, suspended
    for page in ("README.md", "overlays/job-many/kustomization.yaml", "components/job-many/kustomization.yaml"):
        assert re.search(r"suspend(s it|ed) again", said(manifests.directory / page)), page


def a_changed_commit_takes_the_old_job_away_first(manifests):
    updates = (manifests.directory / "README.md").read_text().partition("## Updates")[2].partition("\n## ")[0]
    assert "delete job -l app.kubernetes.io/component=download" in updates, updates


def who_pastes_a_volume_of_one_node_is_told_of_recreate(_):
    paste = (ROOT / "README.md").read_text().partition("## Paste it into a pod")[2].partition("\n## ")[0]
    assert "strategy: {type: Recreate}" in paste and "ReadWriteOnce" in paste


def said(path):
    """As one line, without the signs of comments."""
    return " ".join(re.sub(r"^\s*# ?", "", path.read_text(), flags=re.MULTILINE).split())


TESTS = [
    components_that_need_the_claim_are_named,
    an_image_that_no_registry_has_is_built_first,
    what_changes_nothing_of_kserve_says_so,
    components_of_one_namespace_are_named,
    kserve_is_told_whose_image_to_take,
    a_move_from_kserve_changes_one_line,
    a_job_that_is_suspended_is_suspended_again,
    a_changed_commit_takes_the_old_job_away_first,
    who_pastes_a_volume_of_one_node_is_told_of_recreate,
]
