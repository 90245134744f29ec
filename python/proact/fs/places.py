"""Owns: positions in a text, and how they are found.

They are the numbers of `open()`'s files, which CPython packs so, lowest first: where in the file to begin (64
bits); the decoder's state there (32); how many bytes to decode (32); how many of their characters to skip
(32); whether those bytes are the last ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Segment", "cookie", "parts", "place"]


class Segment(NamedTuple):
    """A piece of the file that was decoded."""

    flags: int
    # What the decoder held back before, and the bytes that were read.
    held: bytes
    read: bytes
    # How many characters came of them, and whether the file ends there.
    chars: int
    last: bool


def cookie(position: int, flags: int, feed: int = 0, skip: int = 0, last: bool = False) -> int:
    """The number for a position."""
    if flags >> 32:
        raise OverflowError("the state of this decoder does not fit into a position")
    return position | flags << 64 | feed << 96 | skip << 128 | last << 160


def parts(number: int) -> tuple[int, int, int, int, bool]:
    """What `cookie` has packed."""
    if number >> 168:
        raise OverflowError("int too big to convert")
    flags, feed, skip = (number >> shift & 0xFFFF_FFFF for shift in (64, 96, 128))
    return number & (1 << 64) - 1, flags, feed, skip, bool(number >> 160)


def place(decoder: Any, segment: Segment, position: int, used: int) -> int:
    """The position of the character `used` of a segment, which begins at `position`."""
    data = segment.held + segment.read

    def decoded(end: int) -> int:
        decoder.setstate((b"", segment.flags))
        return len(decoder.decode(data[:end]))

    # The shortest beginning that gives so many characters. One byte a character is the most frequent case.
    low, high = 0, len(data)
    if used < high and decoded(used) == used:
        high = used
    while low < high:
        middle = (low + high) // 2
        if decoded(middle) < used:
            low = middle + 1
        else:
            high = middle
    # Where the decoder holds nothing back is a place to begin. Take the last one before the character.
    for begin in range(low, -1, -1):
        count = decoded(begin)
        held, flags = decoder.getstate()
        if not held and count <= used:
            break
    if count == used:
        return cookie(position + begin, flags)
    return cookie(position + begin, flags, low - begin, used - count, decoded(low) < used)
