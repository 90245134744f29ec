"""Noise beside a measurement: busy loops, one core only, low priority, and a core that is stolen."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A process that never sleeps, and ends with its parent at the latest.
_BUSY = (
    "import ctypes, os, signal; ctypes.CDLL(None).prctl(1, signal.SIGKILL); p = os.getppid()\n"
    "while os.getppid() == p: sum(range(10000))"
)

#: The kinds of noise by name.
KINDS = ("two busy loops", "one core", "nice", "a stolen core")


@contextmanager
def busy_loops(number: int, *, stolen: int | None = None) -> Iterator[None]:
    """So many processes that never sleep; ``stolen``: on this core, before everything of ordinary priority.

    Where the kernel allows no such priority, it is the highest ordinary one.
    """

    def steal() -> None:
        if stolen is not None:
            os.sched_setaffinity(0, {stolen})
            try:
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
            except PermissionError:
                os.nice(-20)

    loops = [subprocess.Popen([sys.executable, "-c", _BUSY], preexec_fn=steal) for _ in range(number)]
    try:
        yield
    finally:
        for each in loops:
            each.kill()
            each.wait()


def verdicts(
    claims: str, kind: str | None, duration: float = 0.1, limit: float | None = None
) -> dict[str, tuple[str, str]]:
    """Verdict and sentence of each claim, measured in a process of its own under one kind of noise.

    A measurement that takes longer than ``limit`` seconds is stopped, and has no claims.
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
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=suit
        )
        try:
            out, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # it ends its servers, and writes what it has
            out, _ = process.communicate()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    document = json.loads(out or b'{"claims": []}')
    return {claim["name"]: (claim["verdict"], claim["because"]) for claim in document["claims"]}
