"""Owns: the plugin inside a suite's own pytest: it sets the loop, and writes a line for each test that ends.

Loaded with `-p proact_inside`; nothing of the project but `proact` is importable there. The environment says
what to do: SUITES_LOOP is "asyncio" or "proact" (PROACT_ENGINE then names the engine), SUITES_LOG the file of
the lines, SUITES_HOW the ways to put the loop under the suite, SUITES_DONE a file of test ids to leave out.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

LOOP = os.environ["SUITES_LOOP"]
HOW = os.environ["SUITES_HOW"].split()
LOG = Path(os.environ["SUITES_LOG"])

made = 0


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop of the kind under test."""
    global made
    made += 1
    if LOOP == "asyncio":
        return asyncio.SelectorEventLoop()
    import proact

    return proact.new_event_loop()


def write(**fields: object) -> None:
    with LOG.open("a") as log:
        log.write(json.dumps(fields) + "\n")


def under_policy() -> None:
    """`asyncio.new_event_loop()`, `run()`, `Runner()` make these loops, also after the policy was reset."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        policy = asyncio.DefaultEventLoopPolicy
    policy._loop_factory = staticmethod(new_event_loop)
    # Since 3.13 it is another name for SelectorEventLoop, and tests call it to get "the default loop".
    if hasattr(asyncio, "EventLoop"):
        asyncio.EventLoop = new_event_loop


def under_uvloop_testbase() -> None:
    """Make uvloop's own test cases (UVTestCase, which names uvloop) use these loops, too."""
    from uvloop import _testbase

    _testbase.UVTestCase.new_loop = lambda _: new_event_loop()
    _testbase.UVTestCase.new_policy = _testbase.AIOTestCase.new_policy


def under_files() -> None:
    """Put proact's files under aiofiles and anyio."""
    if LOOP != "asyncio":
        from proact.fs import compat

        compat.install()


def localhost_by_ipv6() -> None:
    """Give "localhost" an IPv6 address even if /etc/hosts has none, because suites rely on it."""
    lookup = socket.getaddrinfo
    try:
        lookup("localhost", 0, socket.AF_INET6)
    except OSError:
        pass
    else:
        return

    def getaddrinfo(host: object, port: object, family: int = 0, *rest: int, **named: int) -> list:
        if host not in ("localhost", b"localhost") or family not in (0, socket.AF_INET6):
            return lookup(host, port, family, *rest, **named)
        found = lookup("::1", port, family, *rest, **named)
        return found if family else found + lookup(host, port, family, *rest, **named)

    def resolving(method: Callable) -> Callable:
        def call(sock: socket.socket, address: object) -> object:
            if sock.family == socket.AF_INET6 and isinstance(address, tuple) and address[0] == "localhost":
                address = ("::1", *address[1:])
            return method(sock, address)

        return call

    socket.getaddrinfo = getaddrinfo
    for name in ("bind", "connect"):
        setattr(socket.socket, name, resolving(getattr(socket.socket, name)))


# A shell that starts the suites in the background ignores SIGINT, and each child would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
under_policy()
localhost_by_ipv6()
for way in HOW:
    globals()[f"under_{way}"]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    done = set()
    if "SUITES_DONE" in os.environ:
        done = set(Path(os.environ["SUITES_DONE"]).read_text().splitlines())
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
    items[:] = [item for item in items if item.nodeid not in done]


def pytest_runtest_logstart(nodeid: str) -> None:
    write(started=nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    fields: dict[str, object] = {"test": report.nodeid, "when": report.when, "word": report.outcome}
    if report.failed:
        fields["why"] = _reason(report)
        fields["text"] = report.longreprtext
    write(**fields)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        write(
            test=report.nodeid, when="collect", word="failed", why=_reason(report), text=report.longreprtext
        )


def pytest_runtest_logfinish(nodeid: str) -> None:
    write(ended=nodeid, made=made)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else report.longreprtext
    lines = [line for line in text.strip().splitlines() if line.strip()] or ["?"]
    return (lines[0] if crash else lines[-1])[:300]
