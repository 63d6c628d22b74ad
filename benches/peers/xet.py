"""A Xet store behind the fake Hub: the `local_cas_server` of the crate `xet-client`.

The store is in the cache and keeps what was uploaded once. nginx adds to the Hub's answers what a
Hub with Xet says: the hash of each file, also in listings, and where its chunks are.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

from data import Data

HERE = Path(__file__).resolve().parent
PROGRAM = "local_cas_server"


class Store:
    def __init__(self, cache: Path, tools: Path, python: Path, data: list[Data]):
        self.folder = cache / "xet"
        self.program = tools / PROGRAM
        self.python = python
        self.data = data

    def command(self, port: int) -> list:
        return [self.program, "--data-directory", self.folder / "store", "--port", port]

    def hashes(self, port: int, say) -> dict[str, str]:
        """The Xet hash of each large file by `owner/name/path`; what the store lacks is uploaded."""
        found = {}
        for data in self.data:
            listed = self.folder / f"{data.spec.key}.json"
            paths = large_files(data)
            if paths and not listed.exists():
                say(f"upload to the Xet store: {data.spec.key}")
                words = [self.python, HERE / "upload_xet.py", f"http://127.0.0.1:{port}", listed]
                # The client remembers what it uploaded, to whatever store was there.
                memory = self.folder / "client"
                shutil.rmtree(memory, ignore_errors=True)
                subprocess.run([*words, *paths], check=True, cwd=data.folder,
                               env=os.environ | {"HF_HOME": str(memory)})
            if paths:
                told = json.loads(listed.read_text())
                found |= {f"{data.spec.repo}/{path}": told[path] for path in paths}
        return found


def large_files(data: Data) -> list[str]:
    """What a Hub keeps in Xet; small files are in the repository itself."""
    return [path for path in data.sums if path.endswith(".safetensors")]


def hash_map(hashes: dict[str, str]) -> str:
    """For the top of nginx's `http` block."""
    lines = [f'    "{path}" {value};' for path, value in hashes.items()]
    return "\n".join(['map "$xet_repo/$xet_path" $xet_hash {', '    default "";', *lines, "}",
                      'map $xet_hash $xet_route { default "$scheme://$http_host/api/models/'
                      '$xet_repo/xet-read-token/main"; "" ""; }',
                      'map $http_range $part_of_xorb { "~^bytes=(?<part>[0-9]+-[0-9]+)$" "bytes $part/*"; }'])


def listings(hashes: dict[str, str], proxy: str) -> str:
    """Locations that add the Xet hashes to the listing of each repository, as the Hub does."""
    by_repo: dict[str, list[str]] = {}
    for file, value in hashes.items():
        owner, name, path = file.split("/", 2)
        told = f'"path":"{path}"'
        by_repo.setdefault(f"{owner}/{name}", []).append(
            f"sub_filter '{told}' '{told},\"xetHash\":\"{value}\"';")
    return "".join(f"""
        location /api/models/{repo}/tree/ {{
            {proxy}
            {" ".join(replaced)}
            sub_filter_types application/json;
        }}""" for repo, replaced in by_repo.items())


# Beside the locations of a Hub.
HUB_LOCATIONS = """
        location ~ "^/(?<xet_repo>[^/]+/[^/]+)/resolve/[^/]+/(?<xet_path>.+)$" {
            add_header X-Xet-Hash $xet_hash;
            add_header X-Xet-Refresh-Route $xet_route;
            %(proxy)s
        }
        location ~ "^/api/models/[^/]+/[^/]+/xet-read-token/" {
            default_type application/json;
            add_header X-Xet-Cas-Url $scheme://$host:%(store)s;
            add_header X-Xet-Access-Token bench;
            add_header X-Xet-Token-Expiration 4102444800;
            return 200 '{"accessToken":"bench","exp":4102444800,"casUrl":"$scheme://$host:%(store)s"}';
        }"""

STORE_SERVER = """
    server {
        %(listen)s
        %(extra)s
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_max_temp_file_size 0;
        proxy_buffers 16 64k;
        location /v1/fetch_term {
            proxy_pass http://xet;
            # It answers 206 without it, which HTTP does not allow and no storage does.
            add_header Content-Range $part_of_xorb;
        }
        location / {
            proxy_pass http://xet;
            # It names addresses of plain HTTP only.
            sub_filter "http://$http_host/" "$scheme://$http_host/";
            sub_filter_types application/json;
            sub_filter_once off;
        }
    }"""
