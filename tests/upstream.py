"""The code of asyncio that proact replaces, and its fingerprints, so that a change upstream is noticed.

    python tests/upstream.py             the differences between this Python's asyncio and the code that was
    read python tests/upstream.py --update    records this Python's asyncio as read, in tests/upstream.json

A fingerprint is a hash of a function's syntax tree without docstrings: comments and layout do not count. For
each function there may be several, one for each version of it; upstream.json says which Pythons have it. This
file needs no proact. docs/decisions/0008-overridden-upstream-code.md says why, and what to do about a
difference.
"""

from __future__ import annotations

import ast
import asyncio
import hashlib
import json
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

KNOWN = Path(__file__).with_name("upstream.json")

# The part of proact that replaces each module, class or function of asyncio. A class means all its methods.
REPLACED = {
    "base_events.BaseEventLoop.__init__": "loop.py",
    "base_events.BaseEventLoop.__repr__": "loop.py",
    "base_events.BaseEventLoop.__del__": "scheduler.rs",
    "base_events.BaseEventLoop._add_callback": "ready.rs",
    "base_events.BaseEventLoop._add_callback_signalsafe": "ready.rs",
    "base_events.BaseEventLoop._call_soon": "soon.rs",
    "base_events.BaseEventLoop._check_callback": "loop.py",
    "base_events.BaseEventLoop._create_connection_transport": "loop.py",
    "base_events.BaseEventLoop._make_datagram_transport": "loop.py",
    "base_events.BaseEventLoop._make_read_pipe_transport": "loop.py",
    "base_events.BaseEventLoop._make_socket_transport": "loop.py",
    "base_events.BaseEventLoop._make_ssl_transport": "loop.py",
    "base_events.BaseEventLoop._make_subprocess_transport": "subprocesses.py",
    "base_events.BaseEventLoop._make_write_pipe_transport": "loop.py",
    "base_events.BaseEventLoop._run_once": "event_loop.rs, scheduler/turn.rs",
    "base_events.BaseEventLoop._sendfile_native": "loop.py",
    "base_events.BaseEventLoop._sock_sendfile_native": "loop.py",
    "base_events.BaseEventLoop._timer_handle_cancelled": "event_loop.rs",
    "base_events.BaseEventLoop._write_to_self": "event_loop.rs",
    "base_events.BaseEventLoop.call_at": "scheduler/callbacks.rs",
    "base_events.BaseEventLoop.call_later": "scheduler/callbacks.rs",
    "base_events.BaseEventLoop.call_soon": "soon.rs",
    "base_events.BaseEventLoop.call_soon_threadsafe": "soon.rs",
    "base_events.BaseEventLoop.close": "loop.py",
    "base_events.BaseEventLoop.create_datagram_endpoint": "loop.py",
    "base_events.BaseEventLoop.create_future": "factories.rs",
    "base_events.BaseEventLoop.create_task": "factories.rs",
    "base_events.BaseEventLoop.get_debug": "event_loop.rs",
    "base_events.BaseEventLoop.is_closed": "event_loop.rs",
    "base_events.BaseEventLoop.run_forever": "loop.py",
    "base_events.BaseEventLoop.set_debug": "event_loop.rs",
    "base_events.BaseEventLoop.start_tls": "tls.py",
    "base_events.BaseEventLoop.stop": "event_loop.rs",
    "base_events.BaseEventLoop.time": "scheduler.rs",
    "selector_events.BaseSelectorEventLoop": "loop.py, sockets.rs, readers.rs, transport/listener.rs",
    "unix_events._UnixSelectorEventLoop": "loop.py, signals.py, subprocesses.py",
    "selector_events._SelectorTransport": "transport/stream.rs, transport/datagram.rs",
    "selector_events._SelectorSocketTransport": "transport/stream.rs, receive.rs, send.rs, closing.rs",
    "selector_events._SelectorDatagramTransport": "transport/datagram.rs",
    "unix_events._UnixReadPipeTransport": "transport/pipe.rs",
    "unix_events._UnixWritePipeTransport": "transport/pipe/write.rs",
    "transports._FlowControlMixin": "transport/flow.rs",
    "sslproto": "transport/tls/, tls.py",
    "events.Handle": "handle.rs",
    "events.TimerHandle": "handle.rs, timers.rs",
    "base_subprocess.BaseSubprocessTransport": "subprocesses.py",
    "unix_events._UnixSubprocessTransport": "subprocesses.py",
    "unix_events.PidfdChildWatcher": "subprocesses.py",
    "unix_events._PidfdChildWatcher": "subprocesses.py",
    "unix_events.ThreadedChildWatcher": "subprocesses.py",
    "unix_events._ThreadedChildWatcher": "subprocesses.py",
    # Not replaced, but start_tls reaches into them.
    "streams.FlowControlMixin._drain_helper": "streams.py",
    "streams.StreamReaderProtocol": "tls.py, streams.py, streams/mod.rs",
    "streams.StreamReader.feed_data": "tls.py, streams/mod.rs",
    "streams.StreamReader._maybe_resume_transport": "tls.py, streams/reading.rs",
    "streams.StreamReader._wait_for_data": "streams/reading.rs",
    "streams.StreamReader._wakeup_waiter": "streams/mod.rs",
    "streams.StreamReader.exception": "streams/mod.rs",
    "streams.StreamReader.read": "streams/reading.rs",
    "streams.StreamReader.readexactly": "streams/reading.rs",
    "streams.StreamReader.readline": "streams/reading.rs",
    "streams.StreamReader.readuntil": "streams/reading.rs",
    "streams.StreamWriter.write": "streams/mod.rs",
    "streams.StreamWriter.drain": "streams/draining.rs",
    "streams.StreamWriter.start_tls": "tls.py, streams.py",
}

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(node: ast.AST, path: str) -> Iterator[tuple[str, _Function]]:
    """Every function below a node by its name, wherever an `if` or a `try` has put it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Function):
            yield f"{path}.{child.name}", child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{path}.{child.name}")
        elif isinstance(child, ast.If | ast.Try):
            yield from _functions(child, path)


def fingerprint(function: ast.AST) -> str:
    """A hash that does not depend on docstrings, comments and layout."""
    for node in ast.walk(function):
        if isinstance(node, _Function | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(function).encode()).hexdigest()[:12]


def fingerprints() -> dict[str, str]:
    """The fingerprints of all replaced code in this Python's asyncio."""
    folder = Path(asyncio.__file__).parent
    found: dict[str, list[str]] = {}
    for module in sorted({name.partition(".")[0] for name in REPLACED}):
        tree = ast.parse((folder / f"{module}.py").read_text(encoding="utf-8"))
        for name, function in _functions(tree, module):
            if ours(name):
                # Several functions may have one name: a property and its setter, or one for each platform.
                found.setdefault(name, []).append(fingerprint(function))
    return {name: " ".join(prints) for name, prints in found.items()}


