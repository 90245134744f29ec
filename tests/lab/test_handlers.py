"""Handlers that compute, wait, read a file or ask other servers, through every model that serves them."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from proact.lab.load import apply
from proact.lab.models import pool
from proact.lab.server_process import ServerProcess, exchange
from proact.lab.workloads import WORKLOADS, Exchange, base, timed
from proact.lab.workloads.cpu import compute, rounds_for

#: Long enough that eight pauses one after the other can be told from eight at once on a busy machine.
PAUSE = "wait-300ms"

SERVED = ("cpu-50us", PAUSE, "file", "fanout")


@pytest.fixture
def pausing(several: ServerProcess) -> ServerProcess:
    """A running server of each model that takes several connections, whose handler pauses."""
    return several


def asked(server: ServerProcess, *sizes: int) -> list[bool]:
    """Whether each answer is the right one, all asked for at once on one connection."""
    exchanges = [WORKLOADS[server.workload].exchange(size) for size in sizes]
    requests = b"".join(each.request for each in exchanges if each)
    responses = b"".join(each.response for each in exchanges if each)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        back = exchange(connection, Exchange(requests, responses), 10)
    return [back == responses]


def test_the_answers_are_right_and_in_order(server: ServerProcess) -> None:
    assert asked(server, 0, 1, 1000, 300_000, 7) == [True]


def test_what_is_no_number_ends_the_connection(server: ServerProcess) -> None:
    if server.model == "rloop":
        pytest.skip("rloop leaves a transport open that is closed in data_received")
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert connection.recv(1) == b""
    assert asked(server, 3) == [True]


def test_pauses_run_at_once(pausing: ServerProcess) -> None:
    """Eight connections that pause 0.3 s each are answered sooner than in the 2.4 s of one after another."""
    right: list[bool] = []
    threads = [threading.Thread(target=lambda: right.extend(asked(pausing, 100))) for _ in range(8)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 8
    assert 0.3 <= time.monotonic() - begun < 2.0


def test_a_pause_is_slept(pausing: ServerProcess) -> None:
    if pausing.model == "nonblocking":
        pytest.skip("it never sleeps: that is the model")
    asked(pausing, 1)  # what is done once is done
    before = pausing.cpu_seconds()
    assert asked(pausing, 1) == [True]
    assert pausing.cpu_seconds() - before < 0.1


def test_a_pool_serves_as_many_pauses_at_once_as_it_has_threads() -> None:
    """Seventeen pauses on sixteen threads take two rounds, and the answers are right nevertheless."""
    with ServerProcess("pool", PAUSE) as server:
        right: list[bool] = []
        threads = [
            threading.Thread(target=lambda: right.extend(asked(server, 10))) for _ in range(pool.THREADS + 1)
        ]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert right == [True] * (pool.THREADS + 1)
        assert 0.6 <= time.monotonic() - begun < 0.3 * pool.THREADS
        assert server.threads()[0] == pool.THREADS + 1


def test_each_message_of_churn_has_a_connection_of_its_own() -> None:
    with ServerProcess("epoll", "churn") as server:
        spec = {"host": "127.0.0.1", "port": server.port, "connections": 2, "size": 100}
        answer = apply({**spec, "workload": "churn", "warmup": 0.0, "duration": 0.2})
        messages = answer["result"]["messages"]
        assert messages > 10
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as one:
            one.sendall(b"x")
            assert one.recv(1) == b"x"
        switched = apply({**spec, "workload": "echo", "warmup": 0.0, "duration": 0.2})
    assert switched["result"]["messages"] > messages  # connecting costs more than sending


def test_the_computation_takes_its_time() -> None:
    rounds = rounds_for(0.01)
    quickest = 1.0
    for _ in range(20):
        begun = time.thread_time()
        compute(rounds)
        quickest = min(quickest, time.thread_time() - begun)
    assert 0.005 < quickest < 0.02


def test_the_name_says_how_long() -> None:
    assert WORKLOADS["cpu-20us"].seconds == pytest.approx(2e-5)
    assert WORKLOADS["wait-2ms"].seconds == pytest.approx(2e-3)
    assert WORKLOADS["wait-1s"].seconds == 1
    assert [timed("wait", 0.002), timed("cpu", 0.00002)] == ["wait-2ms", "cpu-20us"]
    assert base("cpu-20us") == "cpu"
    assert base("files-random") == "files-random"
    for wrong in ("cpu-0us", "echo-5ms", "wait-3s", "wait-", "wait-5min", "cpu-5us-5us"):
        assert wrong not in WORKLOADS
        with pytest.raises(KeyError):
            WORKLOADS[wrong]
