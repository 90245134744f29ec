"""Forks inside a running loop with ops in flight; the child exits, or runs its own loop first."""

import asyncio
import os
import socket
import sys

import under_test


async def talk(loop):
    """Some I/O that proves the loop works."""
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        task = loop.create_task(loop.sock_recv(near, 10))
        await asyncio.sleep(0.005)
        far.send(b"hello")
        assert await task == b"hello"


async def childs_main():
    await talk(asyncio.get_running_loop())
    print("child", flush=True)


async def main():
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    reading, writing = os.pipe()
    with near, far:
        near.setblocking(False)
        waiting = loop.create_task(loop.sock_recv(near, 10))
        readable = loop.create_future()
        loop.add_reader(reading, lambda: readable.done() or readable.set_result(None))
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        await asyncio.sleep(0.01)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if sys.argv[1] == "own loop":
                    asyncio._set_running_loop(None)
                    under_test.run(childs_main())
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        assert not waiting.done()
        far.send(b"for us")
        assert await waiting == b"for us"
        os.write(writing, b"x")
        await readable
        loop.remove_reader(reading)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await talk(loop)
    os.close(reading)
    os.close(writing)
    print("parent", flush=True)


under_test.run(main())
