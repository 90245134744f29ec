"""A model's process that works on files: start it, ask it for rounds, and always end it, even if it hangs."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from proact.lab.server_process import START_TIMEOUT, ModelProcess, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from proact.lab.files.fileset import FileSet

#: The time that a round and its preparation may take before the process is ended, in seconds.
ROUND_TIMEOUT: Final = 60.0

#: How often the observer is told that time passes, in seconds.
PERIOD: Final = 0.01


def _nothing() -> None:
    """The default observer, which does nothing."""


class FileProcess(ModelProcess):
    """A model that works on ``files``: ``with FileProcess("aio", "files-small", 16, files) as process:``."""

    def __init__(
        self,
        model: str,
        workload: str,
        concurrency: int,
        files: FileSet,
        *,
        cpu: int | None = None,
        probe: int | None = None,
        command: tuple[str, ...] | None = None,
    ) -> None:
        command = command or (sys.executable, "-m", "proact.lab.files")
        super().__init__(model, workload, command=command, cpu=cpu, probe=probe)
        self._concurrency = concurrency
        self._files = files

    def _start(self) -> None:
        what = (f"--concurrency={self._concurrency}", f"--files={json.dumps(asdict(self._files))}")
        self._spawn(*what, stdin=subprocess.PIPE)
        self._hear(_nothing, START_TIMEOUT)

    def round(
        self, take: Callable[[], None] = _nothing, tick: Callable[[], None] = _nothing
    ) -> dict[str, Any]:
        """One round; ``take`` is called right before and right after it. Returns the process's report.

        Raises ServerError if it ends, or hangs (then leaving the context ends it).
        """
        self._tell("round")
        self._hear(tick)
        take()
        self._tell("go")
        self._hear(tick)
        take()
        self._tell("report")
        return self._hear(tick)

    def _tell(self, what: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{what}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ServerError(self.ended(grace=1.0) or "it no longer listens") from None

    def _hear(self, tick: Callable[[], None], timeout: float | None = None) -> dict[str, Any]:
        """The next line of JSON from the process."""
        assert self._process is not None
        assert self._process.stdout is not None
        fd, line = self._process.stdout.fileno(), bytearray()
        limit = ROUND_TIMEOUT if timeout is None else timeout
        deadline = time.monotonic() + limit
        while not line.endswith(b"\n"):
            if select.select([fd], [], [], PERIOD)[0]:
                data = os.read(fd, 1 << 16)
                if not data:
                    raise ServerError(self.ended(grace=1.0) or "it no longer answers")
                line += data
            elif time.monotonic() > deadline:
                raise ServerError(f"hangs: said nothing for {limit:g} s")
            tick()
        return dict(json.loads(line))
