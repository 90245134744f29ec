"""The server process of a measurement: ``python -m proact.lab.serve MODEL``.

It serves on a listening socket that it inherits (``--fd``), or on a free port of 127.0.0.1. It gives the
address in one line of JSON on stdout just before it starts. It ends on SIGTERM and, with ``--parent``, with
its parent.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from typing import NoReturn

from proact._core import install_probe
from proact.lab.lifetime import die_with_parent, pin_to
from proact.lab.models import BACKLOG
from proact.lab.registry import MODELS
from proact.lab.workloads import WORKLOADS


def integers(text: str) -> tuple[int, ...]:
    """Whole numbers, with commas between."""
    return tuple(map(int, text.split(",")))


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line of a server process."""
    parser = argparse.ArgumentParser(prog="python -m proact.lab.serve", description=__doc__)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--workload", choices=WORKLOADS, default="echo", help="what to serve")
    parser.add_argument("--fd", type=int, help="an inherited listening TCP socket")
    parser.add_argument("--parent", type=int, help="end when this process, our parent, ends")
    parser.add_argument("--probe", type=int, help="an inherited fd for the record of its I/O calls")
    parser.add_argument("--cpu", type=integers, help="run on these cores only")
    parser.add_argument("--backends", type=integers, default=(), help="the ports of the back ends")
    return parser.parse_args(arguments)


def listen(fd: int | None) -> socket.socket:
    """The inherited socket ``fd``, or a new one on a free port of the loopback address."""
    if fd is not None:
        return socket.socket(fileno=fd)
    return socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)


def main(arguments: list[str]) -> NoReturn:
    """Serve until killed."""
    options = parse(arguments)
    if options.parent is not None:
        die_with_parent(options.parent)
    if options.cpu is not None:
        pin_to(*options.cpu)  # before any thread starts, so that all of them inherit it
    listener = listen(options.fd)
    if options.probe is not None:
        # Before the model is imported, so that the probe also covers the libraries that it loads.
        install_probe(options.probe)
    print(json.dumps({"port": listener.getsockname()[1], "pid": os.getpid()}), flush=True)
    MODELS[options.model].serve(listener, options.workload, options.backends)


if __name__ == "__main__":
    main(sys.argv[1:])
