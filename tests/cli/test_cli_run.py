"""``proact run``: apart from its loop, the program runs as under ``python``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from proact.cli.program import replace_new_event_loop, replace_policy, shield

if TYPE_CHECKING:
    from pathlib import Path

Command = Callable[..., "subprocess.CompletedProcess[str]"]


SHOW_LOOPS = """
import asyncio, sys

async def engine():
    return getattr(asyncio.get_running_loop(), "engine", "not proact")

print("run", asyncio.run(engine()))
with asyncio.Runner() as runner:
    print("Runner", runner.run(engine()))
loop = asyncio.new_event_loop()
print("new_event_loop", loop.run_until_complete(engine()))
loop.close()
"""


def test_each_way_to_a_loop_gives_proacts(command: Command, tmp_path: Path) -> None:
    (tmp_path / "loops.py").write_text(SHOW_LOOPS)
    for engine in ("epoll", "poll", "select"):
        done = command("run", "--engine", engine, "loops.py")
        assert done.stderr == ""
        assert done.stdout.splitlines() == [f"run {engine}", f"Runner {engine}", f"new_event_loop {engine}"]


def test_the_default_engine_is_the_one_of_the_environment(command: Command, tmp_path: Path) -> None:
    (tmp_path / "loops.py").write_text(SHOW_LOOPS)
    assert command("run", "loops.py", PROACT_ENGINE="poll").stdout.startswith("run poll\n")
    assert "not proact" not in command("run", "loops.py").stdout


def test_a_program_that_names_its_loop_gets_it(command: Command, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import asyncio\n"
        "async def main(): print(type(asyncio.get_running_loop()).__module__)\n"
        "with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner: runner.run(main())\n"
    )
    assert command("run", "own.py").stdout == "asyncio.unix_events\n"


FACTS = """
import json, sys
print(json.dumps([__name__, sys.argv, sys.path[0], __file__, sys.modules["__main__"].__dict__ is globals()]))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["inner/facts.py", "a", "--engine", "x", "-m", "--", "--help", ""],
        ["-m", "inner.facts", "a", "--engine", "x", "-m", "--", "--help"],
        ["-m", "inner", "--version"],
        ["-minner", "-h"],
    ],
    ids=" ".join,
)
def test_a_program_sees_what_python_would_show_it(
    command: Command, tmp_path: Path, arguments: list[str]
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "__init__.py").touch()
    (inner / "facts.py").write_text(FACTS)
    (inner / "__main__.py").write_text(FACTS)
    python = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=20
    )
    ours = command("run", *arguments)
    assert (ours.stdout, ours.stderr) == (python.stdout, "")
    assert ours.returncode == python.returncode == 0


def test_a_folder_is_a_program(command: Command, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "__main__.py").write_text("import sys, there; print(sys.path[0], sys.argv[1:])")
    (tmp_path / "inner" / "there.py").touch()
    assert command("run", "inner", "a").stdout == f"{tmp_path.resolve()}/inner ['a']\n"


def test_what_outlives_the_script_still_has_its_module(command: Command, tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "import atexit, pickle, threading, time\n"
        "class Thing: pass\n"
        "def late(): print(type(pickle.loads(pickle.dumps(Thing()))).__name__, flush=True)\n"
        "atexit.register(late)\n"
        "threading.Timer(0.05, late).start()\n"
    )
    done = command("run", "late.py")
    assert (done.stdout, done.stderr) == ("Thing\nThing\n", "")


@pytest.mark.parametrize(
    ("code", "exit_code", "stderr"),
    [
        ("raise SystemExit(7)", 7, ""),
        ("import sys; sys.exit('no more')", 1, "no more\n"),
        ("raise SystemExit", 0, ""),
        ("import os; os._exit(9)", 9, ""),
    ],
)
def test_exit_codes_are_the_programs(
    command: Command, tmp_path: Path, code: str, exit_code: int, stderr: str
) -> None:
    (tmp_path / "leave.py").write_text(code)
    done = command("run", "leave.py")
    assert (done.returncode, done.stderr) == (exit_code, stderr)


