"""Reference leaks: repeating a scenario leaves no object behind, and no object waits for the cycle collector.

Objects that the collector knows are counted by type. Native objects are also counted by the references to
their classes, because each instance holds one: handles are freed as often as they are made.

A worked scenario, `tcp`: a client and an echo server connect, exchange 5 and 100,000 bytes, and close. The
test runs it WARM times to fill caches. Then it runs it ROUNDS times with the collector off. If it leaked one
object a round, there would be ROUNDS more of that type. A batch may still fill caches, so the test fails only
if each of BATCHES batches leaves something.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import gc
import os
import sys
import warnings
import weakref

import pytest
from support import leaks, loops, peers, tls
from support.protocols import Buffered, Datagrams, Echo, Recorder, connected, serving

WARM, ROUNDS = 4, 16
BATCHES = 6


async def tcp(loop):
    async with connected(loop, lambda: Recorder(loop), lambda: Echo(loop)) as (near, _):
        near.transport.write(b"piece")
        await near.received(5)
        near.transport.write(bytes(100_000))
        await near.received(100_005)


async def buffered(loop):
    async with connected(loop, lambda: Buffered(loop), lambda: Echo(loop)) as (near, _):
        near.transport.write(b"piece")
        await near.received(5)
        await near.close()


@functools.cache
def contexts():
    return tls.server_context(), tls.client_context()


async def tls_echo(loop):
    make = (lambda: Recorder(loop)), (lambda: Echo(loop))
    async with tls.connected(loop, *make, *contexts()) as (near, _):
        near.transport.write(bytes(40_000))
        await near.received(40_000)
        await near.close()


async def start_tls(loop):
    server, client = contexts()
    make = (lambda: Recorder(loop)), (lambda: Echo(loop))
    async with connected(loop, *make) as (near, far):
        both = await asyncio.gather(
            loop.start_tls(far.transport, far, server, server_side=True),
            loop.start_tls(near.transport, near, client, server_hostname=tls.NAME),
        )
        far.transport, near.transport = both
        near.transport.write(b"secret")
        await near.received(6)
        await near.close()
        await far.lost


async def datagram(loop):
    near, _ = await loop.create_datagram_endpoint(lambda: Datagrams(loop), local_addr=("127.0.0.1", 0))
    address = near.get_extra_info("sockname")
    far, _ = await loop.create_datagram_endpoint(lambda: Datagrams(loop), remote_addr=address)
    far.sendto(b"one")
    await near.get_protocol().received()
    for transport in near, far:
        lost = transport.get_protocol().lost
        transport.close()
        await lost


async def pipe(loop):
    with peers.pipe() as (reading, writing):
        _, near = await loop.connect_read_pipe(lambda: Recorder(loop), os.fdopen(reading, "rb", 0))
        writer, far = await loop.connect_write_pipe(lambda: Recorder(loop), os.fdopen(writing, "wb", 0))
        writer.write(b"through")
        await near.received(7)
        await far.close()
        await near.lost


async def subprocess(loop):
    process = await asyncio.create_subprocess_exec("true", stdout=asyncio.subprocess.PIPE)
    await process.communicate()


async def timers(loop):
    fired = loop.create_future()
    kept = [loop.call_later(60, print, number) for number in range(20)]
    for handle in kept:
        handle.cancel()
    loop.call_later(0.0001, fired.set_result, None)
    await fired
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.0001):
            await loop.create_future()


async def cancelled_socks(loop):
    with peers.pair() as (near, _), peers.listening() as listener:
        peers.fill(near)
        waits = (
            loop.sock_recv(near, 10),
            loop.sock_recv_into(near, bytearray(10)),
            loop.sock_recvfrom(near, 10),
            loop.sock_sendall(near, bytes(1 << 20)),
            loop.sock_accept(listener),
        )
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        await loops.turns()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await loops.turns()


class Failing(Recorder):
    def data_received(self, data):
        raise ValueError("a protocol's own mistake")

    def connection_lost(self, exc):
        # A protocol that keeps an exception keeps the frames of its traceback, and so itself.
        super().connection_lost(None)


async def failing(loop):
    loop.set_exception_handler(lambda _, context: None)
    async with connected(loop, lambda: Recorder(loop), lambda: Failing(loop)) as (near, far):
        near.transport.write(b"piece")
        await far.lost
        await near.lost


async def readers(loop):
    with peers.pair() as (near, far):
        readable, writable = loop.create_future(), loop.create_future()
        loop.add_reader(near, lambda: readable.done() or readable.set_result(None))
        loop.add_writer(far, lambda: writable.done() or writable.set_result(None))
        await writable
        far.send(b"x")
        await readable
        loop.remove_reader(near)
        loop.remove_writer(far)


async def cancelled_reading(loop):
    accepted = []
    server = await asyncio.start_server(lambda *both: accepted.extend(both), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    reading = asyncio.ensure_future(reader.readexactly(10))
    while not accepted:
        await asyncio.sleep(0)
    other = accepted.pop()
    accepted.clear()
    other.write(b"five!")
    await loops.turns()
    reading.cancel()
    await asyncio.wait([reading])
    for each in writer, other:
        each.close()
        with contextlib.suppress(ConnectionError):
            await each.wait_closed()
    server.close()
    await server.wait_closed()


async def closed_with_clients(loop):
    async with serving(loop, lambda: Echo(loop)) as served:
        _, near = await loop.create_connection(lambda: Recorder(loop), *served.address)
        await served.accepted()
        served.server.close()
        near.transport.write(b"still")
        await near.received(5)
        await near.close()


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        tcp,
        buffered,
        tls_echo,
        start_tls,
        datagram,
        pipe,
        subprocess,
        timers,
        cancelled_socks,
        failing,
        readers,
        cancelled_reading,
        closed_with_clients,
    )
}


def alive():
    """The number of objects of each type."""
    kinds = map(type, gc.get_objects())
    counts = collections.Counter(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
    counts.update({f"instances of {name}": count for name, count in leaks.instances().items()})
    return counts


def blocks_in_use():
    """Python's blocks of memory, without its own caches: free lists, and the names that types looked up."""
    clear = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache
    clear()
    gc.collect()
    return sys.getallocatedblocks()


