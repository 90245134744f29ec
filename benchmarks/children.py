"""Owns: the processes that are measured: starting, pinning, timing and ending them. It does not know what
they run.

The server runs on core 0 and the load on core 1, so neither takes the other's time; this process only waits.
A child writes JSON lines to its standard output. It dies with its parent (PR_SET_PDEATHSIG), so a benchmark
that is interrupted leaves nothing running.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
SERVER_CORE, LOAD_CORE = 0, 1
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ChildError(Exception):
    """A child ended, or said nothing in time.

    Its message is the last line of what it wrote to standard error.
    """


def pinned() -> bool:
    """Whether there are two cores for server and load. If not, both share one, and the results say so."""
    return {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0)


def settle(core: int) -> None:
    """Called first in a child: die with the parent, stay on one core, allow as many open files as the limit
    does.
    """
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        raise SystemExit("the parent is gone")
    if pinned():
        os.sched_setaffinity(0, {core})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def warm_malloc() -> None:
    """Called in a server: bring glibc's malloc into the state that it has in a process that ran for a while.

    malloc maps each block above a threshold from the kernel and gives it back when freed, which costs page
    faults for every `recv` into a fresh 256 KiB buffer. The threshold starts at 128 KiB and rises once a
    larger block is freed (M_MMAP_THRESHOLD in mallopt(3)). Most programs have freed one by the time they
    serve; a mere echo server never does. Measured on asyncio and rloop at 1 KiB: 1.9 page faults a message
    without this, none with it; at 64 KiB, 18 without it.
    """
    bytes(16 << 20)


def begin(core: int) -> dict[str, Any]:
    """Called first in a child: parse its argument, the settings, and stay on `core`, unless they name one."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    settle(settings.get("core", core))
    if not settings.get("cold_malloc", True):
        warm_malloc()
    return settings


def cpu_clock(pid: int) -> int:
    """The id of the clock that counts the CPU time of a process, all of its threads together.

    Linux encodes it as `(~pid << 3) | CPUCLOCK_SCHED`; see clock_getcpuclockid(3) and the kernel's
    include/linux/posix-timers_types.h. `time.clock_gettime` accepts it. It has nanosecond resolution,
    unlike /proc/PID/stat.
    """
    return (~pid << 3) | 2


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has used so far, in seconds."""
    return time.clock_gettime(cpu_clock(pid))


def say(message: dict[str, Any]) -> None:
    """Called in a child: write one line to the parent."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def child(module: str, settings: dict[str, Any], *, talks: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m MODULE SETTINGS` for the length of a `with` block, and kill it at its end. `talks`: it
    reads lines from its standard input.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, json.dumps(settings)],
        cwd=ROOT,
        stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def hear(process: subprocess.Popen[bytes], timeout: float) -> dict[str, Any]:
    """The next line of a child. Raises ChildError if it ends, or if it is silent for `timeout` seconds."""
    assert process.stdout is not None
    assert process.stderr is not None
    ready, _, _ = select.select([process.stdout], [], [], timeout)
    if not ready:
        raise ChildError(f"nothing heard for {timeout:.0f} s")
    line = process.stdout.readline()
    if not line:
        errors = process.stderr.read().decode(errors="replace").strip().splitlines()
        raise ChildError(errors[-1] if errors else f"ended with code {process.wait()}")
    message: dict[str, Any] = json.loads(line)
    return message
