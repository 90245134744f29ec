"""``proact run``: apart from its loop, the program runs as under ``python``."""

from __future__ import annotations

import os
import py_compile
import re
import subprocess
import sys
import zipfile
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
    ours = command("run", *arguments)
    theirs = python(arguments, tmp_path)
    assert (ours.stdout, ours.stderr) == (theirs.stdout, "")
    assert ours.returncode == theirs.returncode == 0


def test_a_folder_is_a_program(command: Command, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "__main__.py").write_text("import sys, there; print(sys.path[0], sys.argv[1:])")
    (tmp_path / "inner" / "there.py").touch()
    assert command("run", "inner", "a").stdout == f"{tmp_path.resolve()}/inner ['a']\n"


WAYS = ["script.py", "-m package.script", "folder", "program.zip", "script.pyc", "no_suffix"]


@pytest.fixture(params=WAYS)
def written(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], list[str]]:
    """``written(code)``: the words that name a program with this code, in each way to name one."""

    def write(code: str) -> list[str]:
        words = request.param.split()
        path = tmp_path / words[-1]
        match words[-1].partition(".")[::2]:
            case "package", _:
                path = tmp_path / "package" / "script.py"
                path.parent.mkdir()
            case "folder", _:
                path.mkdir()
                path /= "__main__.py"
            case _, "zip":
                with zipfile.ZipFile(path, "w") as archive:
                    archive.writestr("__main__.py", code)
                return words
            case _, "pyc":
                source = path.with_suffix(".py")
                source.write_text(code)
                py_compile.compile(str(source), str(path), dfile="script.py")
                source.unlink()
                return words
        path.write_text(code)
        return words

    return write


def python(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """What Python itself does with a program, a script or a module."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
    )


def test_what_outlives_the_program_still_has_its_module(
    command: Command, tmp_path: Path, written: Callable[[str], list[str]]
) -> None:
    words = written(
        "import atexit, pickle, threading, time\n"
        "class Thing: pass\n"
        "def late(): print(type(pickle.loads(pickle.dumps(Thing()))).__name__, flush=True)\n"
        "atexit.register(late)\n"
        "threading.Timer(0.05, late).start()\n"
    )
    done = command("run", *words)
    assert (done.stdout, done.stderr) == ("Thing\nThing\n", "")


def test_the_module_main_is_as_pythons(
    command: Command, tmp_path: Path, written: Callable[[str], list[str]]
) -> None:
    words = written(
        '"""What it says."""\n'
        "import sys\n"
        "main = vars(sys.modules['__main__'])\n"
        "print({name: str(main.get(name)) for name in ('__name__', '__doc__', '__file__', '__package__')})\n"
        "print(type(__loader__).__name__, __spec__ and __spec__.name, sys.argv, sys.path[0])\n"
        "print(main is globals(), __builtins__)\n"
    )
    assert command("run", *words, "a", "-b").stdout == python([*words, "a", "-b"], tmp_path).stdout


ENDS = {
    "the end": "print('here')",
    "an exception": "def f():\n    1 / 0\nf()",
    "a number": "raise SystemExit(7)",
    "a text": "import sys; sys.exit('no more')",
    "something else": "raise SystemExit([1])",
    "nothing": "raise SystemExit",
    "at once": "import os; os._exit(9)",
    "KeyboardInterrupt": "raise KeyboardInterrupt('x')",
    "Ctrl-C": "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('on')",
    "Ctrl-C in a loop": (
        "import asyncio, os, signal\n"
        "async def main():\n"
        "    try: os.kill(os.getpid(), signal.SIGINT); await asyncio.sleep(10)\n"
        "    finally: print('cleaned')\n"
        "asyncio.run(main())"
    ),
    "SIGTERM": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "a hook": (
        "import sys, traceback\n"
        "def hook(kind, error, trace):\n"
        "    frames = traceback.extract_tb(trace)\n"
        "    print(kind, error, [frame.name for frame in frames if 'runpy' not in frame.filename])\n"
        "sys.excepthook = hook\n"
        "1 / 0"
    ),
    "a group": "raise ExceptionGroup('several', [ValueError(1), KeyError(2)])",
    "a cause": "try: 1 / 0\nexcept ZeroDivisionError as error: raise ValueError('x') from error",
    "an atexit function": "import atexit; atexit.register(print, 'late'); raise KeyboardInterrupt",
    "an error of syntax": "def (:\n",
    "an import": "import no_such_thing_at_all",
}


@pytest.mark.parametrize("end", ENDS)
def test_a_program_ends_as_under_python(command: Command, tmp_path: Path, end: str) -> None:
    (tmp_path / "ends.py").write_text(ENDS[end])
    for words in (["ends.py"], ["-m", "ends"]):
        ours, theirs = command("run", *words), python(words, tmp_path)
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), words
        if words[0] == "-m" or end == "Ctrl-C in a loop":
            # Python shows how it found the module; the loops have frames of their own.
            assert ours.stderr.splitlines()[-1:] == theirs.stderr.splitlines()[-1:], words
            assert not re.search(r"runpy|importlib|cli/", ours.stderr), words
        else:
            assert ours.stderr == theirs.stderr, words


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
    ours = command(*arguments)
    theirs = python(arguments, tmp_path)
    assert (ours.stdout, ours.stderr, ours.returncode) == (theirs.stdout, "", 0)


@pytest.mark.parametrize("words", [["x.py"], ["run", "x.py"], ["--engine", "poll", "-m", "x"]], ids=" ".join)
def test_a_program_runs_without_the_extra(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "x.py").write_text(SHOW_LOOPS)
    code = (
        "import importlib.util, sys\n"
        "real = importlib.util.find_spec\n"
        "missing = ('typer', 'rich')\n"
        "importlib.util.find_spec = lambda name, *rest: None if name in missing else real(name, *rest)\n"
        "sys.modules['typer'] = sys.modules['rich'] = None  # to import them is an error\n"
        "from proact.cli import main\n"
        "main(by_module=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "not proact" not in done.stdout
    assert done.stdout.count("poll") in ((3,) if "poll" in words else (0, 3))
