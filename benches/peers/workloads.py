"""What is fetched, from which server, to where. One line each, see `table()`."""

from dataclasses import dataclass, field
from fnmatch import fnmatch

from data import GIB, KIB, MIB, DataSet
from edges import Edges
from surroundings import Shape

SMALL_BESIDE_SHARDS = 12


@dataclass(frozen=True)
class Workload:
    name: str
    data: DataSet
    about: str
    server: str = "plain"
    dest: str = "disk"
    memory_limit: int = 0
    cpus: int = 0
    link: Shape | None = None
    edges: Edges | None = None
    # Also without what makes it special, so that the two can be compared.
    calm: bool = False
    warm: str = ""
    # Names and globs of contenders.
    only: str = "*"
    arguments: tuple = field(default=())
    # The model is read once as soon as it is there.
    read: bool = False
    timeout: int = 900

    # Workloads of one group share a table, with a line for each.
    group: str = ""

    @property
    def title(self) -> str:
        return f"{self.group or self.name}: {self.about}"

    def wants(self, contender: str) -> bool:
        return any(fnmatch(contender, it) for it in self.only.split())


@dataclass(frozen=True)
class Scale:
    """Sizes of the full form, or of the short one."""

    one: int = 4 * GIB
    shard: int = GIB
    capped: int = GIB
    lossy: int = 256 * MIB
    small: int = 2000
    warm: int = 200
    growth: tuple = (GIB, 4 * GIB, 16 * GIB, 64 * GIB)
    chunks: tuple = ("256MiB", "64MiB", "16MiB", "4MiB", "1MiB")
    files: tuple = (1000, 10_000, 100_000)

    def times(self, factor: float) -> "Scale":
        def size(count: int) -> int:
            return max(MIB, int(count * factor) // MIB * MIB)

        return Scale(size(self.one), size(self.shard), size(self.capped), size(self.lossy),
                     max(10, int(self.small * factor)), max(10, int(self.warm * factor)),
                     tuple(size(it) for it in self.growth), self.chunks,
                     tuple(max(10, int(it * factor)) for it in self.files))


SHORT = Scale(one=512 * MIB, shard=128 * MIB, capped=128 * MIB, lossy=32 * MIB, small=300, warm=50,
              growth=(GIB,), chunks=("64MiB", "4MiB"), files=(1000,))
SHORT_WORKLOADS = ("one", "shards-tls", "small", "capped-one", "memory", "warm-commit")


def data_sets(scale: Scale) -> dict[str, DataSet]:
    return {
        "one": DataSet("one", 1, scale.one),
        "shards": DataSet("shards", 4, scale.shard, SMALL_BESIDE_SHARDS, 16 * KIB),
        "small": DataSet("small", small_files=scale.small, small_bytes=64 * KIB),
        "capped-one": DataSet("one", 1, scale.capped),
        "capped-shards": DataSet("shards", 4, scale.capped, SMALL_BESIDE_SHARDS, 16 * KIB),
        "lossy": DataSet("one", 1, scale.lossy),
        "bf16": DataSet("bf16", 2, scale.shard // 2, SMALL_BESIDE_SHARDS, 16 * KIB, bf16=True),
        "warm": DataSet("warm", small_files=scale.warm, small_bytes=64 * KIB),
    }


# Connections to one CDN as they were seen: two thirds of its edge servers are slow.
UNEQUAL = Edges((8_700_000,) * 11 + (68_000_000,) * 5)
STALLS = Edges((20_000_000,), stall_one_in=10)
LOSSY = Shape(30, 0.5, 100, "cubic")
# Those that can make use of several addresses or connections, and the simplest one.
SEVERAL = "weightlift weightlift-before curl aria2 rclone s5cmd"
OURS = "weightlift weightlift-before weightlift-direct"
# An initializer and what it starts with, against weightlift.
KSERVE = f"kserve* weightlift-s3 hf hf-xet {OURS}"
# Who reads from a Xet store, and the same without.
XET = "weightlift weightlift-before weightlift-xet hf hf-xet"


def table(scale: Scale, link: Shape) -> list[Workload]:
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
        Workload("link-one", data["capped-one"], f"one file over {link}", link=link),
        Workload("link-shards", data["capped-shards"], f"4 shards over {link}", link=link),
        Workload("cubic", data["lossy"], f"one file over {LOSSY}", link=LOSSY, only=SEVERAL),
        Workload("unequal", data["capped-one"], "one file from 16 addresses, 11 with 8.7 MB/s "
                 "for each connection, 5 with 68", "relay", edges=UNEQUAL, only=SEVERAL),
        Workload("stalls", data["capped-one"], "one file, 20 MB/s for each connection, of which "
                 "one in ten stalls for good after 1 to 8 MB", "relay", edges=STALLS, calm=True,
                 timeout=120),
        Workload("first-read", data["one"], "one file, and the first read of it", read=True),
        Workload("first-read-shards", data["shards"],
                 "4 shards and 12 small files, and the first read of them", read=True),
        Workload("kserve-cold", data["shards"], "4 shards and 12 small files, 1 CPU and 1 GiB",
                 memory_limit=GIB, cpus=1, only=KSERVE),
        Workload("kserve-warm", data["shards"], "the same again with everything there, "
                 "1 CPU and 1 GiB", memory_limit=GIB, cpus=1, only=KSERVE, warm="main"),
        Workload("bf16", data["bf16"], "2 shards of numbers in bf16 and 12 small files", only=XET),
        Workload("memory", data["one"], "one file, the whole run in a 64 MiB memory cgroup",
                 memory_limit=64 * MIB),
        Workload("memory-shards", data["shards"],
                 "4 shards, the whole run in a 64 MiB memory cgroup", memory_limit=64 * MIB),
        Workload("warm-commit", data["warm"], "nothing to do, pinned by commit", warm="commit"),
        Workload("warm-branch", data["warm"], "nothing to do, by branch", warm="main"),
    ]
    for size in scale.growth:
        found.append(Workload(f"grow-size-{size // MIB}m", DataSet("sparse", 1, size, sparse=True),
                              "weightlift by size of the file (zeros)", only=OURS,
                              group="grow-size"))
    for chunk in scale.chunks:
        found.append(Workload(f"grow-chunks-{chunk}", data["one"],
                              "weightlift by size of the chunks", only=OURS,
                              arguments=("--chunk-size", chunk),
                              group="grow-chunks"))
    for count in scale.files:
        spec = DataSet("tiny", small_files=count, small_bytes=KIB)
        found.append(Workload(f"grow-files-{count}", spec, "weightlift by number of files of 1 KiB",
                              only=OURS, group="grow-files"))
    return found


def chosen(scale: Scale, link: Shape, patterns: list[str]) -> list[Workload]:
    """Those that match, by exact name or glob, in the order of the table."""
    known = table(scale, link)
    for pattern in patterns:
        if not any(fnmatch(it.name, pattern) for it in known):
            names = ", ".join(it.name for it in known)
            raise SystemExit(f"no workload is called `{pattern}`; there are: {names}")
    return [it for it in known if any(fnmatch(it.name, pattern) for pattern in patterns)]
