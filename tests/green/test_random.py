"""Random kills, timeouts and cancellations of greenlets proven to wait: nothing is lost or left.

PROACT_GREEN_ROUNDS=1000000 makes a soak of it; the seed of a failed run is in its message.
"""

import asyncio
import os
import random
import socket

import pytest
from support import loops

from proact.fs import pool

green = pytest.importorskip("proact.green")

ROUNDS = int(os.environ.get("PROACT_GREEN_ROUNDS", "60"))


@pytest.fixture(autouse=True)
def idle_threads_end(monkeypatch):
    monkeypatch.setattr(pool, "_IDLE", 0.01)


class Victim:
    """A call that is to be interrupted, in a spawned greenlet or in a task."""

    def __init__(self, loop, chance, fn, *args):
        self.loop, self.chance = loop, chance
        self.got = []
        self.how = chance.choice(["kill", "timeout", "cancel"])

        def body():
            if self.how == "timeout":
                with green.Timeout(60, False) as self.limit:
                    self.got.append(fn(*args))
            else:
                self.got.append(fn(*args))

        async def task():
            await green.run(body)

        self.task = loop.create_task(task()) if self.how == "cancel" or chance.random() < 0.3 else None
        self.greenlet = None if self.task else green.spawn(body)

    def done(self):
        return self.task.done() if self.task else self.greenlet.dead

    def prove(self, waits):
        """It waits: `waits()` says for what."""
        for _ in range(1000):
            green.sleep(0)
            if waits():
                break
        assert waits(), "it does not wait"
        assert not self.done(), "it ended before it was interrupted"

    def interrupt(self):
        if self.done() or (self.how == "timeout" and self.limit._timer is None):
            return  # it was faster
        if self.how == "timeout":
            # What the timer would do, at this very moment.
            timer, self.limit._timer = self.limit._timer, None
            timer.cancel()
            if self.task:
                bridge = next(iter(self.bridges()))
                bridge._interrupts.append((self.limit, 0))
                self.task.cancel()
            else:
                self.loop.call_soon(self.greenlet._interrupt, self.limit)
        elif self.task:
            self.task.cancel()
        else:
            self.greenlet.kill(block=False)

    def bridges(self):
        return self.loop._hub.bridges

    def end(self):
        if self.task:
            green.await_(asyncio.wait([self.task]))
            if not self.task.cancelled():
                self.task.result()
        else:
            self.greenlet.join()
            self.greenlet.get()
        return self.got[0] if self.got else None


def in_any_order(chance, *actions):
    """The actions, one after the other or with turns in between."""
    actions = list(actions)
    chance.shuffle(actions)
    for action in actions:
        action()
        for _ in range(chance.choice([0, 0, 1, 2])):
            green.sleep(0)


def recv(loop, chance):
    first, second = green.socketpair()
    with first, second:
        victim = Victim(loop, chance, first.recv, 100)
        victim.prove(lambda: loops.in_flight(loop) > 0)
        data = chance.randbytes(chance.randint(1, 50))
        in_any_order(chance, victim.interrupt, lambda: second.sendall(data))
        got = victim.end() or b""
        second.close()
        while piece := first.recv(100):
            got += piece
        assert got == data


def send(loop, chance):
    first, second = green.socketpair()
    with first, second:
        data = chance.randbytes(1000) * 3000
        victim = Victim(loop, chance, first.sendall, data)
        victim.prove(lambda: loops.in_flight(loop) > 0)
        got = bytearray()
        second.setblocking(False)

        def drain():
            try:
                for _ in range(chance.choice([1, 3, 100])):
                    got.extend(second.recv(65536))
            except BlockingIOError:
                pass

        in_any_order(chance, victim.interrupt, drain)
        second.setblocking(True)
        victim.end()
        first.shutdown(socket.SHUT_WR)
        while piece := second.recv(1 << 20):
            got += piece
        assert data.startswith(bytes(got))


def accept(loop, chance):
    # Not 127.0.0.1, where others on this machine may try a port that was theirs.
    here = f"127.{chance.randrange(1, 255)}.{chance.randrange(255)}.{chance.randrange(1, 255)}"
    with green.create_server((here, 0)) as listener, socket.socket() as client:
        victim = Victim(loop, chance, listener.accept)
        victim.prove(lambda: loops.in_flight(loop) > 0)
        in_any_order(chance, victim.interrupt, lambda: client.connect(listener.getsockname()))
        connection, address = victim.end() or listener.accept()
        with connection:
            assert address == client.getsockname()


def connect(loop, chance):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        # The backlog has room for one; the next one waits.
        with socket.create_connection(address), green.socket() as client:
            victim = Victim(loop, chance, client.connect, address)
            victim.prove(lambda: loops.in_flight(loop) > 0)
            victim.interrupt()
            victim.end()


def sleep(loop, chance):
    victim = Victim(loop, chance, green.sleep, chance.choice([0.001, 60]))
    green.sleep(0)
    victim.interrupt()
    victim.end()


def lock(loop, chance):
    lock = chance.choice([green.Lock, green.RLock, green.Semaphore])()
    lock.acquire()

    def take():
        with lock:
            return True

    victim = Victim(loop, chance, take)
    other = green.spawn(take)
    victim.prove(lambda: len(lock._line) == 2)
    in_any_order(chance, victim.interrupt, lock.release)
    victim.end()
    assert other.get(20)
    assert lock.acquire(timeout=20)


def queue_get(loop, chance):
    queue = green.Queue()
    victim = Victim(loop, chance, queue.get)
    victim.prove(lambda: len(queue._getters) == 1)
    other = green.spawn(queue.get)
    in_any_order(chance, victim.interrupt, lambda: queue.put("item"))
    if victim.end() is not None:
        queue.put("item")
    assert other.get(20) == "item"
    assert queue.empty()


def queue_put(loop, chance):
    queue = green.Queue(1)
    queue.put("first")
    victim = Victim(loop, chance, lambda: queue.put("second") or True)
    victim.prove(lambda: len(queue._putters) == 1)
    other = green.spawn(queue.put, "third")
    got = []
    in_any_order(chance, victim.interrupt, lambda: got.append(queue.get()))
    put = victim.end()
    while len(got) < 2 + bool(put):
        got.append(queue.get(timeout=20))
    other.join()
    assert got[0] == "first"
    assert sorted(got) == ["first", "second", "third"] if put else got == ["first", "third"]


def open_fifo(loop, chance, path=None):
    path = path or open_fifo.path
    victim = Victim(loop, chance, green.open, path, "rb", 0)
    victim.prove(lambda: True)
    writers = []

    def write():
        writers.append(os.open(path, os.O_RDWR | os.O_NONBLOCK))

    in_any_order(chance, victim.interrupt, write)
    file = victim.end()
    if file is not None:
        file.close()
    # A thread that still opens lets go of its fd before the writer goes.
    for _ in range(2000):
        if not pool.of_process().counts()["lost"] and not loops.in_flight(loop):
            break
        green.sleep(0.001)
    os.close(writers[0])


KINDS = [recv, send, accept, connect, sleep, lock, queue_get, queue_put, open_fifo]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_interrupted_in_flight(spawned, loop, kind, tmp_path):
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    open_fifo.path = tmp_path / "fifo"
    os.mkfifo(open_fifo.path)

    def main():
        for number in range(ROUNDS):
            try:
                kind(loop, chance)
            except BaseException as error:
                error.add_note(f"seed {seed}, round {number}")
                raise
        assert list(loop._hub.alive) == [green.current()]
        assert not loop._hub.bridges

    spawned(main)
