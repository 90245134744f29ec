"""Runs sequences in forked children: a crash, an exit or a hang is a result, like the problems that the model
finds.

The parent has no loop and no thread, so a fork is as good as a fresh process, and takes milliseconds.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import Any

from support import loops

from . import trial
from .vocabulary import Sequence


def limit(patience: float) -> float:
    """Seconds after which a sequence hangs: it settles a few times, starts processes, loses its core."""
    return 4 * patience + 2 * patience**2


Failure = tuple[str, str]
"""(kind, detail)"""


def run(
    sequences: Iterable[tuple[int, Sequence]], engine: str, patience: float
) -> Iterator[tuple[int, Failure | None]]:
    """Carry out the sequences in one child, up to the first failure; yields (seed, outcome)."""
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as errors:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if not pid:
            os.close(reading)
            _serve(sequences, engine, patience, writing, errors.fileno())
        os.close(writing)
        try:
            yield from _listen(pid, reading, errors, patience)
        finally:
            os.close(reading)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def alone(sequence: Sequence, engine: str, patience: float) -> Failure | None:
    """One sequence in a fresh child."""
    return next((failure for _, failure in run([(0, sequence)], engine, patience) if failure), None)


def _serve(sequences: Any, engine: str, patience: float, writing: int, errors: int) -> None:
    """The child: never returns."""
    try:
        os.setpgid(0, 0)
        os.dup2(errors, 2)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        faulthandler.enable()
        for seed, sequence in sequences:
            os.write(writing, b"%d\n" % seed)
            faulthandler.dump_traceback_later(limit(patience), exit=True)
            problems = trial.perform(
                sequence, lambda: loops.new_event_loop(engine), patience, bool(loops.REFERENCE)
            )
            faulthandler.cancel_dump_traceback_later()
            os.write(writing, json.dumps(problems).encode() + b"\n")
            if problems:
                break
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(99)
    os._exit(0)


def _listen(pid: int, reading: int, errors: Any, patience: float) -> Iterator[tuple[int, Failure | None]]:
    buffer, seed, busy = b"", 0, False
    while True:
        ready, _, _ = select.select([reading], [], [], limit(patience) + 5)
        chunk = os.read(reading, 1 << 16) if ready else b""
        if not chunk:
            break
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            if not busy:
                seed, busy = int(line), True
            else:
                busy = False
                problems = json.loads(line)
                yield seed, tuple(problems[0]) if problems else None
    code = _ended(pid)
    if busy:
        errors.seek(0)
        text = errors.read().decode(errors="replace")
        yield seed, _reason(code, text)


def _ended(pid: int) -> int | None:
    """The exit code (negative: the signal); None if it had to be killed."""
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _reason(code: int | None, text: str) -> Failure:
    if code is None or "Timeout (" in text:
        return "hang", text[-3000:]
    if code < 0:
        return f"crash {signal.Signals(-code).name}", text[:3000]
    if code == 99:
        return f"error {text.strip().splitlines()[-1].split(':')[0]}", text[-3000:]
    return f"exit {code}", text[-3000:]
