"""Chooses the engine of a loop: the named one, the one in the environment, or the first that works here."""

from __future__ import annotations

import errno
import os

from . import _core

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    _T = TypeVar("_T")

__all__ = ["choose"]


def _check_name(engine: str, source: str) -> str:
    if engine != "auto" and engine not in _core.ENGINES:
        names = ", ".join(("auto", *_core.ENGINES))
        raise ValueError(f"{source}: no engine is named {engine!r}; the engines are {names}")
    return engine


def _requested(engine: str) -> str:
    """The engine asked for: the argument, else `PROACT_ENGINE`, else "auto"."""
    if _check_name(engine, "engine") != "auto":
        return engine
    return _check_name(os.environ.get("PROACT_ENGINE") or "auto", "PROACT_ENGINE")


def choose(engine: str, make: Callable[[str], _T]) -> tuple[_T, dict[str, Any]]:
    """Call `make` with the name of the engine; return the result, and how the engine was chosen: `requested`,
    and the `engines` tried.

    Raises ValueError for an unknown name, and OSError if a named engine is not available or if memory or file
    descriptors have run out.
    """
    requested = _requested(engine)
    engines: dict[str, dict[str, Any]] = {}
    info = {"requested": requested, "engines": engines}
    if requested != "auto":
        if engine == "auto":
            # The environment has decided, so no other engine is even probed: a seccomp filter may kill the
            # process for a probe instead of refusing it.
            for name in _core.ENGINES:
                engines[name] = {"available": False, "reason": f"not tried: PROACT_ENGINE is {requested}"}
        return make(requested), info
    for name in _core.ENGINES:
        try:
            made = make(name)
        except OSError as error:
            # ENOMEM of a ring means the limit of locked memory; the other engines lock no memory.
            exhausted = error.errno == errno.ENOMEM and name != "io_uring"
            if exhausted or error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            engines[name] = {"available": False, "reason": error.strerror or str(error)}
            continue
        return made, info
    raise OSError(errno.ENOSYS, f"no engine works here: {engines}")
