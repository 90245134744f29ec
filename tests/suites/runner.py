"""Owns: running the files of a suite on one loop, one process for each, and the outcome of every test.

If a process dies or does not end, the test that it was in is charged with that; the tests after that one run
in another process. It must not know which differences count.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import packages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .table import Suite

GRACE = 30
"""Seconds that a file's process may take over its last test's limit, before it is killed."""


@dataclass
class Outcome:
    """`word` is passed, failed, skipped, crashed or timeout; `why` one line; `text` all that was printed."""

    word: str
    why: str = ""
    text: str = ""

    @property
    def bad(self) -> bool:
        return self.word not in ("passed", "skipped")


@dataclass
class Run:
    """One suite on one loop."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    made: int = 0
    """Loops of the kind under test."""

    def count(self) -> dict[str, int]:
        counts = dict.fromkeys(("passed", "failed", "skipped"), 0)
        for outcome in self.outcomes.values():
            counts["failed" if outcome.bad else outcome.word] += 1
        return counts


@dataclass
class Runner:
    """Runs a suite's tests on `loop`: "asyncio", or the name of an engine."""

    suite: Suite
    loop: str
    python: Path
    place: Path

    def files(self) -> list[str]:
        found: list[str] = []
        for pattern in self.suite.files:
            found += sorted(str(path.relative_to(self.place)) for path in self.place.glob(pattern))
        return found

    def run(self, files: Iterable[str], jobs: int, tell: Callable[[str, Outcome], None]) -> Run:
        """Run every file, `jobs` at a time; call `tell` for each test that ends."""
        run = Run()
        with ThreadPoolExecutor(jobs) as pool:
            for part in pool.map(lambda file: self._file(file, tell), files):
                run.outcomes |= part.outcomes
                run.made += part.made
        return run

    def alone(self, test: str) -> Outcome:
        """Run one test in a separate process."""
        log = self._session(test, [], lambda *_: None)
        outcome = log.run.outcomes.get(test)
        # The outcome of a whole file belongs to its process, not to one of its tests.
        return outcome or (Outcome("passed") if "::" not in test else Outcome("crashed", "not found again"))

    def _file(self, file: str, tell: Callable[[str, Outcome], None]) -> Run:
        run = Run()
        while file not in run.outcomes:
            log = self._session(file, list(run.outcomes), tell)
            run.outcomes |= log.run.outcomes
            run.made += log.run.made
            if log.finished:
                break
        return run

    def _session(self, what: str, done: list[str], tell: Callable[[str, Outcome], None]) -> _Log:
        with tempfile.TemporaryDirectory(prefix="suites-") as scratch:
            log = _Log(Path(scratch), what, tell)
            (log.place / "done").write_text("\n".join(done))
            with (log.place / "output").open("wb") as output:
                child = subprocess.Popen(
                    self._command(what),
                    cwd=self.place,
                    env=self._environ(log.place),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
                try:
                    while child.poll() is None:
                        log.read()
                        if time.monotonic() - log.heard > 2 * self.suite.timeout + GRACE:
                            log.killed = True
                            break
                        with contextlib.suppress(subprocess.TimeoutExpired):
                            child.wait(0.2)
                finally:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(child.pid, signal.SIGKILL)
                    child.wait()
            log.read()
            log.end(child.returncode)
            return log

    def _command(self, what: str) -> list[str]:
        options = ["-p", "proact_inside", "-p", "no:cacheprovider", "-o", "addopts=", "-q"]
        options += [f"--timeout={self.suite.timeout}", "--timeout-method=thread"]
        return [str(self.python), "-X", "faulthandler", "-m", "pytest", *options, *self.suite.arguments, what]

    def _environ(self, place: Path) -> dict[str, str]:
        inside = packages.ROOT / "tests" / "suites" / "inside"
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PROACT"))
        }
        tested = environ.get("SUITES_PROACT", str(packages.ROOT / "python"))
        environ |= {
            "PYTHONPATH": f"{inside}:{tested}",
            "SUITES_HOW": self.suite.how,
            "SUITES_LOG": str(place / "log"),
            "SUITES_DONE": str(place / "done"),
            "SUITES_LOOP": "asyncio" if self.loop == "asyncio" else "proact",
        }
        if self.loop != "asyncio":
            environ["PROACT_ENGINE"] = self.loop
        return environ


class _Log:
    """Reads the lines of the plugin inside while it writes them."""

    def __init__(self, place: Path, what: str, tell: Callable[[str, Outcome], None]) -> None:
        self.place = place
        self.what = what
        self.tell = tell
        self.run = Run()
        self.heard = time.monotonic()
        self.killed = False
        self.finished = False
        self._position = 0
        self._running: dict[str, Outcome] = {}

    def read(self) -> None:
        path = self.place / "log"
        if not path.exists():
            return
        with path.open() as log:
            log.seek(self._position)
            for line in iter(log.readline, ""):
                if not line.endswith("\n"):
                    break
                self._position += len(line.encode())
                self.heard = time.monotonic()
                self._take(json.loads(line))

    def _take(self, line: dict) -> None:
        if "started" in line:
            self._running[line["started"]] = Outcome("passed")
        elif "ended" in line:
            self._settle(line["ended"], self._running.pop(line["ended"]))
            self.run.made = line["made"]
        elif "test" in line and line["when"] == "collect":
            self._settle(line["test"], Outcome("failed", line["why"], line["text"]))
        elif "test" in line:
            outcome = self._running[line["test"]]
            if line["word"] == "failed" and not outcome.bad:
                where = "" if line["when"] == "call" else f"in {line['when']}: "
                outcome.word, outcome.why, outcome.text = "failed", where + line["why"], line["text"]
            elif line["word"] == "skipped" and not outcome.bad:
                outcome.word = "skipped"

    def _settle(self, test: str, outcome: Outcome) -> None:
        self.run.outcomes[test] = outcome
        self.tell(test, outcome)

    def end(self, code: int) -> None:
        """The process has ended: charge the test that it was in, if it did not end by itself."""
        path = self.place / "output"
        output = path.read_text(errors="replace")[-20000:] if path.exists() else ""
        if code < 0 and not self.killed:
            why = f"killed by {signal.Signals(-code).name}"
        else:
            why = f"exit code {code}: {(output.strip().splitlines() or ['?'])[-1][:200]}"
        word = "crashed"
        if self.killed or "+++ Timeout +++" in output:
            word, why = "timeout", "not done after its limit"
        # 0 and 1: all ran; 5: nothing was left to run.
        self.finished = code in (0, 1, 5) and not self._running
        # A file that can't be imported has already been reported, and ends with 2.
        told = self.finished or self.what in self.run.outcomes
        for test in [*self._running] or ([] if told else [self.what]):
            self._settle(test, Outcome(word, why, output))


def excluded(suite: Suite, test: str) -> bool:
    """Whether the suite's table excludes the test."""
    return any(fnmatch.fnmatchcase(test, line.pattern) for line in suite.exclusions)
