"""The models that the laboratory knows: what each is in Stevens' terms, how it starts, and what it needs.

Listings and explanations follow this order. To add a model, write its file in ``models/`` and add one
entry here.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import platform
import sys
import sysconfig
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NoReturn

from proact.lab.files import FILES
from proact.lab.models import libevent
from proact.lab.workloads import WORKLOADS, base

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from proact.lab.files.work import Work


class Kind(StrEnum):
    """The I/O models of Stevens, *UNP* ch. 6."""

    BLOCKING = "blocking"
    NONBLOCKING = "non-blocking"
    MULTIPLEXING = "multiplexing"
    SIGNAL_DRIVEN = "signal-driven"
    ASYNCHRONOUS = "asynchronous"


#: The module of the models that have no way of their own on files: they ask for readiness, and block.
READINESS: Final = "files_readiness"


class Family(StrEnum):
    """What runs per message: the model written out in Python, someone's event loop, proact, or no Python."""

    PLAIN = "plain"
    LIBRARY = "library"
    PROACT = "proact"
    CEILING = "ceiling"


#: The workloads that any model serves: asking other servers takes code of its own.
USUAL_WORKLOADS: Final = tuple(name for name, work in WORKLOADS.items() if not work.backends)

#: With those.
EVERY_WORKLOAD: Final = tuple(WORKLOADS)

#: select(2) cannot watch an fd of 1024 or more, and a process has some open before its first connection.
SELECT_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True)
class Model:
    """One way to serve: ``module`` of ``proact.lab.models``, ``serve(listener, sessions, *arguments)``."""

    name: str
    kind: Kind
    family: Family
    module: str
    arguments: tuple[str | None, ...] = ()
    package: str | None = None  #: a package that must be importable, by its name on PyPI (and in import)
    library: tuple[str, str] | None = None  #: a shared library that must load, and its Debian package
    layout: str | None = None  #: a C structure whose layout is known here only for 64-bit glibc
    engine: str | None = None  #: a proact engine that must be available here
    connection_limit: int | None = None  #: the most connections that the model can serve
    workloads: tuple[str, ...] = USUAL_WORKLOADS  #: the workloads that it serves
    tls: bool = False  #: it has a TLS of its own: ``serve(..., tls=context)``
    workers: bool = False  #: several processes or threads serve one port, on all cores but the load's
    free: bool = False  #: it needs an interpreter without the GIL
    environment: tuple[tuple[str, str], ...] = ()  #: variables for its process
    files: tuple[str, ...] = ()  #: how it works on files: a module with ``run(work, *arguments)``, and these
    cannot: tuple[tuple[str, str], ...] = ()  #: workloads that it can't do, with the reason

    def missing(self, connections: int = 1, workload: str = "echo") -> str | None:
        """Why the model cannot be measured here with so many connections, and what would help; None if it
        can.
        """
        on_files = workload in FILES
        if (reason := dict(self.cannot).get(workload)) is not None:
            return reason
        if not (self.files if on_files else base(workload) in self.workloads):
            return f"serves {', '.join(self.workloads) or 'no connections: it has files'} only"
        limit = self.connection_limit
        if not on_files and limit is not None and WORKLOADS[workload].opened(connections) > limit:
            return (
                "serves one connection after the other, so one at a time"
                if limit == 1
                else f"select(2) watches no fd past 1023, so at most {limit} connections"
            )
        if self.free and not sysconfig.get_config_var("Py_GIL_DISABLED"):
            return "not here: this Python has the GIL (a free-threaded one is called python3.14t, say)"
        work = None if on_files else WORKLOADS[workload]
        if work is not None and work.library is not None and (reason := missing_library(*work.library)):
            return reason
        for package in (self.package, work.package if work else None):
            if package is not None and importlib.util.find_spec(package) is None:
                return f"not installed: pip install {package}"
        if self.library is not None and (reason := missing_library(*self.library)):
            return reason
        if self.layout is not None and not (sys.maxsize > 1 << 32 and platform.libc_ver()[0] == "glibc"):
            return f"layout of {self.layout} known for 64-bit glibc only"
        if self.engine is not None:
            return missing_engine(self.engine)
        return None

    def serve(self, listener: socket.socket, workload: str, ports: Sequence[int] = ()) -> NoReturn:
        """Serve ``workload`` on ``listener`` in this process for ever; ``ports`` are the back ends'."""
        module: Any = importlib.import_module(f"proact.lab.models.{self.module}")
        if WORKLOADS[workload].tls and self.tls:
            from proact.lab.workloads.tls import server_context

            module.serve(listener, WORKLOADS["echo"].sessions(), *self.arguments, tls=server_context())
        else:
            module.serve(listener, WORKLOADS[workload].sessions(ports), *self.arguments)
        raise RuntimeError(f"{self.name} stopped by itself")

    def work(self, work: Work) -> None:
        """Do all rounds of ``work`` in this process."""
        name, *arguments = self.files
        module: Any = importlib.import_module(f"proact.lab.models.{name}")
        module.run(work, *arguments)


