"""When `write` returns, the bytes have left as far as the socket took them: programs rely on it.

Each test writes, then ends the connection, the turn, the run, the loop or the process, and then reads what
the peer has got. Where possible it reads while the loop can't turn.

WAYS (how to write) and ENDS (what happens right after) are tables. A worked pair, "writelines" with "abort"
over TCP: in `data_received` the protocol calls `transport.writelines(PARTS)`, then `transport.abort()`. Still
in that callback, so that the loop can't turn, the test reads from the blocking socket at the other end: all
of EXPECTED must be there.
"""

import asyncio
import contextlib
import gc
import os
import socket

import pytest
from support import children, leaks, loops, peers, tls
from support.links import Secured, linked
from support.protocols import Recorder, heard

PARTS = [b"one,", bytearray(b"two,"), memoryview(b"three,"), bytes(5000)]
EXPECTED = b"".join(PARTS)


def several(transport):
    for part in PARTS:
        transport.write(part)


WAYS = {
    "write": lambda transport: transport.write(EXPECTED),
    "several writes": several,
    "writelines": lambda transport: transport.writelines(PARTS),
    "writelines and write": lambda transport: (
        transport.writelines(iter(PARTS[:3])),
        transport.write(PARTS[3]),
    ),
}


class Refused(Exception):
    pass


def fail(*_):
    raise Refused


# What happens right after the write: each is called with the transport and with its TransportSocket, which
# the test has fetched before the write.
ENDS = {
    "nothing": lambda transport, sock: None,
    "abort": lambda transport, sock: transport.abort(),
    "abort in the next callback": lambda transport, sock: asyncio.get_running_loop().call_soon(
        transport.abort
    ),
    "close": lambda transport, sock: transport.close(),
    "pause_reading, close": lambda transport, sock: (transport.pause_reading(), transport.close()),
    "limits, abort": lambda transport, sock: (
        transport.set_write_buffer_limits(high=0),
        transport.abort(),
    ),
    "shutdown of the socket": lambda transport, sock: sock.shutdown(socket.SHUT_WR),
    "an exception": fail,
    "an exception in the next callback": lambda transport, sock: asyncio.get_running_loop().call_soon(fail),
}


@pytest.mark.parametrize("kind", ["tcp", "unix", "tls"])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.not_on("uvloop", reason="writes at the end of the turn")
async def test_before_the_callback_ends(loop, kind, end, unhandled):
    class Acts(Recorder):
        def data_received(self, data):
            super().data_received(data)
            sock = self.transport.get_extra_info("socket")
            try:
                write(self.transport)
                ENDS[end](self.transport, sock)
            finally:
                # The loop can't turn here.
                with contextlib.suppress(OSError):
                    got.append(peers.receive(peer, len(EXPECTED)))
                assert got == [EXPECTED], name

    for name, write in WAYS.items():  # noqa: B007 (the protocol's, which lives as long as its round)
        got = []
        async with linked(loop, kind, lambda: Acts(loop)) as (client, peer):
            peer.sendall(b"x")
            await client.received(1)
            await loops.turns()
    # A failed assertion would be among the problems, too.
    assert {type(problem.exception) for problem in unhandled.take()} <= {Refused}


@pytest.mark.parametrize("kind", ["tcp", "unix", "tls"])
@pytest.mark.not_on("uvloop", reason="writes at the end of the turn")
async def test_before_the_callback_of_a_stream_ends(loop, kind):
    with peers.pair() if kind == "unix" else peers.tcp_pair() as (near, far):
        peer = Secured(far) if kind == "tls" else far
        far.settimeout(peers.PATIENCE)
        opening = asyncio.open_connection(
            sock=near.dup(),
            **({"ssl": tls.client_context(), "server_hostname": tls.NAME} if kind == "tls" else {}),
        )
        if kind == "tls":
            shaking = loop.run_in_executor(None, peer.engine.shake_hands, far)
        _, writer = await opening
        if kind == "tls":
            await shaking
        near.close()
        writer.write(b"one,")
        writer.writelines([b"two,", b"three"])
        assert peers.receive(peer, 13) == b"one,two,three"
        writer.write(b"last")
        writer.transport.abort()
        assert peers.receive(peer, 4) == b"last"
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.not_on("uvloop", reason="writes at the end of the turn")
async def test_what_is_written_to_the_fd_afterwards_comes_afterwards(loop, kind):
    async with linked(loop, kind, lambda: Recorder(loop)) as (client, peer):
        fd = client.transport.get_extra_info("socket").fileno()
        for number in range(20):
            client.transport.write(b"<%02d" % number)
            os.write(fd, b"%02d>" % number)
        expected = b"".join(b"<%02d%02d>" % (number, number) for number in range(20))
        assert peers.receive(peer, len(expected)) == expected


