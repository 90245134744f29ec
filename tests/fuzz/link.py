"""One connection: its near end on the loop (transport, streams, plain socket), its far end a socket of ours.

Owns the model of a connection: the bytes each way, the callbacks, the ends that have closed. The interpreter
itself reads and writes the far end ("peer"), so only the near end depends on the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from typing import Any

from support import peers

from .model import Deliberate, Problems, Stream


class Link:
    """`kind`: "protocol", "stream" or "sock"; the fields say the rest."""

    def __init__(self, world: Any, name: str, kind: str, peer: socket.socket) -> None:
        self.world, self.name, self.kind, self.peer = world, name, kind, peer
        self.problems: Problems = world.problems
        self.out, self.into = Stream(f"{name} out", self.problems), Stream(f"{name} in", self.problems)
        self.sock: socket.socket | None = None  # the near end while it is a plain socket
        self.transport: Any = None
        self.protocol: Any = None
        self.writer: Any = None
        self.made = self.ended = self.lost = 0
        self.closing = False  # the near end has been told to close, or closes by itself
        self.shut = False  # write_eof
        self.dropped = False  # the program has dropped the transport
        self.paused = self.write_paused = False
        self.keep_open = False
        self.elsewhere = False  # another thread uses it: its effects show before it reports them
        self.held = False  # a duplicate of the near fd is open
        self.peer_state = "open"  # "shut", "closed", "reset"
        self.peer_ended = False  # the peer has seen our end
        self.engine: Any = None  # the peer's TLS
        self.plain_left = 0  # bytes before TLS begins
        self.shaken = False  # the handshake is done
        self.scripts: dict[str, list[Any]] = {}
        self.tasks: list[asyncio.Task[Any]] = []  # sendfile and sendall
        self.reading: asyncio.Task[Any] | None = None

    # The loop calls these.

    def on_made(self, transport: Any) -> None:
        self.made += 1
        self.transport = transport
        if self.made > 1:
            self.problems.add("connection_made twice", self.name)
        self.world.guard()
        self.run("made")

    def on_data(self, data: bytes) -> None:
        if not self.made or self.lost or self.paused:
            self.problems.add("data when there should be none", f"{self.name}: {self.lost=} {self.paused=}")
        self.into.arrived(data)
        self.run("data")

    def on_eof(self) -> bool:
        self.ended += 1
        if self.ended > 1 or self.lost:
            self.problems.add("eof_received twice", self.name)
        self.closing |= not self.keep_open
        if self.closing:
            self.into.cut()
        return self.keep_open

    def on_pause(self, now: bool) -> None:
        if self.write_paused == now or self.lost:
            self.problems.add("pause_writing out of order", f"{self.name}: {now=} {self.lost=}")
        self.write_paused = now

    def on_lost(self, exc: BaseException | None) -> None:
        self.lost += 1
        if self.lost > 1 or not self.made:
            self.problems.add("connection_lost twice", f"{self.name}: {self.lost} times, made {self.made}")
        if exc is None and not self.closing and not self.elsewhere:
            self.problems.add("lost without reason", self.name)
        self.closing = True
        self.into.cut()
        self.world.guard()
        self.run("lost")

    def run(self, moment: str) -> None:
        """Run the script that waits for this moment, once. If it raises, the protocol's method raises."""
        script = self.scripts.pop(moment, None)
        if script is None:
            return
        try:
            self.world.script(script)
        except Deliberate:
            if moment == "data":
                self.ending()
            raise

    # The knowledge of the model.

    @property
    def alive(self) -> bool:
        """Whether the near end is a transport that still accepts calls."""
        return bool(self.made and not self.closing and not self.dropped and self.transport is not None)

    @property
    def reads(self) -> bool:
        if self.kind == "sock":
            return self.sock is not None and self.world.draining
        return self.alive and not self.paused and (self.kind == "protocol" or self.world.draining)

    @property
    def over(self) -> bool:
        """Whether the slot may be used for another connection."""
        return bool(self.lost or self.dropped or (self.kind == "sock" and self.sock is None))

    def ending(self, orderly: bool = False) -> None:
        """The near end closes: the promised bytes arrive (all if it is orderly); nothing more comes in."""
        self.closing = True
        # TCP resets a connection that is closed with unread bytes: bytes under way to the peer are lost.
        if not orderly or self.into.outstanding:
            self.out.cut()
        self.into.cut()

    def sent(self, data: bytes, at_once: bool = True) -> None:
        if self.peer_state in ("closed", "reset"):
            # A write to a closed peer breaks the connection, also for bytes that are still to be read.
            self.into.cut()
        self.out.add(data, at_once)

    @property
    def busy(self) -> bool:
        return any(not task.done() for task in self.tasks)

    def waiting(self) -> list[tuple[str, str]]:
        """The events that must still happen, as problems."""
        peer_reads = self.peer_state in ("open", "shut")
        found = []
        if peer_reads and self.out.missing:
            found.append(("lost bytes out", f"{self.out.missing} of {len(self.out.made)}"))
        if self.reads and self.into.missing:
            found.append(("lost bytes in", f"{self.into.missing} of {len(self.into.made)}"))
        if self.made and self.closing and not self.lost and not self.dropped:
            found.append(("no connection_lost", ""))
        gone = self.lost or (self.kind == "sock" and self.sock is None) or self.shut
        if (
            gone
            and peer_reads
            and not self.peer_ended
            and (self.shut or (not self.held and not self.world.holders))
        ):
            found.append(("the peer sees no end", ""))
        if self.alive and self.write_paused and peer_reads and not self.out.outstanding:
            found.append(("the writer stays paused", ""))
        hung_up = self.alive and self.reads and not self.world.holders  # holders also have the peer's socket
        if hung_up and self.peer_state == "reset" and not self.lost and not self.ended:
            found.append(("no connection_lost", "after a reset"))
        shut = self.alive and self.reads and self.peer_state == "shut"
        if (shut or (hung_up and self.peer_state == "closed")) and not self.ended:
            found.append(("no eof_received", ""))
        # asyncio's sendfile never ends if its transport is closed meanwhile.
        if self.busy and ((self.closing and not self.world.lenient) or (peer_reads and not self.closing)):
            found.append(("a send hangs", repr(self.tasks)))
        return [(kind, f"{self.name} ({self.kind}): {detail}") for kind, detail in found]

    # The peer.

    def feed(self, size: int) -> None:
        if self.peer_state != "open":
            return
        data = self.into.make(size)
        if self.engine is not None:
            if not self.shaken:
                return
            wire = self.engine.encrypt(data)
            with contextlib.suppress(ConnectionError):
                # A part of a record would not be valid TLS.
                if self.peer.send(wire) != len(wire):
                    self.into.cut()
                    self.hang_up("closed")
                    return
        else:
            try:
                data = data[: self.peer.send(data)]
            except BlockingIOError:
                return
            except ConnectionError:
                self.into.cut()
                return
        self.into.add(data)
        if self.closing:
            self.out.cut()

    def take(self, limit: int = 1 << 20) -> None:
        """Let the peer receive the bytes that are there."""
        while limit > 0 and self.peer_state in ("open", "shut") and not self.peer_ended:
            try:
                data = self.peer.recv(min(limit, 1 << 16))
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            if not data:
                self.peer_ended = True
                if not (self.closing or self.shut or self.over):
                    self.problems.add("the peer sees an end that nobody made", self.name)
                return
            limit -= len(data)
            if self.engine is None:
                self.out.arrived(data)
            else:
                self.decrypt(data)

    def shake(self) -> None:
        """Continue the peer's handshake as far as the received bytes allow."""
        if self.shaken:
            return
        try:
            self.engine.session.do_handshake()
            self.shaken = True
        finally:
            with contextlib.suppress(OSError):
                if data := self.engine.outgoing.read():
                    self.peer.send(data)

    def decrypt(self, data: bytes) -> None:
        plain, data = data[: self.plain_left], data[self.plain_left :]
        self.plain_left -= len(plain)
        if plain:
            self.out.arrived(plain)
        self.engine.incoming.write(data)
        try:
            self.shake()
            while chunk := self.engine.session.read(1 << 16):
                self.out.arrived(chunk)
        except ssl.SSLWantReadError:
            return
        except (ssl.SSLError, EOFError):
            pass
        # A close_notify; the peer answers it by closing.
        self.peer_ended = True
        if not self.closing:
            self.problems.add("the peer sees an end that nobody made", f"{self.name} (TLS)")
        self.hang_up("closed")

    def hang_up(self, how: str) -> None:
        """End the peer: "shut" (only its direction), "closed", or "reset"."""
        if self.peer_state in ("closed", "reset") or how == self.peer_state:
            return
        if how == "shut":
            with contextlib.suppress(OSError):
                self.peer.shutdown(socket.SHUT_WR)
        else:
            self.take()
            if how == "reset" and self.peer.family != socket.AF_UNIX:
                self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                how = "closed"
            if self.out.outstanding or how == "reset" or self.busy or self.peer_state == "shut":
                self.into.cut()
            self.out.abandon()
            self.peer.close()
        self.peer_state = how


def sockets(family: str) -> tuple[socket.socket, socket.socket]:
    """The two ends of a new connection, non-blocking; the caller closes them."""
    if family == "unix":
        near, far = socket.socketpair()
    else:
        with socket.create_server((peers.LOOPBACK, 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
    near.setblocking(False)
    far.setblocking(False)
    return near, far
