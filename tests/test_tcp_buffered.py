"""BufferedProtocol: the loop receives into the protocol's own memory."""

import array
import asyncio
import ctypes
import mmap
import socket

import pytest
from support import loops, peers
from support.links import linked
from support.protocols import Buffered, Recorder, facing, heard


@pytest.mark.parametrize("size", [1, 3, 1000, 65537, 1 << 20])
async def test_buffers_of_odd_sizes(loop, size):
    data = peers.payload(min(300_000, size * 2000))
    async with facing(loop, lambda: Buffered(loop, size)) as (client, peer):
        with peers.thread(peer.sendall, data):
            assert await client.received(len(data)) == data


async def test_a_buffer_that_moves_on(loop):
    # get_buffer returns the rest of one large buffer, like a parser that waits for a whole message.
    class Message(Buffered):
        end = 0

        def get_buffer(self, sizehint):
            return memoryview(self.buffer)[self.end :]

        def buffer_updated(self, nbytes):
            self.record.data_received(bytes(self.buffer[self.end : self.end + nbytes]))
            self.end += nbytes
            if self.end == len(self.buffer):
                self.end = 0

    data = peers.payload(200_000)
    async with facing(loop, lambda: Message(loop, 7777)) as (client, peer):
        with peers.thread(peer.sendall, data):
            assert await client.received(len(data)) == data


async def test_a_new_buffer_for_each_call(loop):
    class Fresh(Buffered):
        given = None

        def get_buffer(self, sizehint):
            assert isinstance(sizehint, int)
            self.given = bytearray(5000)
            return self.given

        def buffer_updated(self, nbytes):
            # The buffer that was returned last is the one that was filled.
            self.record.data_received(bytes(self.given[:nbytes]))

    data = peers.payload(100_000)
    async with facing(loop, lambda: Fresh(loop)) as (client, peer):
        for start in range(0, len(data), 10_000):
            peer.sendall(data[start : start + 10_000])
            await asyncio.sleep(0.0005)
        assert await client.received(len(data)) == data


async def test_the_end_of_file(loop):
    async with facing(loop, lambda: Buffered(loop)) as (client, peer):
        peer.sendall(b"data")
        peer.shutdown(socket.SHUT_WR)
        assert await client.lost is None
        assert client.data == b"data"
        assert client.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]


async def test_half_close(loop):
    class Open(Buffered):
        def eof_received(self):
            self.record.eof_received()
            return True

    async with facing(loop, lambda: Open(loop)) as (client, peer):
        peer.shutdown(socket.SHUT_WR)
        await client.record.ended
        client.transport.write(b"still")
        assert await heard(loop, peer, 5) == b"still"


@pytest.mark.parametrize("end", ["close", "abort", "eof", "pause"])
async def test_its_memory_is_given_back(loop, end):
    async with facing(loop, lambda: Buffered(loop)) as (client, peer):
        peer.sendall(b"x")
        await client.received(1)
        if end == "pause":
            client.transport.pause_reading()
        elif end == "eof":
            peer.shutdown(socket.SHUT_WR)
            await client.lost
        else:
            getattr(client.transport, end)()
            await client.lost
        for _ in range(10):
            await asyncio.sleep(0.001)
        # This raises BufferError while anything, even the kernel, may still write into the buffer.
        del client.buffer[:]
        client.buffer += bytes(1000)
        if end == "pause":
            peer.sendall(b"y")
            client.transport.resume_reading()
            assert await client.received(2) == b"xy"


async def test_a_closed_connection_s_buffer_is_not_written_to(loop):
    for _ in range(20):
        async with facing(loop, lambda: Buffered(loop)) as (client, peer):
            await asyncio.sleep(0)
            client.transport.close()
            await client.lost
            client.buffer[:] = bytes(len(client.buffer))
            try:
                peer.sendall(b"\xff" * 1000)
            except ConnectionError:
                pass
            await asyncio.sleep(0.001)
            assert not any(client.buffer)


async def test_never_more_than_the_buffer_holds(loop):
    class Small(Buffered):
        def __init__(self, loop):
            super().__init__(loop, 16)
            self.sizes = []

        def buffer_updated(self, nbytes):
            self.sizes.append(nbytes)
            super().buffer_updated(nbytes)

    async with facing(loop, lambda: Small(loop)) as (client, peer):
        peer.sendall(bytes(range(100)))
        assert await client.received(100) == bytes(range(100))
        # Never more at a time than the buffer holds, and never nothing.
        assert all(0 < size <= 16 for size in client.sizes)


