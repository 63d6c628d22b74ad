"""What belongs together within a set, and what each overlay is there for."""

import os
from pathlib import Path

import yaml

from .lists import models_of
from .pods import PLACE, seeding
from .reading import NAMESPACES

ROOT = Path(__file__).resolve().parents[2]
# Made by the cluster or by an earlier step of the same overlay.
# dragonfly-ca is the authority of somebody's Dragonfly.
ELSEWHERE = {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default"), ("ConfigMap", "dragonfly-ca")}
ELSEWHERE |= {("ConfigMap", "private-ca"), ("Secret", "registry")}  # made by a command that stands in the component


def the_top_is_the_base(manifests):
    assert manifests.sets["."].resources == manifests.sets["base"].resources
    base = manifests.sets["base"]
    kinds = sorted(r["kind"] for r in base.own)
    assert kinds == ["Deployment", "Job", "Service", "ServiceAccount"], kinds
    assert base.one("PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteMany"]
    job, deployment = base.pod("Job"), base.pod("Deployment")
    linked = [*job.weightlift()[0]["args"], "--link", "/model/current"]
    assert linked == deployment.weightlift()[0]["args"], "Job and init container differ"


def every_overlay_says_when_to_choose_it(manifests):
    readme = (manifests.directory / "README.md").read_text()
    for name in manifests.kustomizations:
        text = (manifests.directory / name / "kustomization.yaml").read_text()
        family, _, short = name.partition("/")
        if family in ("overlays", "storage"):
            assert text.startswith(("# Choose ", "# Third step of ")), f"{name} does not say when to choose it"
        if short:
            assert f"`{short}`" in readme or f"`{name}`" in readme, f"the README does not list {name}"


def who_removes_revisions_is_told_to_look_first(_):
    """Where a family is a link, the current revision lies among those that were replaced."""
    for page, start, end in (
        ("docs/volume.md", "## Old revisions", "\n## "),
        ("manifests/README.md", "## Sizes", "\n## "),
        ("docs/kubernetes.md", "### Disk full", "\n### "),
        ("CHANGELOG.md", "- Replaced revisions", "\n- "),
    ):
        section = (ROOT / page).read_text().partition(start)[2].partition(end)[0]
        assert "remove" in section and "readlink" in section, f"{page}, {start}: {section}"


def every_file_is_used(manifests):
    for path in manifests.text():
        if path.name in ("kustomization.yaml", "README.md") or path.name.endswith(".example.yaml"):
            continue
        here = manifests.kustomizations[str(path.parent.relative_to(manifests.directory))]
        listed = here.get("resources", []) + [p["path"] for p in here.get("patches", []) if "path" in p]
        for generator in here.get("configMapGenerator", []):
            listed += [f.rpartition("=")[2] for f in generator["files"]]
        assert path.name in listed, f"{path} is in no kustomization.yaml"


def every_patch_is_one_document(manifests):
    """kubectl 1.27 to 1.33 refuse a patch of two, or crash on it."""
    patches = [
        manifests.directory / name / patch["path"]
        for name, content in manifests.kustomizations.items()
        for patch in content.get("patches", [])
        if "path" in patch
    ]
    assert len(patches) > 20, "where are the patches?"
    for path in patches:
        documents = [d for d in yaml.safe_load_all(path.read_text()) if d]
        assert len(documents) == 1, f"{path} has {len(documents)} documents"


def every_other_kubectl_renders_the_same(manifests):
    others = os.environ.get("WEIGHTLIFT_TEST_KUBECTLS", "").split()
    if not others:
        print("        one kubectl only: WEIGHTLIFT_TEST_KUBECTLS names no others")
    for kubectl in others:
        for name, each in manifests.rendered(kubectl).items():
            assert each.resources == manifests.sets[name].resources, f"{kubectl} renders {name} in another way"


def everything_is_in_its_namespace(manifests):
    cluster = {"Namespace", "StorageClass", "PersistentVolume", "VolumeSnapshotClass", "ClusterStorageContainer"}
    for each in manifests.sets.values():
        (namespace,) = each.names("Namespace")
        for where, resource in each.objects():
            found = resource["metadata"].get("namespace")
            expected = None if resource["kind"] in cluster else namespace
            assert found == expected, f"{each.name}: {where} is in {found}"
        unique = {(r["kind"], r["metadata"]["name"]) for r in each.resources}
        assert len(unique) == len(each.resources), f"{each.name}: a name stands twice"


def labels_and_selectors_meet(manifests):
    for each in manifests.sets.values():
        pods = each.pods()
        for pod in pods:
            selector = pod.owner["spec"].get("selector")
            if selector:
                assert selector["matchLabels"].items() <= pod.labels.items(), f"{pod.where} finds no pod"
                # A model may have any name, `weightlift` as well.
                assert "app.kubernetes.io/component" in selector["matchLabels"], f"{pod.where} may find a download"
        for service in each.of("Service"):
            assert "app.kubernetes.io/component" in service["spec"]["selector"], f"{each.name}: a Service"
            targets = [p for p in pods if service["spec"]["selector"].items() <= p.labels.items()]
            assert len(targets) == 1, f"{each.name}: a Service has {len(targets)} targets"
            ports = {port["name"] for port in targets[0].server()["ports"]}
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports, f"{each.name}: port"
        for policy in each.of("NetworkPolicy"):
            wanted = policy["spec"]["podSelector"].get("matchLabels", {}).items()
            assert any(wanted <= p.labels.items() for p in pods), f"{each.name}: {policy['metadata']['name']}"


def what_is_referred_to_is_there(manifests):
    secrets = {r["metadata"]["name"]: set(r["stringData"]) for _, r in manifests.raw() if r.get("kind") == "Secret"}
    for each in manifests.sets.values():
        for pod in each.pods():
            there = {(r["kind"], r["metadata"]["name"]) for r in each.resources} | ELSEWHERE
            wanted = {("ServiceAccount", pod.spec.get("serviceAccountName", "default"))}
            wanted |= {("Secret", secret["name"]) for secret in pod.spec.get("imagePullSecrets", [])}
            for volume in pod.volumes().values():
                if "persistentVolumeClaim" in volume:
                    wanted.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
                if "configMap" in volume:
                    wanted.add(("ConfigMap", volume["configMap"]["name"]))
                for source in volume.get("projected", {}).get("sources", []):
                    if "configMap" in source:
                        wanted.add(("ConfigMap", source["configMap"]["name"]))
                if "secret" in volume:
                    assert volume["secret"]["secretName"] in secrets, f"{pod.where}: {volume}"
            assert wanted <= there, f"{pod.where}: there is no {wanted - there}"
            for variable in (v for c in pod.containers() for v in c.get("env", [])):
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                if reference:
                    assert reference["key"] in secrets[reference["name"]], f"{pod.where}: {reference}"
                    optional = reference.get("optional", False)
                    expected = variable["name"] == "HF_TOKEN" and not seeding(each.name)
                    assert optional is expected, f"{pod.where}: {reference}"
        for binding in each.of("RoleBinding"):
            assert binding["roleRef"]["name"] in each.names("Role"), each.name
            assert {s["name"] for s in binding["subjects"]} <= each.names("ServiceAccount"), each.name
        assert_classes_exist(manifests, each)


def assert_classes_exist(manifests, each):
    # The two steps of read-only-many share the class of the first.
    near = [each] + [s for s in manifests.sets.values() if "read-only-many" in each.name and "/fill" in s.name]
    classes = {n for s in near for n in s.names("StorageClass")} | {"models-hostpath"}
    claims = [c["spec"] for c in each.of("PersistentVolumeClaim")] + [c["spec"] for c in each.of("PersistentVolume")]
    claims += [t["spec"] for s in each.of("StatefulSet") for t in s["spec"]["volumeClaimTemplates"]]
    for claim in claims:
        assert claim.get("storageClassName") in classes | {None}, f"{each.name}: {claim['storageClassName']}"


def storage_is_as_it_says(manifests):
    for where, storage in ((w, r) for w, r in manifests.objects() if r["kind"] == "StorageClass"):
        assert storage["volumeBindingMode"] == "WaitForFirstConsumer", where
        assert storage["reclaimPolicy"] == "Retain", where
        expands = storage["provisioner"] not in ("efs.csi.aws.com", "kubernetes.io/no-provisioner")
        assert storage.get("allowVolumeExpansion", False) is expands, where
    claims = {
        name: [(c["metadata"]["name"], *c["spec"]["accessModes"]) for c in each.of("PersistentVolumeClaim")]
        for name, each in manifests.sets.items()
        if name.startswith("storage/")
    }
    assert claims == {
        "storage/namespace": [],
        "storage/node-disk": [],
        "storage/per-replica": [],
        "storage/read-only-many/fill": [("models", "ReadWriteOnce")],
        "storage/read-only-many/serve": [("models-read-only", "ReadOnlyMany")],
        "storage/restored": [("models-restored", "ReadWriteMany")],
        "storage/rwo": [("models", "ReadWriteOnce")],
        "storage/rwo-default-class": [("models", "ReadWriteOnce")],
        "storage/rwx": [("models", "ReadWriteMany")],
        "storage/rwx-default-class": [("models", "ReadWriteMany")],
        "storage/static-pv": [("models", "ReadWriteOnce")],
    }, claims
    for name in ("storage/rwo-default-class", "storage/rwx-default-class"):
        (claim,) = manifests.sets[name].of("PersistentVolumeClaim")
        assert "storageClassName" not in claim["spec"] and not manifests.sets[name].of("StorageClass"), name
    assert not manifests.sets["overlays/rwo"].of("Job"), "a Job would choose the zone"
    server = manifests.sets["overlays/empty-dir"].pod("Deployment")
    assert server.volumes()["models"]["emptyDir"]["sizeLimit"] and server.owner["spec"]["replicas"] == 1, server.where


def what_is_deleted_holds_no_models(manifests):
    """`kubectl delete -k` of a set that was applied takes neither the volume nor the namespace, which takes all claims."""
    keeps = {"Namespace", "PersistentVolumeClaim", "PersistentVolume", "StorageClass", "VolumeSnapshot"}
    for each in manifests.sets.values():
        if each.name == "." or each.name.startswith(("base", "overlays/")):
            found = keeps & {r["kind"] for r in each.own}
            assert not found, f"{each.name}: with it goes {found}"
    for name in ("storage/restored", "storage/per-replica", "storage/read-only-many/serve"):
        # Beside another set of storage, which keeps what it has.
        theirs = {(r["kind"], r["metadata"]["name"]) for n, r in objects_of_storage(manifests) if n != name}
        mine = {(r["kind"], r["metadata"]["name"]) for r in manifests.sets[name].own if r["kind"] != "StorageClass"}
        assert not mine & theirs, f"{name}: with it goes {mine & theirs}"
    holding = {name for name, r in objects_of_storage(manifests) if r["kind"] == "Namespace"}
    assert holding == set(NAMESPACES), f"a namespace is in {holding}"
    assert len(manifests.sets["storage/namespace"].own) == 1, "with the namespace alone goes everything"
    (replicas,) = [r for r in manifests.sets["overlays/statefulset"].of("StatefulSet")]
    policy = replicas["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert policy == {"whenDeleted": "Retain", "whenScaled": "Retain"}, policy


def objects_of_storage(manifests):
    return [(name, r) for name, each in manifests.sets.items() if name.startswith("storage/") for r in each.own]


def a_volume_that_is_read_only_is_never_fetched_onto(manifests):
    pod = manifests.sets["overlays/read-only-many/serve"].pod("Deployment")
    assert pod.volumes()["models"]["persistentVolumeClaim"] == {"claimName": "models-read-only", "readOnly": True}
    waiting = ("wait-only", "refresh", "network-policy", "daemonset", "read-only-many/serve")
    for name in waiting:
        (ours,) = manifests.sets[f"overlays/{name}"].pod("Deployment").weightlift()
        assert ours["args"][0] == "wait", f"{name}: {ours['args']}"


def who_follows_a_branch_keeps_what_servers_read(manifests):
    args = manifests.sets["overlays/refresh"].pod("CronJob").weightlift()[0]["args"]
    assert args[args.index("--keep-revisions") + 1] == "1", args
    assert int(args[args.index("--keep-for") + 1].removesuffix("h")) >= 24 * 7, args


def who_prunes_keeps_what_servers_read(manifests):
    for name in ("prune", "verify"):
        cron = manifests.sets[f"overlays/{name}"].one("CronJob")["spec"]
        assert cron["concurrencyPolicy"] == "Forbid", name
    pod = manifests.sets["overlays/prune"].pod("CronJob")
    args = pod.weightlift()[0]["args"]
    assert "--yes" in args, f"it removes nothing: {args}"
    assert int(args[args.index("--keep-revisions") + 1]) >= 1, args
    assert int(args[args.index("--older-than") + 1].removesuffix("h")) >= 24 * 7, args
    # Whoever fetches is the same user, and nothing of the network policy lets it out.
    fetching = manifests.sets["overlays/prune"].pod("Job")
    checked = manifests.sets["overlays/verify"].pod("CronJob")
    assert checked.labels["app.kubernetes.io/component"] == "verify", checked.labels
    assert checked.weightlift()[0]["args"] == ["verify", "/data/models/llama-3-8b"], checked.where
    assert pod.spec["securityContext"]["runAsUser"] == fetching.spec["securityContext"]["runAsUser"]
    assert pod.labels["app.kubernetes.io/component"] == "prune", pod.labels


def many_models_and_a_branch(manifests):
    job = manifests.sets["overlays/job-many"].pod("Job")
    assert job.job()["suspend"] is True
    (ours,) = job.weightlift()
    assert ours["args"] == ["fetch", "--models", "/etc/weightlift/models.yaml"], ours["args"]
    assert len(models_of(job.files(ours)["/etc/weightlift/models.yaml"])) == 3
    indexed = manifests.sets["overlays/job-indexed"].pod("Job")
    _, source, dest = indexed.weightlift()[0]["args"]
    assert "$(JOB_COMPLETION_INDEX)" in source and "$(JOB_COMPLETION_INDEX)" in dest
    cron = manifests.sets["overlays/refresh"].one("CronJob")["spec"]
    assert cron["concurrencyPolicy"] == "Forbid"
    assert not manifests.sets["overlays/refresh"].of("Job")
    seed = manifests.sets["overlays/daemonset"].pod("DaemonSet")
    served = manifests.sets["overlays/daemonset"].pod("Deployment")
    for pod in (seed, served):
        assert pod.spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}, pod.where
        assert pod.spec["tolerations"], pod.where
    assert seed.volumes()["models"] == served.volumes()["models"], "seeded here, served there"


def credentials_reach_every_fetch(manifests):
    expected = {
        "hf-token-file": {"HF_TOKEN_PATH"},
        "s3-irsa": {"AWS_REGION"},
        "s3-pod-identity": {"AWS_REGION"},
        "s3-secret": {
            "AWS_REGION",
            "AWS_ENDPOINT_URL_S3",
            "WEIGHTLIFT_S3_PATH_STYLE",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
        },
        "lock-kubernetes": {"HF_TOKEN", "WEIGHTLIFT_LOCK", "POD_NAMESPACE"},
    }
    for name, variables in expected.items():
        each = manifests.sets[f"overlays/{name}"]
        for pod in (each.pod("Job"), each.pod("Deployment")):
            (ours,) = pod.weightlift()
            assert {v["name"] for v in ours["env"]} == variables | PLACE.keys(), f"{pod.where}: {ours['env']}"
            account = pod.spec.get("serviceAccountName")
            needs = "service-account" in each.components
            assert account == ("weightlift" if needs else "default"), f"{pod.where}: {account}"
            assert ours["args"][1].startswith("s3://" if name.startswith("s3") else "hf://"), pod.where
    # A bucket without credentials is exit 11, which ends the Job.
    for pod in manifests.pods():
        for ours in pod.weightlift():
            if any(arg.startswith("s3://") for arg in ours["args"]):
                keys = {v["name"] for v in ours.get("env", [])} >= {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
                assert keys or pod.spec["serviceAccountName"] != "default", f"{pod.where}: no credentials for S3"
    file = manifests.sets["overlays/hf-token-file"].pod("Job")
    (ours,), volume = file.weightlift(), file.volumes()["hf-token"]["secret"]
    mount = [m for m in ours["volumeMounts"] if m["name"] == "hf-token"][0]
    (path,) = [v["value"] for v in ours["env"] if v["name"] == "HF_TOKEN_PATH"]
    assert path == f"{mount['mountPath']}/token", path
    # A Secret in the namespace of the base would go unnoticed.
    seed = manifests.sets["overlays/daemonset"].pod("DaemonSet").weightlift()[0]
    (token,) = [v["valueFrom"]["secretKeyRef"] for v in seed["env"] if v["name"] == "HF_TOKEN"]
    assert "optional" not in token, token
    assert volume["defaultMode"] == 0o440 and mount["readOnly"] is True
    irsa = manifests.sets["overlays/s3-irsa"].one("ServiceAccount")
    assert "eks.amazonaws.com/role-arn" in irsa["metadata"]["annotations"]


def who_only_waits_has_no_rights(manifests):
    """With the account would come its role: EKS gives it to every container of the pod."""
    waiting = [p for p in manifests.pods() for ours in p.weightlift() if ours["args"][0] == "wait"]
    assert len(waiting) > 7, "where are those that wait?"
    for pod in waiting:
        assert pod.spec["serviceAccountName"] == "default", f"{pod.where}: {pod.spec['serviceAccountName']}"
        assert set(pod.volumes()) == {"models", "model", "shm", "scratch"}, f"{pod.where}: {set(pod.volumes())}"


TESTS = [
    the_top_is_the_base,
    every_overlay_says_when_to_choose_it,
    who_removes_revisions_is_told_to_look_first,
    every_file_is_used,
    every_patch_is_one_document,
    every_other_kubectl_renders_the_same,
    everything_is_in_its_namespace,
    labels_and_selectors_meet,
    what_is_referred_to_is_there,
    storage_is_as_it_says,
    what_is_deleted_holds_no_models,
    a_volume_that_is_read_only_is_never_fetched_onto,
    who_follows_a_branch_keeps_what_servers_read,
    who_prunes_keeps_what_servers_read,
    many_models_and_a_branch,
    credentials_reach_every_fetch,
    who_only_waits_has_no_rights,
]
