"""Prints how many system calls a loop says that it made for some work, twice as much work each time.

Usage: ENGINE WORK. It prints a line before each round and waits for a line on stdin, so that another program
can count as well. Between two of its lines it makes one `read` of stdin, the round's calls, and one `write`.
"""

import asyncio
import contextlib
import gc
import os
import socket
import sys

import proact

WORK = 200


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def protocols(loop):
    """A message there and back through two transports."""
    here, there = socket.socketpair()
    await loop.create_connection(Echo, sock=there)
    reader, writer = await asyncio.open_connection(sock=here)

    async def once():
        writer.write(b"x" * 100)
        assert await reader.readexactly(100)

    yield once
    writer.close()


async def operations(loop):
    """A message there and back through `sock_` operations."""
    here, there = socket.socketpair()
    for sock in (here, there):
        sock.setblocking(False)

    async def once():
        await loop.sock_sendall(here, b"x" * 100)
        data = await loop.sock_recv(there, 100)
        await loop.sock_sendall(there, data)
        assert await loop.sock_recv(here, 100)

    yield once
    here.close()
    there.close()


async def datagrams(loop):
    """A datagram there and back."""
    answer = loop.create_future()

    class Mirror(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, addr):
            self.transport.sendto(data, addr)

    class Client(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr):
            answer.set_result(data)

    far, _ = await loop.create_datagram_endpoint(Mirror, local_addr=("127.0.0.1", 0))
    address = far.get_extra_info("sockname")
    near, _ = await loop.create_datagram_endpoint(Client, remote_addr=address)

    async def once():
        # Not a queue: it asks for the running loop, for which Python 3.11 calls getpid.
        nonlocal answer
        answer = loop.create_future()
        near.sendto(b"x" * 100)
        assert await answer

    yield once
    near.close()
    far.close()


async def pipes(loop):
    """A message through a pipe."""
    read, write = os.pipe()
    reader = asyncio.StreamReader()
    source, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", 0)
    )
    sink, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(write, "wb", 0))

    async def once():
        sink.write(b"x" * 100)
        assert await reader.readexactly(100)

    yield once
    sink.close()
    source.close()


async def main():
    loop = asyncio.get_running_loop()
    work = contextlib.asynccontextmanager(globals()[sys.argv[2]])
    async with work(loop) as once:
        for _ in range(WORK):
            await once()
        gc.disable()
        for factor in (1, 2, 3):
            print(loop.stats()["syscalls"], flush=True)
            sys.stdin.readline()
            for _ in range(factor * WORK):
                await once()
        print(loop.stats()["syscalls"], flush=True)
        sys.stdin.readline()


with asyncio.Runner(loop_factory=lambda: proact.new_event_loop(sys.argv[1])) as runner:
    runner.run(main())
