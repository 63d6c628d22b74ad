"""The fake Hub's control port, and what it tells: sizes, digests, bytes sent."""

import json
from dataclasses import dataclass

# Every repository that manifests/ name; all hold the same two commits.
REPOS = ("meta-llama/Llama-3.1-8B-Instruct", "BAAI/bge-m3", "openai/whisper-large-v3")
MIB = 24
ARGUMENTS = [
    arg for repo in REPOS for seed in (1, 2) for arg in ("--made", f"{repo}={MIB}:{seed}")
]


@dataclass
class Commit:
    name: str
    files: dict

    def sums(self):
        """As `sha256sum` prints them."""
        return "".join(f"{file['sha256']}  {path}\n" for path, file in sorted(self.files.items()))

    def large(self):
        return self.files["model.safetensors"]["size"]


class Hub:
    """`ask(path)` answers what the hub says to a GET."""

    def __init__(self, ask):
        self.ask = ask

    def counts(self):
        return json.loads(self.ask("/-/counts"))

    def clear(self):
        self.ask("/-/clear")

    def speed(self, bytes_per_second):
        """Of each answer; 0 is as fast as it goes."""
        self.ask(f"/-/speed/{bytes_per_second}")

    def commits(self):
        """The older one, and the one that `main` is."""
        repo = self.counts()["repositories"][REPOS[0]]
        (older,) = [name for name in repo["commits"] if name != repo["main"]]
        return [Commit(name, repo["commits"][name]) for name in (older, repo["main"])]
