"""Clean-up with a step that fails: the other steps are carried out, and the error is raised."""

import asyncio
import gc
import os
import socket

import pytest
from support import leaks, loops


class Refused(Exception):
    pass


def refuse(*args, **kwargs):
    raise Refused


class Executor:
    """An executor that can't be shut down."""

    submit = shutdown = staticmethod(refuse)


def test_the_executor_can_not_be_shut_down(engine):
    fds = leaks.open_fds()
    loop = loops.new_event_loop(engine)
    loop.run_until_complete(asyncio.sleep(0))
    loop._default_executor = Executor()
    with pytest.raises(Refused):
        loop.close()
    assert loop.is_closed()
    loop.close()
    if not loops.REFERENCE:  # asyncio's selector stays open
        assert not leaks.difference(fds, leaks.open_fds())
    elif loops.REFERENCE == "asyncio":
        loop._selector.close()


def test_an_interrupt_while_the_loop_closes(engine, proact, monkeypatch):
    fds = leaks.open_fds()
    loop = loops.new_event_loop(engine)
    loop.run_until_complete(asyncio.sleep(0))

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(asyncio.BaseEventLoop, "close", interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.close()
    monkeypatch.undo()
    assert not leaks.difference(fds, leaks.open_fds())
    loop.close()
    assert loop.is_closed()


async def test_the_socket_of_a_server_was_closed(loop, proact):
    # The program closes the socket behind the server's back: closing the server ends the accept in flight.
    listening = socket.create_server(("127.0.0.1", 0))
    server = await loop.create_server(asyncio.Protocol, sock=listening)
    listening.close()
    server.close()
    server.close()
    assert not server.is_serving()
    assert not loop._listeners


async def test_the_socket_of_a_unix_server_was_closed(loop, proact, tmp_path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(tmp_path / "socket"))
        server = await loop.create_unix_server(asyncio.Protocol, sock=listening)
        listening.close()
        server.close()
    assert not loop._listeners and not loop._unix_server_sockets


async def test_watching_signals_fails(loop, proact, monkeypatch):
    fds = leaks.open_fds()
    from proact import signals

    class Loop:
        _watch = staticmethod(refuse)

    watching = signals.Signals(Loop())
    with pytest.raises(Refused):
        watching._open()
    gc.collect()
    assert not watching.is_open()
    assert not leaks.difference(fds, leaks.open_fds())