@contextlib.contextmanager
def uncollected():
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())
@pytest.mark.not_on("asyncio", "uvloop", reason="some of their transports wait for the collector")
def test_what_is_repeated_leaves_nothing(loop, scenario):
    with uncollected():
        for _ in range(WARM):
            loop.run_until_complete(scenario(loop))
        seen = []
        for _ in range(BATCHES):
            begun, before = blocks_in_use(), alive()
            for _ in range(ROUNDS):
                loop.run_until_complete(scenario(loop))
            left = {kind: count - before[kind] for kind, count in alive().items()}
            left = {kind: count for kind, count in left.items() if count >= ROUNDS}
            blocks = blocks_in_use() - begun
            if not left and blocks < ROUNDS:
                return
            seen.append((left, blocks))
    pytest.fail(f"{ROUNDS} rounds leave objects or take memory each time, in blocks: {seen}")


@pytest.mark.not_on("asyncio", "uvloop", reason="some of their transports wait for the collector")
def test_a_closed_loop_is_freed_at_once(engine):
    with uncollected():
        loop = loops.new_event_loop(engine)
        for scenario in tcp, timers, readers:
            loop.run_until_complete(scenario(loop))
        loop.close()
        gone = weakref.ref(loop)
        del loop
        assert gone() is None


async def engaged(loop, near, idle, other):
    """Leave the loop in the middle of everything; each part has a reference back to the loop."""
    # Don't log: pytest keeps the log records, and with them the frames of an exception.
    loop.set_exception_handler(lambda _, context: loop.stop())
    _, protocol = await loop.create_connection(lambda: Failing(loop), sock=near)
    loop.protocol = protocol
    loop.add_reader(idle, protocol.call, "readable")
    protocol.timer = loop.call_later(60, protocol.call, "late")
    protocol.receiving = [loop.sock_recv(other, 10), loop.sock_recv_into(other, bytearray(10))]
    # A handshake that never ends, because the peer speaks no TLS.
    server = await loop.create_server(lambda: Recorder(loop), "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    shaking = loop.create_connection(
        lambda: Recorder(loop), *address, ssl=contexts()[1], server_hostname=tls.NAME
    )
    protocol.shaking = asyncio.ensure_future(shaking)
    await asyncio.sleep(0.01)
    protocol.soon = loop.call_soon(protocol.call, "in the next turn")
    return weakref.ref(protocol)


@pytest.mark.not_on("asyncio", "uvloop", reason="a coroutine that is torn down uses the closed loop")
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "dropped"])
def test_a_loop_left_in_the_middle_is_collected(engine, closed):
    with peers.pair() as (near, far), peers.pair() as others:
        loop = loops.new_event_loop(engine)
        protocol = loop.run_until_complete(engaged(loop, near, *others))
        far.send(b"what the protocol fails on")
        # Run until the protocol has failed: its connection is lost, but connection_lost was not called yet.
        loop.run_forever()
        gone = weakref.ref(loop), protocol
        with warnings.catch_warnings():
            # Each part that was not closed or awaited warns about that.
            warnings.simplefilter("ignore")
            if closed:
                loop.close()
            del loop
            for _ in range(3):
                gc.collect()
        assert [each() for each in gone] == [None, None]
