"""The proxy that asks three back ends: joined answers, and no back end is left."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import pytest
from support.watching import Watcher

from proact.lab.backends import Backends
from proact.lab.registry import MODELS
from proact.lab.run import Settings, run
from proact.lab.server_process import ServerError, ServerProcess
from proact.lab.workloads import WORKLOADS
from proact.lab.workloads.fanout import Joining, thirds
from proact.lab.workloads.session import Ask
from proact.lab.workloads.web import content

if TYPE_CHECKING:
    from collections.abc import Callable

    Children = Callable[[int], dict[str, int]]


def test_thirds_add_up() -> None:
    for size in (0, 1, 2, 3, 100, 1024):
        assert sum(thirds(size)) == size
        assert max(thirds(size)) - min(thirds(size)) <= 1


def asking(size: int) -> tuple[Joining, Ask, list[bytes]]:
    session = Joining((1, 2, 3))
    assert session.feed(b"%d\n" % size) == b""
    assert isinstance(session.wanted, Ask)
    return session, session.wanted, [content(part, keep=True) for part in thirds(size)]


def test_answers_come_in_any_order_and_in_any_pieces() -> None:
    session, ask, answers = asking(100)
    assert not ask.take(2, answers[2])
    assert not ask.take(0, answers[0][:10])
    assert not ask.take(1, answers[1])
    assert ask.take(0, answers[0][10:])
    exchange = WORKLOADS["fanout"].exchange(100)
    assert exchange is not None
    assert session.supply(0) == exchange.response
    assert session.wanted is None


@pytest.mark.parametrize("wrong", [b"", b"HTTP/1.1 404 Not Found\r\n", content(34, keep=True) + b"x"])
def test_another_answer_is_an_error(wrong: bytes) -> None:
    _, ask, _ = asking(100)
    with pytest.raises(ConnectionError, match="a back end has gone, or answers other bytes"):
        ask.take(0, wrong)


def test_back_ends_end_with_the_server(lab_children: Children) -> None:
    with ServerProcess("threads", "fanout") as server:
        server.check(1000)
        assert lab_children(os.getpid()).keys() == {"serve", "backends"}
        assert server.backend_seconds() > 0
    assert lab_children(os.getpid()) == {}


def test_back_ends_that_end_are_an_error(lab_children: Children) -> None:
    with ServerProcess("epoll", "fanout") as server:
        server.check(1000)
        os.kill(lab_children(os.getpid())["backends"], 9)
        with pytest.raises(ServerError):
            server.check(1000)


def test_what_the_back_ends_take_is_not_others(lab_children: Children) -> None:
    settings = Settings(
        models=("epoll", "asyncio", "select"), workloads=("fanout",), connections=(5,), duration=0.3
    )
    document = run(settings, Watcher())
    cells = {cell["model"]: cell for cell in document["cells"]}
    assert cells["select"]["status"] == "not measured"
    for name in ("epoll", "asyncio"):
        measured = cells[name]["measured"]
        assert measured is not None, cells[name]
        assert measured["messages"] > 10
        assert measured["load_cpu_seconds"] > 0.02
    assert lab_children(os.getpid()) == {}


def test_the_ports_are_served_at_once() -> None:
    with Backends(3, parent=os.getpid()) as backends:
        assert len(set(backends.ports)) == 3
        for port in backends.ports:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(b"GET /bytes/10 HTTP/1.1\r\nHost: x\r\n\r\n")
                got, deadline = b"", time.monotonic() + 5
                while len(got) < len(content(10, keep=True)) and time.monotonic() < deadline:
                    got += connection.recv(1000)
                assert got == content(10, keep=True)


def test_models_that_cannot_say_so() -> None:
    assert "serves" in (MODELS["select"].missing(1, "fanout") or "")
    assert WORKLOADS["fanout"].opened(100) == 400
