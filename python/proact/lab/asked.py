"""Reading what a person asked for, in a shell or a form: names, whole numbers, sizes, seconds."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection


#: The units of a time; the micro sign and the Greek letter look alike.
_SECONDS: Final = {"us": 1e-6, "µs": 1e-6, "\u03bcs": 1e-6, "ms": 1e-3, "s": 1.0}


class AskedError(ValueError):
    """A wrong request of the user. Its message is one line, which says what would be right."""


def chosen(what: str, text: str, known: Collection[str], usual: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The names in a comma list, each once; ``all`` of them, or the ``usual`` ones.

    Raises AskedError for a name that does not exist.
    """
    if text.strip() == "all":
        return tuple(known)
    if usual and text.strip() == "usual":
        return usual
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in known:
            raise AskedError(f"unknown {what} {name!r}: choose from {', '.join(known)}")
    return names


def numbers(option: str, text: str, most: int = 1_000_000) -> tuple[int, ...]:
    """A comma list of whole numbers from 1 to ``most``, each once; K and M count in 1024s."""
    found = [_whole(part.strip(), most) for part in text.split(",")]
    if None in found:
        wrong = text.split(",")[found.index(None)].strip()
        raise AskedError(
            f"{option} has {wrong!r}: it takes whole numbers from 1 to {most:,}, with commas between"
        )
    return tuple(dict.fromkeys(value for value in found if value is not None))


def number(option: str, text: str, most: int = 1_000_000) -> int:
    """One whole number from 1 to ``most``; K and M count in 1024s."""
    if (found := _whole(text.strip(), most)) is None:
        raise AskedError(f"{option} is {text!r}: it takes one whole number from 1 to {most:,}")
    return found


def _whole(text: str, most: int) -> int | None:
    unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:].upper(), 1)
    digits = text[:-1] if unit > 1 else text
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        return None
    return found if 1 <= (found := int(digits) * unit) <= most else None


def period(option: str, text: str, least: float, most: float) -> float:
    """A time such as 500us, 2.5ms or 1s, from ``least`` to ``most`` seconds."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([uµ\u03bcm]?s)", text.strip())
    if found is None:
        raise AskedError(f"{option} is {text!r}: it takes a time with its unit, such as 10ms")
    if not least <= (value := float(found[1]) * _SECONDS[found[2]]) <= most:
        raise AskedError(f"{option} is {text!r}: it must be from {duration(least)} to {duration(most)}")
    return value


def duration(seconds: float) -> str:
    """A time as people write it: 50 µs, 10 ms, 1 s."""
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= unit:
            return f"{seconds / unit:.6g} {name}"
    return f"{seconds * 1e6:.6g} µs"


def seconds(option: str, value: float, least: float, most: float = 3600) -> float:
    """A number of seconds from ``least`` to ``most`` (default: an hour)."""
    if not (math.isfinite(value) and least <= value <= most):
        raise AskedError(f"{option} is {value:g}: it must be from {least:g} to {most:g} seconds")
    return value
