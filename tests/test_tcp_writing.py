"""write and its flow control: the bytes sent are the bytes given, and a fast writer is told to wait."""

import array
import asyncio
import random
import sys

import pytest
from support import loops, peers
from support.protocols import Recorder, connected, facing, heard


async def drained(transport):
    while transport.get_write_buffer_size():
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [1, 1000, 4 << 20])
async def test_every_kind_of_data(loop, kind, size):
    data = peers.payload(size)
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        client.transport.write(kind(data))
        assert await heard(loop, peer, size) == data


async def test_a_view_of_something_else_than_bytes_is_its_bytes(loop):
    numbers = array.array("I", range(100))
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        client.transport.write(memoryview(numbers))
        client.transport.close()
        assert await heard(loop, peer) == numbers.tobytes()


@pytest.mark.parametrize("data", ["text", 42, None, [b"x"]], ids=["text", "int", "none", "list"])
@pytest.mark.not_on("uvloop", reason="other wording, and memoryview()'s own TypeError for some")
async def test_what_is_no_data_is_refused_and_nothing_sent(loop, data):
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        with pytest.raises(TypeError, match="bytes-like"):
            client.transport.write(data)
        client.transport.close()
        assert await heard(loop, peer) == b""


@pytest.mark.parametrize("kind", [bytearray, lambda data: memoryview(bytearray(data))], ids=["array", "view"])
@pytest.mark.parametrize("size", [100, 4 << 20])
@pytest.mark.not_on("uvloop", reason="sends what the memory holds when it is sent")
async def test_what_is_written_is_what_the_data_was_then(loop, kind, size):
    # A write may leave much later than the call; its owner may use the memory for something else
    # meanwhile.
    data = peers.payload(size)
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        buffer = kind(data)
        client.transport.write(buffer)
        buffer[:] = bytes(size)
        assert await heard(loop, peer, size) == data


async def test_a_written_bytearray_is_free_to_change_its_size(loop):
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        buffer = bytearray(peers.payload(1000))
        for _ in range(2000):
            client.transport.write(buffer)
        buffer += b"BufferError while the transport still exports it"
        received = await heard(loop, peer, 2_000_000)
        assert received == peers.payload(1000) * 2000


async def test_thousands_of_writes_in_one_turn(loop):
    # More pieces than fit into one vectored send (IOV_MAX is 1024).
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        parts = [b"%d," % number for number in range(10_000)]
        for part in parts:
            client.transport.write(part)
        expected = b"".join(parts)
        assert await heard(loop, peer, len(expected)) == expected


@pytest.mark.parametrize("count", [0, 1, 10, 5000])
async def test_writelines(loop, count):
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        parts = [b"%d," % number for number in range(count)]
        client.transport.writelines(parts)
        client.transport.writelines([b"", bytearray(b"array"), memoryview(b"view"), b""])
        client.transport.writelines(part for part in (b"<", b">"))
        client.transport.close()
        received = await heard(loop, peer)
        assert received == b"".join(parts) + b"arrayview<>"


async def test_writelines_of_what_is_no_data(loop):
    async with facing(loop, lambda: Recorder(loop)) as (client, _):
        for lines in (["text"], [1], 42, None):
            with pytest.raises(TypeError):
                client.transport.writelines(lines)


async def test_writing_nothing_is_nothing(loop):
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        for data in (b"", bytearray(), memoryview(b"")):
            client.transport.write(data)
        assert client.transport.get_write_buffer_size() == 0
        client.transport.write(b"x")
        client.transport.close()
        assert await heard(loop, peer) == b"x"


async def test_writes_of_all_sizes_through_a_narrow_pipe(loop):
    # Short writes at every possible place: the rest continues where it stopped, in order.
    rng = random.Random(7)
    sizes = [rng.choice([1, 10, 1000, 30_000, 200_000]) for _ in range(60)]
    data = peers.payload(sum(sizes))
    with peers.tcp_pair(buffer=4096) as (near, far):
        _, client = await loop.create_connection(lambda: Recorder(loop), sock=near.dup())
        near.close()
        reading = loop.create_task(heard(loop, far, len(data)))
        position = 0
        for size in sizes:
            client.transport.write(data[position : position + size])
            position += size
            if size == 10:
                await asyncio.sleep(0.0005)
        assert peers.digest(await reading) == peers.digest(data)
        await client.close()


async def test_what_was_sent_is_let_go(loop):
    async with connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (client, server):
        data = peers.payload(100_000)
        before = sys.getrefcount(data)
        client.transport.write(data)
        await server.received(len(data))
        await drained(client.transport)
        await loops.turns(5)
        assert sys.getrefcount(data) == before


