"""Runs an asyncio program as ``python script.py`` would run it, but on proact's loop.

``asyncio.run``, ``asyncio.Runner`` and ``asyncio.new_event_loop`` ask asyncio for a new loop in one place.
This file replaces that place: up to Python 3.13 the event loop policy; from 3.14 on, where policies are
deprecated, the function ``asyncio.new_event_loop`` itself. A program that names its loop
(``loop_factory=``) gets the loop that it names.
"""

from __future__ import annotations

import asyncio
import asyncio.events
import builtins
import os
import runpy
import sys
import zipfile
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, NoReturn

from proact.cli.error import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable

#: Frames of these files lie between the command and the program; the program's tracebacks leave them out.
_OURS = (__file__, runpy.__file__, "<frozen runpy>", "<frozen importlib.")


def shield(arguments: list[str]) -> list[str]:
    """Add ``--`` after ``run -m MODULE``, so that the rest, including options, goes to the module."""
    if arguments[:1] != ["run"]:
        return arguments
    index = 1
    while index < len(arguments) and arguments[index].startswith("-") and arguments[index] != "--":
        option = arguments[index]
        index += 2 if option in ("-m", "--engine") else 1
        if option.startswith("-m") and index <= len(arguments):
            return [*arguments[:index], "--", *arguments[index:]]
    return arguments


@dataclass(frozen=True, slots=True)
class Program:
    """A script or a module (one of them is None), its arguments, and the engine of its loops."""

    module: str | None
    script: str | None
    arguments: tuple[str, ...]
    engine: str

    def prepare(self) -> None:
        """Set up ``sys`` and asyncio for the program. Raises CommandError if the script cannot be opened."""
        if self.script is not None:
            check_script(self.script)
        sys.argv = [self.script or "-m", *self.arguments]
        if not sys.flags.safe_path:
            # It replaces the path that our own start put there.
            sys.path[0] = str(Path(self.script).resolve().parent if self.script else Path.cwd())
        use_proact(self.engine)

    def run(self) -> None:
        """Run the program to its end. Raises SystemExit with its exit code, unless that is 0."""
        try:
            if self.script is not None:
                run_script(Path(self.script).absolute())
            elif self.module is not None:
                runpy.run_module(self.module, run_name="__main__", alter_sys=True)
        except SystemExit:
            raise
        except BaseException as error:
            self._report(error)

    def _report(self, error: BaseException) -> NoReturn:
        theirs = without_ours(error.__traceback__)
        if theirs is None and isinstance(error, ImportError):  # runpy itself did not find it
            raise SystemExit(f"proact: {error}")
        sys.excepthook(type(error), error.with_traceback(theirs), theirs)
        raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 1)


def check_script(script: str) -> None:
    """Raise CommandError, worded as Python words it, if ``script`` cannot be opened."""
    try:
        # A folder or a zip with a __main__ is a program too, so refuse only what cannot be opened at all.
        os.close(os.open(script, os.O_RDONLY))
    except OSError as error:
        path = str(Path(script).absolute())
        raise CommandError(f"can't open file {path!r}: [Errno {error.errno}] {error.strerror}") from None


def run_script(path: Path) -> None:
    """Run a script, or by runpy a folder, zip or ``.pyc``. ``path`` is absolute."""
    if not path.is_file() or path.suffix == ".pyc" or zipfile.is_zipfile(path):
        if not sys.flags.safe_path:
            del sys.path[0]  # runpy puts the folder or zip itself there
        runpy.run_path(str(path), run_name="__main__")
        return
    # Not by runpy, which removes the module when the script has ended: threads and atexit functions that
    # outlive it, and pickle, still need it.
    loader = SourceFileLoader("__main__", str(path))
    module = ModuleType("__main__")
    vars(module).update(__file__=str(path), __loader__=loader, __builtins__=builtins, __package__=None)
    sys.modules["__main__"] = module
    exec(loader.source_to_code(loader.get_data(str(path)), str(path)), vars(module))


def without_ours(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the program's first frame on; None if the program never began."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return trace


def use_proact(engine: str) -> None:
    """Make asyncio create proact's loops from now on, in this process."""
    from proact import new_event_loop

    def factory() -> asyncio.AbstractEventLoop:
        return new_event_loop(engine=engine)

    if sys.version_info >= (3, 14):
        replace_new_event_loop(factory)
    else:
        replace_policy(factory)


def replace_policy(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Up to Python 3.13: asyncio's own policy, except that it makes proact's loops."""

    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            return factory()

    asyncio.set_event_loop_policy(Policy())


def replace_new_event_loop(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """From Python 3.14 on: ``asyncio.Runner`` calls ``asyncio.events.new_event_loop`` by its module."""
    for module in (asyncio, asyncio.events):
        vars(module)["new_event_loop"] = factory