def missing_library(name: str, package: str) -> str | None:
    """Why the shared library ``name`` can't be used, and what would help; None if it can."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return f"{name} is not installed: apt install {package}"
    return None


def missing_engine(engine: str) -> str | None:
    """Why proact's ``engine`` is not available on this machine; None if it is."""
    from proact import engine_report

    try:
        state = engine_report()["engines"][engine]
    except OSError as error:  # not a single engine works
        return str(error)
    return None if state["available"] else f"engine {engine} is not available: {state['reason']}"


def _plain(name: str, kind: Kind, module: str, limit: int | None = None, **more: Any) -> Model:
    """The entry for a model that does not help with files: it blocks for them."""
    more = {"family": Family.PLAIN, "files": (READINESS, name)} | more
    return Model(name, kind, module=module, connection_limit=limit, **more)


def _loop(package: str, installed: bool = False) -> Model:
    return Model(
        package,
        Kind.MULTIPLEXING,
        Family.LIBRARY,
        "asyncio_protocol",
        (package,),
        package=None if installed else package,
        files=("files_loop", package),
        workloads=EVERY_WORKLOAD,
        tls=package != "rloop",  # it has none
    )


def _proact(engine: str, kind: Kind, limit: int | None = None) -> Model:
    return Model(
        f"proact-{engine}",
        kind,
        Family.PROACT,
        "asyncio_protocol",
        ("proact", engine),
        engine=engine,
        connection_limit=limit,
        files=("files_proact", engine),
        workloads=EVERY_WORKLOAD,
        tls=True,
    )


def _bare(model: str, kind: Kind, engine: str | None = None) -> Model:
    return Model(
        f"bare-{model}",
        kind,
        Family.CEILING,
        "bare",
        (model,),
        engine=engine,
        workloads=("echo", "churn", "web", "slow-readers"),
    )


def _workers(name: str, how: str, **more: Any) -> Model:
    """The entry for several workers on one port."""
    serves = ("echo", "churn", "web", "cpu", "wait", "file", "tls", "slow-readers")
    return Model(
        name,
        Kind.MULTIPLEXING,
        Family.PLAIN,
        "shared_port",
        (how,),
        workloads=serves,
        workers=True,
        **more,
    )


def _library(name: str, kind: Kind, module: str, **more: Any) -> Model:
    """The entry for a library of files on asyncio's loop."""
    serve = ("asyncio", None, module)
    return Model(name, kind, Family.LIBRARY, "asyncio_protocol", serve, package=name, files=(module,), **more)


_UNALIGNED: Final = "it reads into memory that is not aligned as O_DIRECT needs it"
_CAIO: Final = (("files-direct", _UNALIGNED), ("mixed", _UNALIGNED))