async def test_an_aborted_transport_lets_go_of_its_data(loop):
    async with facing(loop, lambda: Recorder(loop)) as (client, _):
        data = peers.payload(8 << 20)
        before = sys.getrefcount(data)
        client.transport.write(data)
        await loops.turns()
        client.transport.abort()
        await client.lost
        for _ in range(10):
            await asyncio.sleep(0.001)
        assert sys.getrefcount(data) == before


async def test_writing_within_callbacks(loop):
    class Talkative(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"made ")

        def data_received(self, data):
            super().data_received(data)
            self.transport.write(b"data ")

        def eof_received(self):
            super().eof_received()
            self.transport.write(b"eof")

    async with facing(loop, lambda: Talkative(loop)) as (client, peer):
        peer.sendall(b"x")
        await client.received(1)
        peer.shutdown(1)
        assert await client.lost is None
        assert await heard(loop, peer) == b"made data eof"


async def test_a_turn_that_goes_on_for_long_still_sends(loop):
    # An endless chain of callbacks must not hold writes back.
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        stop = False

        def chain():
            if not stop:
                loop.call_soon(chain)

        chain()
        client.transport.write(b"through")
        data = await heard(loop, peer, 7)
        stop = True
        assert data == b"through"


# Flow control.


def full(transport):
    """Write until the transport has to keep some bytes."""
    transport.write(bytes(8 << 20))


@pytest.mark.parametrize(
    ("arguments", "limits"),
    [
        ({}, (16384, 65536)),
        ({"high": 1000}, (250, 1000)),
        ({"low": 1000}, (1000, 4000)),
        ({"high": 1000, "low": 10}, (10, 1000)),
        ({"high": 1000, "low": 1000}, (1000, 1000)),
        ({"high": 0}, (0, 0)),
    ],
)
@pytest.mark.not_on("uvloop", reason="its low limit is 16 bytes where asyncio's is 16 KiB")
async def test_limits(loop, arguments, limits):
    async with facing(loop, lambda: Recorder(loop)) as (client, _):
        assert client.transport.get_write_buffer_limits() == (16384, 65536)
        client.transport.set_write_buffer_limits(**arguments)
        assert client.transport.get_write_buffer_limits() == limits


@pytest.mark.parametrize("arguments", [{"high": 10, "low": 20}, {"high": -1}, {"low": -1, "high": 10}])
@pytest.mark.not_on("uvloop", reason="its low limit is 16 bytes where asyncio's is 16 KiB")
async def test_impossible_limits(loop, arguments):
    async with facing(loop, lambda: Recorder(loop)) as (client, _):
        with pytest.raises(ValueError, match="must be >="):
            client.transport.set_write_buffer_limits(**arguments)
        assert client.transport.get_write_buffer_limits() == (16384, 65536)


async def test_a_fast_writer_is_paused_and_resumed(loop):
    class Sizes(Recorder):
        def call(self, name):
            super().call(name)
            if name in ("pause_writing", "resume_writing"):
                sizes.append((name, self.transport.get_write_buffer_size()))

    sizes = []
    async with facing(loop, lambda: Sizes(loop)) as (client, peer):
        client.transport.set_write_buffer_limits(high=100_000, low=20_000)
        data = peers.payload(8 << 20)
        for start in range(0, len(data), 50_000):
            client.transport.write(data[start : start + 50_000])
        # At once, not only after the turn, because the caller is still writing.
        assert client.calls == ["connection_made", "pause_writing"]
        await loops.turns(5)
        assert client.transport.get_write_buffer_size() > 100_000
        reading = loop.create_task(heard(loop, peer, len(data)))
        while "resume_writing" not in client.calls:
            await asyncio.sleep(0.001)
        assert await reading == data
        assert client.calls == ["connection_made", "pause_writing", "resume_writing"]
        assert [name for name, _ in sizes] == ["pause_writing", "resume_writing"]
        assert sizes[0][1] > 100_000
        assert sizes[1][1] <= 20_000


async def test_resumed_also_when_a_later_write_of_the_same_turn_could_send_it_all(loop):
    # writelines() of a large piece and a small one, to a peer that has made room in between.
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        count = (8 << 20) + 500_000
        client.transport.write(bytes(count))
        assert client.calls[1:] == ["pause_writing"]
        peer.settimeout(0.02)
        received = 0
        for _ in range(20):
            if not client.transport.get_write_buffer_size():
                break
            try:
                while piece := peer.recv(1 << 20):
                    received += len(piece)
            except TimeoutError:
                pass
            client.transport.write(b"x")
            count += 1
        peer.settimeout(peers.PATIENCE)
        await heard(loop, peer, count - received)
        await drained(client.transport)
        await loops.turns()
        assert client.calls[1:] == ["pause_writing", "resume_writing"]


