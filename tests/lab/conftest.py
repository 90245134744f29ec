"""Finds the lab's child processes of a parent that still run, by the parent's pid in their arguments.

It also has one browser for all tests that need it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import chromium

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
            for name in ("serve", "load", "files"):
                if f"proact.lab.{name}".encode() in words:
                    found[name] = int(path.parent.name)
    return found


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
