"""Programs as in gevent_cases.py: gevent's class of sockets, whose hot methods are native."""

import errno
import gc
import os
import random
import socket as plain_socket
import sys
import threading
import types

from gevent_cases import message_of

ROUNDS = int(os.environ.get("PROACT_GREEN_ROUNDS", "60"))


def waits(watcher):
    """Let a greenlet run until it waits in this watcher."""
    import gevent

    for _ in range(1000):
        if watcher.active:
            return
        gevent.sleep(0)
    raise AssertionError(f"nothing waits in {watcher}")


def error_of(call, *args):
    """The exception that a call raises."""
    try:
        call(*args)
    except BaseException as error:
        return error
    raise AssertionError(f"{call} raised nothing")


def the_hot_methods_are_native():
    import gevent
    from gevent import socket

    gevent.get_hub()
    for name in ("recv", "recv_into", "send", "sendall"):
        assert isinstance(vars(socket.socket)[name], types.MethodDescriptorType), name
    here, there = socket.socketpair()
    assert here.send(b"one") == 3
    assert there.recv(2) == b"on"
    room = bytearray(10)
    assert there.recv_into(room) == 1 and room[:1] == b"e"
    assert here.sendall(b"line\nrest") is None
    with there.makefile("rb") as file:
        assert file.readline() == b"line\n"
    # What is unusual is gevent's.
    here.sendall(memoryview(b"viewed"))
    assert here.sendall(b"") in (None, 0)
    assert here.send(bytearray(b"!"), 0) == 1
    assert there.recv(3, plain_socket.MSG_PEEK) == b"vie"
    assert there.recv_into(room, 3) == 3 and there.recv_into(room, 3, 0) == 3
    assert there.recv(10) == b"!"
    for wrong, kind in ((-1, ValueError), ("x", TypeError), (1.5, TypeError)):
        assert type(error_of(there.recv, wrong)) is kind
    assert type(error_of(there.recv)) is TypeError
    assert type(error_of(there.recv_into, b"read only")) is TypeError
    here.shutdown(plain_socket.SHUT_WR)
    assert there.recv(10) == b""
    here.close()
    there.close()
    for call, args in ((there.recv, (1,)), (there.send, (b"x",)), (there.recv_into, (room,))):
        assert error_of(call, *args).errno == errno.EBADF
    # A socket whose inner one was closed by someone.
    here, there = socket.socketpair()
    here._sock.close()
    assert error_of(here.recv, 1).errno == errno.EBADF


def readiness_sockets_stay_gevents():
    from proact.green import gevent_loop

    gevent_loop.use(sockets=False)
    import gevent
    from gevent import socket

    assert isinstance(gevent.get_hub().loop, gevent_loop.ReadinessLoop)
    assert isinstance(socket.socket.recv, types.FunctionType)
    here, there = socket.socketpair()
    waiting = gevent.spawn(here.recv, 10)
    gevent.sleep(0)
    there.sendall(b"x")
    assert waiting.get(timeout=5) == b"x"


def time_limits():
    import time

    import gevent
    from gevent import socket

    here, there = socket.socketpair()
    here.settimeout(0.02)
    for call in (lambda: here.recv(1), lambda: here.recv_into(bytearray(1)), lambda: here.recvfrom(1)):
        begun = time.monotonic()
        error = error_of(call)
        assert type(error) is plain_socket.timeout and error.args == ("timed out",), error
        assert time.monotonic() - begun > 0.015
    # A timeout that ends in time leaves nothing, and is counted anew each time.
    here.settimeout(5)
    for _ in range(200):
        sending = gevent.spawn(there.sendall, b"x")
        assert here.recv(1) == b"x"
        sending.get()
    with gevent.Timeout(0.01, False):
        here.recv(1)
        raise AssertionError("nothing came")
    with gevent.Timeout(0.01) as limit:
        assert error_of(here.recv, 1) is limit
    assert not here._read_event.active and here._read_event.callback is None
    here.settimeout(0)
    assert type(error_of(here.recv, 1)) is BlockingIOError
    here.setblocking(True)
    there.sendall(b"kept")
    assert here.recv(10) == b"kept"
    # A send that the peer does not receive.
    here.settimeout(0.02)
    assert type(error_of(here.sendall, b"x" * (1 << 24))) is plain_socket.timeout
    # An int, which was set directly.
    here.timeout = 1
    there.sendall(b"y")
    assert here.recv(1) == b"y"
    here.close()
    there.close()
    gevent.sleep(0.001)
    assert gevent.get_hub().loop.activecnt == 0


