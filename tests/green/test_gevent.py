"""gevent on proact's loop: each case, of three files, is a program of its own, on every engine."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import gevent_asyncio_cases
import gevent_cases
import gevent_socket_cases
import pytest

pytest.importorskip("gevent", reason="gevent is optional, and this Python may have no wheel of it")

ROOT = Path(__file__).parent.parent.parent

# How the loop is chosen does not depend on the engine.
ONCE = {
    "use_comes_before_the_hub",
    "use_after_the_hub_is_refused",
    "without_gevent",
    "readiness_sockets_stay_gevents",
}
CASES = {
    name: module.__file__
    for module in (gevent_cases, gevent_asyncio_cases, gevent_socket_cases)
    for name, value in vars(module).items()
    if inspect.isfunction(value) and not inspect.signature(value).parameters
}


def run(name: str, **settings: str) -> None:
    paths = [str(ROOT / "python"), os.environ.get("PYTHONPATH", "")]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(paths), **settings)
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", CASES[name], name],
        env=env,
        capture_output=True,
        text=True,
        timeout=60 if "PROACT_GREEN_ROUNDS" not in os.environ else None,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("done\n")


@pytest.mark.parametrize("name", [name for name in CASES if name not in ONCE])
def test_case(name: str, engine: str) -> None:
    run(name, GEVENT_LOOP="proact.green.gevent_loop.Loop", PROACT_ENGINE=engine)


@pytest.mark.parametrize("name", sorted(ONCE))
def test_choice(name: str) -> None:
    run(name)
