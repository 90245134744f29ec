"""`fs.sendfile`: what part of a file goes out, from which kind of file, through which kind of end."""

import asyncio
import socket

import pytest
from support import peers

import proact as package
from proact import fs


@pytest.fixture
def path(tmp_path):
    (tmp_path / "file").write_bytes(peers.payload(500_000))
    return tmp_path / "file"


async def received(reader, count):
    async with asyncio.timeout(20):
        return await reader.readexactly(count)


async def test_through_a_stream(loop, path):
    content = path.read_bytes()
    here, there = socket.socketpair()
    # Each pair is kept: a stream closes when nobody holds its reader.
    reader, back = await asyncio.open_connection(sock=there)
    unread, writer = await asyncio.open_connection(sock=here)
    async with package.open(path, "rb") as file:
        await file.seek(7)
        for offset, count in ((0, None), (100, 200_000), (499_990, 100)):
            end = len(content) if count is None else min(offset + count, len(content))
            writer.write(b"before")
            sent = asyncio.create_task(fs.sendfile(writer, file, offset, count))
            assert await received(reader, 6 + end - offset) == b"before" + content[offset:end]
            assert await sent == end - offset
        assert await file.tell() == 7
    with path.open("rb") as plain:
        for source in (plain, plain.fileno()):
            assert await fs.sendfile(writer.transport, source, 10, 20) == 20
            assert await received(reader, 20) == content[10:30]
    for one in (writer, back):
        one.close()
        await one.wait_closed()
    assert unread.at_eof()


async def test_through_a_socket(loop, path):
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        there.setblocking(False)
        async with package.open(path, "r+b") as file:
            await file.write(b"new")
            assert await fs.sendfile(here, file, 0, 10) == 10
            assert await loop.sock_recv(there, 100) == b"new" + path.read_bytes()[3:10]
