"""Runs a main that waits or works endlessly, as its argument says; prints what a Ctrl-C cleans up."""

import asyncio
import socket
import sys

import under_test


async def generator():
    try:
        yield
        yield
    finally:
        print("asyncgen")


async def idle():
    await asyncio.get_running_loop().create_future()


async def sleeping():
    await asyncio.sleep(3600)


async def receiving():
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        await asyncio.get_running_loop().sock_recv(near, 1)


async def busy():
    """The ready queue is never empty, so the loop never waits."""
    loop = asyncio.get_running_loop()

    def again():
        loop.call_soon(again)

    again()
    await loop.create_future()


async def computing():
    """Never leaves Python code for long, and only waits for its turn."""
    while True:
        sum(range(1000))
        await asyncio.sleep(0)


async def main(what):
    started = generator()
    await anext(started)
    print("ready")
    try:
        await what()
    except asyncio.CancelledError:
        print("cancelled")
        raise
    finally:
        print("finally")


under_test.run(main(globals()[sys.argv[1]]))
