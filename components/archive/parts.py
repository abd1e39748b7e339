"""Cutting a stream into parts."""

import io
from collections.abc import Iterator

PART_BYTES = 16 << 20
"""The smallest part. One is read, hashed and stored as a whole, so it is memory in flight."""

LARGEST_PART_BYTES = 512 << 20
WANTED_PARTS = 1000
"""About how many parts a member should have at most; an archive stays well under 10,000,
which is what an S3 multipart upload may have."""


def part_bytes(expected_bytes: int | None) -> int:
    """The size of a member's parts, from the size that it will probably have."""
    size = PART_BYTES
    while expected_bytes and expected_bytes > size * WANTED_PARTS and size < LARGEST_PART_BYTES:
        size *= 2
    return size


def read_parts(stream: io.RawIOBase, size: int) -> Iterator[tuple[memoryview, bool]]:
    """Yield (data, whether it is the last) for each part of a stream; at least one.

    One buffer serves all parts: a part is valid until the next one is asked for.
    """
    buffer = memoryview(bytearray(size))
    spare = memoryview(bytearray(1))
    filled = _fill(stream, buffer)
    while True:
        # Whether a full part is the last one shows only with the next byte.
        more = stream.readinto(spare) if filled == size else 0
        yield buffer[:filled], not more
        if not more:
            return
        buffer[0:1] = spare
        filled = 1 + _fill(stream, buffer[1:])


def _fill(stream: io.RawIOBase, buffer: memoryview) -> int:
    filled = 0
    while filled < len(buffer):
        count = stream.readinto(buffer[filled:])
        if not count:
            break
        filled += count
    return filled
