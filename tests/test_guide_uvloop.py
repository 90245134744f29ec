"""docs/guide/uvloop.md: each row of "What is different" is so, on proact and on the uvloop that it names.

On another version of uvloop only proact's half is checked: a release of a peer must not fail our tests.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import socket
import sys
import tempfile
import time

import pytest
from support import documentation, loops

sys.path.append(str(documentation.ROOT))

from benchmarks import report

ROWS = {}


def row(name):
    """Register a probe: it returns whether uvloop's half of the row is the case."""

    def register(function):
        ROWS[name] = function
        return function

    return register


async def raises(error, awaitable):
    try:
        await awaitable
    except error:
        return True
    return False


async def stream():
    """One end of a connection with a stream on it, and the other end."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    _, writer = await asyncio.open_connection(sock=ours)
    return writer, theirs


@row("`loop.sendfile`")
async def no_sendfile(loop):
    writer, theirs = await stream()
    with theirs, tempfile.TemporaryFile(buffering=0) as file:
        file.write(b"content")
        refused = await raises(NotImplementedError, loop.sendfile(writer.transport, file))
        writer.close()
        assert refused or theirs.recv(100) == b"content"
    return refused


@row("`sock_sendto`")
async def no_datagrams(loop):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        refused = await raises(NotImplementedError, loop.sock_sendto(sock, b"data", sock.getsockname()))
        if refused:
            return await raises(NotImplementedError, loop.sock_recvfrom(sock, 100))
        buffer = bytearray(4)
        assert await loop.sock_recvfrom_into(sock, buffer) == (4, sock.getsockname())
        return False


@row("timers")
async def early_timers(_loop):
    shortest = 1.0
    for _ in range(20):
        begin = time.monotonic()
        await asyncio.sleep(0.0002)
        shortest = min(shortest, time.monotonic() - begin)
    return shortest < 0.0002


@row("`user=`")
async def no_arguments_of_popen(_loop):
    refused = set()
    for arguments in ({"user": os.getuid()}, {"group": os.getgid()}, {"umask": 0o22}, {"process_group": 0}):
        try:
            process = await asyncio.create_subprocess_exec("/bin/true", **arguments)
        except ValueError:
            refused.add(True)
        else:
            assert await process.wait() == 0
            refused.add(False)
    (only,) = refused
    return only


@row("`Server.close_clients`")
async def no_close_clients(_loop):
    if sys.version_info < (3, 13):
        pytest.skip("Python has it from 3.13 on")
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    found = [hasattr(server, name) for name in ("close_clients", "abort_clients")]
    server.close()
    return not any(found)


@row("a task factory")
async def factory_gets_eager_start(loop):
    if sys.version_info[:2] != (3, 13):
        pytest.skip("the row is about Python 3.13")
    loop.set_task_factory(lambda loop, coro, context=None: asyncio.Task(coro, loop=loop, context=context))
    nothing = asyncio.sleep(0)
    try:
        await loop.create_task(nothing)
    except TypeError:
        nothing.close()
        return True
    finally:
        loop.set_task_factory(None)
    return False


@row('`transport.get_extra_info("socket")`')
async def no_transport_socket(_loop):
    writer, theirs = await stream()
    with theirs:
        sock = writer.get_extra_info("socket")
        try:
            sock.shutdown(socket.SHUT_WR)
        except TypeError:
            refused = True
        else:
            refused = False
        writer.close()
        assert refused == (type(sock).__name__ != "TransportSocket")
    return refused


@row("`isinstance(transport")
async def no_transport_class(_loop):
    writer, theirs = await stream()
    with theirs:
        writer.close()
        return not isinstance(writer.transport, asyncio.Transport)


@row("`isinstance(loop")
async def no_base_event_loop(loop):
    return not isinstance(loop, asyncio.BaseEventLoop)


def test_every_row_has_a_probe():
    text = report.GUIDE.read_text().partition("## What is different")[2]
    rows = re.findall(r"(?m)^\| (?!what|---)(.*?) \|", text)
    assert len(rows) == len(ROWS)
    assert not [name for name in ROWS if not any(cell.startswith(name) for cell in rows)]


@pytest.mark.parametrize("name", ROWS)
def test_proact(proact, loop, name):
    assert not loop.run_until_complete(ROWS[name](loop))


@pytest.fixture(scope="module")
def uvloop():
    """The module. Its first loop opens fds that the process keeps, before a test looks for leaks."""
    if loops.REFERENCE:
        pytest.skip("this run is about another loop")
    if importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed here")
    import uvloop

    first = uvloop.new_event_loop()
    first.run_until_complete(asyncio.sleep(0))
    first.close()
    return uvloop


@pytest.mark.parametrize("name", ROWS)
def test_uvloop(uvloop, name):
    (named,) = re.findall(r"measured with uvloop ([\d.]+)", report.GUIDE.read_text())
    if uvloop.__version__ != named:
        pytest.skip(f"the page is about uvloop {named}, and this is {uvloop.__version__}")
    loop = uvloop.new_event_loop()
    try:
        assert loop.run_until_complete(ROWS[name](loop))
    finally:
        loop.run_until_complete(asyncio.sleep(0.01))  # uvloop closes its handles in a later turn
        loop.close()


def test_the_figures_are_those_of_the_performance_page():
    (name,) = set(re.findall(r"`(benchmarks/results/[^`/]+\.json)`", report.PAGE.read_text()))
    text = report.GUIDE.read_text()
    assert report.with_figures(text, json.loads((documentation.ROOT / name).read_text()), name) == text
