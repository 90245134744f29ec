"""loop.sendfile, loop.sock_sendfile: bytes, order, position; files that can't be sent, peers that leave."""

import asyncio
import contextlib
import io
import os
import select
import socket
import sys

import pytest
from support import loops, peers, protocols

# More than the kernel's buffers of a loopback connection can hold.
SIZE = 12 << 20
DATA = peers.payload(SIZE)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("sendfile") / "file"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def file(path):
    with open(path, "rb") as file:
        yield file


@contextlib.asynccontextmanager
async def sending(loop, file, *args, **options):
    """A protocol that is sending a file to a peer that has read nothing yet: (protocol, peer, task)."""
    async with protocols.facing(loop, lambda: protocols.Recorder(loop)) as (protocol, peer):
        task = loop.create_task(loop.sendfile(protocol.transport, file, *args, **options))
        await asyncio.sleep(0.02)
        yield protocol, peer, task


def position(offset, sent):
    """Where a file that was at 0 is left. If nothing was sent, asyncio moves it only since Python 3.14."""
    moves = sent or loops.REFERENCE != "asyncio" or sys.version_info >= (3, 14)
    return offset + sent if moves else 0


# Over a transport.


@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, None), (0, SIZE), (1000, 2000), (SIZE - 10, None), (SIZE - 10, 100), (SIZE, None), (SIZE + 10, 5)],
)
async def test_offset_and_count(loop, file, offset, count):
    expected = DATA[offset:][:count]
    async with protocols.facing(loop, lambda: protocols.Recorder(loop)) as (protocol, peer):
        reader = loop.create_task(protocols.heard(loop, peer, len(expected)))
        sent = await loop.sendfile(protocol.transport, file, offset, count)
        assert sent == len(expected)
        assert peers.digest(await reader) == peers.digest(expected)
        assert file.tell() == position(offset, sent)


async def test_an_empty_file(loop, tmp_path):
    (tmp_path / "empty").touch()
    async with protocols.facing(loop, lambda: protocols.Recorder(loop)) as (protocol, _):
        with open(tmp_path / "empty", "rb") as file:
            assert await loop.sendfile(protocol.transport, file) == 0
        assert not protocol.transport.is_closing()


async def test_between_writes_in_order(loop, file):
    before, after = peers.payload(1 << 20, 2), peers.payload(100_000, 3)
    async with protocols.facing(loop, lambda: protocols.Recorder(loop)) as (protocol, peer):
        reader = loop.create_task(protocols.heard(loop, peer))
        protocol.transport.write(before)
        assert await loop.sendfile(protocol.transport, file) == SIZE
        protocol.transport.write(after)
        assert await loop.sendfile(protocol.transport, file, 5, 10) == 10
        protocol.transport.write_eof()
        assert peers.digest(await reader) == peers.digest(before + DATA + after + DATA[5:15])


@pytest.mark.not_on("asyncio", reason="a second sendfile breaks the first: KeyError")
async def test_no_write_and_no_other_file_meanwhile(loop, file):
    async with sending(loop, file) as (protocol, peer, task):
        assert not task.done()
        with pytest.raises(RuntimeError, match="unable to write; sendfile is in progress"):
            protocol.transport.write(b"x")
        with pytest.raises(RuntimeError, match="unable to write; sendfile is in progress"):
            protocol.transport.writelines([b"x"])
        with pytest.raises(RuntimeError):
            await loop.sendfile(protocol.transport, file)
        assert len(await protocols.heard(loop, peer, SIZE)) == SIZE
        assert await task == SIZE
        protocol.transport.write(b"now")
        assert await protocols.heard(loop, peer, 3) == b"now"


@pytest.mark.not_on("asyncio", reason="reading is paused until the file is sent")
async def test_reading_goes_on(loop, file):
    async with sending(loop, file) as (protocol, peer, task):
        peer.sendall(b"question")
        await protocol.received(8)
        assert not task.done() and protocol.transport.is_reading()
        await protocols.heard(loop, peer, SIZE)
        assert await task == SIZE


@pytest.mark.parametrize("reads", [False, True])
async def test_a_peer_that_goes_away(loop, file, reads):
    async with sending(loop, file) as (protocol, peer, task):
        if reads:
            await protocols.heard(loop, peer, 100_000)
        peers.reset(peer)
        with pytest.raises(ConnectionError):
            await task
        await protocol.lost
        assert 0 < file.tell() < SIZE


async def test_abort_ends_it_at_once(loop, file, proact):
    async with sending(loop, file) as (protocol, _, task):
        protocol.transport.abort()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(task, 1)
        assert await protocol.lost is None


async def test_close_lets_it_end_first(loop, file, proact):
    async with sending(loop, file) as (protocol, peer, task):
        protocol.transport.close()
        assert peers.digest(await protocols.heard(loop, peer)) == peers.digest(DATA)
        assert await task == SIZE
        assert await protocol.lost is None


