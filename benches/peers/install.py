"""Puts the contenders' programs into the cache directory, once."""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from contenders import Contender

HERE = Path(__file__).resolve().parent


class Missing(Exception):
    """A contender that cannot be had here; the text says why."""


class Installer:
    def __init__(self, cache: Path, say):
        self.cache = cache
        self.say = say
        self.venv = cache / "venv"
        self.tools = cache / "tools"
        self.tools.mkdir(parents=True, exist_ok=True)
        self.own_built = False

    def provide(self, contender: Contender) -> None:
        """Raises `Missing`."""
        for line in contender.install:
            kind, *words = line.split()
            ways = {"own": self.own, "pip": self.pip, "apt": self.apt, "crate": self.crate}
            try:
                ways[kind](*words)
            except (subprocess.CalledProcessError, OSError) as error:
                raise Missing(f"`{line}` failed: {error}") from error

    def own(self) -> None:
        """The programs beside this file; cargo knows whether there is anything to do."""
        if self.own_built:
            return
        self.cargo(HERE / "floor", "--locked")
        for name in ("floor", "measured", "relay", "slowlink"):
            self.keep(name)
        self.own_built = True

    def pip(self, *packages: str) -> None:
        done = self.venv / ("installed-" + "+".join(packages).replace("/", "_"))
        if done.exists():
            return
        if not (self.venv / "bin/pip").exists():
            venv.create(self.venv, with_pip=True)
        self.say(f"pip install {' '.join(packages)}")
        pip = [self.venv / "bin/pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *packages], check=True, stdout=sys.stderr)
        done.touch()

    def apt(self, program: str, package: str) -> None:
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
            return
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            raise Missing(f"`{program}` is not installed (Debian: {package})")
        self.say(f"apt-get install {package}")
        subprocess.run(["apt-get", "install", "--yes", "--no-install-recommends", package],
                       check=True, stdout=sys.stderr)

    def crate(self, name: str, version: str, features: str, program: str) -> None:
        """Builds a copy of the crate as the registry has it, with the patch of that name if any."""
        if (self.tools / program).exists():
            return
        self.say(f"building {name} {version}; this takes minutes")
        fetch = self.cache / "fetch"
        shutil.rmtree(fetch, ignore_errors=True)
        (fetch / "src").mkdir(parents=True)
        (fetch / "src/lib.rs").touch()
        (fetch / "Cargo.toml").write_text(
            '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n'
            f'[dependencies]\n{name} = "={version}"\n')
        command = ["cargo", "metadata", "--format-version", "1"]
        answer = subprocess.run(command, cwd=fetch, check=True, stdout=subprocess.PIPE)
        packages = json.loads(answer.stdout)["packages"]
        manifest = next(it["manifest_path"] for it in packages if it["name"] == name)
        source = self.cache / f"{name}-{version}"
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(Path(manifest).parent, source)
        shutil.rmtree(fetch)
        patch = HERE / f"{name}.patch"
        if patch.exists():
            subprocess.run(["git", "apply", patch], cwd=source, check=True)
        self.cargo(source, "--locked", "--features", features)
        self.keep(program)

    def cargo(self, package: Path, *arguments: str) -> None:
        environment = os.environ | {"CARGO_TARGET_DIR": str(self.cache / "target")}
        subprocess.run(["cargo", "build", "--release", "--quiet", *arguments], cwd=package,
                       check=True, env=environment, stdout=sys.stderr)

    def keep(self, program: str) -> None:
        found = [path for pattern in (f"*/release/{program}", f"release/{program}")
                 for path in (self.cache / "target").glob(pattern)]
        newest = max(found, key=lambda path: path.stat().st_mtime)
        # Another run may be using the one that is there.
        unfinished = self.tools / f"{program}.new"
        shutil.copy2(newest, unfinished)
        unfinished.rename(self.tools / program)
