"""A model in a separate process: start it, check it, read its costs from outside, and always end it.

All readings come from the kernel's accounts of the process, so measuring adds nothing to the
server.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

from proact.lab.backends import Backends
from proact.lab.environment import process_cpu_seconds, read
from proact.lab.models import BACKLOG
from proact.lab.registry import MODELS
from proact.lab.workloads import WORKLOADS, Exchange

if TYPE_CHECKING:
    from types import TracebackType

#: The seconds that a server may take to import its modules and to say that it serves.
START_TIMEOUT: Final = 20.0


#: The name that the kernel gives to its threads that work for a process's ring.
_WORKERS: Final = ("iou-wrk-", "iou-sqp-")

#: What is in the output of a program for a terminal only: colours, and other control characters.
_COMMANDS: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x09\x0b-\x1f\x7f-\x9f]")

#: What a call on a non-blocking socket raises, with TLS and without, if it would have to wait.
NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

#: Ticks of /proc/PID/stat per second.
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class ServerError(Exception):
    """The server did not start, ended by itself, or answered wrongly."""


class ModelProcess:
    """A process of one model, as a context manager.

    Entering raises ServerError if it does not start; on leaving, the process has ended, whatever happened.
    ``cpu`` is the core (or cores) that it may run on (None: all). ``probe``: an fd for the record of its
    calls (``proact._core.Probe``), which the process fills from its first call on. If its model has several
    workers, all figures are of all their processes.
    """

    def __init__(
        self,
        model: str,
        workload: str,
        *,
        command: tuple[str, ...],
        cpu: int | tuple[int, ...] | None = None,
        probe: int | None = None,
    ) -> None:
        self.model = model
        self.workload = workload
        self._probe = probe
        self._cpu = (cpu,) if isinstance(cpu, int) else cpu
        self._command = command
        self._known = MODELS.get(model)
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:  # also after Ctrl-C, no process may be left running
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise ServerError(f"{self.model} is not running")
        return self._process.pid

    def _start(self) -> None:
        raise NotImplementedError

    def _spawn(
        self, *arguments: str, inherited: tuple[int, ...] = (), stdin: int = subprocess.DEVNULL
    ) -> None:
        """Start it with its model, ``arguments`` and the arguments that every model's process gets."""
        # stderr goes to a file: a pipe would have to be drained, and would block a talkative server.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the server
        command = [*self._command, self.model, f"--workload={self.workload}", *arguments]
        command.append(f"--parent={os.getpid()}")
        if self._cpu is not None:
            command.append(f"--cpu={','.join(map(str, self._cpu))}")
        if self._probe is not None:
            command.append(f"--probe={self._probe}")
            inherited += (self._probe,)
        self._process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=inherited,
            text=True,
            start_new_session=True,  # Ctrl-C reaches this process only, which ends the server
            env=child_environment() | dict(self._known.environment if self._known else ()),
        )

    def stop(self) -> None:
        """End the server and wait until it has ended: SIGTERM first, SIGKILL after a second."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(1.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            finally:
                if self._process.returncode is None:
                    self._process.kill()  # interrupted while we waited
                for pipe in (self._process.stdin, self._process.stdout):
                    if pipe is not None:
                        with contextlib.suppress(BrokenPipeError):  # it has not read everything
                            pipe.close()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def ended(self, grace: float = 0.0) -> str | None:
        """How the process ended and the last line it wrote to stderr; None while it runs.

        Waits up to ``grace`` seconds for an end that is under way: a process closes its sockets before it
        ends.
        """
        if self._process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        if self._process.returncode is None:
            return None
        code = self._process.returncode
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        said = self._last_error()
        return f"the server ended: {how}{': ' if said else ''}{said}"

    def wait(self) -> str:
        """Wait until the process ends by itself; return how it ended."""
        assert self._process is not None
        self._process.wait()
        return self.ended() or ""

    def _last_error(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0)
        lines = _COMMANDS.sub("", self._errors.read().decode(errors="replace")).split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def pids(self) -> list[int]:
        """The process, and its children if its model has several processes."""
        if self._known is None or not self._known.workers:
            return [self.pid]
        return [self.pid, *map(int, read(f"/proc/{self.pid}/task/{self.pid}/children").split())]

    def cpu_seconds(self) -> float:
        """CPU time of all its threads so far, user and system, in seconds."""
        try:
            return sum(map(process_cpu_seconds, self.pids()))
        except OSError:
            raise ServerError(self.ended(grace=1.0) or "its CPU clock cannot be read") from None

    def ticks(self) -> tuple[float, float]:
        """User and system time of all its threads so far, in seconds; in steps of about 10 ms."""
        user = system = 0
        for pid in self.pids():
            fields = (
                self._proc("stat", pid).rpartition(")")[2].split()
            )  # the name before it may hold anything
            user, system = user + int(fields[11]), system + int(fields[12])
        return user / _TICKS, system / _TICKS

    def switches(self) -> dict[str, tuple[int, int]]:
        """Voluntary and involuntary context switches of each thread so far, by its id."""
        found = {}
        for thread in self._threads():
            with contextlib.suppress(OSError):  # the thread has just ended
                status = (thread / "status").read_text()
                lines = dict(line.split(":", 1) for line in status.splitlines() if "ctxt_switches" in line)
                found[thread.name] = (
                    int(lines["voluntary_ctxt_switches"]),
                    int(lines["nonvoluntary_ctxt_switches"]),
                )
        return found

    def threads(self) -> tuple[int, int]:
        """How many threads the kernel counts, and how many of them are its own workers for this process."""
        threads, workers = self._threads(), 0
        for thread in threads:
            with contextlib.suppress(OSError):
                workers += (thread / "comm").read_text().startswith(_WORKERS)
        return len(threads), workers

    def _threads(self) -> list[Path]:
        try:
            return [path for pid in self.pids() for path in Path(f"/proc/{pid}/task").iterdir()]
        except OSError as error:
            raise ServerError(self.ended(grace=1.0) or str(error)) from None

    def resident_bytes(self) -> int:
        """Resident memory of the process, without the kernel's memory for it, such as socket buffers.

        Of several processes, what they share counts once.
        """
        # smaps_rollup walks the page tables; the counters in statm are per-CPU and may be off by megabytes.
        pids = self.pids()
        figure = "Rss:" if len(pids) == 1 else "Pss:"
        found = [
            int(line.split()[1]) * 1024
            for pid in pids
            for line in self._proc("smaps_rollup", pid).splitlines()
            if line.startswith(figure)
        ]
        if len(found) < len(pids):
            raise ServerError("the kernel does not say how much memory it holds")
        return sum(found)

    def shares(self) -> list[int]:
        """How many connections each worker has, the most first.

        These are the fds that its epoll watches, without the listener.
        """
        found = []
        for pid in self.pids():
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):  # it has just been closed
                    if str(fd.readlink()) == "anon_inode:[eventpoll]":
                        watched = Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text().count("\ntfd:")
                        found.append(max(0, watched - 1))
        return sorted(found, reverse=True)

    def _proc(self, name: str, pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/{name}").read_text()
        except OSError as error:
            raise ServerError(self.ended(grace=1.0) or str(error)) from None


class ServerProcess(ModelProcess):
    """A server of one model: ``with ServerProcess("epoll") as server:``.

    ``address`` is where it listens, by default a free port of 127.0.0.1; entering raises OSError if it can't.
    ``beside`` is the core of the back ends that its workload asks, if it asks any.
    """

    def __init__(
        self,
        model: str,
        workload: str = "echo",
        *,
        address: tuple[str, int] = ("127.0.0.1", 0),
        cpu: int | tuple[int, ...] | None = None,
        beside: int | None = None,
        probe: int | None = None,
        command: tuple[str, ...] | None = None,
    ) -> None:
        command = command or (sys.executable, "-m", "proact.lab.serve")
        super().__init__(model, workload, command=command, cpu=cpu, probe=probe)
        self._address = address
        self._beside = beside
        self._backends: Backends | None = None
        self.port = 0

    def _start(self) -> None:
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        shared = self._known is not None and self._known.workers
        given = []
        if count := WORKLOADS[self.workload].backends:
            self._backends = Backends(count, parent=os.getpid(), cpu=self._beside).__enter__()
            given.append(f"--backends={','.join(map(str, self._backends.ports))}")
        with socket.create_server(
            self._address, family=family, backlog=BACKLOG, reuse_port=shared
        ) as listener:
            self.port = listener.getsockname()[1]
            self._spawn(f"--fd={listener.fileno()}", *given, inherited=(listener.fileno(),))
        self._wait_until_ready()

    def stop(self) -> None:
        """End the server, then its back ends."""
        try:
            super().stop()
        finally:
            if self._backends is not None:
                self._backends.__exit__(None, None, None)
                self._backends = None

    def backend_seconds(self) -> float:
        """CPU time of its back ends so far, in seconds."""
        return self._backends.cpu_seconds() if self._backends is not None else 0.0

    def connect(self, timeout: float) -> socket.socket:
        """A client's connection, over TLS if the workload is. Raises OSError."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not WORKLOADS[self.workload].tls:
                return connection
            from proact.lab.workloads.tls import client_context

            return client_context().wrap_socket(connection, server_hostname="localhost")
        except BaseException:
            connection.close()
            raise

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout as output:
            if not select.select([output], [], [], START_TIMEOUT)[0]:
                raise ServerError(f"did not start within {START_TIMEOUT:.0f} s")
            line = output.readline()
        if not line:
            self._process.wait()
            raise ServerError(self.ended(grace=1.0) or "ended before it served")
        if json.loads(line)["port"] != self.port:
            raise ServerError("serves on another port than it was given")

    def check(self, size: int, timeout: float = 5.0) -> None:
        """One exchange of ``size`` bytes of content. Raises ServerError if the answer is not the right one.

        It also makes the server allocate what it needs once and not per connection, before memory is read.
        """
        exchanged = sample(self.workload, size)
        try:
            with self.connect(timeout) as connection:
                returned = exchange(connection, exchanged, timeout)
        except TimeoutError:
            raise ServerError(
                self.ended(grace=1.0) or f"no answer to {size} bytes within {timeout:g} s"
            ) from None
        except OSError as error:
            raise ServerError(self.ended(grace=1.0) or f"no answer: {error}") from None
        if returned != exchanged.response:
            expected = len(exchanged.response)
            raise ServerError(
                self.ended(grace=1.0) or f"answered {len(returned)} of {expected} bytes, or other bytes"
            )


