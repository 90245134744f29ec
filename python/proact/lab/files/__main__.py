"""The process of a model that works on files: ``python -m proact.lab.files MODEL``.

It says in one line of JSON that it is ready. Whenever stdin tells it to, it does a round of operations and
answers in lines of JSON (``work``). It ends with stdin or, with ``--parent``, with its parent.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from proact._core import install_probe
from proact.lab.files import FILES
from proact.lab.files.fileset import Amounts, FileSet
from proact.lab.files.work import Work, say
from proact.lab.lifetime import die_with_parent, pin_to
from proact.lab.registry import MODELS


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m proact.lab.files", description=__doc__)
    parser.add_argument("model", choices=[name for name, model in MODELS.items() if model.files])
    parser.add_argument("--workload", choices=FILES, default="files-small", help="what an operation is")
    parser.add_argument("--concurrency", type=int, default=1, help="operations at once")
    parser.add_argument("--files", required=True, help="the file set, as JSON")
    parser.add_argument("--parent", type=int, help="end when this process, our parent, ends")
    parser.add_argument("--probe", type=int, help="an inherited fd for the record of its I/O calls")
    parser.add_argument("--cpu", type=int, help="run on this core only")
    options = parser.parse_args(arguments)
    if options.concurrency < 1:
        parser.error(f"argument --concurrency: {options.concurrency} is not 1 or more")
    return options


def main(arguments: list[str]) -> None:
    """Work until stdin ends."""
    options = parse(arguments)
    if options.parent is not None:
        die_with_parent(options.parent)
    if options.cpu is not None:
        pin_to(options.cpu)  # before any thread starts, so that all of them inherit it
    if options.probe is not None:
        install_probe(options.probe)
    fields = json.loads(options.files)
    files = FileSet(**fields | {"amounts": Amounts(**fields["amounts"])})
    work = Work(options.workload, files, options.concurrency)
    say({"pid": os.getpid()})
    MODELS[options.model].work(work)


if __name__ == "__main__":
    main(sys.argv[1:])
