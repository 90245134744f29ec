"""Ctrl-C while the command starts and while it ends: the process is gone at once, and shows no traceback.

Imports take a third of a second, and more from a cold disk. A KeyboardInterrupt there would show what was
being imported, or would be lost (Python drops one that comes in a callback of its import locks). So the
kernel's own way of ending a process by SIGINT is in force until a command or a program begins, and again
when a command is done: then nothing has been started or made that would have to be cleaned up.
"""

from __future__ import annotations

import signal

_ours = False


def begin() -> None:
    """Have SIGINT end this process at once, unless somebody has decided otherwise (a shell: ``&``)."""
    global _ours
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _ours = True


def ready() -> None:
    """From now on SIGINT raises KeyboardInterrupt again, as Python has it. Undoes ``begin``."""
    global _ours
    if _ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _ours = False
