"""Starts servers and programs in separate processes, as their users do."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from support import children

ROOT = children.TESTS.parent
HERE = children.TESTS / "ecosystem"
PATIENCE = 30  # seconds without the expected line after which a child has failed


class Child:
    """A running child and what it prints, both streams in one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.printed: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for text in self.process.stdout:
            self._lines.put(text)
        self._lines.put(None)

    def until(self, part: str, times: int = 1) -> str:
        """Wait until `part` was in `times` more lines; return the last of them."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                text = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                text = None
            if text is None:
                raise AssertionError(f"never printed {part!r}:\n{self.output()}")
            self.printed.append(text)
            if part in text:
                times -= 1
                if not times:
                    return text

    def end(self, signal: int | None = None) -> str:
        """Wait for its end, after a signal if one is given; it has to succeed. Returns its output."""
        if signal is not None:
            self.process.send_signal(signal)
        code = self.process.wait(PATIENCE)
        text = self.output()
        # Some servers send the signal to themselves again after they have shut down.
        assert code in (0, -signal if signal else 0), f"exit {code}\n{text}"
        for sign in ("Traceback", "Exception", "never retrieved", "never awaited"):
            assert sign not in text, text
        return text

    def output(self) -> str:
        """Everything that it has printed by now."""
        self._reader.join(5)
        while not self._lines.empty():
            self.printed.append(self._lines.get() or "")
        return "".join(self.printed)


@contextlib.contextmanager
def running(*arguments: str | Path, engine: str, cwd: Path | None = None, **extra: str) -> Iterator[Child]:
    """`python ARGUMENTS` with the engine chosen and the tests' modules importable; killed at the end."""
    env = children.environment(engine, **extra)
    path = [env["PYTHONPATH"], str(HERE), str(children.TESTS)]
    # At INFO dask logs the traceback of every connection that it closes itself.
    env["DASK_LOGGING__DISTRIBUTED"] = "warning"
    env["PYTHONPATH"] = os.pathsep.join(path)
    with subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield Child(process)
        finally:
            process.kill()
