"""An fd beyond FD_SETSIZE (1024) on the select engine gets an error of its own, and the loop continues."""

import asyncio
import os
import resource
import socket

import under_test

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(2048, hard), hard))


async def main():
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    high = os.dup(near.fileno())
    lower = []
    while high < 1100:
        lower.append(high)
        high = os.dup(near.fileno())
    for fd in lower:
        os.close(fd)
    with near, far, socket.socket(fileno=high) as sock:
        sock.setblocking(False)
        for what in (lambda: loop.sock_recv(sock, 1), lambda: reader(loop, sock)):
            try:
                await what()
            except (OSError, ValueError) as error:
                told = str(error)
            else:
                raise AssertionError("no error")
            assert "FD_SETSIZE" in told or "1024" in told, told
        near.setblocking(False)
        far.send(b"x")
        assert await loop.sock_recv(near, 1) == b"x"
    print("clear error, loop alive")


async def reader(loop, sock):
    loop.add_reader(sock, print)


under_test.run(main())
