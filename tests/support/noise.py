"""Noise beside a measurement: busy loops, one core only, low priority, and a core that is stolen."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: A process that works and rests for so many seconds in turn, and ends with its parent at the latest.
_BUSY = """
import ctypes, os, signal, sys, time
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
parent, work, rest = os.getppid(), *map(float, sys.argv[1:])
while os.getppid() == parent:
    ends = time.monotonic() + work
    while time.monotonic() < ends:
        pass
    if rest:
        time.sleep(rest)
"""

#: How a core is stolen: for so many seconds, then not. All of it would keep servers from starting at all.
_STEALING = (0.006, 0.004)

#: The kinds of noise by name.
KINDS = ("two busy loops", "one core", "nice", "a stolen core")


@contextmanager
def busy_loops(number: int, *, stolen: int | None = None) -> Iterator[None]:
    """So many processes that never sleep; ``stolen``: they take most of this core, before everything of
    ordinary priority.

    Where the kernel allows no such priority, it is the highest ordinary one.
    """

    def steal() -> None:
        if stolen is not None:
            os.sched_setaffinity(0, {stolen})
            try:
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
            except PermissionError:
                os.nice(-20)

    command = [sys.executable, "-c", _BUSY, *map(str, (0.01, 0.0) if stolen is None else _STEALING)]
    loops = [subprocess.Popen(command, preexec_fn=steal) for _ in range(number)]
    try:
        yield
    finally:
        for each in loops:
            each.kill()
            each.wait()


def verdicts(
    claims: str,
    kind: str | None,
    duration: float = 0.1,
    limit: float | None = None,
    told: Callable[[str], None] = lambda line: None,
) -> dict[str, tuple[str, str]]:
    """Verdict and sentence of each claim, measured in a process of its own under one kind of noise.

    A measurement that takes longer than ``limit`` seconds is stopped, and has no claims. ``told`` gets each
    line of its progress.
    """
    cores = sorted(os.sched_getaffinity(0))

    def suit() -> None:
        ctypes.CDLL(None).prctl(
            1, signal.SIGTERM
        )  # PR_SET_PDEATHSIG: it ends in good order, whatever ends us
        if kind == "one core":
            os.sched_setaffinity(0, {cores[-1]})
        elif kind == "nice":
            os.nice(19)

    command = [sys.executable, "-m", "proact", "lab", "claims", "--claims", claims, "--json", "-"]
    command += ["--duration", str(duration)]
    loops = {"two busy loops": 2, "nice": 1, "a stolen core": 1}.get(kind or "", 0)
    with busy_loops(loops, stolen=cores[0] if kind == "a stolen core" else None):
        with tempfile.TemporaryFile() as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.PIPE, text=True, preexec_fn=suit
            )
            late = threading.Timer(limit or 1e6, process.send_signal, (signal.SIGINT,))
            late.daemon = True
            late.start()
            try:
                assert process.stderr is not None
                with process.stderr as lines:
                    for line in lines:
                        told(line)
                process.wait()
            except BaseException:
                process.terminate()
                process.wait()
                raise
            finally:
                late.cancel()
            out.seek(0)
            document = json.loads(out.read() or b'{"claims": []}')
    return {claim["name"]: (claim["verdict"], claim["because"]) for claim in document["claims"]}
