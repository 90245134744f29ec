"""A daemon thread's loop is in some state while the interpreter exits: `daemon_at_exit.py STATE RUNS`.

Forks RUNS children; each of them starts the thread and exits with 5. Prints their exit codes.

A worked state, `daemon_at_exit.py "busy debug" 3`: each of three children starts a daemon thread, which runs
the coroutine `busy` on a new loop in debug mode. When `busy` has set `ready`, the child calls `sys.exit(5)`:
the interpreter ends while the loop turns. The program prints `[5]` if all three ended with 5, and not with a
crash.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import under_test

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from support import tls
from support.protocols import Recorder

ready = threading.Event()


async def pair():
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


async def busy():
    while True:
        await asyncio.sleep(0)
        ready.set()


async def asleep():
    ready.set()
    await asyncio.sleep(3600)


async def computing():
    ready.set()
    while True:
        sum(range(1000))


async def blocked():
    ready.set()
    time.sleep(3600)


async def timers():
    loop = asyncio.get_running_loop()
    while True:
        for number in range(10):
            loop.call_later(number / 10000, ready.set)
        await asyncio.sleep(0.0005)


async def resolving():
    # At the interpreter's end the executor accepts no more work.
    with contextlib.suppress(RuntimeError):
        while True:
            await asyncio.get_running_loop().getaddrinfo("localhost", 80)
            ready.set()
    await asyncio.sleep(3600)


async def receiving():
    near, _far = await pair()
    task = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(near, 10))
    await asyncio.sleep(0)
    ready.set()
    await task


async def transferring():
    loop = asyncio.get_running_loop()
    near, far = await pair()
    while True:
        await asyncio.gather(loop.sock_recv(near, 10), loop.sock_sendall(far, b"data"))
        ready.set()


async def streaming():
    near, far = await pair()
    # Keep the writer: a writer that is collected closes its connection.
    reader, _near = await asyncio.open_connection(sock=near)
    _far, writer = await asyncio.open_connection(sock=far)
    while True:
        writer.write(bytes(1000))
        await reader.readexactly(1000)
        ready.set()


async def unanswered_handshake():
    near, _far = await pair()
    loop = asyncio.get_running_loop()
    loop.call_later(0.005, ready.set)
    await loop.create_connection(
        asyncio.Protocol, sock=near, ssl=tls.client_context(), server_hostname=tls.NAME
    )


async def shaking_hands():
    loop = asyncio.get_running_loop()
    while True:
        ready.set()
        async with tls.connected(loop, lambda: Recorder(loop), lambda: Recorder(loop)) as (client, server):
            client.transport.write(b"x")
            await server.received(1)


async def called_from_a_thread():
    loop = asyncio.get_running_loop()

    def call():
        while True:
            loop.call_soon_threadsafe(ready.set)

    threading.Thread(target=call, daemon=True).start()
    await asyncio.sleep(3600)


async def left_open():
    loop = asyncio.get_running_loop()
    kept.append(loop)
    for _ in range(3):
        near, far = await pair()
        kept.append((await asyncio.open_connection(sock=near), far))
        kept.append(await loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
        kept.append(
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        )
        near, far = await pair()
        kept.append((asyncio.ensure_future(loop.sock_recv(near, 1)), near, far))
        kept.append(loop.call_later(3600, print))
        loop.add_reader(far, print)
        await asyncio.sleep(0)


kept = []


def serve(state, debug):
    loop = under_test.new_event_loop()
    loop.set_debug(debug)
    # Errors that the end of the interpreter causes in the program's own code don't matter here.
    loop.set_exception_handler(lambda *_: None)
    loop.run_until_complete(globals()[state]())


def main(state, runs):
    children = []
    for _ in range(int(runs)):
        if not (child := os.fork()):
            break
        children.append(child)
    else:
        print(sorted({os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}))
        return
    signal.alarm(30)
    name, _, debug = state.partition(" ")
    if name == "left_open":
        serve(name, bool(debug))
    else:
        threading.Thread(target=serve, args=(name, bool(debug)), daemon=True).start()
        assert ready.wait(20)
    sys.exit(5)


main(*sys.argv[1:])
