"""An fd that is closed behind the loop's back, or inside its own callback: nothing hangs, and data that
arrives for the next file with that number reaches nothing else.

    whose fd                    what becomes of it
    a transport's               it stays open until the transport is closed: `sock.close()` only marks it
    one with a reader           the old callback is never called again; the number can be watched anew
    one with a sock_ operation  an operation on the new socket of that number ends the old one with an error
"""

import asyncio
import os
import socket

import pytest
from support import loops, peers
from support.protocols import Datagrams, Recorder


def take(number):
    """A connected pair; the first socket has this fd number."""
    near, far = socket.socketpair()
    if near.fileno() != number:
        fd = os.dup2(near.fileno(), number, inheritable=False)
        near.close()
        near = socket.socket(fileno=fd)
    near.setblocking(False)
    return near, far


@pytest.mark.not_on("asyncio", reason="goes on without reading, and ends with the next write")
@pytest.mark.parametrize("kind", ["stream", "datagram"])
async def test_a_transport_s(loop, kind):
    if kind == "stream":
        sock, far = socket.socketpair()
        _, protocol = await loop.create_unix_connection(lambda: Recorder(loop), sock=sock)
    else:
        sock, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        _, protocol = await loop.create_datagram_endpoint(lambda: Datagrams(loop), sock=sock)
    number = protocol.transport.get_extra_info("socket").fileno()
    with far:
        sock.close()
        with open(os.devnull) as file:
            assert file.fileno() != number, "the number of an open transport was given to another file"
        far.send(b"in")
        if kind == "stream":
            protocol.transport.write(b"out")
            assert await protocol.received(2) == b"in"
        else:
            protocol.transport.sendto(b"out", "")
            assert (await protocol.received())[0][0] == b"in"
        await loops.turns()
        far.settimeout(peers.PATIENCE)
        assert far.recv(10) == b"out"
        protocol.transport.close()
        assert await protocol.lost is None
        # Now the peer sees the end.
        if kind == "stream":
            assert far.recv(10) == b""


@pytest.mark.parametrize("way", ["close", "abort"])
async def test_a_transport_s_after_its_end(loop, way):
    # A file that has taken the number meanwhile stays open.
    sock, far = socket.socketpair()
    with far:
        _, protocol = await loop.create_unix_connection(lambda: Recorder(loop), sock=sock)
        number = sock.fileno()
        getattr(protocol.transport, way)()
        await protocol.lost
        await loops.turns()
        assert sock.fileno() == -1
        with peers.pair() as (near, _):
            assert near.fileno() == number
            sock.close()
            getattr(protocol.transport, way)()
            await loops.turns()
            os.fstat(number)


@pytest.mark.not_on("asyncio", reason="can't watch the number again")
@pytest.mark.not_on("uvloop", reason="keeps the socket open")
@pytest.mark.parametrize("side", ["reader", "writer"])
async def test_one_with_a_reader(loop, side):
    add, remove = getattr(loop, f"add_{side}"), getattr(loop, f"remove_{side}")
    for _ in range(20):
        old, new = [], loop.create_future()
        near, far = socket.socketpair()
        near.setblocking(False)
        if side == "writer":
            peers.fill(near)
        add(near, old.append, None)
        await loops.turns(2)
        number = near.fileno()
        near.close()
        far.close()
        near, far = take(number)
        with near, far:
            far.send(b"new")
            add(near, lambda new=new: new.done() or new.set_result(None))
            async with asyncio.timeout(5):
                await new
            assert old == []
            assert remove(near)


@pytest.mark.not_on("asyncio", reason="can't watch the number again")
@pytest.mark.not_on("uvloop", reason="keeps the socket open")
@pytest.mark.parametrize("method", ["sock_recv", "sock_recv_into", "sock_recvfrom"])
async def test_one_with_an_operation(loop, method):
    def start(sock):
        return getattr(loop, method)(sock, bytearray(10) if method == "sock_recv_into" else 10)

    for _ in range(20):
        near, far = socket.socketpair()
        near.setblocking(False)
        old = loop.create_task(start(near))
        await loops.pending(loop, old)
        number = near.fileno()
        near.close()
        fresh, other = take(number)
        with fresh, other, far:
            new = loop.create_task(start(fresh))
            await loops.turns(2)
            other.send(b"new")
            async with asyncio.timeout(5):
                result = await new
                assert (result[0] if method == "sock_recvfrom" else result) in (b"new", 3)
                with pytest.raises(OSError):
                    await old