def ours(name: str) -> str | None:
    """What replaces a function of asyncio: its own entry, or the entry of its class or module."""
    while name not in REPLACED and "." in name:
        name = name.rpartition(".")[0]
    return REPLACED.get(name)


def load() -> dict[str, dict[str, list[str]]]:
    """The Pythons that have each fingerprint, by function and fingerprint."""
    known: dict[str, dict[str, list[str]]] = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    return known


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def known_versions(known: dict[str, dict[str, list[str]]]) -> set[str]:
    return {version for prints in known.values() for versions in prints.values() for version in versions}


def differences(known: dict[str, dict[str, list[str]]]) -> list[str]:
    """A line for each function of this Python's asyncio that differs from the versions that were read."""
    current = fingerprints()
    # Functions that the newest known release of this minor version had, and that are gone.
    alike = [version for version in known_versions(known) if _order(version)[:2] == sys.version_info[:2]]
    version = platform.python_version()
    reference = version if version in alike else max(alike, key=_order, default=None)
    lines = []
    for name, current_print in current.items():
        if name not in known:
            lines.append(f"asyncio.{name} is new (ours: {ours(name)})")
        elif current_print not in known[name]:
            lines.append(f"asyncio.{name} has changed (ours: {ours(name)})")
    for name, prints in known.items():
        if name not in current and any(reference in versions for versions in prints.values()):
            lines.append(f"asyncio.{name} is gone (ours: {ours(name)})")
    return lines


def update() -> None:
    known, version = load(), platform.python_version()
    for name, current_print in fingerprints().items():
        versions = known.setdefault(name, {}).setdefault(current_print, [])
        if version not in versions:
            versions.append(version)
            versions.sort(key=_order)
    known = {name: prints for name, prints in sorted(known.items()) if ours(name)}
    # One line per function, so that a diff shows the changes.
    lines = [f"  {json.dumps(name)}: {json.dumps(prints)}" for name, prints in known.items()]
    KNOWN.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--update"]:
        update()
    elif sys.argv[1:]:
        raise SystemExit(__doc__)
    else:
        print(*differences(load()), sep="\n")
