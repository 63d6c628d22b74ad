"""Where the chunks of a file end, computed without any code of Xet or of weightlift.

A boundary is behind a byte where the upper 16 bits of the gear hash are zero, if the chunk has at
least 8 KiB, and at 128 KiB. The hash depends on the last 64 bytes only, so it is computed for all
positions at once.
"""

import hashlib
import re
from pathlib import Path

import numpy

MIN_CHUNK, MAX_CHUNK = 8 << 10, 128 << 10
WINDOW = 64
BLOCK = 8 << 20
UPPER_BITS = numpy.uint64(48)


class Chunker:
    def __init__(self, crates: Path):
        """`crates` is the directory where cargo keeps sources; the table is that of `gearhash`."""
        found = sorted(crates.glob("*/gearhash-0.1.4/src/table.rs"))
        if not found:
            raise FileNotFoundError(f"no gearhash-0.1.4 below `{crates}`; run `cargo fetch`")
        numbers = re.findall(r"0x([0-9a-f]{16})", found[0].read_text())
        assert len(numbers) == 256, found[0]
        self.table = numpy.array([int(number, 16) for number in numbers], dtype=numpy.uint64)

    def lengths(self, content: bytes) -> list[int]:
        """The lengths of the chunks of `content`, in their order."""
        ends, start, found = self._candidates(content), 0, []
        at = 0
        while start < len(content):
            while at < len(ends) and ends[at] < start + MIN_CHUNK:
                at += 1
            end = min(start + MAX_CHUNK, len(content))
            if at < len(ends):
                end = min(end, int(ends[at]))
            found.append(end - start)
            start = end
        return found

    def digests(self, content: bytes) -> list[tuple[bytes, int]]:
        """A name of each chunk by its bytes, and its length."""
        found, start, view = [], 0, memoryview(content)
        for length in self.lengths(content):
            name = hashlib.blake2b(view[start:start + length], digest_size=20).digest()
            found.append((name, length))
            start += length
        return found

    def _candidates(self, content: bytes) -> numpy.ndarray:
        """Ends of chunks, if only the hash counted."""
        values = numpy.frombuffer(content, dtype=numpy.uint8)
        found = []
        for start in range(0, len(values), BLOCK):
            first = max(0, start - WINDOW + 1)
            hashes = self.table[values[first:start + BLOCK]]
            # The hash of twice as many bytes is made of two of the hashes so far.
            width = 1
            while width < WINDOW:
                later = hashes[width:]
                later += hashes[:-width] << numpy.uint64(width)
                width *= 2
            hits = numpy.nonzero((hashes >> UPPER_BITS) == 0)[0] + first + 1
            found.append(hits[hits > start])
        return numpy.concatenate(found) if found else numpy.empty(0, dtype=numpy.int64)
