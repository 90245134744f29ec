"""A forked child tries to use its parent's loop, as the argument says; then the parent uses it."""

import asyncio
import os
import socket
import sys

import under_test

USES = {
    "run": lambda loop: loop.run_until_complete(asyncio.sleep(0.001)),
    "sock_recv": lambda loop: loop.run_until_complete(loop.sock_recv(far, 10)),
    "add_reader": lambda loop: loop.add_reader(0, print),
    "close": lambda loop: loop.close(),
}

loop = under_test.new_event_loop()
near, far = socket.socketpair()
near.setblocking(False)
far.setblocking(False)


async def start():
    task = asyncio.ensure_future(loop.sock_recv(near, 10))
    await asyncio.sleep(0.01)
    return task


task = loop.run_until_complete(start())
child = os.fork()
if child == 0:
    try:
        USES[sys.argv[1]](loop)
    except RuntimeError as error:
        print("refused" if "fork" in str(error) else f"unclear: {error}", flush=True)
        os._exit(0)
    # Only closing may succeed: it releases the child's copies and touches nothing of the
    # parent's.
    print("refused" if sys.argv[1] == "close" else "allowed", flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("parent", flush=True)
far.send(b"ok")
print(loop.run_until_complete(task).decode())
near.close()
far.close()
loop.close()
