"""Echo: the least a server can do, so that what is measured is the I/O model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proact.lab.workloads.session import Session

if TYPE_CHECKING:
    from proact.lab.workloads import Exchange, Sessions


class Echo(Session):
    """Sends back what arrives."""

    __slots__ = ()

    def feed(self, data: bytes) -> bytes:
        return data

    answer = feed  # it never wants a file


def sessions() -> Sessions:
    """It has no state, so one serves everybody."""
    echo = Echo()
    return lambda: echo


def exchange(size: int) -> Exchange | None:
    """The load makes up the bytes itself, others for each message, and verifies every one."""
    return None
