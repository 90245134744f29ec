"""Runs the small scripts of tests/programs in child processes, which use the engine under test."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from . import loops

TESTS = Path(__file__).resolve().parent.parent
PROGRAMS = TESTS / "programs"
PATIENCE = 60
"""Seconds in which an interpreter has started and imported its modules, on a machine that does much else."""


def environment(engine: str | None = None, **extra: str) -> dict[str, str]:
    """The child's environment: proact is on its path, its engine is chosen, not the parent's."""
    path = [str(TESTS.parent / "python"), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}
    env.pop("PROACT_ENGINE", None)
    if engine is not None and not loops.REFERENCE:
        env["PROACT_ENGINE"] = engine
    return env | extra


@contextlib.contextmanager
def program(
    name: str, *args: str, engine: str | None = None, **extra: str
) -> Iterator[subprocess.Popen[str]]:
    """Start tests/programs/`name`; killed at the end if it still runs. `line()` reads what it prints."""
    with subprocess.Popen(
        [sys.executable, str(PROGRAMS / name), *args],
        env=environment(engine, **extra),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def line(child: subprocess.Popen[str]) -> str:
    """The child's next line. If the child died, the error is its stderr."""
    text = child.stdout.readline()
    if not text:
        raise EOFError(f"child ended: {child.communicate(timeout=20)[1]}")
    return text.strip()


def output(name: str, *args: str, engine: str | None = None, **extra: str) -> str:
    """Run a program to its end and return its output; it has to succeed."""
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / name), *args],
        env=environment(engine, **extra),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()
