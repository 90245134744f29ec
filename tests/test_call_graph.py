"""What Python 3.14 and later show of a task that waits: `sock_*` is a frame under it, as on asyncio."""

import asyncio
import os
import socket
import subprocess
import sys

import pytest
from support import peers
from support.loops import turns

pytestmark = [
    pytest.mark.skipif(sys.version_info < (3, 14), reason="Python has these tools since 3.14"),
    pytest.mark.not_on("uvloop", reason="its methods are no coroutines of Python's"),
]

WAITING = [
    "sock_recv",
    "sock_recv_into",
    "sock_sendall",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_accept",
]


def arguments(method):
    match method:
        case "sock_accept":
            return ()
        case "sock_recv" | "sock_recvfrom":
            return (100,)
        case "sock_sendall":
            return (bytes(1 << 20),)
    return (bytearray(100),)


@pytest.fixture
def waits(loop):
    """A function that makes a task which waits in the method of that name."""
    pairs = [socket.socketpair() for _ in range(2)]
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    tasks = []

    async def outer(method):
        sock = listener if method == "sock_accept" else pairs[0][0]
        sock.setblocking(False)
        await getattr(loop, method)(sock, *arguments(method))

    def make(method):
        tasks.append(loop.create_task(outer(method), name=f"waits in {method}"))
        return tasks[-1]

    yield make
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.wait(tasks))
    for sock in (listener, *pairs[0], *pairs[1]):
        sock.close()


@pytest.mark.parametrize("method", WAITING)
async def test_the_call_graph_has_the_frame(loop, waits, method):
    task = waits(method)
    await turns()
    graph = asyncio.capture_call_graph(task)
    names = [entry.frame.f_code.co_name for entry in graph.call_stack]
    assert names[-2:] == ["outer", method] or names[:2] == [method, "outer"]
    assert f"{method}()" in asyncio.format_call_graph(task)


@pytest.mark.parametrize("command", ["ps", "pstree"])
async def test_the_command_line_shows_the_frame(loop, waits, command):
    waits("sock_recv")
    await turns()

    def ask():
        return subprocess.run(
            [sys.executable, "-m", "asyncio", command, str(os.getpid())],
            capture_output=True,
            text=True,
            timeout=peers.PATIENCE,
            check=False,
        )

    # It reads a process that goes on running, and says so if what it has read does not fit together.
    for _ in range(10):
        done = await loop.run_in_executor(None, ask)
        if "insufficient permissions" in done.stdout + done.stderr:
            pytest.skip("this user may not read the memory of another process")
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    assert "waits in sock_recv" in done.stdout
    assert "Sockets.sock_recv" in done.stdout or "EventLoop.sock_recv" in done.stdout
