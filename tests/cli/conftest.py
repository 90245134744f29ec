"""Runs the command as a user does: in a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``command("run", "x.py", PROACT_ENGINE="epoll")``: the finished process, run in the test's folder."""

    def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "PROACT_ENGINE"}
        return subprocess.run(
            [sys.executable, "-W", "error::DeprecationWarning:__main__", "-m", "proact", *arguments],
            env=environment | variables,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=50,
        )

    return call
