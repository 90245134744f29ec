"""A callback writes and forks: the child continues the turn, and the bytes are sent once."""

import asyncio
import os
import signal
import socket

import under_test

near, far = socket.socketpair()
parent = os.getpid()


async def main():
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)

    def write_and_fork():
        transport.write(b"once")
        if child := os.fork():
            os.waitpid(child, 0)
        else:
            signal.alarm(5)
            os.close(2)

    loop.call_soon(write_and_fork)
    await asyncio.sleep(0.01)
    transport.close()
    await asyncio.sleep(0.01)


loop = under_test.new_event_loop()
try:
    loop.run_until_complete(main())
finally:
    if os.getpid() != parent:
        os._exit(0)
received = b""
while data := far.recv(100):
    received += data
print(received.decode())
far.close()
loop.close()
