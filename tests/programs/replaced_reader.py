"""Replaces a method of asyncio's stream reader before anything connects, as tools that observe do."""

import asyncio
import functools
import socket

import under_test

feed_data = asyncio.StreamReader.feed_data
fed = []


@functools.wraps(feed_data)
def watched(self, data):
    fed.append(data)
    feed_data(self, data)


asyncio.StreamReader.feed_data = watched


async def main():
    ours, theirs = socket.socketpair()
    with theirs:
        reader, writer = await asyncio.open_connection(sock=ours)
        theirs.send(b"seen")
        assert await reader.readexactly(4) == b"seen"
        print(b"".join(fed).decode())
        writer.close()
        await writer.wait_closed()


under_test.run(main())