@pytest.mark.parametrize("kind", ["tcp", "unix", "tls"])
async def test_from_a_full_socket_nothing_comes_out_of_order(loop, kind):
    # An abort loses the bytes that do not fit; what arrives is a beginning of what was written.
    data = peers.payload(8 << 20)
    for read in (0, 100_000, 1 << 20):
        async with linked(loop, kind, lambda: Recorder(loop)) as (client, peer):
            for start in range(0, len(data), 500_000):
                client.transport.write(data[start : start + 500_000])
            assert client.transport.get_write_buffer_size()
            got = await heard(loop, peer, read)
            client.transport.abort()
            assert await client.lost is None
            with contextlib.suppress(ConnectionError):
                got += peers.receive_all(peer)
            assert read <= len(got) < len(data)
            assert peers.digest(got) == peers.digest(data[: len(got)])


def opened(loop, sock):
    return loop.run_until_complete(asyncio.open_connection(sock=sock))


@pytest.mark.not_on("uvloop", reason="writes at the end of the turn")
def test_when_no_turn_follows(new_loop):
    loop = new_loop()
    for way in WAYS.values():
        near, far = socket.socketpair()
        with far:
            _, writer = opened(loop, near)
            # Between two runs.
            way(writer.transport)
            assert peers.receive(far, len(EXPECTED)) == EXPECTED

            # Before the run stops.
            def stops(transport=writer.transport, way=way):
                way(transport)
                loop.stop()

            loop.call_soon(stops)
            loop.run_forever()
            assert peers.receive(far, len(EXPECTED)) == EXPECTED

            # Before it ends with an exception.
            def ends(transport=writer.transport, way=way):
                way(transport)
                raise SystemExit

            loop.call_soon(ends)
            with pytest.raises(SystemExit):
                loop.run_forever()
            assert peers.receive(far, len(EXPECTED)) == EXPECTED
            writer.transport.abort()
            loop.run_until_complete(loops.turns())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.not_on("uvloop", reason="writes at the end of the turn")
def test_before_the_loop_is_closed(new_loop):
    for way in WAYS.values():
        loop = new_loop()
        near, far = socket.socketpair()
        with far:
            _, writer = opened(loop, near)
            way(writer.transport)
            loop.close()
            assert peers.receive(far, len(EXPECTED)) == EXPECTED
            del writer
            leaks.collect()
    gc.collect()


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize("end", ["_exit", "execv", "kill"])
@pytest.mark.not_on("uvloop", reason="writes at the end of the turn")
def test_before_the_process_ends(engine, kind, end):
    with socket.create_server((peers.LOOPBACK, 0)) as listener:
        listener.settimeout(children.PATIENCE)
        port = str(listener.getsockname()[1])
        with children.program("write_and_end.py", kind, end, port, engine=engine) as child:
            sock, _ = listener.accept()
            with sock:
                peer = sock
                if kind == "tls":
                    peer = Secured(sock)
                    peer.engine.shake_hands(sock)
                assert peers.receive_all(peer) == b"one,two,three"
            child.wait(children.PATIENCE)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_more_pieces_than_one_call_carries(loop, kind):
    pieces = [b"%05d" % number for number in range(1000)]
    async with linked(loop, kind, lambda: Recorder(loop)) as (near, far):
        near.transport.writelines(pieces)
        near.transport.abort()
        got = b""
        while len(got) < 5000 and (data := far.recv(10_000)):
            got += data
        assert got == b"".join(pieces)
        await near.lost
