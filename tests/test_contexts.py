"""In which context a connection's protocol is called: one for each connection, which nobody else changes."""

import asyncio
import contextvars
import socket
import sys

import pytest
from support import loops, peers, protocols, tls

PLACE = contextvars.ContextVar("PLACE", default="nowhere")

on_every_python = pytest.mark.skipif(
    loops.REFERENCE == "asyncio" and sys.version_info < (3, 15),
    reason="on asyncio only since Python 3.15 (gh-140947)",
)


class Noting(protocols.Recorder):
    """Notes the value of PLACE in each of its methods, then sets it to the method's name."""

    def __init__(self, loop):
        super().__init__(loop)
        self.seen = []
        self.note("factory")

    def note(self, name):
        self.seen.append((name, PLACE.get()))
        PLACE.set(name)

    def call(self, name):
        super().call(name)
        self.note(name)


@pytest.fixture(params=["tcp", "tls"])
def ends(request):
    """The options of a server and of its clients."""
    if request.param == "tcp":
        return {}, {}
    return {"ssl": tls.server_context()}, {"ssl": tls.client_context(), "server_hostname": tls.NAME}


async def say_one_byte(address, options):
    _, writer = await asyncio.open_connection(*address, **options)
    writer.write(b"x")
    await writer.drain()
    writer.close()
    await writer.wait_closed()


@pytest.mark.not_on("uvloop", reason="it runs the factory in the server's own context")
async def test_a_factory_does_not_change_the_next_connections_context(loop, ends):
    async with protocols.serving(loop, lambda: Noting(loop), **ends[0]) as served:
        for _ in range(3):
            await say_one_byte(served.address, ends[1])
        for index in range(3):
            protocol = await served.accepted(index)
            await protocol.lost
            assert protocol.seen[0] == ("factory", "nowhere")
    assert PLACE.get() == "nowhere"


@on_every_python
@pytest.mark.not_on("uvloop", reason="over TLS, its calls do not share a context")
async def test_an_accepted_connection_has_one_context(loop, ends):
    async with protocols.serving(loop, lambda: Noting(loop), **ends[0]) as served:
        PLACE.set("after the server was made")
        await say_one_byte(served.address, ends[1])
        protocol = await served.accepted()
        await protocol.lost
    names = [name for name, _ in protocol.seen]
    assert names == ["factory", "connection_made", "data_received", "eof_received", "connection_lost"]
    assert [place for _, place in protocol.seen] == ["nowhere", *names[:-1]]


@on_every_python
async def test_whoever_resumes_reading_lends_no_context(loop, ends):
    async with protocols.serving(loop, lambda: protocols.Recorder(loop), **ends[0]) as served:
        PLACE.set("client")
        _, protocol = await loop.create_connection(lambda: Noting(loop), *served.address, **ends[1])
        PLACE.set("after the client was made")
        far = await served.accepted()
        far.transport.write(b"first")
        await protocol.received(5)
        protocol.transport.pause_reading()

        async def elsewhere():
            PLACE.set("elsewhere")
            protocol.transport.resume_reading()
            protocol.transport.write(b"answer")

        await loop.create_task(elsewhere())
        await far.received(6)
        far.transport.write(b"second")
        await protocol.received(11)
        far.transport.close()
        await protocol.lost
    # The factory ran where the connection was asked for. The rest has a copy, which 3.15 makes before.
    assert protocol.seen[0] == ("factory", "client")
    assert protocol.seen[1] == ("connection_made", "client" if sys.version_info >= (3, 15) else "factory")
    assert {place for _, place in protocol.seen[2:]} <= {"connection_made", "data_received", "eof_received"}


@pytest.mark.parametrize("how", ["tcp", "unix"])
async def test_when_a_server_takes_its_context(loop, how, tmp_path):
    seen = loop.create_future()

    def factory():
        seen.set_result(PLACE.get())
        return asyncio.Protocol()

    PLACE.set("made")
    if how == "tcp":
        server = await loop.create_server(factory, "127.0.0.1", 0, start_serving=False)
    else:
        server = await loop.create_unix_server(factory, tmp_path / "socket", start_serving=False)
    PLACE.set("started")
    await server.start_serving()
    PLACE.set("later")
    with socket.socket(server.sockets[0].family) as client:
        client.settimeout(peers.PATIENCE)
        client.connect(server.sockets[0].getsockname())
        place = await seen
    server.close()
    await server.wait_closed()
    # asyncio before Python 3.15 takes it when it begins to serve, and so does uvloop on every Python.
    made = sys.version_info >= (3, 15) and loops.REFERENCE != "uvloop"
    assert place == ("made" if made else "started")
