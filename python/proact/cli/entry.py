"""From the shell to a command and back to an exit code. It imports nothing that
``proact[cli]`` brings.

The program of ``proact run`` is not run inside the command-line library, which has its own ideas about
options, exceptions, Ctrl-C and broken pipes: it is prepared and run from here, and needs no extra.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import sys

from proact.cli.error import CommandError
from proact.cli.program import as_module, parse


def main(*, by_module: bool = False) -> None:
    """Run the ``proact`` command with ``sys.argv`` and exit: 0 done, 1 failed, 2 asked for wrongly.

    ``by_module``: the command is ``python -m proact``, where a script or ``-m MODULE`` needs no ``run``.
    """
    arguments = as_module(sys.argv[1:]) if by_module else sys.argv[1:]
    try:
        program, outcome = parse(arguments), 0
        if program is not None:
            program.prepare()
        else:
            outcome = carry_out(arguments)
        sys.stdout.flush()
    except CommandError as error:
        print(f"proact: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("proact: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has seen enough
        _silence()
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"proact: can't write the output: {error.strerror}", file=sys.stderr)
        _silence()
        sys.exit(1)
    if program is not None:
        program.run()
    sys.exit(outcome)


def _silence() -> None:
    """What is left to be written goes nowhere, so that the flush at exit does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_standard_files() -> None:
    """Of standard input, output and error, those that were closed (``>&-``) are /dev/null here."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def carry_out(arguments: list[str]) -> int:
    """Run any command but ``run PROGRAM``; return its exit code. Raises CommandError as ``dispatch`` does."""
    _open_standard_files()
    if missing := [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]:
        raise CommandError(f"the command line needs {' and '.join(missing)}: pip install 'proact[cli]'")
    from proact.cli.app import dispatch

    return dispatch(arguments)