def sample(workload: str, size: int) -> Exchange:
    """One request of a workload and its only correct response, with ``size`` bytes of content."""
    exchanged = WORKLOADS[workload].exchange(size)
    if exchanged is None:
        payload = os.urandom(size)
        exchanged = Exchange(payload, payload)
    return exchanged


def exchange(connection: socket.socket, exchanged: Exchange, timeout: float) -> bytes:
    """Send the request and receive the answer, both at once: a server that waits to write needs a reader.

    Returns the bytes that came back, fewer than expected if the peer closed. Raises TimeoutError after
    ``timeout`` seconds without progress.
    """
    connection.setblocking(False)
    unsent, returned = memoryview(exchanged.request), bytearray()
    while len(returned) < len(exchanged.response):
        moved = False
        with contextlib.suppress(*NOT_NOW):
            if unsent:
                unsent = unsent[connection.send(unsent[: 64 * 1024]) :]
                moved = True
        with contextlib.suppress(*NOT_NOW):
            data = connection.recv(64 * 1024)
            if not data:
                break
            returned += data
            moved = True
        if not moved and not any(select.select([connection], [connection] if unsent else [], [], timeout)):
            raise TimeoutError(f"nothing moved for {timeout:g} s")
    return bytes(returned)


def child_environment() -> dict[str, str]:
    """Our environment without the engine choice: each model names its own engine."""
    return {name: value for name, value in os.environ.items() if name != "PROACT_ENGINE"}