@pytest.mark.not_on("asyncio", reason="moves the file's position only when the socket has room again")
async def test_cancelling_leaves_the_connection_usable(loop, file):
    async with sending(loop, file) as (protocol, peer, task):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        sent = file.tell()
        assert 0 < sent < SIZE
        protocol.transport.write(b"after")
        protocol.transport.write_eof()
        assert peers.digest(await protocols.heard(loop, peer)) == peers.digest(DATA[:sent] + b"after")


@pytest.mark.not_on("asyncio", reason="moves the file's position only when the socket has room again")
async def test_a_write_behind_a_cancelled_file_leaves_before_an_abort(loop, file):
    received = bytearray()

    async def send(transport, peer):
        try:
            await loop.sendfile(transport, file)
        except asyncio.CancelledError:
            # The file waited for room, and now there is room.
            while not select.select([], [transport.get_extra_info("socket")], [], 0)[1]:
                with contextlib.suppress(BlockingIOError):
                    received.extend(peer.recv(1 << 16, socket.MSG_DONTWAIT))
            transport.write(b"after")
            transport.abort()

    async with protocols.facing(loop, lambda: protocols.Recorder(loop)) as (protocol, peer):
        task = loop.create_task(send(protocol.transport, peer))
        await loops.turns(10)
        await loops.pending(loop, task)
        task.cancel()
        await task
        received.extend(await protocols.heard(loop, peer))
        assert peers.digest(received) == peers.digest(DATA[: file.tell()] + b"after")


async def again(loop, transport, file):
    """Call sendfile as soon as the one before is over."""
    while True:
        try:
            return await loop.sendfile(transport, file)
        except RuntimeError:
            await asyncio.sleep(0)


@pytest.mark.not_on("asyncio", "uvloop", reason="the second is refused, or its task never ends")
@pytest.mark.parametrize(
    "end", ["all", "the first is cancelled", "the second is cancelled", "both, and closed"]
)
async def test_two_back_to_back(loop, file, path, end):
    async with protocols.facing(loop, lambda: protocols.Recorder(loop)) as (protocol, peer):
        with open(path, "rb") as other:
            first = loop.create_task(again(loop, protocol.transport, file))
            await loops.turns()
            second = loop.create_task(again(loop, protocol.transport, other))
            await loops.turns()
            for task, name in ((first, "first"), (second, "second")):
                if name in end or "both" in end:
                    task.cancel()
            if "both" in end:
                protocol.transport.close()
            hearing = loop.create_task(protocols.heard(loop, peer))
            results = await asyncio.gather(first, second, return_exceptions=True)
            protocol.transport.close()
            assert await protocol.lost is None
            expected = b""
            for result, sent in zip(results, (file, other), strict=True):
                assert result == SIZE or isinstance(result, asyncio.CancelledError)
                expected += DATA[: sent.tell()]
            assert peers.digest(await hearing) == peers.digest(expected)
            assert [result == SIZE for result in results] == [
                "first" not in end and "both" not in end,
                "second" not in end and "both" not in end,
            ]


async def test_others_have_their_turn(loop, file):
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with protocols.facing(loop, lambda: protocols.Recorder(loop)) as (protocol, peer):
        reader = loop.create_task(protocols.heard(loop, peer, SIZE))
        counter = loop.create_task(count())
        await loop.sendfile(protocol.transport, file)
        counter.cancel()
        await reader
    assert turns >= 5


async def test_a_closing_transport_is_refused(loop, file):
    async with protocols.facing(loop, lambda: protocols.Recorder(loop)) as (protocol, _):
        protocol.transport.close()
        with pytest.raises(RuntimeError, match="Transport is closing"):
            await loop.sendfile(protocol.transport, file)


async def test_what_is_no_file_falls_back(loop):
    async with protocols.facing(loop, lambda: protocols.Recorder(loop)) as (protocol, peer):
        transport = protocol.transport
        with pytest.raises(asyncio.SendfileNotAvailableError):
            await loop.sendfile(transport, io.BytesIO(DATA), fallback=False)
        reader = loop.create_task(protocols.heard(loop, peer, SIZE))
        assert await loop.sendfile(transport, io.BytesIO(DATA)) == SIZE
        assert peers.digest(await reader) == peers.digest(DATA)
        # sendfile has restored the protocol.
        assert transport.get_protocol() is protocol and transport.is_reading()


async def test_falling_back_waits_for_a_slow_peer(loop):
    async with sending(loop, io.BytesIO(DATA)) as (protocol, peer, task):
        while not protocol.transport.get_write_buffer_size():
            await loops.turns()
        await asyncio.sleep(0.02)
        assert protocol.transport.get_write_buffer_size() < 1 << 20
        assert peers.digest(await protocols.heard(loop, peer, SIZE)) == peers.digest(DATA)
        assert await task == SIZE


