"""An echo server that runs out of fds as often as its stdin says: prints its port, then `out` each time.

On each line, it takes all fds that are left until the server has reported that; `end` ends it.
"""

import asyncio
import contextlib
import os
import resource
import sys

import under_test


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def main():
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    out = asyncio.Event()
    loop.set_exception_handler(lambda *_: out.set())
    # Set before the server starts, because a ring's accept keeps the limit that it began with.
    limit = max(map(int, os.listdir("/proc/self/fd"))) + 40
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=100)
    print(server.sockets[0].getsockname()[1])
    while (await lines.readline()) != b"end\n":
        taken = []
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        print("few")
        await out.wait()
        out.clear()
        for fd in taken:
            os.close(fd)
        print("out")
    server.close()


under_test.run(main())
