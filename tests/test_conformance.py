"""CPython's own asyncio tests: the tests of the loop on every engine, the tests of what uses a loop on two.

`make conformance` runs all of them, also on the other loops; tests/conformance/__init__.py says what it runs.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import loops

ROOT = Path(__file__).parent.parent
# Most of these tests wait most of their time.
JOBS = 2 * (os.cpu_count() or 1)
# Seconds, for each of CPython's tests; the slowest takes four.
LIMIT = 30

ABOUT_THE_LOOP = ["events", "sock", "sendfile", "buffered_proto", "server", "start_tls", "subprocess", "unix"]
ON_A_LOOP = ["ssl", "sslproto", "streams", "runners", "taskgroups", "timeouts", "locks", "queues", "waitfor"]
ON_A_LOOP += ["eager", "context", "pep492", "threads"]

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(loops.REFERENCE == "uvloop", reason="uvloop is not expected to pass"),
]


def conform(engine, *groups):
    command = [sys.executable, "-m", "tests.conformance", f"--jobs={JOBS}", f"--limit={LIMIT}"]
    command += ["--loop=asyncio"] if loops.REFERENCE else [f"--engine={engine}"]
    command += [f"--only={group}" for group in groups]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_what_is_about_the_loop(engine):
    conform(engine, *ABOUT_THE_LOOP)


def test_what_stands_on_a_loop(engine):
    if engine in ("poll", "select"):
        pytest.skip("what it asks of an engine is asked above already; make conformance runs it here too")
    conform(engine, *ON_A_LOOP)


def test_tasks(engine):
    if engine not in ("io_uring", "asyncio"):
        pytest.skip("a thousand tests with hardly any I/O; make conformance runs them here too")
    conform(engine, "tasks")
