"""The command itself: version, help, and what it says when it cannot start."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from support.trials import once_of_five

from proact.cli.stopping import StoppedError, stoppable

if TYPE_CHECKING:
    from pathlib import Path

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def test_version(command: Command) -> None:
    done = command("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("proact ")
    assert "Python" in done.stdout


@pytest.mark.parametrize("words", [[], ["run"], ["doctor"], ["lab"], ["lab", "echo"]], ids=" ".join)
def test_help_starts_with_examples(command: Command, words: list[str]) -> None:
    done = command(*words, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    assert lines[0].startswith("Usage: proact")
    assert lines[1] == "Examples:"
    assert lines[2].startswith("proact ")


@pytest.mark.parametrize("words", [[], ["lab"]], ids=" ".join)
def test_alone_it_shows_its_help(command: Command, words: list[str]) -> None:
    done = command(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == command(*words, "--help").stdout


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_its_extra_it_says_how_to_get_it(missing: str, tmp_path: Path) -> None:
    code = (
        "import importlib.util, sys\n"
        "real = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *rest: None if name == {missing!r} else real(name, *rest)\n"
        "from proact.cli import main\n"
        "assert 'typer' not in sys.modules and 'rich' not in sys.modules\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 2
    assert done.stderr == f"proact: the command line needs {missing}: pip install 'proact[cli]'\n"


def test_the_worker_for_gunicorn_says_what_it_needs() -> None:
    """gunicorn shows the exception's text, at the end of a traceback."""
    code = "import sys; sys.modules['uvicorn_worker'] = None; import proact.gunicorn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: proact.gunicorn needs uvicorn's worker: pip install uvicorn-worker"
    )
    assert "During handling" not in done.stderr


@pytest.mark.parametrize("arguments", [["nonsense"], ["lab", "nonsense"], ["--nonsense"], ["doctor", "more"]])
def test_an_unknown_command_is_one_line(command: Command, arguments: list[str]) -> None:
    done = command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("proact: ")
    assert done.stderr.count("\n") == 1
    assert "--help'" in done.stderr


@pytest.mark.parametrize("words", ["--version", "doctor", "doctor --json"])
def test_a_disk_that_is_full_is_one_line(words: str) -> None:
    shell = f"{sys.executable} -m proact {words} > /dev/full"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "proact: can't write the output: No space left on device\n"


def test_a_reader_that_leaves_early_gets_no_traceback() -> None:
    shell = f"{sys.executable} -m proact doctor --json | head -c 1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr) == ("{", "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    "command", ["doctor --json", "lab --help", "lab choose --connections 100", "nonsense"]
)
def test_a_closed_standard_file_is_no_failure(command: str, closed: str) -> None:
    shell = f"{sys.executable} -m proact {command} {closed}"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, timeout=30)
    assert done.returncode == (2 if command == "nonsense" else 0), done.stderr
    assert "Traceback" not in done.stderr
    assert bool(done.stdout) == (">&-" not in closed.split() and command != "nonsense")


#: Ctrl-C comes when the named module is about to be imported.
CTRL_C = (
    "import signal, sys\n"
    "class Finder:\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name == {module!r}: signal.raise_signal(signal.SIGINT)\n"
    "sys.meta_path.insert(0, Finder())\n"
    "from proact.cli import main\n"
    "main(by_module=True)\n"
)


@pytest.mark.parametrize("module", ["proact.cli.entry", "proact.cli.program", "typer", "proact.cli.lab"])
def test_ctrl_c_while_it_starts_ends_it_without_a_word(module: str) -> None:
    words = [sys.executable, "-c", CTRL_C.format(module=module), "lab"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_ctrl_c_while_it_starts_is_ignored_where_the_shell_says_so() -> None:
    words = [sys.executable, "-c", CTRL_C.format(module="typer"), "--version"]
    shell = f"trap '' INT; exec {shlex.join(words)}"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_in_a_command_is_one_line() -> None:
    code = (
        "import signal\n"
        "from proact.cli import doctor, main\n"
        "doctor.show = lambda facts: signal.raise_signal(signal.SIGINT)\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, "doctor"], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "proact: interrupted\n")


def test_a_program_gets_pythons_own_ctrl_c(command: Command, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("import signal; print(signal.getsignal(2) is signal.default_int_handler)")
    assert command("run", "x.py").stdout == "True\n"


def test_stderr_that_is_full_does_not_change_the_exit_code() -> None:
    shell = f"{sys.executable} -m proact nonsense 2> /dev/full"
    assert subprocess.run(shell, shell=True, timeout=50, check=False).returncode == 2


@once_of_five  # a measurement fails if it gets no core
@pytest.mark.parametrize("words", ["timeline --models epoll --requests 2", "echo --models epoll --repeat 1"])
def test_stderr_that_is_full_ends_no_measurement(words: str) -> None:
    shell = f"{sys.executable} -m proact lab {words} 2> /dev/full"
    done = subprocess.run(shell, shell=True, stdout=subprocess.PIPE, text=True, timeout=50, check=False)
    assert done.returncode == 0
    assert "epoll" in done.stdout


def test_messages_that_nobody_reads_end_a_measurement() -> None:
    shell = f"timeout 40 {sys.executable} -m proact lab run --models epoll --duration 30 2>&1 | head -n 1"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, timeout=50, check=False)
    assert done.stdout.startswith("10 cells, about ")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("first", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["interrupted", "terminated"]
)
def test_a_second_blow_does_not_interrupt_the_cleaning_up(first: signal.Signals, code: int) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    cleaned = False
    with pytest.raises(StoppedError) as stopped, stoppable():
        try:
            signal.raise_signal(first)
        finally:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            cleaned = True
    assert cleaned
    assert stopped.value.exit_code == code
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
