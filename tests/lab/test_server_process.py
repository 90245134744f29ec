"""A server process: the readings from outside are true, and no process is ever left running."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from support.trials import once_of_five

from proact.lab.server_process import ServerError, ServerProcess


def gone(pid: int, within: float = 5.0) -> bool:
    """Whether the process ends within so many seconds. A zombie of another parent has ended too."""
    deadline = time.monotonic() + within
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)


def stand_in(tmp_path: Path, code: str) -> tuple[str, ...]:
    """A command that takes a server's arguments: ``fd`` is the inherited socket."""
    path = tmp_path / "server.py"
    path.write_text(
        "import json, os, socket, sys, time\n"
        "fd = int(next(word for word in sys.argv if word.startswith('--fd='))[5:])\n"
        "listener = socket.socket(fileno=fd)\n"
        "def ready(): print(json.dumps({'port': listener.getsockname()[1]}), flush=True)\n"
        + textwrap.dedent(code)
    )
    return (sys.executable, str(path))


def test_leaving_the_context_ends_the_server() -> None:
    with ServerProcess("threads") as server:
        server.check(100)
        pid = server.pid
    assert gone(pid, 0.1)


def test_an_exception_ends_the_server() -> None:
    with pytest.raises(KeyboardInterrupt), ServerProcess("threads") as server:
        pid = server.pid
        raise KeyboardInterrupt
    assert gone(pid, 0.1)


def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    command = stand_in(tmp_path, "import signal; signal.signal(15, signal.SIG_IGN); ready(); time.sleep(60)")
    with ServerProcess("stubborn", command=command) as server:
        pid = server.pid
    assert gone(pid, 0.1)


def test_a_server_dies_with_its_parent() -> None:
    code = (
        "from proact.lab.server_process import ServerProcess\n"
        "import time\n"
        "with ServerProcess('threads') as server:\n"
        "    print(server.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert gone(pid)


def test_by_hand_it_says_its_port_and_ends_on_sigterm() -> None:
    command = [sys.executable, "-m", "proact.lab.serve", "poll"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["pid"] == process.pid
        with socket.create_connection(("127.0.0.1", said["port"]), timeout=5) as connection:
            connection.send(b"hello")
            assert connection.recv(5) == b"hello"
        process.terminate()
        assert process.wait(5) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("sys.exit('this machine is too small')", "exit code 1: this machine is too small"),
        ("os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
        ("print('{\"port\": 1}', flush=True); time.sleep(60)", "serves on another port"),
    ],
)
def test_one_that_does_not_start_says_why(tmp_path: Path, code: str, reason: str) -> None:
    with (
        pytest.raises(ServerError, match=reason),
        ServerProcess("broken", command=stand_in(tmp_path, code)),
    ):
        pass


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("ready(); time.sleep(60)", "no answer to 10 bytes within 2 s"),
        (
            "ready(); c = listener.accept()[0]; c.recv(99); c.close(); time.sleep(60)",
            "answered 0 of 10 bytes",
        ),
        ("ready(); c = listener.accept()[0]; c.sendall(bytes(10)); time.sleep(60)", "or other bytes"),
        ("ready(); c = listener.accept()[0]; c.recv(99); raise ValueError('fd')", "code 1: ValueError: fd"),
    ],
)
def test_one_that_does_not_echo_says_so(tmp_path: Path, code: str, reason: str) -> None:
    with ServerProcess("broken", command=stand_in(tmp_path, code)) as server:
        with pytest.raises(ServerError, match=reason):
            server.check(10, timeout=2)


def in_queue(pid: int) -> float:
    """How long a process of one thread has been runnable but not running so far, in seconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


@once_of_five
def test_cpu_time_is_the_servers() -> None:
    with ServerProcess("nonblocking") as busy, ServerProcess("poll") as idle:
        busy.check(1)
        idle.check(1)
        before = busy.cpu_seconds(), idle.cpu_seconds(), in_queue(busy.pid), time.monotonic()
        # Wait until it has had a core for so long: on a busy machine it gets one seldom.
        while (busy_used := busy.cpu_seconds() - before[0]) < 0.2:
            assert time.monotonic() - before[3] < 20
            time.sleep(0.01)
        idle_used, queued = idle.cpu_seconds() - before[1], in_queue(busy.pid) - before[2]
        wall = time.monotonic() - before[3]
    assert busy_used <= wall * 1.05
    # It never sleeps, so it ran or was runnable. The kernel has not counted its current wait in the queue.
    assert busy_used + queued == pytest.approx(wall, rel=0.3)
    assert idle_used < 0.02


def test_threads_and_memory_are_counted() -> None:
    with ServerProcess("threads") as server:
        server.check(1)
        memory = server.resident_bytes()
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
                stack.enter_context(connection)
                connection.send(b"x")
                assert connection.recv(1) == b"x"
            assert server.threads() == (1 + 20, 0)
            assert len(server.switches()) == 1 + 20
            assert 20 * 4096 < server.resident_bytes() - memory < 20 * 1024 * 1024
    with pytest.raises(ServerError):
        server.threads()


def test_it_runs_on_the_core_that_it_is_given() -> None:
    core = max(os.sched_getaffinity(0))
    with ServerProcess("threads", cpu=core) as server:
        assert os.sched_getaffinity(server.pid) == {core}
