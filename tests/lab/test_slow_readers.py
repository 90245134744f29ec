"""Clients that read slowly: who holds their bytes, and that the others are served."""

from __future__ import annotations

import pytest
from support.watching import Watcher

from proact.lab.load import apply
from proact.lab.registry import MODELS
from proact.lab.run import Settings, run
from proact.lab.server_process import ServerProcess
from proact.lab.summary import blocks, growth
from proact.lab.table import SLOW_READERS_NOTE, notes
from proact.lab.workloads import LAZY

SERVED = ("slow-readers",)

MEBI = 1 << 20


def test_the_fast_are_served_and_memory_is_bounded(server: ServerProcess) -> None:
    if MODELS[server.model].missing(3, "slow-readers"):
        pytest.skip("serves one connection after the other")
    server.check(100)
    before = server.resident_bytes()
    spec = {"host": "127.0.0.1", "port": server.port, "workload": "slow-readers", "connections": 3}
    highest = 0

    answer = apply({**spec, "size": 1000, "warmup": 0.1, "duration": 0.5})
    highest = server.resident_bytes()
    result = answer["result"]
    assert result["messages"] > 20, answer
    sent, read = result["lazy"]
    clients, rate = LAZY
    assert sent > 2 * MEBI  # what the kernel's buffers take, at least
    assert 0 < read <= clients * rate * 5
    if server.model != "asyncio-greedy":
        assert highest - before < 16 * MEBI, server.model


def test_a_server_without_flow_control_grows() -> None:
    models = ("asyncio", "asyncio-greedy")
    settings = Settings(
        models=models, workloads=("slow-readers",), connections=(5,), duration=0.3, warmup=0.1, repeat=2
    )
    document = run(settings, Watcher())
    grown = {name: [] for name in models}  # type: dict[str, list[float]]
    for cell in document["cells"]:
        assert cell["measured"] is not None, cell
        assert cell["measured"]["lazy"]["sent"] > cell["measured"]["lazy"]["read"]
        grown[cell["model"]].append(growth(cell["measured"]))
    assert len(grown["asyncio"]) == len(grown["asyncio-greedy"]) == 2
    assert min(grown["asyncio-greedy"]) > max(grown["asyncio"]) + 4 * MEBI
    (block,) = blocks(document)
    assert all(row.grown is not None for row in block.rows)
    assert notes(block) == [SLOW_READERS_NOTE]
