"""Whether this machine allows as many connections as a run wants, found out before it starts."""

from __future__ import annotations

import resource
from typing import Final

from proact.lab.environment import read

#: What a process has open besides its connections, generously.
_SPARE_FILES: Final = 64


class TooManyConnectionsError(ValueError):
    """More connections than file descriptors or ports allow."""


def allow_connections(wanted: int) -> None:
    """Make room for ``wanted`` connections per process: raises the soft limit of open files as far as needed.

    Children inherit it. Raises TooManyConnectionsError if the hard limit or the local ports are fewer.
    """
    needed = wanted + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise TooManyConnectionsError(
            f"{wanted} connections need {needed} open files in one process, "
            f"and the hard limit is {hard} (ulimit -Hn)"
        )
    ports = local_ports()
    if wanted > ports:
        raise TooManyConnectionsError(f"{wanted} connections need as many local ports, and there are {ports}")
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def local_ports() -> int:
    """How many ports the kernel gives to outgoing connections (net.ipv4.ip_local_port_range)."""
    bounds = read("/proc/sys/net/ipv4/ip_local_port_range").split()
    return int(bounds[1]) - int(bounds[0]) + 1 if len(bounds) == 2 else 28_232
