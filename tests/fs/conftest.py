"""What the tests of files share: threads that have nothing to do end at once here, so that one that hangs is
seen.
"""

import asyncio
import os

import pytest

from proact.fs import pool


@pytest.fixture(autouse=True, scope="session")
def idle_threads_end():
    # Not undone after each test: a thread may look only then.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "_IDLE", 0.01)
        yield


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def freed(fifo):
    """Coroutine function: let all threads go on whose calls were given up and that hang in the FIFO."""

    async def freed():
        # A group of appends is given up one turn after its last writer.
        await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            while pool.of_process().counts()["lost"]:
                with open(fifo, "r+b", buffering=0) as both:
                    os.set_blocking(both.fileno(), False)
                    await asyncio.sleep(0.01)
                    both.read(1 << 16)
                # A reader goes on when no writer is left.
                await asyncio.sleep(0.01)

    return freed
