"""After pause_reading() the loop takes nothing out of the socket, so the program may hand the socket over.

A duplicate of the fd stands for the new owner. Bytes that the loop took before the pause belong to the
protocol: they come with resume_reading(), before everything else.
"""

import asyncio
import contextlib
import socket
import subprocess
import sys

import pytest
from support import children, loops, peers, tls
from support.protocols import Buffered, Recorder, heard


class Pausing(Recorder):
    """Pauses after `after` bytes, in data_received, and calls `then` at once."""

    after, then = sys.maxsize, staticmethod(lambda: None)

    def data_received(self, data):
        super().data_received(data)
        if len(self.data) >= self.after:
            self.after = sys.maxsize
            self.transport.pause_reading()
            self.then()


class PausingBuffered(Buffered):
    """Pauses after `after` bytes, in buffer_updated, and calls `then` at once."""

    def __init__(self, loop):
        super().__init__(loop)
        self.record = Pausing(loop)
        self.lost, self.received = self.record.lost, self.record.received


@contextlib.asynccontextmanager
async def handed_over(loop, kind, make=Pausing):
    """A protocol, its blocking peer, and a blocking duplicate of its socket."""
    with peers.pair() if kind == "unix" else peers.tcp_pair() as (near, far):
        duplicate = near.dup()
        _, client = await loop.create_connection(lambda: make(loop), sock=near.dup())
        near.close()
        with duplicate:
            for sock in (far, duplicate):
                sock.settimeout(peers.PATIENCE / 2)
            try:
                yield client, far, duplicate
            finally:
                # It shares the file with the transport, so it is non-blocking too.
                duplicate.setblocking(False)
                if not client.lost.done():
                    client.transport.abort()
                    await client.lost


async def from_a_callback(loop, kind):
    async with handed_over(loop, kind) as (client, peer, duplicate):
        peer.sendall(b"first")
        await client.received(5)
        client.transport.pause_reading()
        peer.sendall(b"second")
        await loops.turns(10)
        assert await heard(loop, duplicate, 6) == b"second"
        client.transport.resume_reading()
        peer.sendall(b"third")
        assert await client.received(10) == b"firstthird"


async def before_anything_came(loop, kind):
    async with handed_over(loop, kind) as (client, peer, duplicate):
        client.transport.pause_reading()
        peer.sendall(b"first")
        await loops.turns(10)
        assert await heard(loop, duplicate, 5) == b"first"


async def inside_data_received(loop, kind):
    async with handed_over(loop, kind) as (client, peer, duplicate):
        client.after, client.then = 5, lambda: peer.sendall(b"second")
        peer.sendall(b"first")
        await client.received(5)
        await loops.turns(10)
        assert await heard(loop, duplicate, 6) == b"second"
        assert client.data == b"first"


async def in_the_turn_in_which_data_arrives(loop, kind):
    for waits in (False, True):
        async with handed_over(loop, kind) as (client, peer, duplicate):
            if waits:
                await loops.turns()
            peer.sendall(b"early")
            client.transport.pause_reading()
            peer.sendall(b"late")
            await loops.turns(10)
            assert client.data == b""
            got = await loop.run_in_executor(None, duplicate.recv, 100)
            assert got in (b"late", b"earlylate")
            client.transport.resume_reading()
            peer.sendall(b"!")
            assert await client.received(10 - len(got)) == b"earlylate"[: 9 - len(got)] + b"!"


async def pausing_resuming_pausing(loop, kind):
    async with handed_over(loop, kind) as (client, peer, duplicate):
        for number in range(10):
            client.transport.pause_reading()
            client.transport.resume_reading()
            client.transport.pause_reading()
            peer.sendall(b"for the other %d" % number)
            await loops.turns(number % 4)
            assert await heard(loop, duplicate, 15) == b"for the other %d" % number
            client.transport.resume_reading()
            await loops.turns(number % 3)
        peer.sendall(b"mine")
        assert await client.received(4) == b"mine"


