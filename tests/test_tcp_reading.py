"""pause_reading and resume_reading: nothing is delivered in between, and nothing is lost."""

import asyncio
import socket

import pytest
from support import peers
from support.protocols import Buffered, Recorder, facing, heard


async def quiet():
    """Wait long enough for anything that might still arrive."""
    await asyncio.sleep(0.02)


KINDS = {"protocol": Recorder, "buffered": Buffered}
kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


@kind
async def test_nothing_is_delivered_while_paused_and_nothing_lost(loop, kind):
    data = peers.payload(1 << 20)
    async with facing(loop, lambda: kind(loop)) as (client, peer):
        with peers.thread(peer.sendall, data):
            position = 0
            while position < len(data):
                await client.received(position + 1)
                client.transport.pause_reading()
                assert not client.transport.is_reading()
                position = len(client.data)
                await asyncio.sleep(0.002)
                assert len(client.data) == position
                client.transport.resume_reading()
                assert client.transport.is_reading()
                position += 50_000
            assert await client.received(len(data)) == data


@kind
async def test_pausing_inside_the_callback_holds_back_the_very_next(loop, kind):
    # Bytes that the engine has already received must not be delivered after the protocol has paused.
    class Pausing(kind):
        pass

    def pause_after(method):
        def call(self, *args):
            result = method(self, *args)
            self.transport.pause_reading()
            return result

        return call

    name = "data_received" if kind is Recorder else "buffer_updated"
    setattr(Pausing, name, pause_after(getattr(kind, name)))
    async with facing(loop, lambda: Pausing(loop)) as (client, peer):
        for number in range(30):
            peer.sendall(b"%02d" % number)
            await asyncio.sleep(0.0005)
        length = len(client.data)
        assert length >= 2
        await quiet()
        assert len(client.data) == length
        while len(client.data) < 60:
            client.transport.resume_reading()
            await client.received(len(client.data) + 1)
        assert client.data == b"".join(b"%02d" % number for number in range(30))


@kind
async def test_the_end_of_file_waits_too(loop, kind):
    async with facing(loop, lambda: kind(loop)) as (client, peer):
        client.transport.pause_reading()
        peer.sendall(b"last words")
        peer.shutdown(socket.SHUT_WR)
        await quiet()
        assert client.calls == ["connection_made"]
        client.transport.resume_reading()
        assert await client.lost is None
        assert client.data == b"last words"
        assert client.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]


@pytest.mark.not_on("uvloop", reason="starts to read after connection_made, paused or not")
async def test_pausing_in_connection_made(loop):
    class Later(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    async with facing(loop, lambda: Later(loop)) as (client, peer):
        assert not client.transport.is_reading()
        peer.sendall(b"waits")
        await quiet()
        assert client.data == b""
        client.transport.resume_reading()
        assert await client.received(5) == b"waits"


async def test_twice_is_once(loop):
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        transport = client.transport
        transport.resume_reading()
        assert transport.is_reading()
        for _ in range(3):
            transport.pause_reading()
        peer.sendall(b"x")
        await quiet()
        assert client.data == b""
        for _ in range(3):
            transport.resume_reading()
        peer.sendall(b"y")
        assert await client.received(2) == b"xy"
        await quiet()
        assert client.data == b"xy"  # not received twice


async def test_pausing_and_resuming_in_one_turn_changes_nothing(loop):
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        for number in range(100):
            peer.sendall(b"%04d" % number)
            client.transport.pause_reading()
            client.transport.resume_reading()
            if number % 3 == 0:
                await asyncio.sleep(0)
        data = await client.received(400)
        assert data == b"".join(b"%04d" % number for number in range(100))


async def test_writing_goes_on_while_reading_is_paused(loop):
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        client.transport.pause_reading()
        data = peers.payload(2 << 20)
        client.transport.write(data)
        assert await heard(loop, peer, len(data)) == data


async def test_the_kernel_s_buffers_hold_back_the_sender(loop):
    # If a paused transport went on receiving, a peer could fill our memory.
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        client.transport.pause_reading()
        await asyncio.sleep(0.002)
        peer.setblocking(False)
        sent = idle = 0
        # The kernel grows its window for a while, then stops.
        while idle < 5:
            more = peers.fill(peer)
            sent += more
            idle = 0 if more else idle + 1
            assert sent < 64 << 20, "the peer can go on sending"
            await asyncio.sleep(0.003)
        peer.settimeout(10)
        client.transport.resume_reading()
        await client.received(sent)


async def test_closing_while_paused(loop):
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        client.transport.pause_reading()
        peer.sendall(b"never seen")
        await asyncio.sleep(0.002)
        assert await client.close() is None
        assert client.data == b""


async def test_after_close_both_do_nothing(loop):
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        transport = client.transport
        transport.close()
        assert not transport.is_reading()
        transport.pause_reading()
        transport.resume_reading()
        assert not transport.is_reading()
        peer.sendall(b"late")
        await client.lost
        transport.resume_reading()
        await quiet()
        assert client.data == b""


async def test_nothing_is_received_after_close(loop):
    # Data that is on its way when close() is called is not delivered.
    for _ in range(50):
        async with facing(loop, lambda: Recorder(loop)) as (client, peer):
            await asyncio.sleep(0)
            peer.sendall(b"late")
            client.transport.close()
            await client.lost
            assert client.calls == ["connection_made", "connection_lost"]


async def test_what_a_protocol_keeps_never_changes(loop):
    # The loop uses the memory of pieces again that the protocol has dropped; only of these.
    class Keeping(Recorder):
        def __init__(self):
            super().__init__(loop)
            self.count = 0
            self.kept = {}
            self.views = []
            self.arrived = asyncio.Event()

        def data_received(self, data):
            self.count += 1
            self.arrived.set()
            if self.count % 3 == 0:
                self.kept[data] = hash(data)
            elif self.count % 3 == 1:
                self.views.append((memoryview(data), bytes(bytearray(data))))
            else:
                assert hash(data) == hash(bytes(bytearray(data)))

    async with facing(loop, Keeping) as (client, peer):
        sent = [
            bytes([number]) * size for number, size in enumerate([600, 600, 600, 590, 600, 2, 1, 600] * 20)
        ]
        for number, piece in enumerate(sent, 1):
            client.arrived.clear()
            peer.sendall(piece)
            await client.arrived.wait()
            assert client.count == number
        assert [bytes(view) for view, _ in client.views] == [copy for _, copy in client.views] == sent[0::3]
        assert list(client.kept) == sent[2::3]
        assert all(client.kept[bytes(bytearray(piece))] == hash(piece) for piece in sent[2::3])
