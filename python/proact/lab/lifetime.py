"""How the child processes of a measurement end with their parent, and which core they run on."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however it ends.

    Raises OSError if the kernel refuses. The process exits at once if ``parent`` (a pid) has gone already.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # the parent ended before the call above
        sys.exit(1)


def pin_to(*cores: int) -> None:
    """Run this process, and the threads that it will start, on these cores only."""
    os.sched_setaffinity(0, cores)


def separate_cores() -> tuple[int, int] | None:
    """A core for the server and another for the load; None if there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else None


def all_but_the_loads() -> tuple[int, ...]:
    """The cores for a server with several workers, if it and the load have separate ones."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], *cores[2:])


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Run this process on one core for a while, then where it ran before."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    pin_to(core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
