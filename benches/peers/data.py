"""The files that are fetched: made once, kept in the cache directory, described by `sha256sum`.

A data set lies at DATA/bench/KEY/…, so one document root is the Hub's storage, the S3 bucket
`bench` with the prefix `KEY/`, and what plain downloaders are given URLs of.
"""

import hashlib
import json
import math
import os
import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
OWNER = "bench"
BLOCK = 4 * MIB


@dataclass(frozen=True)
class DataSet:
    """Weights of `shard_bytes` each, beside `small_files` of `small_bytes` each."""

    name: str
    shards: int = 0
    shard_bytes: int = 0
    small_files: int = 0
    small_bytes: int = 0
    sparse: bool = False
    # Numbers as models have them, which Xet compresses; without it, bytes that nothing does.
    bf16: bool = False

    @property
    def key(self) -> str:
        """Names the sizes too, so that data of another scale is never taken for this."""
        weights = f"-{self.shards}x{self.shard_bytes // KIB}k" if self.shards else ""
        small = f"-{self.small_files}x{self.small_bytes // KIB}k" if self.small_files else ""
        return f"{self.name}{weights}{small}"

    @property
    def total(self) -> int:
        return self.shards * self.shard_bytes + self.small_files * self.small_bytes

    @property
    def repo(self) -> str:
        return f"{OWNER}/{self.key}"


class Data:
    """A data set that is there: paths, sizes and digests."""

    def __init__(self, root: Path, spec: DataSet):
        self.spec = spec
        self.folder = root / OWNER / spec.key
        self.sums_file = root / OWNER / f"{spec.key}.sha256"
        if not self.sums_file.exists():
            self._make()
        self.sums = {}
        for line in self.sums_file.read_text().splitlines():
            digest, path = line.split("  ", 1)
            self.sums[path] = digest
        self.sizes = {path: (self.folder / path).stat().st_size for path in self.sums}
        self.total = sum(self.sizes.values())

    def warm_page_cache(self) -> None:
        if not self.spec.sparse:
            for path in self.sums:
                read_through(self.folder / path)

    def _make(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        sums = {}
        names = weight_names(self.spec.shards)
        for number, name in enumerate(names):
            write = (sparse_weights if self.spec.sparse else bf16_weights if self.spec.bf16
                     else random_weights)
            sums[name] = write(self.folder / name, self.spec.shard_bytes, number)
        if len(names) > 1:
            index = {"weight_map": {f"tensor_{number}": name for number, name in enumerate(names)}}
            sums[INDEX] = write_small(self.folder / INDEX, json.dumps(index).encode())
        for number in range(self.spec.small_files - (len(names) > 1)):
            path = f"part-{number // 1000:03}/item-{number:06}.txt"
            seed = f"{self.spec.name} {number}".encode()
            content = hashlib.shake_128(seed).digest(self.spec.small_bytes)
            sums[path] = write_small(self.folder / path, content)
        lines = [f"{digest}  {path}\n" for path, digest in sorted(sums.items())]
        unfinished = self.sums_file.with_suffix(".new")
        unfinished.write_text("".join(lines))
        os.sync()
        unfinished.rename(self.sums_file)


INDEX = "model.safetensors.index.json"


def weight_names(count: int) -> list[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{number + 1:05}-of-{count:05}.safetensors" for number in range(count)]


def header(total: int, number: int) -> bytes:
    """The start of a valid safetensors file of `total` bytes: one tensor of bytes."""
    length = 120
    count = total - 8 - length
    tensor = {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}
    text = json.dumps({f"tensor_{number}": tensor}).encode()
    return length.to_bytes(8, "little") + text.ljust(length)


def random_weights(path: Path, total: int, number: int) -> str:
    """Incompressible: the key stream of AES in counter mode."""
    command = ["openssl", "enc", "-aes-128-ctr", "-nosalt", "-K", f"{number + 1:032x}"]
    command += ["-iv", "0" * 32, "-in", "/dev/zero"]
    start = header(total, number)
    sha256 = hashlib.sha256(start)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as stream:
        with path.open("wb") as file:
            file.write(start)
            left = total - len(start)
            while left:
                block = stream.stdout.read(min(left, BLOCK))
                file.write(block)
                sha256.update(block)
                left -= len(block)
        stream.kill()
    return sha256.hexdigest()


def bf16_weights(path: Path, total: int, number: int) -> str:
    """Normally distributed numbers in bf16: the lower byte is as good as noise, the upper is not."""
    start = header(total, number)
    sha256 = hashlib.sha256(start)
    source = random.Random(number)
    upper = upper_bytes_of_bf16(0.02)
    with path.open("wb") as file:
        file.write(start)
        left = total - len(start)
        while left:
            block = bytearray(source.randbytes(BLOCK))
            block[1::2] = block[1::2].translate(upper)
            del block[left:]
            file.write(block)
            sha256.update(block)
            left -= len(block)
    return sha256.hexdigest()


def upper_bytes_of_bf16(deviation: float) -> bytes:
    """256 upper bytes, each as often as numbers have it: the sign and all of the exponent but a bit."""
    found = []
    for exponent in range(127):
        lower, upper = (2.0 ** (2 * exponent + bits - 127) for bits in (0, 2))
        share = math.erf(upper / deviation / 2**0.5) - math.erf(lower / deviation / 2**0.5)
        found += [exponent] * round(share * 128)
    found = (found + [found[-1]] * 128)[:128]
    return bytes(found + [0x80 | exponent for exponent in found])


def sparse_weights(path: Path, total: int, number: int) -> str:
    """Zeros that take no space at the source; for sizes that would not fit."""
    start = header(total, number)
    with path.open("wb") as file:
        file.write(start)
        file.truncate(total)
    return sha256_of(path)


def write_small(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_through(path: Path) -> None:
    buffer = bytearray(BLOCK)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
