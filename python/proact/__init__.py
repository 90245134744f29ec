"""proact: every Unix I/O model behind one interface; by default true asynchronous I/O on io_uring."""

from __future__ import annotations

from ._core import ENGINES, Completion, Ring
from .loop import EventLoop
from .runner import engine_report, new_event_loop, run

# Not from `typing`, whose import would make each start slower. Type checkers take the name for true.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from asyncio import DefaultEventLoopPolicy
    from typing import Any

    from . import fs
    from .fs import Path, open
    from .policy import install
    from .threads import serve_threads

    EventLoopPolicy = DefaultEventLoopPolicy

__all__ = [
    "ENGINES",
    "Completion",
    "EventLoop",
    "Path",
    "Ring",
    "__version__",
    "engine_report",
    "fs",
    "install",
    "new_event_loop",
    "open",
    "run",
    "serve_threads",
]

__version__ = "0.1.0"

_LATE = {"fs": ".fs", "open": ".fs", "Path": ".fs", "install": ".policy", "serve_threads": ".threads"}

if not TYPE_CHECKING:  # else a type checker would accept every name

    def __getattr__(name: str) -> Any:
        # Imported when they are asked for: a program that needs none of them starts faster.
        if name in _LATE:
            from importlib import import_module

            module = import_module(_LATE[name], __name__)
            # Kept, because coming here takes longer than opening a file.
            globals()[name] = found = module if name == "fs" else getattr(module, name)
            return found
        # Made when it is asked for: from Python 3.14 on policies are deprecated, and 3.16 is to have none.
        if name == "EventLoopPolicy":
            from .policy import policy_class

            if (found := policy_class()) is not None:
                return found
            raise AttributeError(
                "proact.EventLoopPolicy: this Python has no event loop policies; use proact.run()"
            )
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