def one_greenlet_at_a_time():
    import gevent
    from gevent import socket
    from gevent.exceptions import BlockingSwitchOutError, ConcurrentObjectUseError, InvalidSwitchError

    here, there = socket.socketpair()
    first = gevent.spawn(here.recv, 10)
    waits(here._read_event)
    assert "waiter of" in repr(here._read_event.callback)
    for call in (lambda: here.recv(10), lambda: here.recvfrom(10), lambda: here._wait(here._read_event)):
        assert "already used by another greenlet" in message_of(ConcurrentObjectUseError, call)
    there.sendall(b"x")
    assert first.get(timeout=5) == b"x"
    # Who switches to it although nothing has come is told.
    first = gevent.spawn(here.recv, 10)
    waits(here._read_event)
    gevent.get_hub().loop.run_callback(first.switch, "nothing")
    assert isinstance(error_of(first.get), InvalidSwitchError)
    assert not here._read_event.active
    # The hub must not wait.
    told = []
    gevent.get_hub().handle_error = lambda context, kind, value, tb: told.append(kind)
    gevent.get_hub().loop.run_callback(here.recv, 1)
    gevent.sleep(0.001)
    assert told == [BlockingSwitchOutError]
    here.close()
    there.close()


def ends_from_outside():
    import gevent
    from gevent import socket

    for how in ("close", "shutdown", "detach", "cancel_wait"):
        for _ in range(10):
            here, there = socket.socketpair()
            reader = gevent.spawn(here.recv, 10)
            waits(here._read_event)
            if how == "close":
                here.close()
            elif how == "shutdown":
                here.shutdown(plain_socket.SHUT_RD)
            elif how == "detach":
                os.close(here.detach())
            else:
                socket.cancel_wait(here._read_event)
            reader.join()
            error = reader.exception
            if how == "shutdown" and reader.value == b"":
                pass  # The end of the stream was faster, as on libev.
            else:
                assert isinstance(error, socket.cancel_wait_ex), (how, reader.value, error)
                assert error.errno == errno.EBADF
            if how in ("close", "detach"):
                assert there.recv(10) == b""
            here.close()
            there.close()
    gevent.sleep(0.001)
    assert gevent.get_hub().loop.activecnt == 0


def the_fd_is_free_to_be_used():
    import gevent
    from gevent import select, socket

    here, there = socket.socketpair()

    def warm():
        """A receive that waits, so that the fd is watched from now on."""
        waiting = gevent.spawn(here.recv, 10)
        waits(here._read_event)
        there.sendall(b"warm")
        assert waiting.get(timeout=5) == b"warm"

    for _ in range(20):
        warm()
        there.sendall(b"abc")
        assert os.read(here.fileno(), 1) == b"a"
        assert here.recv(1, plain_socket.MSG_PEEK) == b"b"
        # What is there already is told of, though it was told of before.
        assert select.select([here], [], [], 5)[0] == [here]
        socket.wait_read(here.fileno(), timeout=5)
        here._wait(here._read_event)
        with here.dup() as other:
            assert other.recv(1) == b"b"
        assert here.recv(10) == b"c"
        # Nobody receives for a while, although a poll is in flight.
        for _ in range(100):
            there.sendall(b".")
            gevent.sleep(0)
        got = b""
        while len(got) < 100:
            got += here.recv(100)
        # Two wait for the same fd: in the watcher of the socket, and in one of their own.
        first = gevent.spawn(here.recv, 10)
        second = gevent.spawn(socket.wait_read, here.fileno(), timeout=5)
        waits(here._read_event)
        gevent.sleep(0)
        there.sendall(b"both")
        assert first.get(timeout=5) == b"both"
        second.get()
    warm()
    plain = plain_socket.socket(fileno=here.detach())
    there.sendall(b"detached")
    plain.settimeout(5)
    assert plain.recv(100) == b"detached"
    plain.close()
    assert there.recv(10) == b""
    there.close()


