"""From the shell to a command and back to an exit code. It imports nothing that ``proact[cli]`` brings.

The program of ``proact run`` is not run inside the command-line library, which has its own ideas about
options, exceptions, Ctrl-C and broken pipes: it is prepared and run from here, and needs no extra.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn, TextIO, cast

from proact.cli import starting
from proact.cli.error import CommandError
from proact.cli.program import as_module, parse

if TYPE_CHECKING:
    from collections.abc import Callable

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


def enter(*, by_module: bool) -> None:
    """What ``proact.cli.main`` does, once it has taken care of Ctrl-C."""
    arguments = as_module(sys.argv[1:]) if by_module else sys.argv[1:]
    try:
        program, outcome = parse(arguments), 0
        if program is not None:
            program.prepare()
        else:
            outcome = carry_out(arguments)
        sys.stdout.flush()
    except CommandError as error:
        _end(f"proact: {error}", error.exit_code)
    except KeyboardInterrupt:
        _end("proact: interrupted", 130)
    except BrokenPipeError:  # the reader of our output has seen enough
        _silence()
        sys.exit(1)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _silence()
        _end(f"proact: can't write the output: {error.strerror}", 1)
    if program is not None:
        starting.ready()
        program.run()
    starting.begin()
    sys.exit(outcome)


def _end(line: str, code: int) -> NoReturn:
    """Exit with a line on stderr; the exit code is the same where stderr can't be written."""
    starting.begin()
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
    sys.exit(code)


def _silence() -> None:
    """What is left to be written goes nowhere, so that the flush at exit does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Messages:
    """Standard error for the commands: a message for which a disk has no room ends no measurement."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        self._try(self._file.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._file.flush)

    def _try(self, act: Callable[..., object], *arguments: str) -> None:
        try:
            act(*arguments)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise  # nobody reads on (`2>&1 | head`): that does end it

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _open_standard_files() -> None:
    """Of standard input, output and error, those that were closed (``>&-``) are /dev/null here."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def carry_out(arguments: list[str]) -> int:
    """Run any command but ``run PROGRAM``; return its exit code. Raises CommandError as ``dispatch`` does."""
    _open_standard_files()
    sys.stderr = cast("TextIO", _Messages(sys.stderr))
    if missing := [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]:
        raise CommandError(f"the command line needs {' and '.join(missing)}: pip install 'proact[cli]'")
    from proact.cli.app import dispatch

    starting.ready()
    return dispatch(arguments)
