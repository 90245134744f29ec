"""The other end of connections, as plain sockets: nothing here depends on an event loop.

Every helper is a context manager that closes what it opened, so that a test's sockets are gone before the
leak check.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import struct
import threading
from collections.abc import Iterator

LOOPBACK = "127.0.0.1"
# The seconds after which a blocking peer gives up; a passing test does not come near it.
PATIENCE = 10


def payload(size: int, seed: int = 1) -> bytes:
    """`size` bytes without repetition, so that a lost, doubled or misplaced chunk shows."""
    return random.Random(seed).randbytes(size)


def digest(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def listening(backlog: int = 100, blocking: bool = False) -> Iterator[socket.socket]:
    with socket.create_server((LOOPBACK, 0), backlog=backlog) as sock:
        sock.setblocking(blocking)
        yield sock


@contextlib.contextmanager
def tcp_pair(buffer: int | None = None) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one TCP connection, non-blocking; `buffer` bounds the kernel's buffers (bytes)."""
    with listening(blocking=True) as listener:
        if buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        near = socket.socket()
        if buffer is not None:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


@contextlib.contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a Unix stream, non-blocking: the cheapest connection there is."""
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Read and write end of a pipe, non-blocking; a test may close either end itself through os.close."""
    ends = os.pipe()
    open_ends = {fd: os.fstat(fd).st_ino for fd in ends}
    for fd in ends:
        os.set_blocking(fd, False)
    try:
        yield ends
    finally:
        for fd, inode in open_ends.items():
            with contextlib.suppress(OSError):
                if os.fstat(fd).st_ino == inode:
                    os.close(fd)


@contextlib.contextmanager
def refusing() -> Iterator[tuple[str, int]]:
    """An address that surely refuses connections: it is bound, so nobody can take it, but not listening."""
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        yield sock.getsockname()


@contextlib.contextmanager
def unanswering() -> Iterator[tuple[str, int]]:
    """An address where a connection stays pending: the accept queue is full, so Linux drops further SYNs."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening(backlog=0))
        stack.enter_context(socket.create_connection(listener.getsockname(), timeout=PATIENCE))
        yield listener.getsockname()


def reset(sock: socket.socket) -> None:
    """Close with a RST instead of a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def fill(sock: socket.socket) -> int:
    """Send until the kernel takes no more; return how many bytes it took."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += sock.send(b"\xff" * 65536)
    return sent


def receive_all(sock: socket.socket) -> bytes:
    """Receive everything until EOF. It blocks: use it in a thread, or if the peer has already sent all."""
    sock.settimeout(PATIENCE)
    chunks = []
    while chunk := sock.recv(1 << 20):
        chunks.append(chunk)
    return b"".join(chunks)


def receive(sock: socket.socket, count: int) -> bytes:
    """Receive exactly `count` bytes, fewer at EOF. It blocks."""
    sock.settimeout(PATIENCE)
    data = bytearray()
    while len(data) < count and (chunk := sock.recv(count - len(data))):
        data += chunk
    return bytes(data)


@contextlib.contextmanager
def thread(function, *args) -> Iterator[threading.Thread]:
    """Run a thread; it is joined at the end, whatever happens."""
    runner = threading.Thread(target=function, args=args)
    runner.start()
    try:
        yield runner
    finally:
        runner.join()
