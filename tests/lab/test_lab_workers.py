"""Several workers on one port: who has which connection, what all of them cost, and how they end."""

from __future__ import annotations

import os
import signal
import socket
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.watching import Watcher

from proact.lab.lifetime import all_but_the_loads, separate_cores
from proact.lab.models.shared_port import FEWEST
from proact.lab.registry import MODELS
from proact.lab.run import Settings, run
from proact.lab.server_process import ServerProcess
from proact.lab.summary import blocks, fullest
from proact.lab.table import notes
from proact.lab.timeline import SEVERAL

if TYPE_CHECKING:
    from collections.abc import Callable

WORKERS = [name for name, model in MODELS.items() if model.workers]


@pytest.fixture(params=WORKERS)
def model(request: pytest.FixtureRequest) -> str:
    if reason := MODELS[request.param].missing():
        pytest.skip(reason)
    return str(request.param)


def test_every_connection_is_some_workers(model: str) -> None:
    with ServerProcess(model, cpu=(min(os.sched_getaffinity(0)),)) as server:
        server.check(10)
        opened = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(40)]
        for connection in opened:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
        shares = server.shares()
        assert (len(shares), sum(shares)) == (FEWEST, 40)
        if model != "prefork":
            assert fullest(shares) < 2  # by a hash: all forty at one of two would be a chance of 2 ** -39
        for connection in opened:
            connection.close()
        deadline = time.monotonic() + 5
        while sum(server.shares()):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_the_figures_are_of_all_processes(model: str) -> None:
    with ServerProcess(model) as server:
        server.check(10)
        pids = server.pids()
        assert len(pids) == (1 if MODELS[model].arguments == ("threads",) else server_workers())
        assert server.threads()[0] >= server_workers()
        before = server.cpu_seconds()
        spent = 0.0
        while spent < 0.05:
            for _ in range(50):
                server.check(1000)
            spent = server.cpu_seconds() - before
        assert sum(server.ticks()) > 0
        assert 5 << 20 < server.resident_bytes() < 500 << 20


def server_workers() -> int:
    return max(FEWEST, len(os.sched_getaffinity(0)))


def test_workers_end_with_the_first(model: str, wait_for_children: Callable[[int, int], object]) -> None:
    with ServerProcess(model) as server:
        server.check(10)
        pids = server.pids()
        os.kill(server.pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while any(alive(pid) for pid in pids):
            assert time.monotonic() < deadline, pids
            time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_how_they_share_is_in_the_results() -> None:
    models = ("reuseport", "prefork", "epoll")
    settings = Settings(models=models, connections=(20,), duration=0.1, warmup=0.0, split=True)
    document = run(settings, Watcher())
    measured = {cell["model"]: cell["measured"] for cell in document["cells"]}
    workers = max(FEWEST, len(all_but_the_loads())) if separate_cores() else server_workers()
    for name in ("reuseport", "prefork"):
        found = measured[name]
        assert found is not None, document["cells"]
        assert (len(found["shares"]), sum(found["shares"]), found["unsplit"]) == (workers, 20, SEVERAL)
        assert found["occupied"]
        assert found["occupied"]["threads"] == workers
        assert found["counted"]
        assert 2 < found["counted"]["calls"] / found["counted"]["messages"] < 6
    assert measured["epoll"] is not None
    assert "shares" not in measured["epoll"]
    (block,) = blocks(document)
    said = [line.split(":")[0] for line in notes(block)]
    assert sorted(said) == ["prefork", "reuseport"]


def test_free_threads_need_an_interpreter_without_the_lock() -> None:
    reason = MODELS["free-threads"].missing()
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        assert reason is None
    else:
        assert reason is not None
        assert reason.startswith("not here: this Python has the GIL")


def test_the_fullest_is_measured_by_an_even_share() -> None:
    assert fullest([50, 50]) == 1
    assert fullest([75, 25]) == 1.5
    assert fullest([40, 0, 0, 0]) == 4


def test_no_worker_outlives_its_server() -> None:
    """An orphan would count as another program beside what is measured next."""
    with ServerProcess("prefork") as server:
        server.check(10)
        workers = server.pids()
        assert len(workers) > 1
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
