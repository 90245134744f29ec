"""The load in a separate process, which is asked for one pass at a time and always ended."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final, Self

from proact.lab.environment import process_cpu_seconds
from proact.lab.server_process import child_environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

#: A connection that makes no progress for so long, in seconds, fails its pass.
STALL_TIMEOUT: Final = 5.0

#: The seconds that a pass may take beyond its own times and two stalls before this process ends it.
MARGIN: Final = 15.0


class LoadError(Exception):
    """The load failed; the message says how (a stall, a reset, bytes that differ from those sent)."""


class LoadProcess:
    """The load generator, as a context manager: ``load.apply(spec)`` is one pass; the first starts it.

    ``cpu`` is the core that it may run on (None: all); ``command`` replaces ``proact.lab.load`` in
    tests; ``heard`` gets the figures of a pass each half second: messages per second, p50 and p99 (ns).
    """

    def __init__(
        self,
        *,
        cpu: int | None = None,
        command: tuple[str, ...] | None = None,
        heard: Callable[[float, int, int], None] | None = None,
    ) -> None:
        self._heard = heard
        self._rest = bytearray()  # what the process has written after the last line
        self._command = [*(command or (sys.executable, "-m", "proact.lab.load")), f"--parent={os.getpid()}"]
        if cpu is not None:
            self._command.append(f"--cpu={cpu}")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # so that Ctrl-C reaches this process only, which ends the load
            env=child_environment(),
        )
        return self._process

    def stop(self) -> None:
        """End the process; the next pass starts another."""
        process, self._process = self._process, None
        self._rest = bytearray()
        if process is not None:
            process.kill()
            process.wait()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.stdout.close()

    def cpu_seconds(self) -> float:
        """CPU time of the process so far, in seconds; 0 while there is none."""
        return process_cpu_seconds(self._process.pid) if self._process is not None else 0.0

    def apply(
        self, spec: dict[str, Any], tick: Callable[[], None] = lambda: None, period: float = 0.01
    ) -> dict[str, Any]:
        """One pass with the arguments of ``_core.echo_load``; calls ``tick`` every ``period`` seconds.

        Returns ``begun`` (monotonic seconds) and ``result``. Raises LoadError with the reason. A pass that
        takes far longer than it was asked to is ended.
        """
        process = self._process or self._start()
        spec = {"stall_timeout": STALL_TIMEOUT, "tell": self._heard is not None, **spec}
        deadline = time.monotonic() + spec["warmup"] + spec["duration"] + 2 * spec["stall_timeout"] + MARGIN
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(spec).encode() + b"\n")
            while "so_far" in (answer := json.loads(self._line(process, tick, period, deadline))):
                if self._heard is not None:
                    so_far = answer["so_far"]
                    self._heard(so_far["rate"], so_far["p50"], so_far["p99"])
        except BrokenPipeError:
            self.stop()
            raise LoadError("the load process had ended") from None
        except BaseException:  # after a timeout or Ctrl-C, a late answer must not be taken for the next one
            self.stop()
            raise
        if "error" in answer:
            raise LoadError(answer["error"])
        return dict(answer)

    def _line(
        self, process: subprocess.Popen[bytes], tick: Callable[[], None], period: float, deadline: float
    ) -> bytes:
        assert process.stdout is not None
        line = self._rest
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in line:
                if selector.select(period):
                    data = os.read(process.stdout.fileno(), 65536)
                    if not data:
                        raise LoadError(f"the load process ended with exit code {process.wait()}")
                    line += data
                elif time.monotonic() > deadline:
                    raise LoadError("hangs: the pass did not end in time")
                tick()
        found, _, self._rest = line.partition(b"\n")
        return bytes(found)