def closed_behind_its_back():
    """The peer sees it at once, however the file is closed."""
    import gevent
    from gevent import socket

    def warm():
        here, there = socket.socketpair()
        waiting = gevent.spawn(here.recv, 10)
        waits(here._read_event)
        there.sendall(b"warm")
        assert waiting.get(timeout=5) == b"warm"
        return here, there

    for _ in range(10):
        here, there = warm()
        here._sock.close()  # as gevent.pywsgi does
        with gevent.Timeout(5):
            assert there.recv(10) == b""
        there.close()
        here, there = warm()
        plain = plain_socket.socket(fileno=here._sock.detach())
        plain.close()
        with gevent.Timeout(5):
            assert there.recv(10) == b""
        there.close()
        here, there = warm()
        os.close(here.fileno())
        with gevent.Timeout(5):
            assert there.recv(10) == b""
        there.close()
        here._sock.detach()
        # As long as a greenlet waits, somebody uses the fd.
        here, there = socket.socketpair()
        reader = gevent.spawn(here.recv, 10)
        waits(here._read_event)
        number = here.fileno()
        reader.kill()
        os.close(number)
        with gevent.Timeout(5):
            assert there.recv(10) == b""
        there.close()
        here._sock.detach()


def a_dropped_socket_is_closed():
    import warnings

    import gevent
    from gevent import socket

    warnings.simplefilter("ignore", ResourceWarning)
    for _ in range(20):
        here, there = socket.socketpair()
        reader = gevent.spawn(here.recv, 10)
        waits(here._read_event)
        there.sendall(b"x")
        assert reader.get(timeout=5) == b"x"
        del here, reader
        gc.collect()
        with gevent.Timeout(5):
            assert there.recv(10) == b""
        there.close()
    loop = gevent.get_hub().loop
    loop.run(nowait=True)
    loop.run(nowait=True)
    assert loop.aio.stats()["in_flight"] == 0, loop.aio.stats()


def subclasses_and_switch_out():
    import gevent
    from gevent import socket

    sent = []

    class Counting(socket.socket):
        def send(self, data, *args, **named):
            sent.append(len(data))
            return super().send(data, *args, **named)

    plain, there = plain_socket.socketpair()
    here = Counting(fileno=plain.detach())
    here.sendall(b"abc")
    assert sent == [3] and there.recv(10) == b"abc"

    class Leaves(gevent.Greenlet):
        left = 0

        def switch_out(self):
            self.left += 1

    greenlet = Leaves.spawn(here.recv, 10)
    waits(here._read_event)
    there.sendall(b"x")
    assert greenlet.get(timeout=5) == b"x"
    assert greenlet.left == 1

    class Own(gevent.Greenlet):
        """Comes back in its own way, as gevent's backdoor does."""

        back = 0

        def switch(self, *args):
            self.back += 1
            return super().switch(*args)

    own = Own.spawn(here.recv, 10)
    waits(here._read_event)
    there.sendall(b"x")
    assert own.get(timeout=5) == b"x"
    assert own.back == 2
    # A greenlet that is not gevent's, and ends by an error.
    told = []
    hub = gevent.get_hub()
    hub.handle_error = lambda context, kind, value, tb: told.append(kind)

    def fails():
        here.recv(1)
        raise KeyError

    import greenlet as package

    hub.loop.run_callback(package.greenlet(fails, hub).switch)
    waits(here._read_event)
    there.sendall(b"y")
    gevent.sleep(0.01)
    assert told == [KeyError], told


