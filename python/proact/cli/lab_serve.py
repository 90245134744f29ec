"""``proact lab serve``: checks the arguments; ``proact.lab.live`` serves."""

from __future__ import annotations

import importlib.util
import sys
from typing import Annotated

import typer

from proact.cli.error import CommandError
from proact.cli.stopping import StoppedError, stoppable
from proact.lab.live.server import serve as serve_page


def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
) -> int:
    """\b
    Examples:
      proact lab serve
      proact lab serve --port 8000

    A page on this machine, served by proact: pick what to measure, watch the numbers come, stop, read the
    report, download the raw results. Its address is printed. One run at a time, in a process of its own;
    Ctrl-C ends both. Only this machine can reach it, unless --host opens it to others: they can start runs.
    """
    if missing := [name for name in ("httptools", "plotly") if importlib.util.find_spec(name) is None]:
        raise CommandError(f"the page needs {' and '.join(missing)}: pip install 'proact[lab]'")
    try:
        with stoppable(loop=True):
            serve_page(
                host, port, lambda url: print(f"proact: {url} (Ctrl-C stops)", file=sys.stderr, flush=True)
            )
    except StoppedError:
        print("proact: stopped", file=sys.stderr)
        return 0
    except OSError as error:
        raise CommandError(
            f"can't listen on {host} port {port}: {error.strerror or error}", exit_code=1
        ) from None
    return 0
