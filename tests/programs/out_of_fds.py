"""An echo server that may open few files: prints its port, and how busy it is when it has run out of them."""

import asyncio
import os
import resource
import sys
import time

import under_test


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def main():
    loop = asyncio.get_running_loop()
    out = loop.create_future()
    reports = 0

    def report(_loop, context):
        nonlocal reports
        reports += 1
        if not out.done():
            out.set_result(context)

    loop.set_exception_handler(report)
    # Room for twenty connections. Set it before the server starts, because a ring's accept keeps the old
    # limit.
    limit = len(os.listdir("/proc/self/fd")) + 21
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    ended = loop.create_future()
    loop.add_reader(0, lambda: ended.done() or ended.set_result(None))
    print(server.sockets[0].getsockname()[1])
    context = await out
    assert isinstance(context["exception"], OSError), context
    assert "socket.accept() out of system resource" in context["message"], context
    print("out of fds")
    before = time.process_time()
    # The next attempt, a second later, fails too.
    await asyncio.sleep(1.5)
    print(time.process_time() - before, reports)
    await ended
    loop.remove_reader(0)
    server.close()
    await server.wait_closed()
    print("closed")
    sys.stdout.flush()


under_test.run(main())