@pytest.mark.parametrize("then", ["set_protocol", "pause_reading"])
async def test_a_small_buffer_leaves_the_rest(loop, then):
    # The peer sends more than the buffer holds: the rest is for the next protocol, or for later.
    after = Recorder(loop)

    class Small(asyncio.BufferedProtocol):
        def __init__(self):
            self.buffer, self.got = bytearray(4), b""

        def get_buffer(self, hint):
            return self.buffer

        def buffer_updated(self, count):
            self.got += self.buffer[:count]
            if then == "set_protocol":
                transport.set_protocol(after)
            else:
                transport.pause_reading()

    near, far = socket.socketpair()
    with far:
        transport, small = await loop.create_connection(Small, sock=near)
        far.sendall(b"HEADthe body")
        while not small.got:
            await asyncio.sleep(0)
        await loops.turns()
        assert small.got == b"HEAD"
        if then == "pause_reading":
            transport.set_protocol(after)
            transport.resume_reading()
        assert await after.received(8) == b"the body"
        transport.abort()
        await after.lost


async def test_many_protocols_share_one_piece(loop):
    # Each protocol takes a byte and makes place for the next, which gets the rest. Were each called within
    # the call for the one before, the stack would overflow and end the process.
    piece, got = peers.payload(60_000), bytearray()

    class Byte(asyncio.BufferedProtocol):
        def __init__(self):
            self.buffer = bytearray(1)

        def get_buffer(self, hint):
            return self.buffer

        def buffer_updated(self, count):
            got.extend(self.buffer)
            full.transport.set_protocol(Byte() if len(got) < len(piece) - 100 else full)

    class Switch(Recorder):
        def data_received(self, data):
            full.transport.set_protocol(Byte())

    async with (
        facing(loop, lambda: Switch(loop)) as (_, first),
        facing(loop, lambda: Recorder(loop)) as (full, second),
    ):
        await loops.turns()
        # Both arrive in one turn: the engine has received the piece when the switch sets the first protocol.
        first.send(b"!")
        second.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * len(piece))
        second.sendall(piece)
        rest = await full.received(100)
        assert got + rest == piece


ROOMS = {
    "bytearray": lambda: bytearray(100),
    "array of b": lambda: array.array("b", bytes(100)),
    "array of i": lambda: array.array("i", bytes(100)),
    "ctypes array": lambda: (ctypes.c_ubyte * 100)(),
    "ctypes array of int": lambda: (ctypes.c_int * 25)(),
    "ctypes string": lambda: ctypes.create_string_buffer(100),
    "mmap": lambda: mmap.mmap(-1, 4096),
    "view of chars": lambda: memoryview(bytearray(100)).cast("c"),
    "view of a part": lambda: memoryview(bytearray(200))[50:150],
}


class Given(Buffered):
    """Offers a buffer that the test has made."""

    def __init__(self, loop, buffer):
        super().__init__(loop)
        self.buffer = buffer

    def buffer_updated(self, nbytes):
        self.record.data_received(memoryview(self.buffer).cast("B")[:nbytes].tobytes())


# The buffers that work with asyncio's TLS: it makes a slice of the object, into which ssl writes.
SLICED = ("bytearray", "array of b", "array of i", "view of chars", "view of a part")
differs = pytest.mark.not_on("asyncio", "uvloop", reason="their TLS can't slice it as it needs to")


@pytest.mark.parametrize(
    ("kind", "room"),
    [
        pytest.param(kind, room, marks=[differs] if kind == "tls" and room not in SLICED else [])
        for kind in ("tcp", "tls")
        for room in ROOMS
    ],
)
async def test_any_memory_that_can_be_written_to(loop, kind, room):
    async with linked(loop, kind, lambda: Given(loop, ROOMS[room]())) as (client, peer):
        peer.sendall(b"hello")
        assert await client.received(5) == b"hello"
        data = peers.payload(1000)
        peer.sendall(data)
        assert await client.received(1005) == b"hello" + data


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize(
    "buffer",
    [bytes(100), memoryview(bytearray(100)).toreadonly(), memoryview(bytearray(200))[::2], "text", 42, None],
    ids=["bytes", "read-only", "not contiguous", "text", "int", "none"],
)
async def test_what_can_not_be_written_to_ends_the_connection(loop, unhandled, kind, buffer):
    async with linked(loop, kind, lambda: Given(loop, bytearray(100))) as (client, peer):
        # TLS asks for a buffer as soon as the handshake is over.
        client.buffer = buffer
        peer.sendall(b"hello")
        assert isinstance(await client.lost, (TypeError, BufferError))
        assert isinstance(unhandled.take_one().exception, (TypeError, BufferError))
        assert client.calls == ["connection_made", "connection_lost"]
