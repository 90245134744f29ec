"""The ``proact`` command. ``main`` is its entry point; the commands are one file each."""

from __future__ import annotations


def main(*, by_module: bool = False) -> None:
    """Run the ``proact`` command with ``sys.argv`` and exit: 0 done, 1 failed, 2 asked for wrongly.

    ``by_module``: the command is ``python -m proact``, where a script or ``-m MODULE`` needs no ``run``.
    """
    # First of all, before what the command needs is imported: Ctrl-C meanwhile would show a traceback.
    from proact.cli import starting

    starting.begin()
    from proact.cli.entry import enter

    enter(by_module=by_module)


__all__ = ["main"]
