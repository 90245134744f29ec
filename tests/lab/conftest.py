"""What is left running: the lab's child processes of some parent, found by what they were told about it.

And a browser, one for all tests that want it.
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
    """The lab's processes of ``parent`` that have not ended: by name, with their pids."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
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
    """``wait_for_children(pid, n)``: once there are ``n`` of them; fails after twenty seconds."""

    def wait(parent: int, number: int) -> dict[str, int]:
        deadline = time.monotonic() + 20
        while len(found := children_of(parent)) != number:
            assert time.monotonic() < deadline, f"waited for {number} processes, there are {found}"
            time.sleep(0.02)
        return found

    return wait


@pytest.fixture(scope="session")
def browser() -> Iterator[chromium.Browser]:
    """A headless Chromium; skips the test where there is none."""
    if chromium.find() is None:
        pytest.skip("no Chromium here: scripts/chromium installs it")
    browser = chromium.Browser()
    try:
        yield browser
    finally:
        browser.close()
