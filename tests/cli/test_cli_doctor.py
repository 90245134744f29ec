"""``proact doctor``: the same facts for people and for scripts."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proact import _core
from proact.cli import doctor
from proact.cli.doctor import none_works, verdict

if TYPE_CHECKING:
    import subprocess

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def report(**changes: object) -> dict[str, object]:
    """An engine report like those of the core, with changes."""
    engines: dict[str, object] = {
        name: {"available": True, "reason": None} for name in ("io_uring", "epoll", "poll", "select")
    }
    return {"chosen": "io_uring", "requested": "auto", "engines": engines} | changes


REFUSED = {"available": False, "reason": "io_uring_setup: EPERM"}


def test_json_holds_what_scripts_ask_for(command: Command) -> None:
    done = command("doctor", "--json", PROACT_ENGINE="epoll")
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert facts["engine"]["chosen"] == "epoll"
    assert set(facts["engine"]["engines"]) == {"io_uring", "epoll", "poll", "select"}
    assert facts["kernel"] == platform.release()
    assert facts["limits"]["open_files"]["soft"] > 0
    assert {"proact", "greenlet", "uvloop"} <= set(facts["packages"])
    assert set(facts["sysctl"]) == {"kernel.io_uring_disabled"}
    assert facts["seccomp"] in ("off", "strict", "filter", "unknown")


def test_people_get_every_engine_and_one_closing_line(command: Command) -> None:
    done = command("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    for word in (
        "io_uring",
        "epoll",
        "poll",
        "select",
        "ring features",
        "open files",
        "locked memory",
        "packages",
    ):
        assert word in done.stdout
    assert done.stdout.splitlines()[-1].startswith("proact runs on ")
    assert "\x1b" not in done.stdout


def test_an_unknown_engine_in_the_environment(command: Command) -> None:
    done = command("doctor", PROACT_ENGINE="kqueue")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("proact: ")
    assert "kqueue" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (report(), "proact runs on io_uring here"),
        (
            report(chosen="epoll", requested="epoll"),
            "proact runs on epoll here: it was asked for (PROACT_ENGINE=epoll)",
        ),
        (
            report(chosen="epoll", engines={"io_uring": REFUSED}),
            "proact runs on epoll here: io_uring is not available: io_uring_setup: EPERM",
        ),
        (
            none_works(OSError(38, "io_uring: refused; epoll: refused")),
            "no engine works here (requested: auto): [Errno 38] io_uring: refused; epoll: refused",
        ),
    ],
)
def test_the_verdict_gives_the_reason(told: dict[str, object], line: str) -> None:
    assert verdict(told) == line


def installed(place: Path, **versions: str) -> str:
    """A directory for PYTHONPATH in which these packages are installed, but empty."""
    for name, version in versions.items():
        (place / name).mkdir()
        (place / name / "__init__.py").touch()
        (place / f"{name}-{version}.dist-info").mkdir()
        (place / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    return str(place)


@pytest.mark.parametrize(
    ("aiohttp", "variables", "taken"),
    [
        ("3.14.5", {}, False),
        ("3.15.0", {}, True),
        ("4.0.0a1", {}, True),
        ("3.15.0", {"AIOHTTP_NO_EXTENSIONS": "1"}, False),
    ],
)
def test_aiofastnet_takes_over_from_some_aiohttp_on(
    command: Command, tmp_path: Path, aiohttp: str, variables: dict[str, str], taken: bool
) -> None:
    path = installed(tmp_path, aiofastnet="1.2.0", aiohttp=aiohttp)
    done = command(
        "doctor", "--json", PYTHONPATH=path + os.pathsep + os.environ.get("PYTHONPATH", ""), **variables
    )
    facts = json.loads(done.stdout)["aiofastnet"]
    assert (facts["version"], facts["aiohttp"], facts["taken_by_aiohttp"]) == ("1.2.0", aiohttp, taken)
    assert "create_connection" in facts["replaces"]


def test_people_are_told_what_aiofastnet_replaces_and_how_to_avoid_it(
    command: Command, tmp_path: Path
) -> None:
    # Both are given, so that what the tests' own Python has installed does not matter.
    there = installed(tmp_path, aiofastnet="1.2.0", aiohttp="3.14.5")
    path = there + os.pathsep + os.environ.get("PYTHONPATH", "")
    words = " ".join(command("doctor", PYTHONPATH=path).stdout.split())
    assert (
        "aiofastnet 1.2.0: aiohttp from 3.15 on (aiohttp 3.14.5 here) calls its create_connection," in words
    )
    assert "AIOHTTP_NO_EXTENSIONS=1" in words


@pytest.mark.skipif(importlib.util.find_spec("aiofastnet") is not None, reason="aiofastnet is installed here")
def test_aiofastnet_is_not_mentioned_where_it_is_not(command: Command) -> None:
    assert json.loads(command("doctor", "--json").stdout)["aiofastnet"] is None
    assert "aiofastnet" not in command("doctor").stdout


def test_how_many_loops_fit(command: Command) -> None:
    loops = json.loads(command("doctor", "--json").stdout)["loops"]
    assert loops["locked_memory"] > 0
    assert (loops["fit"] is None) == (loops["limit"] is None)
    line = next(line for line in command("doctor").stdout.splitlines() if line.startswith("loops that fit"))
    assert line.split()[3] == ("unlimited" if loops["fit"] is None else str(loops["fit"]))


@pytest.mark.parametrize(
    ("memory", "line"),
    [
        ((32 << 10, 8 << 20), "256 (32 KiB each of the 8,192 KiB that all processes of a user share)"),
        ((32 << 10, 4096), "0 (32 KiB each of the 4 KiB that all processes of a user share)"),
        ((400 << 10, None), "unlimited (400 KiB each, and no limit of locked memory applies)"),
    ],
)
def test_what_is_said_of_the_loops_that_fit(
    monkeypatch: pytest.MonkeyPatch, memory: tuple[int, int | None], line: str
) -> None:
    monkeypatch.setattr(_core, "ring_memory", lambda: memory)
    assert doctor.fitting(doctor.loops_that_fit()) == line