def the_hub_waits_for_anything():
    import time

    import gevent
    from gevent import select

    hub = gevent.get_hub()
    assert isinstance(vars(type(hub))["wait"], types.MethodDescriptorType)
    begun = time.monotonic()
    gevent.sleep(0.01)
    assert time.monotonic() - begun >= 0.009
    # The same timer again, and one that is interrupted.
    timer = hub.loop.timer(0.001)
    for _ in range(3):
        hub.wait(timer)
    timer.close()
    sleeper = gevent.spawn(gevent.sleep, 60)
    gevent.sleep(0.001)
    sleeper.kill()
    with gevent.Timeout(0.01, False):
        gevent.sleep(60)
    # What is no fd and no timer waits in gevent's way.
    sent = hub.loop.async_()
    hub.loop.run_callback(sent.send)
    hub.wait(sent)
    sent.close()
    assert type(error_of(hub.wait)) is TypeError
    assert type(error_of(hub.wait, None)) is AttributeError
    here, there = plain_socket.socketpair()
    watching = gevent.spawn(select.select, [here], [], [], 60)
    gevent.sleep(0)
    there.send(b"x")
    assert watching.get(timeout=5)[0] == [here]
    here.close()
    there.close()
    gevent.sleep(0.001)
    assert hub.loop.activecnt == 0


def threads_have_their_hubs():
    import gevent
    from gevent import socket

    here, there = socket.socketpair()
    foreign = []

    def other():
        # The socket belongs to the hub of the main thread. What is there can be received.
        there.sendall(b"x")
        foreign.append(here.recv(1))
        mine, yours = socket.socketpair()
        waiting = gevent.spawn(mine.recv, 10)
        gevent.sleep(0)
        yours.sendall(b"own")
        foreign.append(waiting.get(timeout=5))
        mine.close()
        yours.close()
        gevent.get_hub().destroy()

    thread = threading.Thread(target=other)
    thread.start()
    while thread.is_alive():
        gevent.sleep(0.001)
    assert foreign == [b"x", b"own"], foreign


def tls_over_it():
    import pathlib

    import gevent
    from gevent import socket, ssl

    certificates = pathlib.Path(__file__).parent.parent / "certificates"
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificates / "server.pem")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(certificates / "authority.pem")
    client.check_hostname = False
    left, right = socket.socketpair()
    accepted = gevent.spawn(server.wrap_socket, right, server_side=True)
    with client.wrap_socket(left) as left, accepted.get(timeout=10) as right:
        # More than the socket takes, so that both wait.
        data = os.urandom(1 << 20)
        sending = gevent.spawn(left.sendall, data)
        got = bytearray()
        while len(got) < len(data):
            got += right.recv(65536)
        assert got == data and sending.get(timeout=10) is None
        left.settimeout(0.02)
        assert isinstance(error_of(left.recv, 1), TimeoutError)
        right.sendall(b"kept")
        left.settimeout(10)
        assert left.recv(10) == b"kept"


class Victim:
    """A call in a greenlet that waits in `watcher`, to be interrupted there."""

    def __init__(self, chance, watcher, call, *args):
        import gevent

        self.chance, self.got, self.limit = chance, [], None
        self.how = chance.choice(["kill", "timeout", "throw"])

        def body():
            with gevent.Timeout(60, False) as self.limit:
                self.got.append(call(*args))

        self.greenlet = gevent.spawn(body)
        waits(watcher)

    def interrupt(self):
        import gevent

        if self.greenlet.dead:
            return  # it was faster
        if self.how == "timeout":
            # What the timer would do, at this very moment.
            gevent.get_hub().loop.run_callback(self.greenlet.throw, self.limit)
        elif self.how == "throw":
            gevent.get_hub().loop.run_callback(self.greenlet.throw, gevent.GreenletExit)
        else:
            self.greenlet.kill(block=False)

    def end(self):
        self.greenlet.join(timeout=30)
        assert self.greenlet.dead, "it did not end"
        return self.got[0] if self.got else None


