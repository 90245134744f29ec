"""Owns: what all greenlets of a loop are doing, as text."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from .greenlets import current
from .hub import hub_here

if TYPE_CHECKING:
    from types import FrameType

    from .hub import Hub

__all__ = ["describe", "stack_of", "stacks"]

_HERE = str(Path(__file__).parent)


def stacks(file: TextIO | None = None) -> None:
    """Print the stack of every greenlet of this loop, and what it waits for, to `file` (standard error)."""
    print(describe(hub_here()), file=file or sys.stderr)


def describe(hub: Hub) -> str:
    """The greenlets of a loop, each with its stack."""
    parts = []
    running = current()
    for greenlet in hub.alive:
        carrier = greenlet._greenlet
        if greenlet is running:
            parts.append(f"{greenlet!r} runs\n{stack_of(sys._getframe(1))}")
        elif carrier is None:
            parts.append(f"{greenlet!r} has not begun\n")
        else:
            parts.append(f"{greenlet!r}{_waits(carrier.gr_frame)}\n{stack_of(carrier.gr_frame)}")
    parts += [
        f"green.run{_waits(bridge.gr_frame)}\n{stack_of(bridge.gr_frame)}"
        for bridge in hub.bridges
        if bridge.gr_frame is not None
    ]
    return "\n".join(parts)


def stack_of(frame: FrameType | None) -> str:
    """A stack as text, without the frames of `proact.green` below the program's."""
    lines = traceback.StackSummary.extract(_program(frame))
    return "".join(lines.format())


def _program(frame: FrameType | None) -> list[tuple[FrameType, int]]:
    found = [(entry, line) for entry, line in traceback.walk_stack(frame)][::-1]
    first = next((i for i, (entry, _) in enumerate(found) if not _is_ours(entry)), 0)
    return found[first:]


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_HERE)


def _waits(frame: FrameType | None) -> str:
    """What it waits for: the outermost object of `proact.green` in whose method it waits."""
    waits = ""
    while frame is not None and _is_ours(frame):
        if frame.f_code.co_name in ("run", "_run"):
            break
        if (owner := frame.f_locals.get("self")) is not None:
            waits = f" waits in {type(owner).__name__}.{frame.f_code.co_name} of {owner!r}"
        frame = frame.f_back
    return waits or " waits"
