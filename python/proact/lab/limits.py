"""Finds out before a run starts whether this machine allows as many connections as the run wants."""

from __future__ import annotations

import resource
from typing import Final

from proact.lab.environment import read

#: The largest message in bytes: the load generator keeps one message of each connection in memory.
MAX_SIZE: Final = 16 << 20

#: A generous number of fds that a process has open besides its connections.
_SPARE_FILES: Final = 64


def refusal(wanted: int) -> str | None:
    """Make room for ``wanted`` connections per process; return the reason if the machine does not allow it.

    The soft limit of open files is raised as far as needed, and children inherit it.
    """
    needed = wanted + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and needed > hard:
        plural = "s need" if wanted != 1 else " needs"
        return (
            f"{wanted:,} connection{plural} {needed:,} open files in one process, "
            f"and the hard limit is {hard} (ulimit -Hn)"
        )
    ports = local_ports()
    if wanted > ports:
        return f"{wanted:,} connections need as many local ports, and there are {ports:,}"
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return None


def local_ports() -> int:
    """How many ports the kernel gives to outgoing connections (net.ipv4.ip_local_port_range)."""
    bounds = read("/proc/sys/net/ipv4/ip_local_port_range").split()
    return int(bounds[1]) - int(bounds[0]) + 1 if len(bounds) == 2 else 28_232
