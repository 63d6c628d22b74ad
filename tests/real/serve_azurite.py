#!/usr/bin/env python3
"""Serves a directory as a container of Azurite, Microsoft's own stand-in for Azure Blob Storage.

    python3 tests/real/serve_azurite.py AZURITE_BLOB DIRECTORY PREFIX

AZURITE_BLOB is the program `azurite-blob` of the npm package `azurite`; Node.js is looked for beside this
Python as well. Uploads DIRECTORY under PREFIX with Microsoft's client into the containers `private` and
`public`, the latter in blocks (so that larger files have no Content-MD5), prints one line of JSON with `endpoint`, `key`
and `sas` (a signature that may read and list `private`), and serves until its standard input ends. Azurite
checks signatures. Exits 77 with the reason on stderr where something is not installed.
"""

import datetime
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
CANNOT = 77


def main():
    azurite, directory, prefix = sys.argv[1:4]
    try:
        from azure.storage.blob import (
            BlobServiceClient,
            ContainerSasPermissions,
            generate_container_sas,
        )
    except ImportError as problem:
        print(f"cannot serve: {problem}", file=sys.stderr)
        return CANNOT
    beside = os.path.dirname(sys.executable)
    environment = {**os.environ, "PATH": f"{beside}:{os.environ.get('PATH', '')}"}
    with tempfile.TemporaryDirectory() as workspace:
        server = subprocess.Popen(
            [azurite, "--blobPort", "0", "--inMemoryPersistence", "--disableTelemetry", "--silent", "--skipApiVersionCheck"],
            cwd=workspace,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            for line in server.stdout:
                if found := re.search(r"listen\w* on (http://\S+)", line):
                    break
            else:
                print("cannot serve: azurite has ended", file=sys.stderr)
                return CANNOT
            endpoint = f"{found[1]}/{ACCOUNT}"
            client = BlobServiceClient(endpoint, credential=KEY)
            small = BlobServiceClient(
                endpoint, credential=KEY, max_single_put_size=1 << 20, max_block_size=1 << 20
            )
            for one, name, access in ((client, "private", None), (small, "public", "container")):
                container = one.create_container(name, public_access=access)
                for path in sorted(Path(directory).rglob("*")):
                    if path.is_file():
                        key = f"{prefix}/{path.relative_to(directory).as_posix()}"
                        with path.open("rb") as content:
                            container.upload_blob(key, content)
            expiry = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
            permission = ContainerSasPermissions(read=True, list=True)
            sas = generate_container_sas(
                ACCOUNT, "private", account_key=KEY, permission=permission, expiry=expiry
            )
            print(json.dumps({"endpoint": endpoint, "key": KEY, "sas": sas}), flush=True)
            sys.stdin.read()
        finally:
            # The program may be a script that has started another one.
            os.killpg(server.pid, signal.SIGKILL)
    return 0


if __name__ == "__main__":
    sys.exit(main())
