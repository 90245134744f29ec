"""proact: every Unix I/O model behind one interface; by default true asynchronous I/O on io_uring."""

from ._core import ENGINES, Completion, Ring
from .fs import Path, open
from .loop import EventLoop
from .runner import engine_report, new_event_loop, run
from .threads import serve_threads

__all__ = [
    "ENGINES",
    "Completion",
    "EventLoop",
    "Path",
    "Ring",
    "__version__",
    "engine_report",
    "fs",
    "new_event_loop",
    "open",
    "run",
    "serve_threads",
]

__version__ = "0.1.0"
