"""What a program pays that only imports proact and runs an empty coroutine: modules, threads, rings."""

import asyncio
import json
import subprocess
import sys
import time

import pytest

NEEDED = {
    "__future__",
    "proact",
    "proact._core",
    "proact.choice",
    "proact.loop",
    "proact.reports",
    "proact.runner",
    "proact.signals",
    "proact.sockets",
}
"""What may be imported beside what `asyncio.run` imports itself. Each module more makes every start slower:
import it where it is used.
"""

PROGRAM = """
import asyncio, json, os, sys
async def noop(): pass
asyncio.run(noop())
before = set(sys.modules)
import proact
proact.run(noop(), engine={engine!r})
print(json.dumps([sorted(set(sys.modules) - before), len(os.listdir("/proc/self/task"))]))
"""


@pytest.fixture
def started(proact, engine):
    """The modules that a start imports, and how many threads the process has then."""
    # Without `site`, whose hooks may import anything.
    code = f"import sys; sys.path[:] = {sys.path!r}\n" + PROGRAM.format(engine=engine)
    ended = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_nothing_more_is_imported(started):
    modules, _ = started
    assert set(modules) <= NEEDED


def test_no_thread_is_started(started):
    _, threads = started
    assert threads == 1


def test_what_is_not_imported_is_there_when_asked_for(proact):
    names = [name for name in proact.__all__ if name != "EventLoopPolicy"]
    assert all(getattr(proact, name) is not None for name in names)
    assert set(names) <= set(dir(proact))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = proact.nothing


def test_a_loop_is_made_within_a_millisecond(proact, engine):
    """CPU time, the best of many: other programs can only make it longer."""

    def attempt():
        began = time.thread_time()
        loop = proact.new_event_loop(engine)
        loop.run_until_complete(asyncio.sleep(0))
        took = time.thread_time() - began
        loop.close()
        return took

    assert min(attempt() for _ in range(30)) < 0.001
