"""Owns: the place and the means of a measurement: machine, kernel, versions, commit.

Results are useless without them.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from benchmarks import children


def _first(path: str, pattern: str) -> str:
    try:
        match = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    except OSError:
        return ""
    return match[1].strip() if match else ""


def _output(*command: str) -> str:
    try:
        return subprocess.run(
            command, cwd=children.ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def version(package: str) -> str | None:
    """The installed version of a package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def kind() -> str:
    """A short name for this kind of machine, for file names: processor and cores, no host name."""
    model = _first("/proc/cpuinfo", r"^model name\s*:\s*(.+)$") or platform.machine()
    model = re.sub(r"\((R|TM)\)|CPU|Processor|@.*", "", model, flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-") + f"-{os.cpu_count()}c"


def describe() -> dict[str, Any]:
    """Everything that a reader of the results needs to know about the machine and its software."""
    flags = _first("/proc/cpuinfo", r"^flags\s*:(.+)$").split()
    return {
        "cpu": _first("/proc/cpuinfo", r"^model name\s*:\s*(.+)$") or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(_first("/proc/meminfo", r"^MemTotal:\s*(\d+) kB") or 0) / 2**20, 1),
        "virtual": "hypervisor" in flags,
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "load_average_before": os.getloadavg()[0],
        "pinned": children.pinned(),
        "python": platform.python_version(),
        "python_build": " ".join(platform.python_build()),
        "rustc": _output("rustc", "--version"),
        "versions": {
            name: version(name)
            for name in (
                *("proact", "uvloop", "rloop", "zuvloop", "rsloop", "aiofastnet"),
                *("uvicorn", "httptools", "aiohttp"),
            )
        },
        "commit": _output("git", "rev-parse", "HEAD") or None,
        "dirty": bool(
            _output("git", "status", "--porcelain", "--", "crates", "python", "benchmarks", "Cargo.toml")
        ),
    }