_ALL: Final = (
    _plain("blocking", Kind.BLOCKING, "blocking", 1, workloads=EVERY_WORKLOAD, tls=True),
    _plain("threads", Kind.BLOCKING, "threads", files=("files_threads",), workloads=EVERY_WORKLOAD, tls=True),
    _plain("pool", Kind.MULTIPLEXING, "pool", files=(), workloads=EVERY_WORKLOAD),
    _plain("nonblocking", Kind.NONBLOCKING, "nonblocking"),
    _plain("select", Kind.MULTIPLEXING, "multiplex_select", SELECT_LIMIT),
    _plain("poll", Kind.MULTIPLEXING, "multiplex_poll"),
    _plain("epoll", Kind.MULTIPLEXING, "multiplex_epoll", workloads=EVERY_WORKLOAD),
    _workers("reuseport", "reuseport"),
    _workers("prefork", "prefork"),
    _workers("epoll-threads", "threads", environment=(("PYTHON_GIL", "1"),)),
    _workers("free-threads", "threads", free=True, environment=(("PYTHON_GIL", "0"),)),
    _plain("sigio", Kind.SIGNAL_DRIVEN, "sigio", layout="siginfo_t"),
    _plain("aio", Kind.ASYNCHRONOUS, "aio", layout="struct aiocb", files=("files_aio",)),
    _plain("io_uring", Kind.ASYNCHRONOUS, "completion_io_uring", engine="io_uring", files=("files_ring",)),
    _loop("asyncio", installed=True),
    Model(
        "asyncio-greedy",
        Kind.MULTIPLEXING,
        Family.LIBRARY,
        "asyncio_protocol",
        ("asyncio", None, "", "greedy"),
        workloads=("echo", "slow-readers"),
    ),
    _loop("uvloop"),
    _loop("rloop"),
    Model(
        "gevent",
        Kind.MULTIPLEXING,
        Family.LIBRARY,
        "gevent_server",
        package="gevent",
        files=("files_gevent",),
        workloads=EVERY_WORKLOAD,
        tls=True,
    ),
    _plain("libevent", Kind.MULTIPLEXING, "libevent", family=Family.LIBRARY, library=libevent.LIBRARY),
    _library("aiofiles", Kind.MULTIPLEXING, "files_aiofiles", workloads=("mixed", "file")),
    _library("caio", Kind.ASYNCHRONOUS, "files_caio", workloads=(), cannot=_CAIO),
    Model(
        "proact.fs",
        Kind.ASYNCHRONOUS,
        Family.PROACT,
        "asyncio_protocol",
        ("proact", "auto", "files_fs"),
        workloads=("mixed", "file"),
        files=("files_fs",),
    ),
    _proact("select", Kind.MULTIPLEXING, SELECT_LIMIT),
    _proact("poll", Kind.MULTIPLEXING),
    _proact("epoll", Kind.MULTIPLEXING),
    _proact("io_uring", Kind.ASYNCHRONOUS),
    Model(
        "proact.green",
        Kind.MULTIPLEXING,
        Family.PROACT,
        "green_server",
        package="greenlet",
        workloads=EVERY_WORKLOAD,
        tls=True,
    ),
    Model(
        "gevent-proact",
        Kind.MULTIPLEXING,
        Family.PROACT,
        "gevent_server",
        ("proact",),
        package="gevent",
        workloads=EVERY_WORKLOAD,
        tls=True,
    ),
    _bare("threads", Kind.BLOCKING),
    _bare("epoll", Kind.MULTIPLEXING),
    _bare("io_uring", Kind.ASYNCHRONOUS, engine="io_uring"),
)

#: Every model by its name, in the order in which they are explained.
MODELS: Final[dict[str, Model]] = {model.name: model for model in _ALL}

#: The models that a run measures if nobody says which: each kind, and the loops that people use.
USUAL: Final = (
    "threads",
    "select",
    "epoll",
    "sigio",
    "asyncio",
    "uvloop",
    "proact-epoll",
    "proact-io_uring",
    "bare-epoll",
)
