"""Values that are right, with what they render, and values that are refused, with the words of the refusal."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "weightlift"
NAMESPACE = "model-storage"
KUBERNETES = ["1.35", "1.36", "1.37"]
PERMANENT = [2, 10, 11, 12, 13, 14, 15, 16]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = {"source": f"hf://org/name@{COMMIT}", "dest": "llama-3-8b"}
OTHER = {"source": "s3://bucket/adapters/", "dest": "adapters/one_two.v3"}
WAITING = {"download": {"kind": "none"}, "server": {"enabled": True, "waitOnly": True}}
PLACE = "/etc/weightlift"
# A models file and what `pin` makes of it; the second model is of a branch, and has no name there.
FILE = f"""version: 1
models:
  - name: llama-3-8b
    source: hf://org/name@{COMMIT}
  - source: hf://BAAI/BGE-M3@main
    exclude: [onnx/*]
"""
LOCK = (ROOT / "manifests" / "components" / "locked" / "models.lock").read_text()
SNAPSHOT = {"kind": "VolumeSnapshot", "name": "filled", "apiGroup": "snapshot.storage.k8s.io"}
EMPTY_DIR = {"storage": {"mode": "emptyDir"}, "download": {"kind": "none"}, "server": {"enabled": True}}


def rox(source):
    return {**WAITING, "storage": {"mode": "rox", "dataSource": source}}


# Every form of SOURCE with a revision in it, the revision, and the name that weightlift gives it. The first is empty
# where a revision cannot be known ahead.
SOURCES = [
    (f"hf://Org/Name@{COMMIT}", COMMIT, "name"),
    (f"hf://org/name:{COMMIT.upper()}", COMMIT, "name"),
    (f"hf://datasets/org/name@{COMMIT}", COMMIT, "name"),
    ("hf://org/name", "", "name"),
    ("hf://org/name@main", "", "name"),
    ("hf://org/name@refs/pr/1", "", "name"),
    (f"hf://org/name@{COMMIT[:12]}", "", "name"),
    (f"ms://org/Name@{COMMIT}", COMMIT, "name"),
    ("ms://org/name", "", "name"),
    ("oci://registry.example:5000/org/name:v1@sha256:" + "A" * 64, "sha256:" + "a" * 64, "name"),
    ("oci://registry.example/org/name:v1", "", "name"),
    ("https://host.example/One.gguf#sha256=" + "B" * 64, "b" * 64, "one.gguf"),
    ("https://host.example/models/name/", "", "name"),
    ("s3://bucket/models/name/", "", "name"),
    ("s3://bucket/one.safetensors", "", "one.safetensors"),
    ("gs://bucket/name/", "", "name"),
    ("az://account/container/name/", "", "name"),
    ("file:///srv/models/name", "", "name"),
]

# name: values, and the kinds that they render, in alphabetical order.
GOOD = {
    "one model": ({}, "Job PersistentVolumeClaim"),
    "two models": ({"models": [MODEL, OTHER]}, "Job Job PersistentVolumeClaim"),
    "two models, a name of one's own": (
        {"models": [MODEL, OTHER], "download": {"name": "get"}},
        "Job Job PersistentVolumeClaim",
    ),
    "every option of a model": (
        {
            "models": [
                {
                    **MODEL,
                    "include": ["*.json", "*.safetensors"],
                    "exclude": ["a b*"],
                    "all": True,
                    "denyPickle": True,
                    "expectRevision": COMMIT,
                    "args": ["--connections=4"],
                }
            ],
            "extraArgs": ["--retry-timeout=10m"],
        },
        "Job PersistentVolumeClaim",
    ),
    "a server": ({"server": {"enabled": True}}, "Deployment Job PersistentVolumeClaim Service"),
    "a server of the second model": (
        {"models": [MODEL, OTHER], "server": {"enabled": True, "model": OTHER["dest"]}},
        "Deployment Job Job PersistentVolumeClaim Service",
    ),
    "a server that waits for the Job": (
        {"server": {"enabled": True, "waitOnly": True}},
        "Deployment Job PersistentVolumeClaim Service",
    ),
    "a cronjob": ({"download": {"kind": "cronjob", "schedule": "@daily"}}, "CronJob PersistentVolumeClaim"),
    "a server that is recreated, on other GPUs": (
        {
            "server": {
                "enabled": True,
                "strategy": {"type": "Recreate"},
                "resources": {"limits": {"amd.com/gpu": 1, "nvidia.com/gpu": None}},
            }
        },
        "Deployment Job PersistentVolumeClaim Service",
    ),
    "a models file": ({"models": [], "modelsFile": FILE}, "ConfigMap Job PersistentVolumeClaim"),
    "a models file at night, and a server of it": (
        {
            "models": [],
            "modelsFile": FILE,
            "lock": "kubernetes",
            "download": {"kind": "cronjob"},
            "server": {"enabled": True, "model": "bge-m3"},
        },
        "ConfigMap CronJob Deployment PersistentVolumeClaim Role RoleBinding Service ServiceAccount",
    ),
    "a lock file": (
        {"models": [], "modelsLock": LOCK, "extraArgs": ["--retry-timeout=10m"]},
        "ConfigMap Job PersistentVolumeClaim",
    ),
    "a lock file, and a server of it": (
        {"models": [], "modelsLock": LOCK, "server": {"enabled": True, "model": "llama-3-8b"}},
        "ConfigMap Deployment Job PersistentVolumeClaim Service",
    ),
    "a lock file, and a server that waits": (
        {"models": [], "modelsLock": LOCK, "server": {"enabled": True, "model": "llama-3-8b", "waitOnly": True}},
        "ConfigMap Deployment Job PersistentVolumeClaim Service",
    ),
    "a server that waits for what a models file names, and nothing that fetches": (
        {"models": [], "modelsFile": FILE, **WAITING, "server": {**WAITING["server"], "model": "bge-m3"}},
        "Deployment PersistentVolumeClaim Service",
    ),
    "a lock file, and what is not listed goes": (
        {
            "models": [],
            "modelsFile": FILE,
            "modelsLock": LOCK,
            "prune": {"enabled": True, "unlisted": True},
            "extraEnv": [{"name": "BUCKET", "value": "acme-models"}],
        },
        "ConfigMap CronJob Job PersistentVolumeClaim",
    ),
    "prune": (
        {"prune": {"enabled": True, "keepRevisions": 0, "olderThan": "90d"}},
        "CronJob Job PersistentVolumeClaim",
    ),
    "prune that only tells": ({"prune": {"enabled": True, "dryRun": True}}, "CronJob Job PersistentVolumeClaim"),
    "a registry's credentials": (
        {
            "models": [{"source": "oci://registry.example/name@sha256:" + "0" * 64, "dest": "name"}],
            "extraVolumes": [{"name": "registry", "secret": {"secretName": "registry"}}],
            "extraVolumeMounts": [{"name": "registry", "mountPath": "/var/run/secrets/registry", "readOnly": True}],
            "extraEnv": [{"name": "DOCKER_CONFIG", "value": "/var/run/secrets/registry"}],
            "server": {"enabled": True},
            "verify": {"enabled": True},
        },
        "CronJob Deployment Job PersistentVolumeClaim Service",
    ),
    "verify, of two models": (
        {"models": [MODEL, OTHER], "verify": {"enabled": True}},
        "CronJob Job Job PersistentVolumeClaim",
    ),
    "verify, of a lock file": (
        {"models": [], "modelsLock": LOCK, "verify": {"enabled": True, "schedule": "@weekly"}},
        "ConfigMap CronJob Job PersistentVolumeClaim",
    ),
    "verify, of a volume that is read-only": (
        {**rox(SNAPSHOT), "verify": {"enabled": True}},
        "CronJob Deployment PersistentVolumeClaim Service",
    ),
    "a deadline": (
        {"download": {"activeDeadlineSeconds": 3600}, "server": {"enabled": True}},
        "Deployment Job PersistentVolumeClaim Service",
    ),
    "a deadline of a cronjob": (
        {"download": {"kind": "cronjob", "activeDeadlineSeconds": 120}},
        "CronJob PersistentVolumeClaim",
    ),
    "OpenShift": (
        {
            "openshift": True,
            "server": {"enabled": True},
            "prune": {"enabled": True},
            "verify": {"enabled": True},
        },
        "CronJob CronJob Deployment Job PersistentVolumeClaim Service",
    ),
    "users of one's own": (
        {
            "podSecurityContext": {
                "runAsUser": 1000650000,
                "runAsGroup": 0,
                "fsGroup": None,
                "fsGroupChangePolicy": None,
                "supplementalGroups": [1000650000, 0],
            },
            "server": {"enabled": True},
        },
        "Deployment Job PersistentVolumeClaim Service",
    ),
    "emptyDir": (EMPTY_DIR, "Deployment Service"),
    "a suspended job": ({"download": {"suspend": True}}, "Job PersistentVolumeClaim"),
    "rwo": ({"storage": {"mode": "rwo", "storageClassName": "gp3"}}, "Job PersistentVolumeClaim"),
    "rox": (rox(SNAPSHOT), "Deployment PersistentVolumeClaim Service"),
    "rox from a clone": (
        rox({"kind": "PersistentVolumeClaim", "name": "filled"}),
        "Deployment PersistentVolumeClaim Service",
    ),
    "an existing claim": ({"storage": {"mode": "existingClaim", "claimName": "mine"}}, "Job"),
    "an existing claim, read only": (
        {**WAITING, "storage": {"mode": "existingClaim", "readOnly": True}},
        "Deployment Service",
    ),
    "hostPath": (
        {"storage": {"mode": "hostPath", "hostPath": {"path": "/srv/models", "nodes": ["gpu-1"]}}},
        "Job PersistentVolume PersistentVolumeClaim",
    ),
    "local": (
        {"storage": {"mode": "local", "hostPath": {"path": "/srv/models", "nodes": ["gpu-1"]}}},
        "Job PersistentVolume PersistentVolumeClaim",
    ),
    "no token": ({"huggingface": {"secretName": ""}}, "Job PersistentVolumeClaim"),
    "a token as a file": (
        {"huggingface": {"asFile": True, "endpoint": "https://mirror.example"}, "server": {"enabled": True}},
        "Deployment Job PersistentVolumeClaim Service",
    ),
    "s3 by a secret": (
        {
            "models": [OTHER],
            "s3": {"secretName": "s3", "region": "eu-west-1", "endpoint": "http://minio:9000", "pathStyle": True},
        },
        "Job PersistentVolumeClaim",
    ),
    "s3, anonymous": ({"models": [OTHER], "s3": {"anonymous": True}}, "Job PersistentVolumeClaim"),
    "s3 by a role": (
        {
            "models": [OTHER],
            "serviceAccount": {"create": True, "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/m"}},
            "server": {"enabled": True, "podAnnotations": {"a": "b"}},
        },
        "Deployment Job PersistentVolumeClaim Service ServiceAccount",
    ),
    "a lease": (
        {"lock": "kubernetes", "server": {"enabled": True}},
        "Deployment Job PersistentVolumeClaim Role RoleBinding Service ServiceAccount",
    ),
    "a lease, a role": (
        {"lock": "kubernetes", "serviceAccount": {"annotations": {"a": "b"}}},
        "Job PersistentVolumeClaim Role RoleBinding ServiceAccount",
    ),
    "a lease, an account of one's own": (
        {"lock": "kubernetes", "serviceAccount": {"name": "mine"}},
        "Job PersistentVolumeClaim Role RoleBinding",
    ),
    "a lease that nobody takes": ({**WAITING, "lock": "kubernetes"}, "Deployment PersistentVolumeClaim Service"),
    "certificates, a proxy, places": (
        {
            "image": {"digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
            "imagePullSecrets": [{"name": "registry"}],
            "caBundle": {"configMapName": "ca"},
            "proxy": {"https": "http://proxy:3128", "http": "proxy:3128", "noProxy": ".svc,10.0.0.0/8"},
            "download": {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}], "podLabels": {"x": "y"}},
            "server": {"enabled": True, "extraArgs": ["--max-model-len", "8192"], "runtimeClassName": "nvidia"},
        },
        "Deployment Job PersistentVolumeClaim Service",
    ),
}

# name: values, and what the refusal names. First what the schema refuses, then what the templates do.
BAD_FOR_SCHEMA = {
    "a misspelt key": ({"storge": {}}, "storge"),
    "a misspelt key below": ({"server": {"replica": 1}}, "replica"),
    "an unknown storage mode": ({"storage": {"mode": "ReadWriteMany"}}, "mode"),
    "a size in words": ({"storage": {"size": "100 GB"}}, "size"),
    "a source that is none": ({"models": [{"source": "ftp://a/b", "dest": "a"}]}, "source"),
    "a source without a scheme": ({"models": [{"source": "org/name", "dest": "a"}]}, "source"),
    "a source of half a repo": ({"models": [{"source": "hf://name", "dest": "a"}]}, "source"),
    "a source with a password": ({"models": [{"source": "https://me:secret@host/a/", "dest": "a"}]}, "source"),
    "a source that is signed": ({"models": [{"source": "https://host/a?sig=x", "dest": "a"}]}, "source"),
    "a volume of the chart's own name": ({"extraVolumes": [{"name": "models", "emptyDir": {}}]}, "extraVolumes"),
    "a path of the host": ({"extraVolumes": [{"name": "a", "hostPath": {"path": "/"}}]}, "extraVolumes"),
    "a mount of a volume of the chart": (
        {"extraVolumeMounts": [{"name": "models", "mountPath": "/x"}]},
        "extraVolumeMounts",
    ),
    "root": ({"podSecurityContext": {"runAsUser": 0}}, "runAsUser"),
    "a pod that may be root": ({"podSecurityContext": {"runAsNonRoot": False}}, "runAsNonRoot"),
    "a deadline in words": ({"download": {"activeDeadlineSeconds": "1h"}}, "activeDeadlineSeconds"),
    "a deadline too short for a last word": ({"download": {"activeDeadlineSeconds": 60}}, "activeDeadlineSeconds"),
    "a proxy without a port": ({"proxy": {"https": "proxy"}}, "https"),
    "hosts with spaces between": ({"proxy": {"noProxy": ".svc, 10.0.0.0/8"}}, "noProxy"),
    "a verify of five fields and a word": ({"verify": {"schedule": "weekly"}}, "schedule"),
    "a model without a dest": ({"models": [{"source": MODEL["source"]}]}, "dest"),
    "a dest that climbs": ({"models": [{**MODEL, "dest": "../etc"}]}, "dest"),
    "a dest that is absolute": ({"models": [{**MODEL, "dest": "/etc"}]}, "dest"),
    "a dest of weightlift's own": ({"models": [{**MODEL, "dest": ".weightlift"}]}, "dest"),
    "a pattern with a comma": ({"models": [{**MODEL, "include": ["a,b"]}]}, "include"),
    "a revision that is a branch": ({"models": [{**MODEL, "expectRevision": "main"}]}, "expectRevision"),
    "a lock of another kind": ({"lock": "lease"}, "lock"),
    "a word for a number": ({"server": {"replicas": "two"}}, "replicas"),
    "a port below 1024": ({"server": {"port": 80}}, "port"),
    "a timeout in words": ({"server": {"waitTimeout": "two hours"}}, "waitTimeout"),
    "a digest that is a tag": ({"image": {"digest": "latest"}}, "digest"),
    "an age without a unit": ({"prune": {"olderThan": "720"}}, "olderThan"),
    "a schedule of four fields": ({"download": {"schedule": "0 4 * *"}}, "schedule"),
    "a secret's name in capitals": ({"huggingface": {"secretName": "HF_TOKEN"}}, "secretName"),
    "a source of data without a kind": (rox({"name": "x"}), "'kind'"),
    "a source of data without a name": (rox({"kind": "PersistentVolumeClaim"}), "'name'"),
    "a snapshot without its group": (rox({"kind": "VolumeSnapshot", "name": "x"}), "'apiGroup'"),
    "a snapshot of another group": (rox({**SNAPSHOT, "apiGroup": "x"}), "snapshot.storage.k8s.io"),
    "claims of resources, which the pods would not have": ({"resources": {"claims": [{"name": "gpu"}]}}, "claims"),
    "claims of the server": ({"server": {"resources": {"claims": [{"name": "gpu"}]}}}, "claims"),
    "a token in the values": ({"huggingface": {"token": "hf_x"}}, "token"),
    "a models file that is no text": ({"models": [], "modelsFile": ["version: 1"]}, "modelsFile"),
    "a lock file that no ConfigMap can hold": ({"models": [], "modelsLock": " " * (1 << 20) + "{}"}, "modelsLock"),
    "a word for a boolean": ({"s3": {"anonymous": "yes"}}, "anonymous"),
}
BAD_FOR_TEMPLATES = {
    "no model": ({"models": []}, "models is empty"),
    "a list and a models file": ({"modelsFile": FILE}, "models is given together with"),
    "a list and a lock file": ({"modelsLock": LOCK}, "models is given together with"),
    "a models file and a lock file": (
        {"models": [], "modelsFile": FILE, "modelsLock": LOCK},
        "modelsFile is given together with modelsLock",
    ),
    "what is not listed goes, without a models file": (
        {"models": [], "modelsLock": LOCK, "prune": {"enabled": True, "unlisted": True}},
        "prune.unlisted needs modelsFile",
    ),
    "a models file that is no YAML": ({"models": [], "modelsFile": "models: [}"}, "modelsFile cannot be read"),
    "a lock file that is no JSON": ({"models": [], "modelsLock": FILE}, "modelsLock cannot be read"),
    "a commit that YAML takes for a number": (
        {"models": [], "modelsFile": f"version: 1\nmodels:\n  - source: hf://org/name\n    expect: {'1' * 40}\n"},
        "in quotes",
    ),
    "a models file of no model": ({"models": [], "modelsFile": "version: 1\n"}, "modelsFile names no models"),
    "a server of which model of the file": (
        {"models": [], "modelsFile": FILE, "server": {"enabled": True}},
        "server.model is empty",
    ),
    "a server of no model of the lock file": (
        {"models": [], "modelsLock": LOCK, "server": {"enabled": True, "model": "bge-m3"}},
        "is no dest of models.lock",
    ),
    "one dest twice": ({"models": [MODEL, MODEL]}, "two models have the dest"),
    "two dests, one name": (
        {"models": [{**MODEL, "dest": "a.b"}, {**MODEL, "dest": "a-b"}]},
        "too alike",
    ),
    "a server of no model": ({"server": {"enabled": True, "model": "other"}}, "is no dest"),
    "prune on a volume that is read-only": (
        {**rox(SNAPSHOT), "prune": {"enabled": True}},
        "nothing can be removed",
    ),
    "rox without a source": ({**WAITING, "storage": {"mode": "rox"}}, "dataSource"),
    "rox that a Job fills": ({"storage": {"mode": "rox", "dataSource": SNAPSHOT}}, "read-only"),
    "a read-only claim that a server fills": (
        {
            "storage": {"mode": "existingClaim", "readOnly": True},
            "download": {"kind": "none"},
            "server": {"enabled": True},
        },
        "read-only",
    ),
    "a new claim that is read-only": ({**WAITING, "storage": {"readOnly": True}}, "existingClaim"),
    "a snapshot for another mode": ({"storage": {"dataSource": SNAPSHOT}}, "rox"),
    "hostPath without a path": ({"storage": {"mode": "hostPath", "hostPath": {"nodes": ["a"]}}}, "hostPath.path"),
    "a host's path for another mode": ({"storage": {"hostPath": {"path": "/srv"}}}, "hostPath is for"),
    "a host's nodes for another mode": ({"storage": {"mode": "rwo", "hostPath": {"nodes": ["a"]}}}, "hostPath is for"),
    "a role without an account": (
        {"serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/m"}}},
        "serviceAccount.create",
    ),
    "a role for somebody else's account": (
        {"lock": "kubernetes", "serviceAccount": {"name": "mine", "annotations": {"a": "b"}}},
        "serviceAccount.create",
    ),
    "an emptyDir for nobody": ({"storage": {"mode": "emptyDir"}, "download": {"kind": "none"}}, "needs server.enabled"),
    "an emptyDir and a Job": (
        {"storage": {"mode": "emptyDir"}, "server": {"enabled": True}},
        "needs download.kind none",
    ),
    "an emptyDir that somebody else fills": ({**WAITING, "storage": {"mode": "emptyDir"}}, "server.waitOnly false"),
    "an emptyDir that is pruned": (
        {**EMPTY_DIR, "prune": {"enabled": True}},
        "prune.enabled: storage.mode emptyDir",
    ),
    "an emptyDir that is verified": (
        {**EMPTY_DIR, "verify": {"enabled": True}},
        "verify.enabled: storage.mode emptyDir",
    ),
    "verify of a name that is not known": (
        {"models": [], "modelsFile": FILE.replace("name: llama", "name: ${TEAM}/llama"), "verify": {"enabled": True}},
        "names a model by a variable",
    ),
    "local without a node": ({"storage": {"mode": "local", "hostPath": {"path": "/srv"}}}, "hostPath.nodes"),
}
