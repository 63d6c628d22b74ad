#!/usr/bin/env python3
"""What limits a fetch on a large node: the link, the connections, the processors, the disk, or the hash of one file.

A model on paper. It takes what a byte costs on one machine, measured there, and what a node has, and says how
fast a fetch can be at most, what binds first, and how many processors that keeps busy. It knows nothing of
interrupts, NUMA or a memory bus that is full: a real node can only be slower.

    benches/scale/model.py                       the table of docs/performance.md
    benches/scale/model.py --link 100 --cores 32 --disk 7 --connection 60 --files 30
    benches/scale/model.py --hash 2.2            a processor without instructions for SHA-256
"""

import argparse

GIB = 1 << 30
GB = 1e9

# CPU seconds for one GiB, on the machine of docs/performance.md: so that their sums are its tables (four shards to
# ext4: 1.61 plain, 1.50 past the page cache, 2.06 over TLS).
COSTS = {
    "receive": 0.28,  # the kernel's TCP and one copy
    "tls": 0.45,      # AES-GCM by aws-lc, records, copies
    "hash": 0.61,     # SHA-256 with the processor's instructions
    "cached": 0.62,   # a copy into the page cache, and what the kernel does with it
    "direct": 0.51,   # a copy into a block of 1 MiB that is in no cache of the processor, and the disk
    "own": 0.10,      # framing, CRC of the journal, looking around
}
# One lock for all workers: a moment for each chunk. `cargo bench --bench engine` has the figure of a machine.
SCHEDULE_SECONDS = 20e-6
CHUNK = 64 << 20


def seconds_a_gib(costs: dict, tls: bool, direct: bool) -> float:
    parts = ["receive", "hash", "own", "direct" if direct else "cached"] + (["tls"] if tls else [])
    return sum(costs[part] for part in parts)


def limits(node: argparse.Namespace, costs: dict) -> dict:
    """Bytes per second that each thing allows."""
    per_gib = seconds_a_gib(costs, node.tls, node.direct)
    hashers = min(node.files, node.cores)
    return {
        "link": node.link * GB / 8 * 0.94,
        "connections": node.connections * node.connection * 1e6,
        "processors": node.cores * GIB / per_gib,
        # One worker does everything for its file; another one, for a shared file, the hash alone.
        "hash of the files": hashers * GIB / costs["hash"],
        "disk": node.disk * GB,
        "schedule": CHUNK / SCHEDULE_SECONDS,
    }


def row(node: argparse.Namespace, costs: dict) -> list[str]:
    found = limits(node, costs)
    name = min(found, key=found.get)
    rate = found[name]
    busy = rate / GIB * seconds_a_gib(costs, node.tls, node.direct)
    needed = found["link"] / (node.connection * 1e6)
    second = min((it for it in found.items() if it[0] != name), key=lambda it: it[1])
    return [f"{node.link:g}", f"{rate / GB:.2f}", name, f"{second[0]} ({second[1] / GB:.1f})",
            f"{busy:.1f}", f"{needed:.0f}", f"{rate / CHUNK:.1f}"]


HEADINGS = ["Gbit/s", "GB/s at most", "limited by", "next limit (GB/s)", "processors busy",
            "connections that fill the link", "range requests/s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--link", type=float, help="Gbit/s [10, 25 and 100]")
    parser.add_argument("--cores", type=int, default=32)
    parser.add_argument("--disk", type=float, default=7.0, help="GB/s that the disk writes")
    parser.add_argument("--connection", type=float, default=60.0, help="MB/s that a connection brings")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--files", type=int, default=30, help="large files of the model")
    parser.add_argument("--no-tls", dest="tls", action="store_false")
    parser.add_argument("--direct", action="store_true", help="--direct-io on")
    for name, cost in COSTS.items():
        parser.add_argument(f"--{name}", dest=f"cost_{name}", type=float, default=cost, help=f"s/GiB [{cost}]"
                            ) if name not in ("direct", "tls") else None
    node = parser.parse_args()
    costs = {name: getattr(node, f"cost_{name}", cost) for name, cost in COSTS.items()}
    print("| " + " | ".join(HEADINGS) + " |")
    print("|---" * len(HEADINGS) + "|")
    for link in [node.link] if node.link else [10, 25, 100]:
        print("| " + " | ".join(row(argparse.Namespace(**{**vars(node), "link": link}), costs)) + " |")


if __name__ == "__main__":
    main()
