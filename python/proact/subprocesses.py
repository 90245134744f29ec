"""Child processes: `asyncio.create_subprocess_exec` and `create_subprocess_shell` on a proact loop.

Popen starts the child, with real pipes; asyncio's base transport joins the pipes to the protocol. Owned
here: learning that the child has ended. The engine waits for its pidfd, and only once the loop is told is the
status collected, in the loop's thread: its pid can't become another process's while somebody may still signal
it. Neither SIGCHLD nor asyncio's child watchers are touched, so that any thread's loop can do it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from asyncio import base_subprocess
from asyncio.log import logger
from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:
    from .loop import EventLoop

    class _Base(asyncio.SubprocessTransport):
        _pid: int
        _proc: subprocess.Popen[bytes] | None
        _returncode: int | None
        _pipes: dict[int, Any]

        def __init__(self, loop: EventLoop, *args: Any, **kwargs: Any) -> None: ...
        def _process_exited(self, returncode: int) -> None: ...
        async def _wait(self) -> int: ...

else:
    _Base = base_subprocess.BaseSubprocessTransport

__all__ = ["SubprocessTransport", "spawn"]


class SubprocessTransport(_Base):
    """A child process and its pipes."""

    _pidfd = -1

    def __init__(self, loop: EventLoop, *args: Any, **kwargs: Any) -> None:
        self._watcher = loop
        super().__init__(loop, *args, **kwargs)

    def _start(
        self, args: Any, shell: bool, stdin: Any, stdout: Any, stderr: Any, bufsize: int, **kwargs: Any
    ) -> None:
        self._proc = subprocess.Popen(
            args, shell=shell, stdin=stdin, stdout=stdout, stderr=stderr, bufsize=bufsize, **kwargs
        )
        self._pid = self._proc.pid
        self._watch()

    def _watch(self) -> None:
        """Have `_exited` called when the child has ended."""
        loop = self._watcher
        loop._children.add(self)
        try:
            self._pidfd = os.pidfd_open(self._pid)
            loop._watch_child(self._pidfd, _core.Handle(self._exited, ()))
        except (AttributeError, OSError) as error:
            # A kernel or a sandbox without pidfds, or no fd left, or one too high for select.
            loop._fallbacks.add(f"waitid (pidfd: {error}): a thread waits for the child")
            self._close_pidfd()
            threading.Thread(
                target=self._wait_in_thread, name=f"proact-wait-{self._pid}", daemon=True
            ).start()

    def _wait_in_thread(self) -> None:
        try:
            os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            pass  # somebody else has collected it
        try:
            self._watcher.call_soon_threadsafe(self._exited)
        except RuntimeError:
            pass  # the loop was closed before the child ended

    def _exited(self) -> None:
        """The child has ended: collect its status and tell the protocol."""
        process = self._proc
        assert process is not None
        if process.returncode is None:
            try:
                process.returncode = self._collect()
            except ChildProcessError:
                logger.warning(
                    "child process pid %d exit status already read: will report returncode 255", self._pid
                )
                process.returncode = 255
        self.unwatch()
        # One turn later: what the child wrote last is on its way.
        self._watcher.call_soon(self._process_exited, process.returncode)

    def _collect(self) -> int:
        kind, number = (os.P_PIDFD, self._pidfd) if self._pidfd >= 0 else (os.P_PID, self._pid)
        status = os.waitid(kind, number, os.WEXITED | os.WNOHANG)
        if status is None:
            raise ChildProcessError
        return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status

    def unwatch(self) -> None:
        """No more is to be learnt, or the loop is closed."""
        self._watcher._children.discard(self)
        self._close_pidfd()

    def close_unconnected(self) -> None:
        """Close the pipes that no transport has taken over: connecting them has failed."""
        assert self._proc is not None
        streams = self._proc.stdin, self._proc.stdout, self._proc.stderr
        for stream, connected in zip(streams, map(self._pipes.get, range(3)), strict=True):
            if stream is not None and connected is None:
                stream.close()

    def _close_pidfd(self) -> None:
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd < 0:
            return
        if self._watcher.is_closed():
            os.close(pidfd)
        else:
            self._watcher._close_fd(pidfd)


async def spawn(
    loop: EventLoop, protocol: asyncio.BaseProtocol, *args: Any, **kwargs: Any
) -> SubprocessTransport:
    """Start a child and wait until its pipes are connected; `args` and `kwargs` are the base transport's."""
    connected = loop.create_future()
    transport = SubprocessTransport(loop, protocol, *args, waiter=connected, **kwargs)
    try:
        await connected
    except asyncio.CancelledError:
        transport.close()
        await transport._wait()
        raise
    except Exception:
        transport.close()
        transport.close_unconnected()
        raise
    return transport
