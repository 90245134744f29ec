"""The probe in real servers, on work whose figures are known or can be derived by hand."""

from __future__ import annotations

import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.trials import once_of_five

from proact._core import Probe
from proact.lab.load_process import LoadProcess
from proact.lab.probe import Readings, split
from proact.lab.registry import MODELS
from proact.lab.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proact.lab.results import Split

#: The function of libc by which `select.poll` waits.
POLL = "ppoll" if sys.version_info >= (3, 15) else "poll"

PARTS = ("waiting", "copying", "asking", "run_queue", "user", "stalled", "probe")

#: Calls per message on a quiet connection, derived by hand: one that waits, if the model asks before it
#: receives, and one to receive and one to send. A loop may look again after it has received.
DERIVED = {
    "blocking": {"recv": 1, "send": 1},
    "threads": {"recv": 1, "send": 1},
    "select": {"select": 1, "recv": 1, "send": 1},
    "poll": {POLL: 1, "recv": 1, "send": 1},
    "epoll": {"epoll_wait": 1, "recv": 1, "send": 1},
    "asyncio": {"epoll_wait": 1, "recv": 1, "send": 1},
    "uvloop": {"epoll_pwait": 1, "read": 1, "write": 1},
    "bare-epoll": {"epoll_wait": 1, "recv": 1, "send": 1},
    "bare-threads": {"recv": 1, "send": 1},
}


@pytest.fixture(scope="module")
def load() -> Iterator[LoadProcess]:
    """One load process for all tests. A pass starts it here, because a test that leaves an fd open fails."""
    with LoadProcess() as load:
        with ServerProcess("threads") as server:
            spec = {"host": "127.0.0.1", "port": server.port, "connections": 1, "size": 100}
            load.apply(spec | {"warmup": 0.0, "duration": 0.01})
        yield load


def probed(load: LoadProcess, model: str) -> Split:
    """The split of a short echo load on one connection."""
    if reason := MODELS[model].missing():
        pytest.skip(reason)
    probe = Probe()
    with ServerProcess(model, probe=probe.fileno()) as server:
        server.check(100)
        readings = Readings(probe, server.cpu_seconds)
        spec = {"host": "127.0.0.1", "port": server.port, "connections": 1, "size": 100}
        answer = load.apply(spec | {"warmup": 0.05, "duration": 0.25}, readings.take)
        result = answer["result"]
        start = answer["begun"] + result["connect_seconds"] + 0.05
        found = readings.split(start, start + result["seconds"], result["messages"] / result["seconds"])
    assert found is not None
    return found


@pytest.mark.parametrize("model", [name for name in MODELS if name != "nonblocking"])
@once_of_five
def test_the_parts_are_all_of_the_time(load: LoadProcess, model: str) -> None:
    found = probed(load, model)
    parts = [found[part] for part in PARTS]  # type: ignore[literal-required]
    assert min(parts) >= -1e-3 * found["wall"], found  # the error of the kernel's accounts
    assert sum(parts) == pytest.approx(found["wall"], rel=0.001)
    # The threads that make calls live through the whole window, so their time is a multiple of it.
    threads = found["wall"] / found["seconds"]
    assert threads == pytest.approx(round(threads), rel=0.02), found
    assert 0 < found["probe_ns"] < 20_000
    if model in DERIVED:
        for call, number in DERIVED[model].items():
            assert found["calls"][call]["count"] / found["messages"] == pytest.approx(number, rel=0.15), call
        every = sum(each["count"] for each in found["calls"].values()) / found["messages"]
        assert every == pytest.approx(sum(DERIVED[model].values()), rel=0.15)
    if model == "bare-io_uring":
        assert found["ring_ops"] / found["messages"] == pytest.approx(1, rel=0.15)


def test_busy_polling_never_waits() -> None:
    probe: Any = Probe()
    with ServerProcess("nonblocking", probe=probe.fileno()) as server:
        server.check(1)
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:

            def window() -> Split:
                before, cpu = probe.snapshot(), server.cpu_seconds()
                time.sleep(0.1)
                connection.send(b"late")
                assert connection.recv(10) == b"late"  # so that the server has a core right now
                return split(before, probe.snapshot(), server.cpu_seconds() - cpu, 1.0)

            # The best of some tries: a snapshot of a server that stands in the run queue takes the current
            # wait there for waiting, because the kernel counts it when it ends, and on a busy machine that is
            # long.
            found = min((window() for _ in range(8)), key=lambda each: abs(each["waiting"] / each["wall"]))
    assert abs(found["waiting"]) < 0.02 * found["wall"]
    assert found["calls"]["recv"]["empty"] > 0


@pytest.mark.parametrize("model", ["blocking", "epoll", "asyncio", "proact-epoll", "proact-io_uring"])
@once_of_five
def test_data_that_is_50_ms_away_is_50_ms_of_waiting(model: str) -> None:
    if reason := MODELS[model].missing():
        pytest.skip(reason)
    probe: Any = Probe()
    with ServerProcess(model, probe=probe.fileno()) as server:
        server.check(1)
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.send(b"first")
            assert connection.recv(10) == b"first"
            time.sleep(0.02)  # it waits again
            before, cpu = probe.snapshot(), server.cpu_seconds()
            for _ in range(4):
                time.sleep(0.05)
                connection.send(b"late")
                assert connection.recv(10) == b"late"
            found = split(before, probe.snapshot(), server.cpu_seconds() - cpu, 1.0)
    assert found["waiting"] + found["run_queue"] > 0.2 - 0.02
    assert found["copying"] + found["asking"] + found["user"] < 0.04
