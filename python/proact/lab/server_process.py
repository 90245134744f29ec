"""A model in a separate process: start it, check it, read its costs from outside, and always end it.

All readings come from the kernel's accounts of the process, so measuring adds nothing to the
server.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

from proact.lab.environment import process_cpu_seconds
from proact.lab.models import BACKLOG
from proact.lab.workloads import WORKLOADS, Exchange

if TYPE_CHECKING:
    from types import TracebackType

#: The seconds that a server may take to import its modules and to say that it serves.
START_TIMEOUT: Final = 20.0


#: The name that the kernel gives to its threads that work for a process's ring.
_WORKERS: Final = ("iou-wrk-", "iou-sqp-")

#: Ticks of /proc/PID/stat per second.
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class ServerError(Exception):
    """The server did not start, ended by itself, or answered wrongly."""


class ModelProcess:
    """A process of one model, as a context manager.

    Entering raises ServerError if it does not start; on leaving, the process has ended, whatever happened.
    ``cpu`` is the core that it may run on (None: all). ``probe``: an fd for the record of its calls
    (``proact._core.Probe``), which the process fills from its first call on.
    """

    def __init__(
        self,
        model: str,
        workload: str,
        *,
        command: tuple[str, ...],
        cpu: int | None = None,
        probe: int | None = None,
    ) -> None:
        self.model = model
        self.workload = workload
        self._probe = probe
        self._cpu = cpu
        self._command = command
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
            command.append(f"--cpu={self._cpu}")
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
            env=child_environment(),
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
        lines = self._errors.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def cpu_seconds(self) -> float:
        """CPU time of all its threads so far, user and system, in seconds."""
        try:
            return process_cpu_seconds(self.pid)
        except OSError:
            raise ServerError(self.ended(grace=1.0) or "its CPU clock cannot be read") from None

    def ticks(self) -> tuple[float, float]:
        """User and system time of all its threads so far, in seconds; in steps of about 10 ms."""
        fields = self._proc("stat").rpartition(")")[2].split()  # the name before it may hold anything
        user, system = int(fields[11]), int(fields[12])
        return user / _TICKS, system / _TICKS

    def switches(self) -> dict[str, tuple[int, int]]:
        """Voluntary and involuntary context switches of each thread so far, by its id."""
        found = {}
        for thread in self._threads():
            with contextlib.suppress(OSError):  # the thread has just ended
                status = Path(f"/proc/{self.pid}/task/{thread}/status").read_text()
                lines = dict(line.split(":", 1) for line in status.splitlines() if "ctxt_switches" in line)
                found[thread] = (
                    int(lines["voluntary_ctxt_switches"]),
                    int(lines["nonvoluntary_ctxt_switches"]),
                )
        return found

    def threads(self) -> tuple[int, int]:
        """How many threads the kernel counts, and how many of them are its own workers for this process."""
        threads, workers = self._threads(), 0
        for thread in threads:
            with contextlib.suppress(OSError):
                workers += Path(f"/proc/{self.pid}/task/{thread}/comm").read_text().startswith(_WORKERS)
        return len(threads), workers

    def _threads(self) -> list[str]:
        try:
            return [path.name for path in Path(f"/proc/{self.pid}/task").iterdir()]
        except OSError as error:
            raise ServerError(self.ended(grace=1.0) or str(error)) from None

    def resident_bytes(self) -> int:
        """Resident memory of the process, without the kernel's memory for it, such as socket buffers."""
        # smaps_rollup walks the page tables; the counters in statm are per-CPU and may be off by megabytes.
        for line in self._proc("smaps_rollup").splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
        raise ServerError("the kernel does not say how much memory it holds")

    def _proc(self, name: str) -> str:
        try:
            return Path(f"/proc/{self.pid}/{name}").read_text()
        except OSError as error:
            raise ServerError(self.ended(grace=1.0) or str(error)) from None


class ServerProcess(ModelProcess):
    """A server of one model: ``with ServerProcess("epoll") as server:``.

    ``address`` is where it listens, by default a free port of 127.0.0.1; entering raises OSError if it can't.
    """

    def __init__(
        self,
        model: str,
        workload: str = "echo",
        *,
        address: tuple[str, int] = ("127.0.0.1", 0),
        cpu: int | None = None,
        probe: int | None = None,
        command: tuple[str, ...] | None = None,
    ) -> None:
        command = command or (sys.executable, "-m", "proact.lab.serve")
        super().__init__(model, workload, command=command, cpu=cpu, probe=probe)
        self._address = address
        self.port = 0

    def _start(self) -> None:
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        with socket.create_server(self._address, family=family, backlog=BACKLOG) as listener:
            self.port = listener.getsockname()[1]
            self._spawn(f"--fd={listener.fileno()}", inherited=(listener.fileno(),))
        self._wait_until_ready()

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
            with socket.create_connection(("127.0.0.1", self.port), timeout) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
        readable, writable, _ = select.select([connection], [connection] if unsent else [], [], timeout)
        if not readable and not writable:
            raise TimeoutError(f"nothing moved for {timeout:g} s")
        if writable:
            unsent = unsent[connection.send(unsent[: 64 * 1024]) :]
        if readable:
            data = connection.recv(64 * 1024)
            if not data:
                break
            returned += data
    return bytes(returned)


def child_environment() -> dict[str, str]:
    """Our environment without the engine choice: each model names its own engine."""
    return {name: value for name, value in os.environ.items() if name != "PROACT_ENGINE"}
