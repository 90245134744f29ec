"""Every model serves: the bytes come back, whatever their size, and whatever other clients do."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import socket
import struct
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from proact.lab.registry import MODELS, missing_engine
from proact.lab.server_process import NOT_NOW, ServerProcess, exchange
from proact.lab.workloads import Exchange

KIB = 1024


SERVED = ("echo", "tls")


def connect(server: ServerProcess) -> socket.socket:
    return server.connect(5)


def echoed(connection: socket.socket, message: bytes, timeout: float = 5) -> bytes:
    return exchange(connection, Exchange(message, message), timeout)


@pytest.mark.parametrize("size", [1, 64 * KIB, 1024 * KIB])
def test_it_echoes(server: ServerProcess, size: int) -> None:
    message = os.urandom(size)
    with connect(server) as connection:
        for _ in range(2):
            returned = echoed(connection, message)
            assert hashlib.sha256(returned).digest() == hashlib.sha256(message).digest()


def test_many_connections_do_not_mix(several: ServerProcess) -> None:
    messages = [os.urandom(300_000 + i) for i in range(8)]
    connections = [connect(several) for _ in messages]
    returned: dict[int, bytes] = {}

    def talk(i: int) -> None:
        returned[i] = echoed(connections[i], messages[i], timeout=10)

    threads = [threading.Thread(target=talk, args=(i,)) for i in range(len(messages))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for connection in connections:
        connection.close()
    assert [returned[i] == message for i, message in enumerate(messages)] == [True] * len(messages)


def test_a_peer_that_does_not_read_holds_up_nobody(several: ServerProcess) -> None:
    if several.model == "asyncio-greedy":
        pytest.skip("it takes all that is sent: that is the model")
    with connect(several) as deaf, connect(several) as other:
        deaf.setblocking(False)
        sent = 0
        deadline = time.monotonic() + 20
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < 0.1:  # until the server has stopped reading from this client
            assert time.monotonic() < deadline, f"the server took {sent} bytes that nobody reads"
            try:
                sent += deaf.send(bytes(64 * KIB))
                quiet_since = time.monotonic()
            except NOT_NOW:
                time.sleep(0.01)
        assert echoed(other, b"still here?", timeout=2) == b"still here?"
        deaf.settimeout(5)  # its bytes come back when it reads after all
        back = 0
        while back < sent:
            back += len(deaf.recv(1024 * KIB))
        assert back == sent


def test_resets_end_only_their_connection(several: ServerProcess) -> None:
    with connect(several) as witness:
        for size in (0, 1, 200_000):
            with connect(several) as rude:
                rude.setblocking(False)
                if size:
                    rude.send(bytes(size))
                # Closing with this option set sends RST.
                rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert echoed(witness, b"unharmed") == b"unharmed"
    several.check(10)


def test_a_burst_of_connections_is_accepted(several: ServerProcess) -> None:
    connections = [connect(several) for _ in range(200)]
    for connection in connections:
        connection.send(b"x")
    assert {connection.recv(1) for connection in connections} == {b"x"}
    for connection in connections:
        connection.close()


def test_an_idle_server_sleeps(server: ServerProcess) -> None:
    with connect(server) as connection:
        assert echoed(connection, b"once") == b"once"
        time.sleep(0.02)

        def used() -> float:
            before = server.cpu_seconds()
            time.sleep(0.1)
            return server.cpu_seconds() - before

        if server.model == "nonblocking":
            # Busy polling burns a core even if nothing happens, as soon as it gets one.
            assert any(used() > 0.02 for _ in range(50))
        else:
            # A server that spins does so in every try; a machine does not charge time by mistake in every
            # try.
            assert any(used() < 0.02 for _ in range(5))


@pytest.mark.parametrize("model", ["gevent", "proact.green", "gevent-proact"])
def test_what_greenlets_wait_by(model: str) -> None:
    for reason in (MODELS[model].missing(), missing_engine("io_uring")):
        if reason:
            pytest.skip(reason)
    with ServerProcess(model) as server:
        server.check(1)
        held = {os.readlink(fd) for fd in Path(f"/proc/{server.pid}/fd").iterdir()}
    by = "eventpoll" if model == "gevent" else "io_uring"
    assert f"anon_inode:[{by}]" in held
    assert ("anon_inode:[io_uring]" in held) == (model != "gevent")


def test_more_signals_than_the_queue_takes() -> None:
    """The kernel then sends a plain SIGIO, and no client's message may be left unread."""
    if reason := MODELS["sigio"].missing():
        pytest.skip(reason)
    with ServerProcess("sigio") as server:
        resource.prlimit(server.pid, resource.RLIMIT_SIGPENDING, (2, 2))
        connections = [connect(server) for _ in range(20)]
        for connection in connections:
            assert echoed(connection, b"accepted") == b"accepted"
        os.kill(server.pid, signal.SIGSTOP)
        for number, connection in enumerate(connections):
            connection.settimeout(5)
            connection.send(bytes([number]))
        late = connect(server)
        late.send(b"late")
        os.kill(server.pid, signal.SIGCONT)
        assert [connection.recv(2) for connection in connections] == [bytes([n]) for n in range(20)]
        assert late.recv(5) == b"late"
        for connection in (*connections, late):
            connection.close()


def test_aio_ends_rather_than_lose_a_completion() -> None:
    if reason := MODELS["aio"].missing():
        pytest.skip(reason)
    with ServerProcess("aio") as server:
        resource.prlimit(server.pid, resource.RLIMIT_SIGPENDING, (2, 2))
        for connection in [connect(server) for _ in range(3)]:
            connection.close()
        said = server.ended(grace=5)
    assert said is not None
    assert said.endswith("RuntimeError: 3 operations at once, and only 2 signals fit (ulimit -i)")


def test_what_a_model_lacks_is_said() -> None:
    unknown = replace(MODELS["libevent"], library=("libnosuch.so.7", "libnosuch7"))
    assert unknown.missing() == "libnosuch.so.7 is not installed: apt install libnosuch7"


def test_a_layout_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.maxsize", 2**31 - 1)
    assert MODELS["sigio"].missing() == "layout of siginfo_t known for 64-bit glibc only"
