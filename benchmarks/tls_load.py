"""Owns: the load on a TLS echo server: many connections on one thread, closed loop, every byte verified.

It does in Python what load.py's Rust does for plain bytes, with `ssl`, plain non-blocking sockets and epoll:
no event loop's TLS is on this side. It costs more than the Rust load, so its share of its core is part of the
result (`load_busy`): near 1, the load limits the rate, and only the server's CPU time per message counts.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from typing import Any

from benchmarks import children

CERTIFICATES = children.ROOT / "tests" / "certificates"
NAME = "localhost"
PLACES = 16
"""The number of messages made beforehand. Neighbours in time and place send different ones."""
STALL_TIMEOUT = 10.0


class LoadError(Exception):
    """The server did something other than echo."""


class Connection:
    """One connection and its message under way."""

    def __init__(self, stream: ssl.SSLSocket, messages: list[bytes], place: int) -> None:
        self.stream = stream
        self.messages = messages
        self.place = place
        size = len(messages[0])
        self.view = memoryview(bytearray(size))
        self.sent = self.received = size
        self.began = 0

    def begin(self) -> bool:
        """Begin the next message; return whether all of it is sent."""
        self.place = (self.place + 1) % PLACES
        self.sent = self.received = 0
        self.began = time.monotonic_ns()
        return self.send()

    def send(self) -> bool:
        """Send as much as the socket takes; return whether all of the message is sent."""
        message = memoryview(self.messages[self.place])
        try:
            while self.sent < len(message):
                self.sent += self.stream.send(message[self.sent :])
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return False
        return True

    def receive(self) -> bool:
        """Receive what has come; return whether the whole echo is here. Raises LoadError if it is wrong."""
        size = len(self.view)
        try:
            while self.received < size:
                count = self.stream.recv_into(self.view[self.received :])
                if not count:
                    raise LoadError("the server closed a connection")
                self.received += count
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        if self.view.obj != self.messages[self.place]:
            raise LoadError("an echo is not what was sent")
        return True


def connect(port: int, count: int, size: int) -> list[Connection]:
    """Open all connections. The server must have a certificate of the test authority."""
    context = ssl.create_default_context(cafile=CERTIFICATES / "authority.pem")
    messages = [os.urandom(size) for _ in range(PLACES)]
    connections = []
    for number in range(count):
        plain = socket.create_connection(("127.0.0.1", port), timeout=STALL_TIMEOUT)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = context.wrap_socket(plain, server_hostname=NAME)
        stream.setblocking(False)
        connections.append(Connection(stream, messages, number))
    return connections


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """Load the server; return a report like that of `_core.echo_load`, with `server_cpu_seconds`."""
    pid, size, duration = settings["pid"], settings["size"], settings["duration"]
    connections = connect(settings["port"], settings["connections"], size)
    epoll = select.epoll()
    by_fd = {connection.stream.fileno(): connection for connection in connections}
    both = select.EPOLLIN | select.EPOLLOUT
    for fd, connection in by_fd.items():
        epoll.register(fd, select.EPOLLIN if connection.begin() else both)

    latencies: list[int] = []
    opens = time.monotonic() + settings["warmup"]
    began = cpu = server_cpu = 0.0
    while True:
        events = epoll.poll(STALL_TIMEOUT)
        if not events:
            raise LoadError(f"nothing came back for {STALL_TIMEOUT:.0f} s")
        now = time.monotonic()
        if not began:
            if now >= opens:
                began, cpu, server_cpu = now, time.thread_time(), children.cpu_seconds(pid)
                latencies.clear()
        elif now >= began + duration:
            seconds, cpu = now - began, time.thread_time() - cpu
            server_cpu = children.cpu_seconds(pid) - server_cpu
            break
        for fd, event in events:
            connection = by_fd[fd]
            if event & select.EPOLLOUT and connection.send():
                epoll.modify(fd, select.EPOLLIN)
            if event & ~select.EPOLLOUT and connection.receive():
                latencies.append(time.monotonic_ns() - connection.began)
                if not connection.begin():
                    epoll.modify(fd, both)
    latencies.sort()

    def quantile(share: float) -> int:
        return latencies[min(int(share * len(latencies)), len(latencies) - 1)] if latencies else 0

    return {
        "messages": len(latencies),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "server_cpu_seconds": server_cpu,
        "latency_ns": {"p50": quantile(0.5), "p99": quantile(0.99), "p99.9": quantile(0.999)},
    }
