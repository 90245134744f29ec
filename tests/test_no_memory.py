"""When Python has no memory, an operation raises `MemoryError`, or the exception handler is called. Nothing
panics, and the loop continues.

A separate program lets one allocation of each operation fail after the other: programs/no_memory.py.
"""

import subprocess
import sys

import pytest
from support import children, loops

pytest.importorskip("_testcapi", reason="this Python is built without what makes its allocations fail")


@pytest.mark.skipif(
    sys.version_info >= (3, 12),
    reason="CPython 3.12 and 3.13 crash then by themselves, under asyncio's loop too",
)
@pytest.mark.skipif(bool(loops.REFERENCE), reason="of proact's engines")
# The other engines use the Python objects that epoll uses.
@pytest.mark.parametrize("name", ["io_uring", "epoll"])
def test_operations(name):
    if reason := loops.unavailable(name):
        pytest.skip(reason)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", children.PROGRAMS / "no_memory.py"],
        env=children.environment(name),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "done\n", done.stdout + done.stderr[-5000:]
    assert done.returncode == 0, done.stderr[-5000:]
    assert "panicked" not in done.stderr
