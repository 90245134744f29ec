"""``proact lab model``: a server that runs until it is stopped, or the reason why it can't run."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from proact.cli.app import dispatch
from proact.cli.error import CommandError
from proact.cli.lab_model import instructions
from proact.lab.registry import MODELS
from proact.lab.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "proact", "lab", "model", *arguments, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()  # in case it still runs


@pytest.mark.parametrize(("name", "blow"), [("epoll", signal.SIGINT), ("bare-threads", signal.SIGTERM)])
def test_it_is_fetched_from_and_then_stopped(
    name: str, blow: signal.Signals, wait_for_children: Callable[[int, int], dict[str, int]]
) -> None:
    with started(name) as process:
        assert process.stderr is not None
        url, wrk = process.stderr.readline(), process.stderr.readline()
        host, _, port = url.removeprefix(f"proact: {name}: http://").partition("/")[0].partition(":")
        assert wrk.endswith(f" http://{host}:{port}/bytes/1024\n")
        client = http.client.HTTPConnection(host, int(port), timeout=5)
        client.request("GET", "/")
        answer = client.getresponse()
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain")
        assert len(answer.read()) == int(answer.headers["Content-Length"]) > 0
        connection = client.sock
        client.request("GET", "/bytes/1024")
        assert len(client.getresponse().read()) == 1024
        assert client.sock is connection  # the connection was kept alive
        client.close()
        assert set(wait_for_children(process.pid, 1)) == {"serve"}
        process.send_signal(blow)
        out, said = process.communicate(timeout=20)
        assert (process.returncode, out, said) == (0, "", "proact: stopped\n")
        wait_for_children(process.pid, 0)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)), timeout=5)


def test_one_that_ends_by_itself_says_so(wait_for_children: Callable[[int, int], dict[str, int]]) -> None:
    with started("poll", "--workload", "echo") as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("proact: poll echoes on 127.0.0.1:")
        subprocess.run(["kill", "-KILL", str(wait_for_children(process.pid, 1)["serve"])], check=True)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (1, "proact: the server ended: killed by SIGKILL\n")


def test_it_is_told_how_to_be_tried() -> None:
    assert instructions(MODELS["blocking"], "mixed", "[::1]:80") == [
        "blocking: http://[::1]:80/ (Ctrl-C stops)",
        "wrk --threads 1 --connections 1 --duration 10 --latency http://[::1]:80/bytes/1024",
        "wrk --threads 1 --connections 1 --duration 10 --latency http://[::1]:80/disk",
    ]


@pytest.mark.parametrize("workload", WORKLOADS)
def test_what_is_told_fits_the_workload(workload: str) -> None:
    said = "\n".join(instructions(MODELS["epoll"], workload, "[::1]:80"))
    assert "[::1]:80" in said
    assert ("wrk" in said) == (workload in ("web", "mixed"))
    assert ("echoes" in said) == (workload in ("echo", "churn", "slow-readers", "tls"))
    assert ("nc ::1 80" in said) == (workload in ("cpu", "wait", "file", "fanout"))


def refused(*arguments: str) -> tuple[int, str]:
    with pytest.raises(CommandError) as caught:
        dispatch(["lab", "model", *arguments])
    return caught.value.exit_code, str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kqueue"], "unknown model 'kqueue': choose from blocking, threads, "),
        (["epoll,poll"], "one model serves one workload at a time"),
        (["epoll", "--workload", "files"], "unknown workload 'files': choose from echo, churn, web, mixed"),
        (["bare-epoll", "--workload", "mixed"], "bare-epoll: serves echo, churn, web, slow-readers only"),
        (["epoll", "--port", "70000"], "Invalid value for '--port'"),
        ([], "Missing argument 'MODEL'"),
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line(arguments: list[str], message: str) -> None:
    code, said = refused(*arguments)
    assert code == 2
    assert said.startswith(message)
    assert "\n" not in said


def test_a_model_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(MODELS["epoll"]), "missing", lambda model, connections, workload: "not here")
    assert refused("epoll") == (2, "epoll: not here")


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = f"can't listen on 127.0.0.1 port {port}: Address already in use"
        code, why = refused("epoll", "--port", str(port))
    assert code == 1
    assert why.startswith(said)
