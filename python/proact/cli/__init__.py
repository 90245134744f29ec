"""The ``proact`` command. ``main`` is its entry point; the commands are one file each."""

from proact.cli.entry import main

__all__ = ["main"]