async def test_one_that_is_closed_before_the_operation_begins(loop):
    near, far = socket.socketpair()
    with far:
        near.close()
        for start in (
            lambda: loop.sock_recv(near, 10),
            lambda: loop.sock_recv_into(near, bytearray(10)),
            lambda: loop.sock_recvfrom(near, 10),
            lambda: loop.sock_sendall(near, b"data"),
            lambda: loop.sock_accept(near),
        ):
            with pytest.raises((OSError, ValueError)):
                await start()


async def test_closing_the_socket_in_its_reader(loop):
    for _ in range(50):
        near, far = socket.socketpair()
        near.setblocking(False)
        done = loop.create_future()

        def read(near=near, done=done):
            data = near.recv(10)
            loop.remove_reader(near)
            near.close()
            done.set_result(data)

        with far:
            loop.add_reader(near, read)
            far.send(b"data")
            assert await done == b"data"
            assert far.recv(10) == b""


async def test_closing_the_socket_as_soon_as_its_operation_is_done(loop):
    for _ in range(50):
        near, far = socket.socketpair()
        near.setblocking(False)

        async def read(near=near):
            with near:
                return await loop.sock_recv(near, 10)

        with far:
            task = loop.create_task(read())
            await loops.turns(2)
            far.send(b"data")
            assert await task == b"data"
            assert far.recv(10) == b""


@pytest.mark.parametrize("way", ["close", "abort"])
async def test_closing_a_transport_in_its_own_callback(loop, way):
    class Ends(Recorder):
        def data_received(self, data):
            super().data_received(data)
            getattr(self.transport, way)()

    for _ in range(20):
        near, far = socket.socketpair()
        with far:
            _, protocol = await loop.create_unix_connection(lambda: Ends(loop), sock=near)
            far.send(b"data")
            assert await protocol.lost is None
            assert protocol.calls == ["connection_made", "data_received", "connection_lost"]
            far.settimeout(peers.PATIENCE)
            assert far.recv(10) == b""


def syscalls(loop):
    """The number of epoll sets made anew; a reference loop can't tell."""
    return loop.stats()["syscalls"] if hasattr(loop, "stats") else 0


@pytest.mark.parametrize("way", ["removed", "received from", "a receive that is cancelled"])
async def test_closed_while_a_duplicate_lives(loop, way):
    await closed_while_a_duplicate_lives(loop, way)


@pytest.mark.not_on("asyncio", "uvloop", reason="calls the reader of the number's next file without end")
async def test_closed_while_it_is_watched_and_a_duplicate_lives(loop):
    await closed_while_a_duplicate_lives(loop, "removed too late")


async def closed_while_a_duplicate_lives(loop, way):
    """A forked child, or `dup`, keeps the file open: data that arrives there wakes nothing here."""
    near, far = socket.socketpair()
    near.setblocking(False)
    number = near.fileno()
    with far, near.dup() as duplicate:
        if "rece" in way:
            receiving = asyncio.ensure_future(loop.sock_recv(near, 10))
            await loops.turns()
            if way == "received from":
                far.send(b"first")
                assert await receiving == b"first"
            else:
                receiving.cancel()
                await asyncio.wait([receiving])
            near.close()
        else:
            loop.add_reader(number, pytest.fail, "the number's former reader is called")
            await loops.turns()
            if way == "removed":
                loop.remove_reader(number)
            near.close()
            if way == "removed too late":
                loop.remove_reader(number)
        far.send(b"for the duplicate")
        owner, peer = take(number)
        with owner, peer:
            calls = []
            loop.add_reader(owner, lambda: calls.append(owner.recv(10)))
            await loops.turns()
            begun = syscalls(loop)
            await asyncio.sleep(0.05)
            assert syscalls(loop) - begun < 10, "the loop did not sleep"
            peer.send(b"mine")
            while not calls:
                await asyncio.sleep(0.001)
            assert calls == [b"mine"]
            loop.remove_reader(owner)
        assert duplicate.recv(100) == b"for the duplicate"
