"""Echo: the least that a server can do, so the I/O model is what is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proact.lab.workloads.session import Session, Wanted, on_the_spot

if TYPE_CHECKING:
    from collections.abc import Callable

    from proact.lab.workloads import Exchange, Sessions


class Echo(Session):
    """Sends back the bytes that arrive."""

    __slots__ = ()

    def feed(self, data: bytes) -> bytes:
        return data

    def answer(self, data: bytes, do: Callable[[Wanted], int] = on_the_spot) -> bytes:
        return data  # an echo never wants anything


def sessions() -> Sessions:
    """The factory of sessions. A session has no state, so one serves all connections."""
    echo = Echo()
    return lambda: echo


def exchange(size: int) -> Exchange | None:
    """The load makes up the bytes itself, different ones for each message, and verifies each of them."""
    return None
