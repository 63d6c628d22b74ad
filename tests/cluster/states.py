"""What both kinds of site say of their pods, and how one waits for it."""

import os
import time
from dataclasses import dataclass, field

# A hang, not a speed: how many seconds anything may take that should take a few.
DEADLINE = int(os.environ.get("DEADLINE") or 120)


class Broken(Exception):
    """A promise that was not kept, or a site that does not do what it should."""


@dataclass
class Container:
    name: str
    state: str  # waiting, running or exited
    exit_code: int | None = None
    # What Kubernetes shows as the termination message.
    message: str = ""


@dataclass
class Pod:
    name: str
    namespace: str
    owner: str  # as `Deployment/llama-3-8b`
    component: str | None
    ready: bool
    containers: dict = field(default_factory=dict)

    def ours(self):
        """The container that fetches or waits: the first one of all."""
        return next(iter(self.containers.values()))

    def __str__(self):
        states = [f"{c.name} {c.state} {'' if c.exit_code is None else c.exit_code}" for c in self.containers.values()]
        return f"{self.name} ({', '.join(map(str.strip, states))})"


def wait_until(what, true, deadline=DEADLINE, every=0.5, alive=None):
    """The value of `true()` once it is one."""
    ends = time.monotonic() + deadline
    while True:
        value = true()
        if value:
            return value
        if alive:
            alive()
        if time.monotonic() > ends:
            raise Broken(f"not within {deadline} s: {what}")
        time.sleep(every)


def equal(what, found, wanted):
    if found != wanted:
        raise Broken(f"{what}: {found!r}, not {wanted!r}")


def holds(what, true):
    if not true:
        raise Broken(what)
