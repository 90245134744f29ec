"""Green sockets, and gevent's, on the rings of older kernels: no multishot poll before Linux 5.13."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import loops

green = pytest.importorskip("proact.green")

OLD = {
    "no multishot poll": "multishot_poll",
    "Linux 5.10": "multishot_poll,multishot_recv,multishot_accept,buf_ring,defer_taskrun,single_issuer,"
    "coop_taskrun,plain,ext_arg,no_iowait,ring_fds",
    "hardly anything": "multishot_poll,recv,send,accept,connect,close,shutdown,buf_ring",
}


@pytest.fixture(params=OLD)
def denied(request, monkeypatch):
    if refusal := loops.unavailable("io_uring"):
        pytest.skip(refusal)
    monkeypatch.setenv("PROACT_URING_DENY", OLD[request.param])
    return OLD[request.param]


def dialogue():
    """Messages, bytes that nobody asks for, a kill where bytes come, the end."""
    first, second = green.socketpair()
    with first, second:
        got = []

        def read():
            while data := first.recv(100):
                got.append(data)

        reader = green.spawn(read)
        for number in range(50):
            green.sleep(0)
            second.sendall(b"%d" % number)
            while len(got) <= number:
                green.sleep(0.001)
        green.sleep(0)
        second.sendall(b"kept")
        reader.kill()
        loop = reader.hub.loop
        before = loop.stats()["syscalls"]
        green.sleep(0.05)
        # The loop sleeps although bytes are there.
        assert loop.stats()["syscalls"] - before < 40
        assert b"".join(got[50:]) + (first.recv(100) if len(got) == 50 else b"") == b"kept"
        waiting = green.spawn(first.recv, 100)
        green.sleep(0)
        second.sendall(b"last")
        second.close()
        assert waiting.get(20) == b"last"
        assert first.recv(1) == b""


def server():
    with green.create_server(("127.0.0.1", 0)) as listener:

        def talk():
            with green.create_connection(listener.getsockname()) as connection:
                for size in (1, 1000, 1_000_000):
                    connection.sendall(bytes(size))
                    got = 0
                    while got < size:
                        got += len(connection.recv(65536))

        def answer(connection):
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data)

        clients = [green.spawn(talk) for _ in range(10)]
        for _ in clients:
            green.spawn(answer, listener.accept()[0])
        for client in clients:
            client.get(20)


@pytest.mark.parametrize("case", [dialogue, server], ids=lambda case: case.__name__)
def test_green(denied, case):
    green.run_main(case, engine="io_uring")


def test_the_ring_says_so(denied, proact):
    loop = proact.new_event_loop("io_uring")
    lines = loop.stats()["fallbacks"]
    loop.close()
    assert any(line.startswith("poll_multi (multishot_poll") for line in lines)


@pytest.mark.parametrize(
    "name", ["time_limits", "ends_from_outside", "closed_behind_its_back", "interrupted_in_recv"]
)
def test_gevent(denied, name):
    pytest.importorskip("gevent", reason="gevent is optional, and this Python may have no wheel of it")
    here = Path(__file__).parent
    paths = [str(here.parent.parent / "python"), os.environ.get("PYTHONPATH", "")]
    settings = {"GEVENT_LOOP": "proact.green.gevent_loop.Loop", "PROACT_ENGINE": "io_uring"}
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(paths), **settings)
    done = subprocess.run(
        [sys.executable, str(here / "gevent_socket_cases.py"), name],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
