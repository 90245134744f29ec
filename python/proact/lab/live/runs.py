"""The run that the page watches: a child process, and its events so far.

Only one runs at a time. A watcher gets all events from the first one on, however late it comes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from proact.lab.results import Document

#: The limit of a line from the child, in bytes: the results are one line.
_LINE: Final = 1 << 30

#: The seconds that a run has to end and hand over its results, after it was asked to stop.
_GRACE: Final = 10.0

#: Seconds after which a watcher is sent a comment, so that the server notices a watcher that has gone.
_PULSE: Final = 15.0


class BusyError(RuntimeError):
    """A run is already under way."""


class Run:
    """One run, from its start to its end."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.events: list[str] = []  # in the format of server-sent events
        self.ended = False

    def add(self, event: dict[str, Any]) -> None:
        """Add one event."""
        self.events.append(f"id: {self.number}.{len(self.events)}\ndata: {json.dumps(event)}\n\n")


class Runs:
    """The current run, or the last one. After it is closed, no process is left."""

    def __init__(self) -> None:
        self.current: Run | None = None
        self.document: Document | None = None  # of the last run that measured anything
        self._news = asyncio.Event()  # set, and replaced, with each event
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def going_on(self) -> bool:
        """Whether a run is under way."""
        return self.current is not None and not self.current.ended

    async def start(self, form: dict[str, str]) -> None:
        """Start to measure what a form asks for. The form has been checked.

        Raises BusyError while a run is under way, OSError if no process can be started.
        """
        if self.going_on:
            raise BusyError("a run is going on: stop it, or wait for its end")
        run = Run(1 if self.current is None else self.current.number + 1)
        self.current, self._stopping = run, False  # from now on, no other request can start one
        command = (sys.executable, "-m", "proact.lab.live.child", str(os.getpid()))
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_LINE,
                start_new_session=True,  # Ctrl-C reaches this process only, which stops the child once
            )
        except OSError:
            run.ended = True
            raise
        self._tell(run, {"event": "begun"})
        self._watching = asyncio.create_task(self._watch(run, self._process, form))

    async def stop(self) -> None:
        """End the current run, if there is one; return once nothing of it is left."""
        if self._process is not None and self._process.returncode is None and not self._stopping:
            self._process.send_signal(signal.SIGINT)  # once: a second one would disturb its cleaning up
        self._stopping = True
        if self._watching is not None:
            try:
                async with asyncio.timeout(_GRACE):
                    await asyncio.shield(self._watching)
            except TimeoutError:
                if self._process is not None and self._process.returncode is None:
                    self._process.kill()  # its children end with it
                await self._watching

    async def events(self, after: str | None) -> AsyncGenerator[str, None]:
        """The events of this run and of later runs, beginning after the event with the id ``after``."""
        run, told = self.current, 0
        if run is not None and after is not None:
            number, _, last = after.partition(".")
            told = int(last) + 1 if number == str(run.number) and last.isdecimal() and len(last) < 10 else 0
        while True:
            news = self._news
            if run is not self.current:
                run, told = self.current, 0
            if run is not None and told < len(run.events):
                yield run.events[told]
                told += 1
                continue
            try:
                async with asyncio.timeout(_PULSE):
                    await news.wait()
            except TimeoutError:
                yield ": still here\n\n"

    def _tell(self, run: Run, event: dict[str, Any]) -> None:
        run.add(event)
        self._news.set()
        self._news = asyncio.Event()

    async def _watch(self, run: Run, process: asyncio.subprocess.Process, form: dict[str, str]) -> None:
        """Pass on what the child says until it ends."""
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        document: Document | None = None
        broken = None
        problems = asyncio.create_task(process.stderr.read())
        process.stdin.write(json.dumps(form).encode() + b"\n")
        process.stdin.close()
        try:
            async for line in process.stdout:
                event = json.loads(line)
                if event["event"] == "results":
                    self.document = document = cast("Document", event["document"])
                else:
                    self._tell(run, event)
        except ValueError as error:  # something other than the child's reports was written to stdout
            process.kill()
            broken = f"the measuring process does not speak JSON: {error}"
        code = await process.wait()
        said = (await problems).decode(errors="replace").strip().splitlines()
        run.ended = True
        if document is not None:
            how, reason = ("stopped" if "stopped" in document else "done"), document.get("stopped")
        elif self._stopping:
            how, reason = "stopped", "nothing was measured"
        else:
            how, reason = "failed", broken or (said or [f"the measuring process ended with {code}"])[-1]
        self._tell(run, {"event": "ended", "how": how, "reason": reason, "results": document is not None})