async def bulk(loop, kind, make=Pausing):
    data = peers.payload(4 << 20)
    for after in (1, 100_000, 400_000):
        async with handed_over(loop, kind, make) as (client, peer, duplicate):
            pausing = getattr(client, "record", client)
            paused = loop.create_future()
            pausing.after, pausing.then = after, lambda paused=paused: paused.set_result(None)
            with peers.thread(lambda peer=peer: (peer.sendall(data), peer.shutdown(socket.SHUT_WR))):
                await paused
                had = len(client.data)
                await loops.turns(5)
                assert len(client.data) == had
                rest = await heard(loop, duplicate)
            client.transport.resume_reading()
            await client.lost
            assert peers.digest(client.data + rest) == peers.digest(data)


async def bulk_into_a_buffer(loop, kind):
    await bulk(loop, kind, PausingBuffered)


CASES = (
    from_a_callback,
    before_anything_came,
    inside_data_received,
    in_the_turn_in_which_data_arrives,
    pausing_resuming_pausing,
    bulk,
    bulk_into_a_buffer,
)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_a_duplicate_gets_what_comes_after_the_pause(loop, case, kind):
    await case(loop, kind)


@pytest.mark.parametrize("denied", ["defer_taskrun", "buf_ring", "multishot_recv", "recv"])
def test_on_a_ring_without(new_loop, engine, monkeypatch, denied):
    if engine != "io_uring":
        pytest.skip("these are a ring's")
    monkeypatch.setenv("PROACT_URING_DENY", denied)
    loop = new_loop()
    for case in CASES:
        loop.run_until_complete(case(loop, "tcp"))


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_what_arrived_in_pieces_is_delivered_whole(loop, kind):
    # One delivery, as from one receive on asyncio: a protocol that pauses in its first data_received has all
    # bytes.
    pieces = []

    class Pieces(Recorder):
        def data_received(self, data):
            super().data_received(data)
            pieces.append(len(data))
            self.transport.pause_reading()

    data = peers.payload(8 * 4096)
    async with handed_over(loop, kind, Pieces) as (client, peer, _):
        await loops.turns()
        for start in range(0, len(data), 4096):
            peer.sendall(data[start : start + 4096])
        await client.received(1)
        await loops.turns(5)
        assert pieces == [len(data)]
        assert client.data == data


async def test_another_process_gets_what_comes_after_the_pause(loop):
    here, there = socket.socketpair()
    with here, there:
        with subprocess.Popen(
            [sys.executable, str(children.PROGRAMS / "take_over.py"), str(there.fileno())],
            stdout=subprocess.PIPE,
            pass_fds=[there.fileno()],
        ) as child:
            assert child.stdout.readline() == b"ready\n"
            async with handed_over(loop, "tcp") as (client, peer, duplicate):
                peer.sendall(b"first")
                await client.received(5)
                client.transport.pause_reading()
                socket.send_fds(here, [b"x"], [duplicate.fileno()])
                peer.sendall(b"for the child")
                await loops.turns(10)
                peer.shutdown(socket.SHUT_WR)
                output = await loop.run_in_executor(None, child.stdout.read)
                assert output == b"for the child\n"
                assert client.calls == ["connection_made", "data_received"]


async def test_tls_holds_back_what_comes_after_the_pause(loop):
    data = peers.payload(4 << 20)
    async with tls.connected(loop, lambda: Pausing(loop), lambda: Recorder(loop)) as (client, server):
        client.after = 100_000
        paused = loop.create_future()
        client.then = lambda: paused.set_result(None)
        server.transport.write(data)
        await paused
        had = len(client.data)
        for _ in range(5):
            client.transport.resume_reading()
            client.transport.pause_reading()
            await asyncio.sleep(0)
        assert had <= len(client.data) < len(data)
        client.transport.resume_reading()
        assert peers.digest(await client.received(len(data))) == peers.digest(data)