async def test_pausing_and_resuming_alternate(loop):
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        client.transport.set_write_buffer_limits(high=10_000)
        data = peers.payload(200_000)
        reading = loop.create_task(heard(loop, peer, len(data) * 100))
        for _ in range(100):
            client.transport.write(data)
            await asyncio.sleep(0)
        assert peers.digest(await reading) == peers.digest(data * 100)
        await drained(client.transport)
        await loops.turns()
        told = client.calls[1:]
        assert told == ["pause_writing", "resume_writing"] * (len(told) // 2)


async def test_below_the_limit_nobody_is_told(loop):
    async with connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (client, server):
        for _ in range(100):
            client.transport.write(bytes(1000))
            await asyncio.sleep(0)
        await server.received(100_000)
        assert client.calls == ["connection_made"]


async def test_a_limit_of_zero_means_every_byte_that_has_to_wait(loop):
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        client.transport.set_write_buffer_limits(high=0)
        full(client.transport)
        assert client.calls[1:] == ["pause_writing"]
        await heard(loop, peer, 8 << 20)
        await drained(client.transport)
        await loops.turns()
        assert client.calls[1:] == ["pause_writing", "resume_writing"]


async def test_lowering_the_limit_pauses_a_writer_who_is_above_it_now(loop):
    async with facing(loop, lambda: Recorder(loop)) as (client, _):
        client.transport.set_write_buffer_limits(high=100 << 20)
        full(client.transport)
        await loops.turns()
        assert client.calls == ["connection_made"]
        client.transport.set_write_buffer_limits(high=1000)
        assert client.calls == ["connection_made", "pause_writing"]


async def test_the_size_of_the_buffer_is_what_has_not_gone(loop):
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        transport = client.transport
        assert transport.get_write_buffer_size() == 0
        full(transport)
        size = 0
        # Until the kernel takes no more; on a busy machine that takes several rounds.
        while size != (left := transport.get_write_buffer_size()):
            size = left
            await asyncio.sleep(0.02)
        assert 0 < size < 8 << 20
        transport.write(b"12345")
        assert transport.get_write_buffer_size() == size + 5
        transport.writelines([b"12", b"345"])
        assert transport.get_write_buffer_size() == size + 10
        await heard(loop, peer, (8 << 20) + 10)
        await drained(transport)


async def resumed(loop, act):
    """A transport over small buffers (each large write has to wait) that calls `act` in resume_writing."""

    class Resumed(Recorder):
        def resume_writing(self):
            super().resume_writing()
            act(self.transport)

    with peers.tcp_pair(buffer=65536) as (near, far):
        _, client = await loop.create_connection(lambda: Resumed(loop), sock=near.dup())
        near.close()
        client.transport.write(bytes(4 << 20))
        received = await heard(loop, far)
        assert await client.lost is None
        await loops.turns()
    return len(received), client.calls.count("connection_lost")


async def test_writing_in_resume_writing(loop):
    rounds = []

    def refill(transport):
        rounds.append(None)
        if len(rounds) < 4:
            transport.write(bytes(4 << 20))
        else:
            loop.call_soon(transport.close)

    assert await resumed(loop, refill) == (16 << 20, 1)


async def test_writing_in_every_resume_writing_does_not_hold_the_turn(loop):
    # With a limit of zero each write may pause and resume at once: even then, the loop has to turn between
    # them.
    class Endless(Recorder):
        ended = False

        def resume_writing(self):
            super().resume_writing()
            if not Endless.ended:
                self.transport.write(b"more")

    async with facing(loop, lambda: Endless(loop)) as (client, peer):
        client.transport.set_write_buffer_limits(high=0)
        client.transport.write(b"first")
        with peers.thread(peers.receive_all, peer):
            await asyncio.sleep(0.02)
            Endless.ended = True
            assert await client.close() is None


@pytest.mark.not_on("asyncio", reason="calls connection_lost twice, and then fails for it")
async def test_closing_in_resume_writing(loop):
    assert await resumed(loop, lambda transport: transport.close()) == (4 << 20, 1)


@pytest.mark.not_on("uvloop", reason="warns otherwise")
async def test_writes_after_the_connection_is_gone_are_dropped_with_a_warning_from_the_fifth(loop, caplog):
    async with facing(loop, lambda: Recorder(loop)) as (client, peer):
        client.transport.close()
        for _ in range(4):
            client.transport.write(b"dropped")
        assert caplog.messages == []
        for _ in range(6):
            client.transport.write(b"dropped")
        assert "socket.send() raised exception." in caplog.messages
        assert await client.lost is None
        assert await heard(loop, peer) == b""


@pytest.mark.not_on("uvloop", reason="write() raises RuntimeError on a closed handle")
async def test_writing_after_connection_lost_does_no_harm(loop, caplog):
    async with connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (client, server):
        await client.close()
        for _ in range(10):
            client.transport.write(b"dropped")
            client.transport.writelines([b"dropped"])
        assert client.transport.get_write_buffer_size() == 0
        await server.lost
        assert server.data == b""
