"""What is fetched, from which server, to where. One line each, see `table()`."""

from dataclasses import dataclass, field
from fnmatch import fnmatch

from data import GIB, KIB, MIB, DataSet

SMALL_BESIDE_SHARDS = 12


@dataclass(frozen=True)
class Workload:
    name: str
    data: DataSet
    about: str
    server: str = "plain"
    dest: str = "disk"
    memory_limit: int = 0
    link: bool = False
    warm: str = ""
    only: str = "*"
    arguments: tuple = field(default=())

    # Workloads of one group share a table, with a line for each.
    group: str = ""

    @property
    def title(self) -> str:
        return f"{self.group or self.name}: {self.about}"


@dataclass(frozen=True)
class Scale:
    """Sizes of the full form, or of the short one."""

    one: int = 4 * GIB
    shard: int = GIB
    capped: int = GIB
    small: int = 2000
    warm: int = 200
    growth: tuple = (GIB, 4 * GIB, 16 * GIB, 64 * GIB)
    chunks: tuple = ("256MiB", "64MiB", "16MiB", "4MiB", "1MiB")
    files: tuple = (1000, 10_000, 100_000)

    def times(self, factor: float) -> "Scale":
        def size(count: int) -> int:
            return max(MIB, int(count * factor) // MIB * MIB)

        return Scale(size(self.one), size(self.shard), size(self.capped),
                     max(10, int(self.small * factor)), max(10, int(self.warm * factor)),
                     tuple(size(it) for it in self.growth), self.chunks,
                     tuple(max(10, int(it * factor)) for it in self.files))


SHORT = Scale(one=512 * MIB, shard=128 * MIB, capped=128 * MIB, small=300, warm=50,
              growth=(GIB,), chunks=("64MiB", "4MiB"), files=(1000,))
SHORT_WORKLOADS = ("one", "shards-tls", "small", "capped-one", "memory", "warm-commit")


def data_sets(scale: Scale) -> dict[str, DataSet]:
    return {
        "one": DataSet("one", 1, scale.one),
        "shards": DataSet("shards", 4, scale.shard, SMALL_BESIDE_SHARDS, 16 * KIB),
        "small": DataSet("small", small_files=scale.small, small_bytes=64 * KIB),
        "capped-one": DataSet("one", 1, scale.capped),
        "capped-shards": DataSet("shards", 4, scale.capped, SMALL_BESIDE_SHARDS, 16 * KIB),
        "warm": DataSet("warm", small_files=scale.warm, small_bytes=64 * KIB),
    }


def table(scale: Scale) -> list[Workload]:
    data = data_sets(scale)
    found = []
    for name, about in (("one", "one file"), ("shards", "4 shards and 12 small files")):
        for server in ("plain", "tls"):
            for dest in ("disk", "tmpfs"):
                suffix = "-tls" if server == "tls" else ""
                suffix += "-tmpfs" if dest == "tmpfs" else ""
                found.append(Workload(name + suffix, data[name],
                                      f"{about}, {server}, to {dest}", server, dest))
    found += [
        Workload("small", data["small"], "many small files"),
        Workload("capped-one", data["capped-one"], "one file, 40 MiB/s per connection", "capped"),
        Workload("capped-shards", data["capped-shards"],
                 "4 shards, 40 MiB/s per connection", "capped"),
        Workload("link-one", data["capped-one"], "one file over {link}", link=True),
        Workload("link-shards", data["capped-shards"], "4 shards over {link}", link=True),
        Workload("memory", data["one"], "one file, the whole run in a 64 MiB memory cgroup",
                 memory_limit=64 * MIB),
        Workload("memory-shards", data["shards"],
                 "4 shards, the whole run in a 64 MiB memory cgroup", memory_limit=64 * MIB),
        Workload("warm-commit", data["warm"], "nothing to do, pinned by commit", warm="commit"),
        Workload("warm-branch", data["warm"], "nothing to do, by branch", warm="main"),
    ]
    for size in scale.growth:
        found.append(Workload(f"grow-size-{size // MIB}m", DataSet("sparse", 1, size, sparse=True),
                              "weightlift by size of the file (zeros)", only="weightlift",
                              group="grow-size"))
    for chunk in scale.chunks:
        found.append(Workload(f"grow-chunks-{chunk}", data["one"],
                              "weightlift by size of the chunks", only="weightlift",
                              arguments=("--chunk-size", chunk),
                              group="grow-chunks"))
    for count in scale.files:
        spec = DataSet("tiny", small_files=count, small_bytes=KIB)
        found.append(Workload(f"grow-files-{count}", spec, "weightlift by number of files of 1 KiB",
                              only="weightlift", group="grow-files"))
    return found


def chosen(scale: Scale, patterns: list[str]) -> list[Workload]:
    """Those that match, by exact name or glob, in the order of the table."""
    known = table(scale)
    for pattern in patterns:
        if not any(fnmatch(it.name, pattern) for it in known):
            names = ", ".join(it.name for it in known)
            raise SystemExit(f"no workload is called `{pattern}`; there are: {names}")
    return [it for it in known if any(fnmatch(it.name, pattern) for pattern in patterns)]
