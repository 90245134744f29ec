"""Runs an asyncio program as ``python script.py`` would run it, but on proact's loop.

``asyncio.run``, ``asyncio.Runner`` and ``asyncio.new_event_loop`` then make proact's loops (``policy.py``
says how). A program that names its loop (``loop_factory=``) gets the loop that it names. Nothing here needs
``proact[cli]``.
"""

from __future__ import annotations

import builtins
import os
import pkgutil
import runpy
import sys
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader, SourcelessFileLoader
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from proact import ENGINES, new_event_loop, policy
from proact.cli.error import CommandError

#: Frames of these files lie between the command and the program; the program's tracebacks leave them out.
_OURS = (__file__, runpy.__file__, "<frozen runpy>", "<frozen importlib.")


#: The commands of ``proact``. After ``python -m`` each is a command, even where a folder has that name.
_COMMANDS = ("run", "doctor", "lab")


def as_module(arguments: list[str]) -> list[str]:
    """The arguments of ``python -m proact`` as those of ``proact``: before a program comes ``run``."""
    first = next(iter(arguments), "")
    if first.startswith(("-m", "--engine")):
        return ["run", *arguments]
    is_program = first.endswith(".py") or os.sep in first or Path(first).exists()
    return ["run", *arguments] if first and first not in _COMMANDS and is_program else arguments


def parse(arguments: list[str]) -> Program | None:
    """The program that ``run ...`` names; None if this is another command, or not said as ``run`` wants it.

    As with ``python`` itself, all that follows the script or the module belongs to the program, options too.
    """
    command, *rest = arguments or [""]
    if command != "run":
        return None
    engine = os.environ.get("PROACT_ENGINE") or "auto"
    while rest:
        word, *rest = rest
        if word == "--engine" and rest:
            engine, *rest = rest
        elif word.startswith("--engine="):
            engine = word.removeprefix("--engine=")
        elif word == "-m" and rest:
            return Program(rest[0], None, tuple(rest[1:]), engine)
        elif word.startswith("-m") and word != "-m":
            return Program(word[2:], None, tuple(rest), engine)
        elif word == "--" and rest:
            return Program(None, rest[0], tuple(rest[1:]), engine)
        elif word.startswith("-"):
            return None
        else:
            return Program(None, word, tuple(rest), engine)
    return None


@dataclass(frozen=True, slots=True)
class Program:
    """A script or a module (one of them is None), its arguments, and the engine of its loops."""

    module: str | None
    script: str | None
    arguments: tuple[str, ...]
    engine: str

    def prepare(self) -> None:
        """Set up ``sys`` and asyncio for the program.

        Raises CommandError if the script cannot be opened, or if there is no such engine here.
        """
        check_engine(self.engine)
        if self.script is not None:
            check_script(self.script)
        sys.argv = [self.script or "-m", *self.arguments]
        if not sys.flags.safe_path:
            # It replaces the path that our own start put there.
            sys.path[0] = str(Path(self.script).resolve().parent if self.script else Path.cwd())
        if self.engine != "auto":
            os.environ["PROACT_ENGINE"] = self.engine  # also for the loops that the program's children make
        policy.use(new_event_loop)

    def run(self) -> None:
        """Run the program to its end. Raises what ended it, also KeyboardInterrupt, by which Python then ends
        the process as it does without us. What is shown of it begins with the program's first frame.
        """
        sys.modules["__main__"] = main = ModuleType("__main__")
        vars(main)["__builtins__"] = builtins
        try:
            if self.script is not None:
                run_script(Path(self.script).absolute(), vars(main))
            elif self.module is not None:
                run_module(self.module)
        except SystemExit:
            raise
        except BaseException as error:
            show_theirs(without_ours(error.__traceback__))
            raise


def show_theirs(trace: TracebackType | None) -> None:
    """Have the exception that is about to end this process shown with ``trace``, by the program's hook."""
    theirs = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        sys.excepthook = theirs
        theirs(kind, error.with_traceback(trace), trace)

    sys.excepthook = hook


def check_engine(engine: str) -> None:
    """Raise CommandError if there is no such engine, or if this machine refuses it."""
    if engine == "auto":
        return
    if engine not in ENGINES:
        raise CommandError(f"unknown engine {engine!r}: choose auto, {', '.join(ENGINES)}")
    from proact.lab.registry import missing_engine  # not above: it imports all of the laboratory's models

    if reason := missing_engine(engine):
        raise CommandError(reason, exit_code=1)


def check_script(script: str) -> None:
    """Raise CommandError, worded as Python words it, if ``script`` cannot be opened."""
    try:
        # A folder or a zip with a __main__ is a program too, so refuse only what cannot be opened at all.
        os.close(os.open(script, os.O_RDONLY))
    except OSError as error:
        path = str(Path(script).absolute())
        raise CommandError(f"can't open file {path!r}: [Errno {error.errno}] {error.strerror}") from None


def run_script(path: Path, names: dict[str, Any]) -> None:
    """Run a script, a ``.pyc``, or a folder or zip with a ``__main__``, in ``names``. ``path`` is absolute.

    Not by ``runpy.run_path`` or ``run_module``, which take the module away when it has ended: threads and
    atexit functions that outlive it, and pickle, still need it.
    """
    if pkgutil.get_importer(str(path)) is not None:
        if not sys.flags.safe_path:
            del sys.path[0]
        sys.path.insert(0, str(path))
        run_module("__main__", named=False)
        return
    loader: SourceFileLoader | SourcelessFileLoader
    code: Any
    if path.suffix == ".pyc":
        loader = SourcelessFileLoader("__main__", str(path))
        code = loader.get_code("__main__")
    else:
        loader = SourceFileLoader("__main__", str(path))
        code = loader.source_to_code(loader.get_data(str(path)), str(path))
    names.update(__file__=str(path), __loader__=loader, __package__=None)
    exec(code, names)


def run_module(name: str, *, named: bool = True) -> None:
    """Run a module as ``__main__``, as ``python -m`` does. ``named``: ``sys.argv[0]`` becomes its file."""
    try:
        # CPython itself calls this by its name.
        runpy._run_module_as_main(name, named)  # type: ignore[attr-defined]  # typeshed leaves it out
    except SystemExit as error:
        if isinstance(error.__context__, runpy._Error):  # type: ignore[attr-defined]  # likewise
            # It was not found. The text begins with the interpreter.
            raise SystemExit(f"proact: {str(error.code).removeprefix(f'{sys.executable}: ')}") from None
        raise


def without_ours(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the program's first frame on; None if the program never began."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return trace
