#!/usr/bin/env python3
"""Holds weightlift's reading of Xet against Hugging Face's own store and uploader.

`hf_xet` uploads files to the `local_cas_server` of the crate `xet-client`; weightlift fetches them
through a small Hub; the bytes are compared. Then updates: what weightlift fetched is held against
the chunks that no old file has. It says every difference, and exits with 1 if there is one.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent.parent / "benches/peers"
sys.path.append(str(PEERS))
sys.dont_write_bytecode = True

from contenders import HUB_PACKAGES, XET_STORE  # noqa: E402
from install import Installer  # noqa: E402

NUMPY = "numpy==2.4.6"
PARTS = ("read", "bridge", "updates", "hurdles")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", type=Path, help="the weightlift to test")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--only", default="", metavar="TEXT", help="updates with TEXT in their name")
    parser.add_argument("--xet", choices=("auto", "always", "never"), default="auto",
                        help="how updates are fetched; `never` must differ (default: auto)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where benches/peers keeps what it "
                        "installed", default=Path(tempfile.gettempdir()) / "weightlift-peers")
    parser.add_argument("--crates", type=Path, help="the sources that cargo has",
                        default=Path.home() / ".cargo/registry/src")
    parser.add_argument("--keep", action="store_true", help="leave the working directory")
    return parser.parse_args()


def installed(cache: Path) -> Installer:
    """The store, and the Python that everything runs in: this one or its successor."""
    installer = Installer(cache, lambda line: print(line, file=sys.stderr))
    installer.pip(*HUB_PACKAGES[0].split()[1:])
    installer.pip(NUMPY)
    installer.crate(*XET_STORE.split()[1:])
    python = installer.venv / "bin/python"
    if Path(sys.prefix).resolve() != installer.venv.resolve():
        os.execv(python, [python, *sys.argv])
    return installer


def main() -> int:
    asked = arguments()
    tools = installed(asked.cache)
    from xet_checks import Checks
    from xet_lab import Lab

    folder = Path(tempfile.mkdtemp(prefix="weightlift-xet-"))
    lab = Lab(folder, asked.binary.resolve(), tools, asked.crates)
    try:
        checks = Checks(lab)
        for part in asked.part:
            if part == "updates":
                checks.updates(asked.only, asked.xet)
            else:
                getattr(checks, part)()
    finally:
        lab.stop()
        if asked.keep:
            print(f"left: {folder}")
        else:
            shutil.rmtree(folder)
    for difference in checks.differences:
        print(f"DIFFERENT: {difference}")
    print(f"{checks.done} checks, {len(checks.differences)} differences")
    return 1 if checks.differences or not checks.done else 0


if __name__ == "__main__":
    sys.exit(main())
