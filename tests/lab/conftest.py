"""What the laboratory's tests share: servers of all models, the processes that still run, one browser.

A module that takes the fixture ``server`` names the workloads in ``SERVED``; it gets every model that serves
one of them.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import chromium

from proact.lab.registry import MODELS
from proact.lab.server_process import ServerProcess
from proact.lab.workloads import base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def children_of(parent: int) -> dict[str, int]:
    """The lab's processes of ``parent`` that have not ended: their pids by name."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue  # the process has just ended
        if str(parent).encode() in words or f"--parent={parent}".encode() in words:
            for name in ("serve", "load", "files", "backends"):
                if f"proact.lab.{name}".encode() in words:
                    found[name] = int(path.parent.name)
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every model with each workload in ``SERVED``; with ``several``, those that take more than one
    connection at once; with ``pausing``, with the workload ``PAUSE`` alone.
    """
    if "server" in metafunc.fixturenames:
        pausing = "pausing" in metafunc.fixturenames
        served = [
            (model, workload)
            for model in MODELS
            for workload in ((metafunc.module.PAUSE,) if pausing else metafunc.module.SERVED)
            if base(workload) in MODELS[model].workloads
            if "several" not in metafunc.fixturenames or MODELS[model].connection_limit != 1
        ]
        metafunc.parametrize("server", served, ids=map("-".join, served), indirect=True, scope="module")


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A running server of a model and a workload; models that this machine cannot run are skipped."""
    model, workload = request.param
    if reason := MODELS[model].missing(1, workload):
        pytest.skip(reason)
    with ServerProcess(model, workload) as running:
        yield running


@pytest.fixture
def several(server: ServerProcess) -> ServerProcess:
    """A running server of each model that takes more than one connection at once."""
    return server


@pytest.fixture
def lab_children() -> Callable[[int], dict[str, int]]:
    """``lab_children(pid)``: the lab's processes that this parent has started and that still run."""
    return children_of


@pytest.fixture
def wait_for_children() -> Callable[[int, int], dict[str, int]]:
    """``wait_for_children(pid, n)``: waits until there are ``n`` of them; fails after twenty seconds."""

    def wait(parent: int, number: int) -> dict[str, int]:
        deadline = time.monotonic() + 20
        while len(found := children_of(parent)) != number:
            assert time.monotonic() < deadline, f"waited for {number} processes, there are {found}"
            time.sleep(0.02)
        return found

    return wait


@pytest.fixture(scope="session")
def browser() -> Iterator[chromium.Browser]:
    """A headless Chromium; skips the test if there is none."""
    if chromium.find() is None:
        pytest.skip("no Chromium here: scripts/chromium installs it")
    browser = chromium.Browser()
    try:
        yield browser
    finally:
        browser.close()