def test_a_traceback_is_the_programs_alone(command: Command, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def f():\n    1 / 0\nf()\n")
    done = command("run", "broken.py")
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert "program.py" not in done.stderr
    assert "runpy" not in done.stderr
    assert done.stderr.count('File "') == 2


def test_an_import_that_fails_inside_the_program_is_its_own_error(command: Command, tmp_path: Path) -> None:
    (tmp_path / "imports.py").write_text("import no_such_thing_at_all\n")
    done = command("run", "-m", "imports")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "imports.py" in done.stderr


def test_a_syntax_error_is_shown_as_python_shows_it(command: Command, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text("def (:\n")
    done = command("run", "wrong.py")
    assert done.returncode == 1
    assert "SyntaxError" in done.stderr
    assert "wrong.py" in done.stderr
    assert "runpy" not in done.stderr


def test_ctrl_c_ends_the_program(command: Command, tmp_path: Path) -> None:
    (tmp_path / "stop.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT); print('on')")
    done = command("run", "stop.py")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.endswith("KeyboardInterrupt\n")


UNKNOWN_ENGINE = "unknown engine 'kqueue': choose auto, io_uring, epoll, poll, select"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "line"),
    [
        (["nowhere.py"], 2, "can't open file '{here}/nowhere.py': [Errno 2] No such file or directory"),
        (["-m", "no_such_module_x"], 1, "No module named no_such_module_x"),
        (["."], 1, "can't find '__main__' module in '{here}'"),
        (
            ["--engine", "kqueue", "x.py"],
            2,
            UNKNOWN_ENGINE,
        ),
        ([], 2, "no script: proact run SCRIPT [ARGS]... or proact run -m MODULE [ARGS]..."),
        (["--nonsense", "x.py"], 2, "No such option: --nonsense (see 'proact run --help')"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_run_is_one_line(
    command: Command, tmp_path: Path, arguments: list[str], exit_code: int, line: str
) -> None:
    done = command("run", *arguments)
    assert done.stderr == f"proact: {line.format(here=os.path.realpath(tmp_path))}\n"
    assert (done.returncode, done.stdout) == (exit_code, "")


def test_an_engine_name_from_the_environment_is_checked_too(command: Command, tmp_path: Path) -> None:
    (tmp_path / "x.py").touch()
    done = command("run", "x.py", PROACT_ENGINE="kqueue")
    assert done.returncode == 2
    assert done.stderr.startswith("proact: unknown engine 'kqueue'")


@pytest.mark.parametrize("replace", [replace_policy, replace_new_event_loop], ids=lambda f: f.__name__)
def test_both_ways_to_replace_asyncios_loop(replace: object, tmp_path: Path) -> None:
    """The way for 3.14 works on older Pythons too, so it is tested there; policies end with 3.13."""
    name = getattr(replace, "__name__", "")
    if name == "replace_policy" and sys.version_info >= (3, 14):
        pytest.skip("event loop policies are deprecated from Python 3.14 on, and not used there")
    code = (
        "import asyncio\n"
        f"from proact.cli.program import {name}\n"
        "class Loop(asyncio.SelectorEventLoop): engine = 'ours'\n"
        f"{name}(Loop)\n" + SHOW_LOOPS
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=20
    )
    assert (done.stdout.splitlines(), done.stderr) == (["run ours", "Runner ours", "new_event_loop ours"], "")


@pytest.mark.parametrize(
    ("given", "shielded"),
    [
        (["run", "-m", "x", "-v"], ["run", "-m", "x", "--", "-v"]),
        (["run", "--engine", "-m", "-mx", "-v"], ["run", "--engine", "-m", "-mx", "--", "-v"]),
        (["run", "--engine=poll", "-m", "x"], ["run", "--engine=poll", "-m", "x", "--"]),
        (["run", "x.py", "-m", "y"], ["run", "x.py", "-m", "y"]),
        (["run", "--", "-m"], ["run", "--", "-m"]),
        (["run", "-m"], ["run", "-m"]),
        (["lab", "-m", "x"], ["lab", "-m", "x"]),
        ([], []),
    ],
)
def test_a_modules_options_are_shielded_from_ours(given: list[str], shielded: list[str]) -> None:
    assert shield(given) == shielded
