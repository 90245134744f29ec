"""From the shell to a command and back to an exit code. It imports nothing that
``proact[cli]`` brings.

The program of ``proact run`` is not run inside the command-line library, which has its own ideas about
exceptions, Ctrl-C and broken pipes: the command only prepares it, and it is run from here.
"""

from __future__ import annotations

import importlib.util
import os
import sys

from proact.cli.error import CommandError
from proact.cli.program import Program, shield


def main() -> None:
    """Run the ``proact`` command with ``sys.argv`` and exit: 0 done, 1 failed, 2 asked for wrongly."""
    if missing := [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]:
        needs = " and ".join(missing)
        print(f"proact: the command line needs {needs}: pip install 'proact[cli]'", file=sys.stderr)
        sys.exit(2)
    from proact.cli.app import dispatch

    try:
        outcome = dispatch(shield(sys.argv[1:]))
        if isinstance(outcome, Program):
            outcome.prepare()
        sys.stdout.flush()
    except CommandError as error:
        print(f"proact: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("proact: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit is silent
        sys.exit(1)
    if isinstance(outcome, Program):
        outcome.run()
        outcome = 0
    sys.exit(outcome)
