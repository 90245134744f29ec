"""Child processes: `asyncio.create_subprocess_exec` and `create_subprocess_shell` on a proact loop.

Popen starts the child, with real pipes; asyncio's base transport connects the pipes to the protocol. This
file learns that the child has ended. The engine waits for the child's pidfd, and the loop's thread collects
the status only after that. So the pid can't be given to another process while the program may still signal
the child. This needs neither SIGCHLD nor asyncio's child watchers, so it works in a loop of any thread.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from asyncio import base_subprocess
from asyncio.log import logger
from contextlib import suppress
from functools import partial

from . import _core

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import IO, Any

    from .loop import EventLoop

    class _PipeProtocol(asyncio.Protocol):
        pipe: Any

        def __init__(self, transport: SubprocessTransport, fd: int) -> None: ...

    class _Base(asyncio.SubprocessTransport):
        _pid: int
        _protocol: asyncio.SubprocessProtocol
        _pipes: dict[int, _PipeProtocol | None]
        _pending_calls: Iterable[tuple[Callable[..., object], tuple[Any, ...]]] | None

        def __init__(self, loop: EventLoop, *args: Any, **kwargs: Any) -> None: ...
        def _process_exited(self, returncode: int) -> None: ...

    _ReadPipeProtocol = _WritePipeProtocol = _PipeProtocol

else:
    _Base = base_subprocess.BaseSubprocessTransport
    _ReadPipeProtocol = base_subprocess.ReadSubprocessPipeProto
    _WritePipeProtocol = base_subprocess.WriteSubprocessPipeProto

__all__ = ["SubprocessTransport", "spawn"]

# Seconds that `loop.close()` waits for a killed child to end. It needs far less, unless a device holds it.
_KILLED = 1.0


class SubprocessTransport(_Base):
    """A child process and its pipes."""

    _pidfd = -1
    # Defaults until the base class sets them, because it may refuse its arguments first.
    _closed = True
    _proc: subprocess.Popen[bytes] | None = None

    def __init__(self, loop: EventLoop, *args: Any, **kwargs: Any) -> None:
        self._watcher = loop
        self._collected = loop.create_future()
        try:
            super().__init__(loop, *args, **kwargs)
        except BaseException:
            # The caller gets no transport that it could close.
            self._abandon()
            self.release()
            raise

    def _start(
        self, args: Any, shell: bool, stdin: Any, stdout: Any, stderr: Any, bufsize: int, **kwargs: Any
    ) -> None:
        self._proc = self._watcher._popen()(
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
            # The kernel or the sandbox has no pidfds, no fd is left, or the fd is too high for select.
            loop._fallbacks.add(f"waitid (pidfd: {error}): a thread waits for the child")
            self._close_pidfd()
            threading.Thread(
                target=self._wait_in_thread, name=f"proact-wait-{self._pid}", daemon=True
            ).start()

    def _wait_in_thread(self) -> None:
        assert self._proc is not None
        try:
            os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            pass  # the program has collected it
        except OSError:
            # A sandbox refuses waitid, so this thread has to collect the status, and can't leave that to the
            # loop's thread. The lock tells `Popen.poll` that another thread collects it.
            lock: threading.Lock = self._proc._waitpid_lock  # type: ignore[attr-defined]
            with lock, suppress(ChildProcessError):
                self._proc.returncode = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        try:
            self._watcher.call_soon_threadsafe(self._exited)
        except RuntimeError:
            pass  # the loop was closed before the child ended

    def _exited(self) -> None:
        """Collect the status of the child, which has ended, and tell the protocol."""
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
        self._watcher._children.discard(self)
        self._close_pidfd()
        if not self._collected.done():
            self._collected.set_result(None)
        # One turn later, because the last bytes of the child may still be on their way.
        self._watcher.call_soon(self._process_exited, process.returncode)

    def _collect(self) -> int:
        kind, number = (os.P_PIDFD, self._pidfd) if self._pidfd >= 0 else (os.P_PID, self._pid)
        try:
            status = os.waitid(kind, number, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            raise
        except OSError:
            # A sandbox refuses waitid.
            pid, wait_status = os.waitpid(self._pid, os.WNOHANG)
            if pid == 0:
                raise ChildProcessError from None
            return os.waitstatus_to_exitcode(wait_status)
        if status is None:
            raise ChildProcessError
        return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status

    async def connect(self) -> None:
        """Connect the pipes to the protocol, and tell it."""
        loop = self._watcher
        for fd, stream in self._streams():
            if fd == 0:
                _, protocol = await loop.connect_write_pipe(partial(_WritePipeProtocol, self, fd), stream)
            else:
                _, protocol = await loop.connect_read_pipe(partial(_ReadPipeProtocol, self, fd), stream)
            self._pipes[fd] = protocol
        loop.call_soon(self._protocol.connection_made, self)
        calls, self._pending_calls = self._pending_calls, None
        for callback, args in calls or ():
            loop.call_soon(callback, *args)
        # It has been told when this goes on.
        await asyncio.sleep(0)

    def _streams(self) -> list[tuple[int, IO[bytes]]]:
        process = self._proc
        streams = (process.stdin, process.stdout, process.stderr) if process else ()
        return [(fd, stream) for fd, stream in enumerate(streams) if stream is not None]

    async def _connect_pipes(self, waiter: asyncio.Future[None] | None) -> None:
        """Do nothing: `connect` does this work, in the task that spawns.

        The base class runs this method in a task of its own. If the program cancels all tasks, it would
        cancel that one too, and the task that spawns would wait for ever.
        """

    async def end(self) -> None:
        """Kill the child, close its pipes and wait until its status is collected."""
        self._abandon()
        await self._collected

    def _abandon(self) -> None:
        self.close()
        # Close the pipes that no transport has taken over, because connecting them has failed.
        for fd, stream in self._streams():
            if self._pipes[fd] is None:
                stream.close()

    def release(self) -> None:
        """Collect the child if it has ended or was killed: the loop will not learn of its end."""
        self._watcher._children.discard(self)
        self._close_pidfd()
        if self._proc is None:
            return
        self._proc.poll()
        if self._closed:
            for _, stream in self._streams():
                stream.close()
            with suppress(subprocess.TimeoutExpired):
                self._proc.wait(_KILLED)

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
    transport = SubprocessTransport(loop, protocol, *args, **kwargs)
    try:
        await transport.connect()
    except (asyncio.CancelledError, Exception):
        await transport.end()
        raise
    return transport
