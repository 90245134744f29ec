"""The fixtures of every behaviour test: a loop of each engine, and a watch that fails a test that leaks.

    loop        a fresh event loop, closed at the end; the test runs once for every engine
    new_loop    makes more of them: `new_loop()`; those still open at the end are closed
    engine      the engine's name
    unhandled   the errors that reached an exception handler, a log, sys.unraisablehook or
                threading.excepthook: `take()` the errors that the test expects; all others fail it
    proact      the module, for features that only proact has; skips the test on a reference loop

An `async def` test runs on its `loop`. At the end of each test, after the loop is closed: no op in flight, no
task left, the same fds open as before, no thread left, nothing unhandled. The switches PROACT_TEST_LOOP and
PROACT_TEST_ENGINES are explained in support/loops.py; `@pytest.mark.not_on("uvloop", reason=...)` excludes a
reference loop that differs.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

# Test modules import `support` by name, whatever import mode pytest has been given.
sys.path.insert(0, os.path.dirname(__file__))

from support import leaks, loops

# A shell that starts the tests in the background ignores SIGINT, and each child would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

failed = pytest.StashKey[bool]()


def pytest_configure(config):
    config.addinivalue_line("markers", "not_on(loop, ..., reason): this reference loop behaves differently")


@given(st.none())
@settings(max_examples=1, database=None)
def use_hypothesis(_):
    pass


def pytest_collection_finish(session):
    if loops.REFERENCE == "uvloop":
        # The first loop opens fds that the process keeps for ever; they must not look like the first test's
        # leak.
        first = loops.new_event_loop("uvloop")
        first.run_until_complete(asyncio.sleep(0))
        first.close()
    # Hypothesis makes its random generator in its first test, and fails that test if nothing refers to the
    # generator. Of what is frozen, Python 3.14 and later do not tell.
    use_hypothesis()
    # Every test ends with a full collection; freeze the objects that exist now, so that it does not visit
    # them.
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item):
    for mark in item.iter_markers("not_on"):
        if loops.REFERENCE in mark.args:
            pytest.skip(f"not on {loops.REFERENCE}: {mark.kwargs['reason']}")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run an `async def` test on the loop it asks for."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    coroutine = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    pyfuncitem.funcargs["loop"].run_until_complete(coroutine)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call":
        item.stash[failed] = report.failed
    return report


@pytest.fixture(autouse=True)
def unhandled(request):
    leaks.collect()
    fds = leaks.open_fds()
    threads = set(threading.enumerate())
    with leaks.Unhandled() as seen:
        yield seen
        # The traceback of a failed test keeps its sockets alive, so its leaks tell nothing.
        if request.node.stash.get(failed, True):
            return
        left = [
            f"{problem.where}: {problem.message}: {problem.exception!r}" for problem in seen.take("handler")
        ]
        leaks.collect()
        for where in ("log", "unraisable", "thread"):
            left += [f"{where}: {problem.message}" for problem in seen.take(where)]
        left += leaks.difference(fds, leaks.open_fds())
        left += leaks.threads_left(threads)
        leaks.complain("left behind:", left)


def pytest_generate_tests(metafunc):
    # Imported here, so that tests which need no loop can be collected without a built proact.
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", loops.names(), indirect=True)


@pytest.fixture
def engine(request):
    reason = loops.unavailable(request.param)
    if reason is not None:
        pytest.skip(reason)
    return request.param


@pytest.fixture
def new_loop(engine, unhandled):
    made = []

    def make():
        loop = loops.new_event_loop(engine)
        unhandled.watch(loop)
        made.append(loop)
        return loop

    yield make
    left = [problem for loop in made for problem in leaks.close_loop(loop, loops.settle, loops.in_flight)]
    made.clear()
    leaks.complain("left on the loop:", left)


@pytest.fixture
def loop(new_loop):
    return new_loop()


@pytest.fixture
def proact():
    if loops.REFERENCE:
        pytest.skip(f"only proact has it, and this runs on {loops.REFERENCE}")
    import proact

    return proact


@pytest.fixture
def switching():
    """With a GIL, have Python change threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)
