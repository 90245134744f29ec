"""Owns: what all greenlets of a loop are doing, as text."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from .. import _core
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
    native = {id(greenlet): (what, where) for greenlet, what, where in _core.green_waits(hub.loop)}
    for greenlet in hub.alive:
        carrier = greenlet._greenlet
        if greenlet is running:
            parts.append(f"{greenlet!r} runs\n{stack_of(sys._getframe(1))}")
        elif carrier is None:
            parts.append(f"{greenlet!r} has not begun\n")
        else:
            parts.append(f"{greenlet!r}{_waits(carrier, native)}\n{stack_of(carrier.gr_frame)}")
    parts += [
        f"green.run{_waits(bridge, native)}\n{stack_of(bridge.gr_frame)}"
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


def _waits(greenlet: Any, native: dict[int, tuple[str, Any]]) -> str:
    """What it waits for: the outermost object of `proact.green` in whose method it waits, or a socket."""
    waits = ""
    frame: FrameType | None = greenlet.gr_frame
    while frame is not None and _is_ours(frame):
        if frame.f_code.co_name in ("run", "_run"):
            break
        if (owner := frame.f_locals.get("self")) is not None:
            waits = f" waits in {type(owner).__name__}.{frame.f_code.co_name} of {owner!r}"
        frame = frame.f_back
    if not waits and id(greenlet) in native:
        what, where = native[id(greenlet)]
        waits = f" waits to {what} {_socket_of(where) if isinstance(where, int) else repr(where)}"
    return waits or " waits"


def _socket_of(fd: int) -> str:
    """A socket as text, with its addresses."""
    try:
        with socket.socket(fileno=os.dup(fd)) as twin:
            return repr(twin).replace(f"fd={twin.fileno()}", f"fd={fd}")
    except OSError:
        return f"<socket fd={fd}>"
