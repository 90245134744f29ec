"""What ends while something else goes on: objects while an exception is set, threads while the interpreter
exits.

The first table has functions that make an object. A worked row, `stream`: it makes a transport and returns it
with the socket at the other end, which has to stay open. The test puts the transport alone into a list, and
`drop_while_raising` takes it out of the list in an expression that then raises KeyError. So the transport's
destructor runs while that KeyError is set, and the KeyError has to come out unchanged.

The second table, STATES, has the states of a daemon thread's loop; programs/daemon_at_exit.py explains one.
"""

import asyncio
import gc
import io
import os
import socket
import subprocess
import sys
import warnings
import weakref

import pytest
from support import children, leaks, loops, peers, tls


def drop_while_raising(box):
    """Drop the last reference to the object in the box while an exception is set."""
    mine = KeyError("mine")

    def raises():
        raise mine

    with pytest.raises(KeyError) as info:
        print(box.pop(), raises())
    assert info.value is mine
    assert mine.args == ("mine",)
    assert mine.__context__ is None


# Each returns an object, and what has to stay open (or alive) meanwhile.


async def stream(loop):
    near, far = socket.socketpair()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
    return transport, far


async def writing_stream(loop):
    transport, far = await stream(loop)
    transport.write(bytes(4 << 20))
    return transport, far


async def upgraded(loop):
    near, far = socket.socketpair()
    plain, protocol = await loop.create_connection(asyncio.Protocol, sock=near)
    engine = tls.Engine(server_side=True)
    shaking = loop.run_in_executor(None, engine.shake_hands, far)
    transport = await loop.start_tls(plain, protocol, tls.client_context(), server_hostname=tls.NAME)
    await shaking
    return transport, plain, far


async def secured(loop):
    transport, plain, far = await upgraded(loop)
    # So that nothing but the caller refers to it.
    plain.pause_reading()
    plain.set_protocol(asyncio.Protocol())
    return transport, far


async def datagrams(loop):
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=(peers.LOOPBACK, 0)
    )
    return transport, None


async def read_pipe(loop):
    end, other = os.pipe()
    transport, _ = await loop.connect_read_pipe(asyncio.Protocol, io.FileIO(end))
    return transport, io.FileIO(other, "w")


async def write_pipe(loop):
    other, end = os.pipe()
    transport, _ = await loop.connect_write_pipe(asyncio.Protocol, io.FileIO(end, "w"))
    return transport, io.FileIO(other)


async def handle(loop):
    return loop.call_soon(print, loop), None


async def timer(loop):
    return loop.call_later(3600, print, loop), None


async def server(loop):
    return await loop.create_server(asyncio.Protocol, peers.LOOPBACK, 0), None


async def operation(loop):
    near, far = socket.socketpair()
    near.setblocking(False)
    task = asyncio.ensure_future(loop.sock_recv(near, 10))
    await loops.turns()
    return task, (near, far)


async def the_loop(loop):
    return loop, None


MAKERS = (
    stream,
    writing_stream,
    secured,
    datagrams,
    read_pipe,
    write_pipe,
    handle,
    timer,
    server,
    operation,
    the_loop,
)
TRANSPORTS = (stream, writing_stream, secured, datagrams, read_pipe, write_pipe)


def let_go(others):
    for other in others if isinstance(others, tuple) else [others]:
        if other is not None:
            other.close()


@pytest.mark.parametrize("told", ["ignore", "always", "error"])
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_dropped_after_the_loop_is_closed(engine, unhandled, make, told):
    loop = loops.new_event_loop(engine)
    loop.set_exception_handler(lambda *_: None)
    kept, other = loop.run_until_complete(make(loop))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter(told)
        box = [kept]
        del kept, loop
        drop_while_raising(box)
        leaks.collect()
    let_go(other)
    del other
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        leaks.collect()
    unraisable = unhandled.take("unraisable")
    unhandled.take("log")
    if make in TRANSPORTS:
        assert bool(warned) == (told == "always")
        assert bool(unraisable) == (told == "error")


@pytest.mark.parametrize("told", ["ignore", "always", "error"])
def test_a_loop_that_nobody_closed(engine, unhandled, told):
    with warnings.catch_warnings(record=True) as warned:
        box = [loops.new_event_loop(engine)]
        if loops.REFERENCE:
            box[0].run_until_complete(asyncio.sleep(0))
        warnings.simplefilter(told)
        drop_while_raising(box)
        leaks.collect()
    unraisable = unhandled.take("unraisable")
    assert bool(warned) == (told == "always")
    assert bool(unraisable) == (told == "error")


@pytest.mark.parametrize("told", ["ignore", "always", "error"])
@pytest.mark.parametrize("make", [stream, secured, handle, timer], ids=lambda make: make.__name__)
async def test_dropped_while_the_loop_runs(loop, unhandled, make, told):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter(told)
        kept, other = await make(loop)
        if make is stream:
            kept.pause_reading()
        await loops.turns()
        if make in (handle, timer):
            kept.cancel()
        box = [kept]
        del kept
        drop_while_raising(box)
        leaks.collect()
        await loops.turns()
    let_go(other)
    unraisable = unhandled.take("unraisable")
    if make in TRANSPORTS:
        assert bool(warned) == (told == "always")
        assert bool(unraisable) == (told == "error")


@pytest.mark.parametrize("how", ["__del__", "weak reference"])
async def test_code_of_the_program_that_fails_meanwhile(loop, unhandled, how):
    class Failing(asyncio.Protocol):
        if how == "__del__":

            def __del__(self):
                raise ZeroDivisionError("on purpose")

    def fails(_):
        raise ZeroDivisionError("on purpose")

    near, far = socket.socketpair()
    with far, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transport, protocol = await loop.create_connection(Failing, sock=near)
        transport.pause_reading()
        await loops.turns()
        reference = weakref.ref(protocol, fails) if how != "__del__" else None
        del protocol
        box = [transport]
        del transport
        drop_while_raising(box)
        gc.collect()
        del reference
    assert "on purpose" in unhandled.take_one("unraisable").message


async def test_an_operation_that_fails_beside_another(loop):
    # gather() raises the error of one operation, and the other one is dropped while the error is set.
    for _ in range(20):
        near, far = socket.socketpair()
        dead = socket.socket()
        near.setblocking(False)
        dead.setblocking(False)
        dead.close()
        with near, far:
            receiving = asyncio.ensure_future(loop.sock_recv(near, 10))
            with pytest.raises((OSError, ValueError)):
                await asyncio.gather(receiving, loop.sock_recv(dead, 10))
            far.send(b"hello")
            assert await receiving == b"hello"


# The interpreter's end.

STATES = (
    "busy",
    "busy debug",
    "asleep",
    "computing",
    "blocked",
    "timers",
    "resolving",
    "receiving",
    "transferring",
    "streaming",
    "streaming debug",
    "unanswered_handshake",
    "shaking_hands",
    "called_from_a_thread",
    "left_open",
    "left_open debug",
)


@pytest.mark.parametrize("state", STATES)
def test_the_interpreter_exits(engine, state):
    # What poll and select do here, epoll does.
    runs = 20 if engine not in ("poll", "select") else 2
    done = subprocess.run(
        [sys.executable, str(children.PROGRAMS / "daemon_at_exit.py"), state, str(runs)],
        env=children.environment(engine),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.stdout == "[5]\n", done.stdout + done.stderr
    for word in ("panicked", "Fatal", "SIG"):
        assert word not in done.stderr
