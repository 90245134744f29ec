"""Owns: a process for each test, with its own directory, output and time limit.

The modules are imported once, in the process that forks; it has no threads and never makes a loop. A child
that outlives its limit is made to show the traceback of each of its threads, then killed with everything that
it has started. It must not know what an outcome means.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import unittest
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .outcome import APART, PASSED, SKIPPED, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .contenders import Contender
    from .groups import Case

GRACE = 2.0
"""Seconds from the demand for a traceback to the kill."""


@dataclass
class _Child:
    case: Case
    pid: int
    fd: int
    place: Path
    begun: float
    limit: float
    asked: bool = False

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun


def run(cases: Iterable[tuple[Case, float]], contender: Contender, jobs: int) -> Iterator[Outcome]:
    """Run every case in a separate process, `jobs` at a time, each for at most so many seconds."""
    gc.collect()
    gc.freeze()
    waiting = iter(cases)
    children: dict[int, _Child] = {}
    poll = select.poll()
    try:
        while True:
            while len(children) < jobs and (following := next(waiting, None)) is not None:
                child = _start(*following, contender)
                children[child.fd] = child
                poll.register(child.fd, select.POLLIN)
            if not children:
                return
            for fd, _ in poll.poll(200):
                poll.unregister(fd)
                yield _finish(children.pop(fd))
            for child in children.values():
                _hurry(child)
    finally:
        for child in children.values():
            _kill(child.pid, signal.SIGKILL)
            _finish(child)


def _start(case: Case, limit: float, contender: Contender) -> _Child:
    place = Path(tempfile.mkdtemp(prefix="conformance-"))
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            _run_here(case, contender, place)
        finally:
            os._exit(70)
    return _Child(case, pid, os.pidfd_open(pid), place, begun, limit)


def _hurry(child: _Child) -> None:
    if child.seconds > child.limit and not child.asked:
        child.asked = True
        os.kill(child.pid, signal.SIGABRT)
    elif child.seconds > child.limit + GRACE:
        _kill(child.pid, signal.SIGKILL)


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _finish(child: _Child) -> Outcome:
    _, status = os.waitpid(child.pid, 0)
    os.close(child.fd)
    # Kill the processes that the test has started and left behind.
    _kill(child.pid, signal.SIGKILL)
    output = (child.place / "output").read_text(errors="replace") if (child.place / "output").exists() else ""
    outcome = Outcome(child.case.id, "crashed", output=output, seconds=child.seconds)
    if child.asked:
        outcome.word, outcome.why = "timeout", f"not done after {child.limit:g} s"
    elif (child.place / "report").exists():
        report = json.loads((child.place / "report").read_text())
        outcome.word, outcome.why = report["word"], report["why"]
        outcome.output = report["traceback"] + output
    else:
        code = os.waitstatus_to_exitcode(status)
        outcome.why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    shutil.rmtree(child.place, ignore_errors=True)
    return outcome


# In the child.


def _run_here(case: Case, contender: Contender, place: Path) -> None:
    os.setsid()
    # `test.support` writes its files into the current directory.
    os.chdir(place)
    output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(fd, target)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.simplefilter("default")
    contender.made = contender.ran = 0
    result = unittest.TestResult()
    # A suite, so that setUpClass and setUpModule are called.
    unittest.TestSuite([case.test]).run(result)
    sys.stdout.flush()
    sys.stderr.flush()
    word, why, traceback = _judge(result, case, contender)
    report = place / "report.new"
    report.write_text(json.dumps({"word": word, "why": why, "traceback": traceback}))
    report.rename(place / "report")
    os._exit(0)


def _judge(result: unittest.TestResult, case: Case, contender: Contender) -> tuple[str, str, str]:
    problems = [("error", text) for _, text in result.errors]
    problems += [("failed", text) for _, text in result.failures]
    if result.unexpectedSuccesses:
        problems.append(("failed", "unexpected success"))
    if problems:
        word, traceback = problems[0]
        return word, traceback.strip().splitlines()[-1][:300], "".join(text for _, text in problems)
    if result.skipped:
        return SKIPPED, result.skipped[0][1], ""
    if contender.ran or (case.of_mixin and contender.made):
        return PASSED, "", ""
    if case.of_mixin:
        return "no loop", f"passed, and no loop of {contender} was made in it", ""
    return APART, "", ""
