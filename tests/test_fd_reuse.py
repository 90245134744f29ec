"""An fd number that is used again for another file: nothing meant for one file may reach the other.

The kernel gives out the lowest free number, so a close and an open return to the same number at once. An
engine that keeps interest registered, or an op in flight, under the number would deliver old events to the
new file.
"""

import asyncio
import os
import socket

import pytest
from support import peers

ROUNDS = 2000


@pytest.mark.not_on("uvloop", reason="remove_reader returns None")
async def test_readers_see_only_their_own_data(loop):
    numbers = set()
    for number in range(ROUNDS):
        near, far = socket.socketpair()
        with near, far:
            numbers.add(near.fileno())
            near.setblocking(False)
            got = loop.create_future()
            loop.add_reader(near, lambda near=near, got=got: got.done() or got.set_result(near.recv(64)))
            # Every third one is closed with its data unread, every other third without data: both leave
            # something behind.
            expected = b"%d" % number
            if number % 3 != 1:
                far.send(expected)
            if number % 3 == 0:
                assert await got == expected
            assert loop.remove_reader(near) is True
            if number % 3:
                got.cancel()
    # Otherwise no number was reused, and the test would show nothing.
    assert len(numbers) < 20


async def test_a_reader_removed_in_the_turn_its_data_arrives(loop):
    # The event may already be on its way when the callback is removed and the number gets another owner.
    stale = []
    for _ in range(300):
        near, far = socket.socketpair()
        loop.add_reader(near, stale.append, near.fileno())
        await asyncio.sleep(0)
        far.send(b"x")
        loop.remove_reader(near)
        near.close()
        far.close()
        with peers.pair() as (near, far):
            fresh = loop.create_future()
            loop.add_reader(near, lambda fresh=fresh: fresh.done() or fresh.set_result(None))
            await asyncio.sleep(0)
            assert not fresh.done(), "woken by the data of another file"
            far.send(b"y")
            await fresh
            assert near.recv(10) == b"y"
            loop.remove_reader(near)
    assert stale == []


async def test_writers_too(loop):
    for number in range(300):
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            called = loop.create_future()
            loop.add_writer(near, lambda called=called: called.done() or called.set_result(None))
            if number % 2:
                await called
            loop.remove_writer(near)
            called.cancel()
        with peers.pair() as (near, far):
            peers.fill(near)
            stale = []
            loop.add_writer(near, stale.append, None)
            await asyncio.sleep(0)
            assert stale == []
            loop.remove_writer(near)


async def test_sock_recv_cancelled_and_its_number_reused_at_once(loop):
    numbers = set()
    for number in range(500):
        with peers.pair() as (near, far):
            numbers.add(near.fileno())
            task = loop.create_task(loop.sock_recv(near, 64))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not task.done()
            # The data comes while the receive is cancelled: it belongs to this socket or to nothing.
            if number % 2:
                far.send(b"old %d" % number)
            task.cancel()
            if number % 3:
                await asyncio.wait([task])
        with peers.pair() as (near, far):
            fresh = loop.create_task(loop.sock_recv(near, 64))
            await asyncio.sleep(0)
            far.send(b"new %d" % number)
            assert await fresh == b"new %d" % number
        await asyncio.wait([task])
    assert len(numbers) < 20


async def test_an_fd_number_goes_from_a_file_to_a_socket_and_back(loop):
    for _ in range(200):
        reading, writing = os.pipe()
        done = loop.create_future()
        loop.add_reader(reading, lambda done=done: done.done() or done.set_result(None))
        os.write(writing, b"x")
        await done
        loop.remove_reader(reading)
        os.close(reading)
        os.close(writing)
        with peers.pair() as (near, far):
            far.send(b"y")
            assert await loop.sock_recv(near, 10) == b"y"
        with open(os.devnull, "rb") as file:
            assert file.read() == b""


async def test_connections_that_come_and_go(loop):
    # The same through transports: a server whose connections are closed and replaced by others under the same
    # numbers.
    numbers = set()

    class Server(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            numbers.add(transport.get_extra_info("socket").fileno())

        def data_received(self, data):
            self.transport.write(b"<" + data + b">")

    server = await loop.create_server(Server, peers.LOOPBACK, 0)
    address = server.sockets[0].getsockname()
    for number in range(400):
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            await loop.sock_sendall(sock, b"%d" % number)
            if number % 2:
                assert await loop.sock_recv(sock, 100) == b"<%d>" % number
            if number % 4 == 0:
                peers.reset(sock)
    server.close()
    await server.wait_closed()
    assert len(numbers) < 100
