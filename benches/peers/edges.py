"""A storage with several addresses, of which some are slow, or with connections that stall.

`floor/src/bin/relay.rs` is between the client and nginx, a new one for each run, which says
afterwards which address had how many connections and bytes.
"""

import json
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

# What the addresses are called, in a file of hosts that only the measured program sees.
NAME = "storage.peers.test"


@dataclass(frozen=True)
class Edges:
    """The rate of a connection, in bytes per second, at each of the addresses."""

    rates: tuple
    stall_one_in: int = 0

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.1.{number}" for number in range(1, len(self.rates) + 1)]


class Relay:
    """Runs for one run. `seed` decides the order of the addresses, and what stalls."""

    def __init__(self, tools: Path, work: Path, edges: Edges, port: int, server: str, seed: int,
                 stalls: bool = True):
        one_in = edges.stall_one_in if stalls else 0
        pairs = zip(edges.addresses, edges.rates)
        words = [tools / "relay", server, str(one_in), str(seed),
                 *(f"{address}:{port}={rate}" for address, rate in pairs)]
        # Resolvers hand out addresses in changing order; a file of hosts does not.
        order = edges.addresses
        random.Random(seed).shuffle(order)
        self.hosts = work / "hosts"
        self.hosts.write_text("127.0.0.1 localhost\n"
                              + "".join(f"{address} {NAME}\n" for address in order))
        self.program = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        if self.program.stdout.readline() != "up\n":
            raise SystemExit(f"`{words[0]}` ended with {self.program.wait()}")

    def inside(self, words: list[str]) -> list[str]:
        """The shell becomes the program, so it is the program that is measured."""
        script = 'mount --bind "$0" /etc/hosts && exec "$@"'
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script,
                str(self.hosts), *words]

    def close(self) -> list[dict]:
        told, _ = self.program.communicate(timeout=10)
        return json.loads(told)
