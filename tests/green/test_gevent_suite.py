"""Files of gevent's own test suite, on proact: a small set, or all of them if PROACT_TEST_GEVENT is set.

gevent_suite.py runs one file, and compares the whole suite with libev.
"""

from __future__ import annotations

import os

import gevent_suite
import pytest

pytest.importorskip("gevent.tests", reason="gevent is optional, and this Python may have no wheel of it")

# What the loop itself does, in files that take few seconds and do not depend on the load of the machine.
SET = [
    "test__core.py",
    "test__core_async.py",
    "test__core_callback.py",
    "test__core_fork.py",
    "test__core_loop_run.py",
    "test__core_watcher.py",
    "test__destroy.py",
    "test__destroy_default_loop.py",
    "test__event.py",
    "test__hub_join.py",
    "test__loop_callback.py",
    "test__monkey_selectors.py",
    "test__monkey_sigchld.py",
    "test__monkey_sigchld_2.py",
    "test__monkey_sigchld_3.py",
    "test__order.py",
    "test__select.py",
    "test__socket_close.py",
    "test__threading_2.py",
]
WHOLE = os.environ.get("PROACT_TEST_GEVENT")


@pytest.mark.parametrize("on", ["io_uring", "epoll"] if WHOLE else ["io_uring"])
@pytest.mark.parametrize("name", gevent_suite.names() if WHOLE else SET)
@pytest.mark.timeout(400)
def test_gevents_own(name: str, on: str) -> None:
    reason = gevent_suite.exclusions().get(name)
    if reason is not None:
        pytest.skip(f"excluded: {reason}")
    outcome = gevent_suite.run(name, on, 150)
    if outcome.word != "pass" and WHOLE and gevent_suite.run(name, "libev", 150).word != "pass":
        pytest.skip("it does not pass on libev either, on this machine")
    assert outcome.word == "pass", outcome.output
