"""The machine that the numbers belong to: kernel, processor, limits, versions, read when asked."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Final

#: Packages whose version can change a result, besides Python.
PACKAGES: Final = ("proact", "greenlet", "gevent", "uvloop", "rloop", "typer", "rich")


def describe() -> dict[str, Any]:
    """Everything below, as recorded with each run's results."""
    return {
        "kernel": platform.release(),
        "kernel_version": platform.version(),
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "python": python_version(),
        "packages": package_versions(),
        "limits": limits(),
        "mitigations": mitigations(),
        "sysctl": {name: sysctl(name) for name in ("net.core.somaxconn", "kernel.io_uring_disabled")},
    }


def python_version() -> str:
    """Such as ``CPython 3.13.0``, with a note if the GIL is off."""
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return f"{platform.python_implementation()} {platform.python_version()}{'' if gil else ' without GIL'}"


def package_version(name: str) -> str | None:
    """The installed version of a package; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def package_versions() -> dict[str, str | None]:
    """The versions of ``PACKAGES``."""
    return {name: package_version(name) for name in PACKAGES}


def cpu_model() -> str:
    """The processor's name as the kernel gives it; the architecture if it gives none."""
    for line in read("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "cpu model"):
            return value.strip()
    return platform.machine()


def limits() -> dict[str, dict[str, int | None]]:
    """Soft and hard limits: open files (a count) and locked memory (bytes). None means unlimited."""
    kinds = {"open_files": resource.RLIMIT_NOFILE, "locked_memory": resource.RLIMIT_MEMLOCK}
    return {name: _limit(kind) for name, kind in kinds.items()}


def _limit(kind: int) -> dict[str, int | None]:
    soft, hard = resource.getrlimit(kind)
    return {
        "soft": None if soft == resource.RLIM_INFINITY else soft,
        "hard": None if hard == resource.RLIM_INFINITY else hard,
    }


def mitigations() -> dict[str, str]:
    """The kernel's mitigation of each flaw of the processor; mitigations make system calls dearer."""
    folder = Path("/sys/devices/system/cpu/vulnerabilities")
    if not folder.is_dir():
        return {}
    states = {path.name: read(str(path)).strip() for path in sorted(folder.iterdir())}
    return {name: state for name, state in states.items() if state not in ("", "Not affected")}


def busy_seconds() -> float:
    """CPU time of the whole machine so far, all cores, idle and waiting excluded; in steps of about 10 ms."""
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, read("/proc/stat").split()[1:11])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def process_cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process so far, user and system (clock_getcpuclockid(3)).

    Raises OSError if there is no such process.
    """
    return time.clock_gettime((~pid << 3) | 2)


def sysctl(name: str) -> str | None:
    """The value of a sysctl such as ``kernel.io_uring_disabled``; None if the kernel does not have it."""
    return read(f"/proc/sys/{name.replace('.', '/')}").strip() or None


def seccomp_mode() -> str:
    """Whether this process is under a seccomp filter: ``off``, ``strict``, ``filter`` or ``unknown``."""
    for line in read("/proc/self/status").splitlines():
        if line.startswith("Seccomp:"):
            return {"0": "off", "1": "strict", "2": "filter"}.get(line.split()[1], "unknown")
    return "unknown"


def read(path: str) -> str:
    """The text of a file in /proc or /sys; empty if it does not exist or must not be read."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""