def in_any_order(chance, *actions):
    """The actions, one after the other or with turns in between."""
    import gevent

    actions = list(actions)
    chance.shuffle(actions)
    for action in actions:
        action()
        for _ in range(chance.choice([0, 0, 1, 2])):
            gevent.sleep(0)


def recv_in_flight(chance):
    from gevent import socket

    here, there = socket.socketpair()
    if chance.random() < 0.5:
        here.settimeout(60)

    def into():
        room = bytearray(100)
        return bytes(room[: here.recv_into(room)])

    victim = Victim(chance, here._read_event, chance.choice([into, lambda: here.recv(100)]))
    data = chance.randbytes(chance.randint(1, 50))
    in_any_order(chance, victim.interrupt, lambda: there.sendall(data))
    got = victim.end() or b""
    there.close()
    while piece := here.recv(100):
        got += piece
    assert got == data, (got, data)
    here.close()


def send_in_flight(chance):
    import gevent
    from gevent import socket

    here, there = socket.socketpair()
    data = chance.randbytes(1000) * 3000
    victim = Victim(chance, here._write_event, here.sendall, data)
    got = bytearray()
    there.setblocking(False)

    def drain():
        try:
            for _ in range(chance.choice([1, 3, 100])):
                got.extend(there.recv(65536))
        except BlockingIOError:
            pass

    in_any_order(chance, victim.interrupt, drain)
    there.setblocking(True)
    drained = gevent.spawn(rest_of, there, got)
    victim.end()
    here.shutdown(plain_socket.SHUT_WR)
    drained.get(timeout=30)
    assert data.startswith(bytes(got))
    here.close()
    there.close()


def rest_of(sock, got):
    while piece := sock.recv(1 << 20):
        got.extend(piece)


def accept_in_flight(chance):
    from gevent import socket

    listener = socket.socket()
    # Not 127.0.0.1, where others on this machine may try a port that was theirs.
    where = f"127.{chance.randrange(1, 255)}.{chance.randrange(255)}.{chance.randrange(1, 255)}"
    listener.bind((where, 0))
    listener.listen()
    with plain_socket.socket() as client:
        victim = Victim(chance, listener._read_event, listener.accept)
        in_any_order(chance, victim.interrupt, lambda: client.connect(listener.getsockname()))
        connection, address = victim.end() or listener.accept()
        assert address == client.getsockname()
        connection.close()
    listener.close()


def connect_in_flight(chance):
    from gevent import socket

    with plain_socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        # The backlog has room for one; the next one waits.
        with plain_socket.create_connection(address):
            client = socket.socket()
            victim = Victim(chance, client._write_event, client.connect, address)
            victim.interrupt()
            victim.end()
            client.close()


def in_flight(kind):
    """Interrupt calls that are proven to wait: nothing is lost, and nothing is left."""
    import gevent

    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    loop = gevent.get_hub().loop
    for number in range(ROUNDS):
        try:
            kind(chance)
        except BaseException as error:
            error.add_note(f"seed {seed}, round {number}")
            raise
    gevent.sleep(0.001)
    loop.run(nowait=True)
    assert (loop.activecnt, loop.pendingcnt) == (0, 0), (loop.activecnt, loop.pendingcnt)
    assert loop.aio.stats()["in_flight"] == 0, loop.aio.stats()


def interrupted_in_recv():
    in_flight(recv_in_flight)


def interrupted_in_send():
    in_flight(send_in_flight)


def interrupted_in_accept():
    in_flight(accept_in_flight)


def interrupted_in_connect():
    in_flight(connect_in_flight)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("done")
