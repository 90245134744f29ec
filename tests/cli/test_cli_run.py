"""``proact run``: apart from its loop, the program runs as under ``python``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from proact.cli.program import Program, as_module, parse

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


def program(
    script: str | None = None, *rest: str, module: str | None = None, engine: str = "auto"
) -> Program:
    return Program(module, script, rest, engine)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "x.py", "-m", "y"], program("x.py", "-m", "y")),
        (
            ["run", "--engine", "poll", "x.py", "--engine", "z"],
            program("x.py", "--engine", "z", engine="poll"),
        ),
        (["run", "-m", "x", "-v", "--", "a"], program(None, "-v", "--", "a", module="x")),
        (["run", "--engine", "-m", "-mx", "-v"], program(None, "-v", module="x", engine="-m")),
        (["run", "--engine=poll", "-m", "x"], program(module="x", engine="poll")),
        (["run", "--", "-m", "x"], program("-m", "x")),
        (["run", "-m"], None),
        (["run", "--engine"], None),
        (["run", "--"], None),
        (["run", "-v", "x.py"], None),
        (["run"], None),
        (["lab", "-m", "x"], None),
        ([], None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_follows_the_program_is_its_own(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], named: Program | None
) -> None:
    monkeypatch.delenv("PROACT_ENGINE", raising=False)
    assert parse(arguments) == named


@pytest.mark.parametrize(
    ("arguments", "is_run"),
    [
        (["x.py", "doctor"], True),
        (["no/such/file"], True),
        (["there"], True),
        (["./doctor"], True),
        (["-m", "x"], True),
        (["-mx"], True),
        (["--engine", "epoll", "x.py"], True),
        (["--engine=epoll", "there"], True),
        (["doctor"], False),
        (["doctor", "--json"], False),
        (["run", "x.py"], False),
        (["lab", "echo"], False),
        (["docter"], False),
        (["--help"], False),
        ([""], False),
        ([], False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_python_m_proact_takes_for_a_program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], is_run: bool
) -> None:
    for name in ("there", "doctor", "lab"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert as_module(arguments) == (["run", *arguments] if is_run else arguments)


@pytest.mark.parametrize(
    "arguments", [["facts.py", "a", "--json"], ["-m", "facts", "--engine", "x"], ["sub/doctor", "--version"]]
)
def test_python_m_proact_runs_a_program(command: Command, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "facts.py").write_text(FACTS)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "doctor").write_text(FACTS)
    python = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=20
    )
    ours = command(*arguments)
    assert (ours.stdout, ours.stderr, ours.returncode) == (python.stdout, "", 0)


@pytest.mark.parametrize("words", [["x.py"], ["run", "x.py"], ["--engine", "poll", "-m", "x"]], ids=" ".join)
def test_a_program_runs_without_the_extra(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "x.py").write_text(SHOW_LOOPS)
    code = (
        "import importlib.util, sys\n"
        "real = importlib.util.find_spec\n"
        "missing = ('typer', 'rich')\n"
        "importlib.util.find_spec = lambda name, *rest: None if name in missing else real(name, *rest)\n"
        "sys.modules['typer'] = sys.modules['rich'] = None  # to import them is an error\n"
        "from proact.cli.entry import main\n"
        "main(by_module=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "not proact" not in done.stdout
    assert done.stdout.count("poll") in ((3,) if "poll" in words else (0, 3))
