"""What a server knows of its connections: asyncio's `Server._clients`, of Python 3.13 and later."""

import asyncio
import gc
import socket
import sys
import warnings
import weakref

import pytest
from support import loops, peers
from support.protocols import Echo, Recorder, serving

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 13), reason="servers count their connections, and don't know them"
)


async def connected(loop, server, count):
    """So many clients, and the server's transports."""
    clients = [
        (await loop.create_connection(lambda: Recorder(loop), *server.address))[1] for _ in range(count)
    ]
    served = [(await server.accepted(index)).transport for index in range(count)]
    return clients, served


async def test_clients_are_known_until_they_are_lost(loop):
    async with serving(loop, lambda: Recorder(loop)) as server:
        known = server.server._clients
        clients, served = await connected(loop, server, 3)
        assert set(known) == set(served) == set(known.copy())
        assert len(known) == 3
        assert all(transport in known for transport in served)
        await clients[0].close()
        lost = served[0].get_protocol()
        await lost.lost
        await loops.turns()
        assert len(known) == 2
        server.server.close_clients()
        for client in clients[1:]:
            await client.lost
        await loops.turns()
        assert len(known) == 0
        assert list(known) == []


async def test_clients_can_be_aborted(loop):
    async with serving(loop, lambda: Recorder(loop)) as server:
        clients, served = await connected(loop, server, 2)
        server.server.abort_clients()
        assert all(transport.is_closing() for transport in served)
        for client in clients:
            await client.lost
        await loops.turns()
        assert len(server.server._clients) == 0


async def test_an_abandoned_connection_is_no_client(loop):
    """The set keeps nobody alive, and who is freed leaves it, also where code runs just before that."""
    made, seen = [], []

    class Silent(asyncio.Protocol):
        def connection_made(self, transport):
            transport.pause_reading()
            made.append(transport)

    server = await loop.create_server(Silent, peers.LOOPBACK, 0)
    known = server._clients
    with socket.create_connection(server.sockets[0].getsockname()[:2]):
        while not made:
            await loops.turns()
        assert list(known) == made
        await loops.turns()
        alive = weakref.ref(made[0], lambda _: seen.append(list(known)))
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            made.clear()
            while alive() is not None:
                gc.collect()
                await loops.turns()
        assert any("unclosed transport" in str(warning.message) for warning in warned)
        assert seen == [[]]
        assert len(known) == 0
    # asyncio's transports that were abandoned stay attached to their server, so it is not waited for.
    server.close()


async def test_other_transports_are_clients_too(loop):
    """Those of libraries that bring their own."""

    class Other:
        closed = 0

        def close(self):
            self.closed += 1

    async with serving(loop, lambda: Echo(loop)) as server:
        other = Other()
        clients, served = await connected(loop, server, 1)
        server.server._attach(other)
        assert other in server.server._clients
        assert len(server.server._clients) == 2
        server.server.close_clients()
        assert other.closed == 1
        assert served[0].is_closing()
        await clients[0].lost
        server.server._detach(other)
        server.server._detach(other)
        assert other not in server.server._clients


async def test_a_transport_may_be_counted_by_another_server(loop):
    async with serving(loop, lambda: Recorder(loop)) as one, serving(loop, lambda: Recorder(loop)) as two:
        (client,), (transport,) = await connected(loop, one, 1)
        two.server._attach(transport)
        assert transport in two.server._clients
        two.server._detach(transport)
        one.server._attach(transport)
        one.server._attach(transport)
        assert len(one.server._clients) == 1
        await client.close()
        await transport.get_protocol().lost
        await loops.turns()
        assert len(one.server._clients) == len(two.server._clients) == 0
