"""The contents that are uploaded and read: files that stress a reader, and updates of them.

Everything is made from seeds, so that a finding can be repeated.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy

KIB, MIB = 1 << 10, 1 << 20
LARGE = 100_000_000

Files = dict[str, bytes]


def noise(seed: int, size: int) -> bytes:
    return numpy.random.default_rng(seed).bytes(size)


def weights(seed: int, size: int) -> bytes:
    """Like trained weights in bf16: the upper halves of normally distributed numbers."""
    values = numpy.random.default_rng(seed).standard_normal(size // 2, dtype=numpy.float32) * 0.02
    return (values.view(numpy.uint32) >> 16).astype(numpy.uint16).tobytes()


def text(seed: int, size: int) -> bytes:
    words = ["weight", "layer", "attention", "norm", "token", "the", "of", "\n", "0.125", "head"]
    chosen = numpy.random.default_rng(seed).integers(0, len(words), size // 4)
    return " ".join(words[it] for it in chosen).encode()[:size]


def safetensors(tensors: dict[str, tuple[list[int], bytes]]) -> bytes:
    header, at = {}, 0
    for name, (shape, content) in tensors.items():
        offsets = [at, at + len(content)]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": offsets}
        at += len(content)
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    return len(told).to_bytes(8, "little") + told + b"".join(it[1] for it in tensors.values())


def many(chunk_lengths: Callable[[bytes], list[int]]) -> Files:
    """Of each kind one; some share parts with each other."""
    large, bf16 = noise(1, LARGE), weights(2, 30 * MIB)
    lengths = chunk_lengths(large[:4 * MIB])
    three = sum(lengths[:3])
    block = noise(3, 700_000)
    return {
        "noise-100mb.bin": large,
        "zeros.bin": bytes(20_000_000),
        "words.bin": text(4, 5 * MIB),
        "weights.safetensors": safetensors({"a": ([len(bf16) // 2], bf16)}),
        "empty.bin": b"",
        "one-byte.bin": b"x",
        "below-one-chunk.bin": noise(5, 5_000),
        "shortest-chunk.bin": noise(6, 8 * KIB),
        "longest-chunk.bin": bytes([7]) * (128 * KIB),
        "two-longest-chunks.bin": bytes([8]) * (256 * KIB),
        "one-chunk.bin": large[:lengths[0]],
        "three-chunks.bin": large[:three],
        "three-chunks-less-a-byte.bin": large[:three - 1],
        "three-chunks-and-a-byte.bin": large[:three + 1],
        "repeated-block.bin": b"".join(block + noise(9, it) for it in range(40)),
        "repeated-byte-pattern.bin": bytes(range(251)) * 40_000,
        "repeated-and-zeros.bin": (block + bytes(300_000)) * 10,
        "shares-a-head.bin": large[:30 * MIB] + noise(10, 3 * MIB),
        "shares-a-tail.bin": noise(11, 2 * MIB) + large[-20 * MIB:],
        "shares-both-ways.bin": bf16[8 * MIB:16 * MIB] + large[50 * MIB:60 * MIB] + bytes(MIB),
        "every-scheme.bin": b"".join(
            noise(it, 200_000) + text(it, 150_000) + weights(it, 250_000) for it in range(20, 35)),
        "directory/nested.bin": noise(12, 300_000),
    }


def at_borders(content: bytes, xorbs: list[int]) -> Files:
    """Files that end where a xorb of `content` ends, by the lengths of its parts in each xorb."""
    border = xorbs[0]
    return {f"xorb-border{extra:+}.bin": content[:border + extra] for extra in (-1, 0, 1)} | {
        "second-xorb-only.bin": content[border:]}


@dataclass(frozen=True)
class Update:
    name: str
    old: Files
    new: Files


def updates() -> list[Update]:
    base = noise(100, LARGE)
    middle, border = LARGE // 2, LARGE * 6 // 10
    moved = border + 3_300_000
    two = {"a.bin": base[:border], "b.bin": base[border:]}
    one = {"model.bin": base}

    def edited(new: bytes) -> tuple[Files, Files]:
        return one, {"model.bin": new}

    scattered = bytearray(base)
    for number, at in enumerate(range(2_500_000, LARGE, 5_000_000)):
        scattered[at:at + 100] = noise(200 + number, 100)
    cases = {
        "777 bytes inserted in the head": edited(base[:1000] + noise(101, 777) + base[1000:]),
        "64 KiB at the head rewritten": edited(noise(102, 64 * KIB) + base[64 * KIB:]),
        "512 KiB in the middle replaced": edited(
            base[:middle] + noise(103, 512 * KIB) + base[middle + 512 * KIB:]),
        "300 kB inserted in the middle": edited(
            base[:middle] + noise(104, 300_000) + base[middle:]),
        "300 kB in the middle removed": edited(base[:middle] + base[middle + 300_000:]),
        "1 MiB appended": edited(base + noise(105, MIB)),
        "100 bytes at 20 places": edited(bytes(scattered)),
        "an edit taken back": ({"model.bin": base[:middle] + noise(107, MIB) + base[middle:]}, one),
        "an edit behind 40 MB of one byte": (padded(b""), padded(noise(108, 777))),
        "border of two shards moved": (two, {"a.bin": base[:moved], "b.bin": base[moved:]}),
        "renamed": (one, {"weights/renamed.bin": base}),
        "two shards merged": (two, one),
        "one file split": (one, two),
        "embedding grown, bf16": grown(),
        "everything new": edited(noise(106, LARGE)),
    }
    return [Update(name, old, new) for name, (old, new) in cases.items()]


def padded(more: bytes) -> Files:
    """The filling is one chunk, which the file names some three hundred times. No other file here has it:
    so it is in the xorb that the rest is in.
    """
    content = noise(113, 60_000_000)
    return {"model.bin": b"q" * 40_000_000 + content[:1000] + more + content[1000:]}


def grown() -> tuple[Files, Files]:
    """64 tokens more, at the end of the first tensor; every other one moves by 128 KiB."""
    embedding, layers = weights(110, 32_000 * 1024 * 2), weights(111, 34 * MIB)
    more = weights(112, 64 * 1024 * 2)

    def model(rows: int, content: bytes) -> Files:
        rest = ([len(layers) // 2], layers)
        return {"model.safetensors": safetensors({"embed": ([rows, 1024], content), "rest": rest})}

    return model(32_000, embedding), model(32_064, embedding + more)
