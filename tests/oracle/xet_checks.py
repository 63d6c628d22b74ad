"""What is looked at, and what counts as a difference."""

from dataclasses import dataclass
from pathlib import Path

import xet_contents
from xet_contents import Update
from xet_hurdles import HURDLES, Hurdle
from xet_lab import Lab, Run, wrong_files
from xet_servers import Stored

# By how much fetched bytes may be more than the chunks that no old file has.
TOLERANCE = 0.03
# What bytes that are wrong end in: an integrity error, or one of the network where they cannot be unpacked.
DAMAGED = (12, 20)


@dataclass(frozen=True)
class NewBytes:
    """How many bytes of an update are in no old file."""

    # By the contents of the chunks.
    chunks: int
    # By the parts of xorbs that the store names: an uploader sends a little more than it must.
    store: int


class Checks:
    def __init__(self, lab: Lab):
        self.lab = lab
        self.world = lab.world
        self.done = 0
        self.differences: list[str] = []

    def check(self, name: str, wrong: list[str]) -> None:
        self.done += 1
        self.differences += [f"{name}: {it}" for it in wrong]
        print(f"{'ok' if not wrong else 'DIFFERENT':9}  {name}", flush=True)
        for it in wrong:
            print(f"           {it}", flush=True)

    def read(self) -> None:
        """Every byte by Xet: the bridge refuses whoever asks for one."""
        stored = self.uploaded()
        self.world.bridge_refuses = True
        small = ("--chunk-size", "1MiB", "--connections", "16")
        ways = [("always", (), {}), ("always", small, {}), ("auto", (), {}),
                ("always", (), {"whole_ranges": True}), ("always", (), {"no_batch": True}),
                ("always", (), {"cas_is_v1": True})]
        for mode, flags, habits in ways:
            with Habits(self.world, habits):
                run = self.fetch("oracle/many", mode, *flags)
                wrong = self.faults(run, stored)
            name = ", ".join([f"--xet {mode}", *[" ".join(flags)] * bool(flags), *habits])
            if not self.world.sent["chunks"]:
                wrong.append("the store sent no chunk")
            if self.world.sent["bridge"]:
                wrong.append("the bridge was read")
            self.check(f"{name}, the bridge refuses: {self.sent()}", wrong)
        with Habits(self.world, {"damaged": True}):
            run = self.fetch("oracle/many", "always")
            wrong = [] if run.code in DAMAGED else [f"exit {run.code} for damaged chunks"]
            wrong += ["it was published"] if self.lab.model().exists() else []
            wrong += [] if self.world.sent["chunks"] else ["the store sent no chunk"]
            self.check(f"--xet always, damaged chunks: exit {run.code}; {self.sent()}", wrong)
        self.world.bridge_refuses = False

    def bridge(self) -> None:
        """Every byte without Xet: the store refuses or is damaged, or is not asked."""
        stored = self.uploaded()
        ways = [("auto", {"cas_refuses": True}), ("always", {"cas_refuses": True}),
                ("always", {"damaged": True}), ("never", {})]
        for mode, habits in ways:
            with Habits(self.world, habits):
                run = self.fetch("oracle/many", mode)
                wrong = self.faults(run, stored)
            asked = [it for it in self.world.requests if it not in ("hub", "resolve", "bridge")]
            if mode == "never" and asked:
                wrong.append(f"it asked for {asked}")
            if not self.world.sent["bridge"]:
                wrong.append("the bridge sent nothing")
            self.check(f"{', '.join([f'--xet {mode}', *habits])}: {self.sent()}", wrong)

    def updates(self, only: str, mode: str) -> None:
        rows = [("update", "new MB by chunks", "by the store", "told", "sent", "CAS requests", "s")]
        for number, update in enumerate(xet_contents.updates()):
            if only in update.name:
                rows.append(self.update(f"oracle/update-{number}", update, mode))
        print(table(rows))

    def update(self, repo: str, update: Update, mode: str) -> tuple:
        old = self.lab.commit(repo, update.old)
        root = self.lab.fresh_root()
        wrong = self.faults(self.lab.fetch(repo, root), old)
        new = self.lab.commit(repo, update.new)
        self.world.forget()
        run = self.lab.fetch(repo, root, "--xet", mode)
        wrong += self.faults(run, new)
        least = self.new_bytes(update, old, new)
        small = new["config.json"].size
        told, sent = run.told.get("fetched_bytes", -1), self.world.content_bytes()
        most = least.store * (1 + TOLERANCE) + small
        for what, bytes_ in (("told", told), ("sent", sent)):
            if bytes_ > most:
                wrong.append(f"{bytes_} bytes were {what}; {least.store} are in no old file")
        # Whoever has the right bytes has had the new ones sent; compression saves some.
        if sent < least.chunks / 2:
            wrong.append(f"{sent} bytes were sent, but {least.chunks} are new")
        self.check(f"update by --xet {mode}, {update.name}", wrong)
        requests = sum(count for what, count in self.world.requests.items()
                       if what.startswith("answer") or what in ("chunks", "batch", "token"))
        return (update.name, megabytes(least.chunks), megabytes(least.store), megabytes(told),
                megabytes(sent), str(requests), f"{run.seconds:.1f}")

    def hurdles(self) -> None:
        """An update that something stands in the way of: the bytes must be right all the same."""
        update = next(it for it in xet_contents.updates() if it.name.startswith("512 KiB"))
        for number, hurdle in enumerate(HURDLES):
            self.hurdle(f"oracle/hurdle-{number}", update, hurdle)

    def hurdle(self, repo: str, update: Update, hurdle: Hurdle) -> None:
        old = self.lab.commit(repo, update.old)
        root = self.lab.fresh_root()
        dest = () if "--layout" in hurdle.flags else ("model",)

        def fetched(stored: dict[str, Stored]) -> tuple[Run, list[str]]:
            self.world.forget()
            run = self.lab.fetch(repo, root, *hurdle.flags, dest=dest)
            return run, self.faults(run, stored, Path(run.told.get("path", root / "nowhere")))

        _, wrong = fetched(old)
        new = self.lab.commit(repo, update.new)
        hurdle.raised(self.lab, repo, root)
        with Habits(self.world, hurdle.habits):
            run, more = fetched(new)
        wrong += more
        most = self.new_bytes(update, old, new).store if hurdle.is_passed else new["model.bin"].size
        most = most * (1 + TOLERANCE) + new["config.json"].size
        sent = self.world.content_bytes()
        if sent > most:
            wrong.append(f"{sent} bytes were sent, {most:.0f} at most are needed")
        told = [line for line in run.errors.splitlines() if "chunk" in line]
        if hurdle.is_said and not told:
            wrong.append("nothing was said of it")
        said = f"; said: {told[0]}" if told else ""
        self.check(f"update, {hurdle.name}: {megabytes(sent)} MB sent{said}", wrong)

    def new_bytes(self, update: Update, old: dict[str, Stored], new: dict[str, Stored]) -> NewBytes:
        """Counted in whole chunks; a file that is there under another name has none."""
        digests = self.lab.chunker.digests
        whole = {file.sha256 for file in old.values()}
        names, places = set(), set()
        for path, content in update.old.items():
            chunks = digests(content)
            names.update(name for name, _ in chunks)
            places.update(self.places(old[path], len(chunks)))
        by_chunks = by_store = 0
        for path, content in update.new.items():
            if new[path].sha256 in whole:
                continue
            chunks = digests(content)
            for (name, length), place in zip(chunks, self.places(new[path], len(chunks))):
                by_chunks += length * (name not in names)
                by_store += length * (place not in places)
        return NewBytes(by_chunks, by_store)

    def places(self, file: Stored, count: int) -> list[tuple[str, int]]:
        """Where each chunk of a file is: xorb and number."""
        terms = self.lab.terms(file)
        found = [(xorb, number) for xorb, start, end, _ in terms for number in range(start, end)]
        if len(found) != count:
            raise AssertionError(f"the store has {len(found)} chunks where the chunker finds {count}")
        return found

    def uploaded(self) -> dict[str, Stored]:
        known = self.world.files("oracle/many", "main")
        if known:
            return known[1]
        files = xet_contents.many(self.lab.chunker.lengths)
        first = self.lab.commit("oracle/borders", files)
        name = "noise-100mb.bin"
        files |= xet_contents.at_borders(files[name], self.lab.lengths_by_xorb(first[name]))
        return self.lab.commit("oracle/many", files)

    def fetch(self, repo: str, mode: str, *flags: str) -> Run:
        self.world.forget()
        return self.lab.fetch(repo, self.lab.fresh_root(), "--xet", mode, *flags)

    def faults(self, run: Run, stored: dict[str, Stored], model: Path | None = None) -> list[str]:
        wrong = [f"to the wrong place: {it}" for it in sorted(set(self.world.leaks))]
        if run.code:
            last = " | ".join(run.errors.splitlines()[-3:])
            refused = sorted(set(self.world.refusals))[:3]
            return [*wrong, f"exit {run.code}: {last}", *(f"refused: {it}" for it in refused)]
        return wrong + wrong_files(model or self.lab.model(), stored)

    def sent(self) -> str:
        told = [f"{what} {count} ({megabytes(self.world.sent[what])} MB)"
                for what, count in sorted(self.world.requests.items())]
        return ", ".join(told)


class Habits:
    """Has the servers behave differently for a while."""

    def __init__(self, world, habits: dict):
        self.world = world
        self.habits = habits

    def __enter__(self) -> None:
        self.before = {name: getattr(self.world, name) for name in self.habits}
        self.set(self.habits)

    def __exit__(self, *_) -> None:
        self.set(self.before)

    def set(self, habits: dict) -> None:
        for name, value in habits.items():
            setattr(self.world, name, value)


def megabytes(count: int) -> str:
    return f"{count / 1e6:.3f}"


def table(rows: list[tuple]) -> str:
    head, *rest = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join(["", head, "|---" * len(rows[0]) + "|", *rest, ""])