async def test_what_the_kernel_can_not_send_falls_back(loop):
    async with protocols.facing(loop, lambda: protocols.Recorder(loop)) as (protocol, peer):
        reader, writer = os.pipe()
        os.write(writer, b"from a pipe")
        os.close(writer)

        class Pipe(io.FileIO):
            def seek(self, *args):
                return 0

        with Pipe(reader) as pipe:
            with pytest.raises(asyncio.SendfileNotAvailableError):
                await loop.sendfile(protocol.transport, pipe, 0, 11, fallback=False)
            assert await loop.sendfile(protocol.transport, pipe, 0, 11) == 11
        assert await protocols.heard(loop, peer, 11) == b"from a pipe"


# Over a socket of the program.


@pytest.mark.parametrize(("offset", "count"), [(0, None), (1000, 2000), (SIZE - 10, 100), (SIZE, None)])
async def test_a_socket(loop, file, offset, count):
    expected = DATA[offset:][:count]
    with peers.tcp_pair() as (near, far):
        reader = loop.create_task(protocols.heard(loop, far, len(expected)))
        sent = await loop.sock_sendfile(near, file, offset, count)
        assert sent == len(expected)
        assert peers.digest(await reader) == peers.digest(expected)
        assert file.tell() == position(offset, sent)


async def test_a_socket_and_what_is_no_file(loop):
    with peers.tcp_pair() as (near, far):
        with pytest.raises(asyncio.SendfileNotAvailableError):
            await loop.sock_sendfile(near, io.BytesIO(b"bytes"), fallback=False)
        assert await loop.sock_sendfile(near, io.BytesIO(b"bytes")) == 5
        assert await protocols.heard(loop, far, 5) == b"bytes"


@pytest.mark.not_on("asyncio", reason="moves the file's position only when the socket has room again")
async def test_a_socket_and_a_cancel(loop, file):
    with peers.tcp_pair(buffer=4096) as (near, far):
        task = loop.create_task(loop.sock_sendfile(near, file))
        await loops.turns(10)
        await loops.pending(loop, task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await loops.turns()
        sent = file.tell()
        assert 0 < sent < SIZE
        near.shutdown(socket.SHUT_WR)
        assert len(await protocols.heard(loop, far)) == sent


async def test_a_socket_whose_peer_goes_away(loop, file):
    with peers.tcp_pair(buffer=4096) as (near, far):
        task = loop.create_task(loop.sock_sendfile(near, file))
        await asyncio.sleep(0.02)
        peers.reset(far)
        with pytest.raises(ConnectionError):
            await task


@pytest.mark.parametrize("wrong", [(-1, None), (0, 0), (0, -1)])
async def test_offsets_and_counts_that_are_none(loop, file, wrong):
    with peers.tcp_pair() as (near, _), pytest.raises(ValueError, match="must be"):
        await loop.sock_sendfile(near, file, *wrong)


async def test_a_text_file_is_refused(loop, path):
    with open(path, encoding="latin1") as file, peers.tcp_pair() as (near, _):
        with pytest.raises(ValueError, match="binary mode"):
            await loop.sock_sendfile(near, file)


# Also: connections that the program has accepted itself.


async def test_connect_accepted_socket(loop):
    with peers.listening(blocking=True) as listener:
        peer = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    with peer:
        protocol = protocols.Echo(loop)
        transport, made = await loop.connect_accepted_socket(lambda: protocol, accepted)
        assert made is protocol and transport.get_extra_info("peername") == peer.getsockname()
        peer.sendall(b"hello")
        assert await protocols.heard(loop, peer, 5) == b"hello"
        await protocol.close()


async def test_connect_accepted_socket_refuses_what_is_no_stream(loop):
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(ValueError, match="Stream Socket"):
        await loop.connect_accepted_socket(asyncio.Protocol, sock)


@pytest.mark.parametrize(
    ("mode", "keywords", "kind"),
    [
        ("w+b", {"count": 0}, ValueError),
        ("w+b", {"count": -1}, ValueError),
        ("w+b", {"count": 1.5}, TypeError),
        ("w+b", {"offset": -1}, ValueError),
        ("w+b", {"offset": 0.5}, TypeError),
        ("w+", {}, ValueError),
    ],
)
async def test_what_loop_sendfile_refuses(loop, tmp_path, mode, keywords, kind):
    near, far = socket.socketpair()
    with far, open(tmp_path / "file", mode) as file:
        transport, protocol = await loop.create_connection(lambda: protocols.Recorder(loop), sock=near)
        with pytest.raises(kind):
            await loop.sendfile(transport, file, **keywords)
        transport.close()
        await protocol.lost
        far.setblocking(False)
        assert await loop.sock_recv(far, 10) == b""
