"""Receives of green sockets that make their call at once, and the watch that stays between them."""

import errno
import os
import select
import socket
import subprocess
import sys
import threading

import pytest
from support import loops

green = pytest.importorskip("proact.green")


def tcp_pair():
    """Two connected TCP sockets, green ones."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return tuple(green.socket(each.family, each.type, each.proto, each.detach()) for each in (client, server))


@pytest.fixture(params=["tcp", "unix"])
def pair(request, loop):
    first, second = tcp_pair() if request.param == "tcp" else green.socketpair()
    with first, second:
        yield first, second


def waiting(fn, *args):
    """A greenlet that has begun to wait."""
    greenlet = green.spawn(fn, *args)
    for _ in range(3):
        green.sleep(0)
    assert not greenlet.dead
    return greenlet


def arrived(sock):
    """Whether something has come, by the kernel's word."""
    return bool(select.select([sock.fileno()], [], [], 5)[0])


def test_what_is_there_is_received_without_a_switch(inside, pair):
    first, second = pair

    def main():
        second.sendall(b"abc")
        assert arrived(first)
        others = []
        green.spawn(others.append, 1)
        assert first.recv(1) == b"a"
        assert first.recv(10) == b"bc"
        assert not others

    inside(main)


def test_message_by_message(inside, pair, loop):
    """The watch tells of each message, also of what came while nobody waited."""
    first, second = pair

    def main():
        for size in (1, 5, 1000):
            reader = waiting(first.recv, 1000)
            second.sendall(bytes(size))
            assert len(reader.get()) == size
        for _ in range(3):
            second.sendall(b"abcd")
            assert arrived(first)
            green.sleep(0.001)  # the watch tells, and nobody receives
            green.sleep(0.001)
            assert first.recv(2) == b"ab"
            assert first.recv(2) == b"cd"
        reader = waiting(first.recv, 10)
        second.sendall(b"x")
        assert reader.get() == b"x"

    inside(main)


def test_a_peer_that_never_stops_lets_others_run(inside, pair):
    first, second = pair

    def main():
        second.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
        second.setblocking(False)
        room = second.send(bytes(20_000))
        assert arrived(first)
        others = []
        green.spawn(others.append, 1)
        for _ in range(room):
            assert first.recv(1) == b"\0"
            if others:
                break
        assert others
        assert len(first.recv(10)) == 10

    inside(main)


def test_greenlets_receive_in_their_order(inside, pair):
    first, second = pair

    def main():
        got = []
        readers = [waiting(lambda i=i: got.append((i, first.recv(1)))) for i in range(4)]
        readers.pop(1).kill()
        second.sendall(b"abc")
        for reader in readers:
            reader.join()
        assert got == [(0, b"a"), (2, b"b"), (3, b"c")]

    inside(main)


def test_a_newcomer_does_not_overtake(inside, pair):
    first, second = pair

    def main():
        earlier = waiting(first.recv, 1)
        second.sendall(b"ab")
        assert arrived(first)
        assert first.recv(1) == b"b"
        assert earlier.get() == b"a"

    inside(main)


@pytest.mark.parametrize("when", ["before", "at the same time"])
def test_killed_where_bytes_come(inside, pair, when):
    """The one that is killed has received nothing, and the next one gets it, even if the watch tells once."""
    first, second = pair

    def main():
        victim = waiting(first.recv, 10)
        heir = waiting(first.recv, 10)
        if when == "before":
            victim.kill(block=False)
            second.sendall(b"data")
        else:
            second.sendall(b"data")
            assert arrived(first)
            victim.kill(block=False)
        victim.join()
        assert isinstance(victim.value, green.GreenletExit)
        assert heir.get() == b"data"

    inside(main)


def test_timeouts_lose_nothing(inside, pair):
    first, second = pair

    def main():
        first.settimeout(0.002)
        for _ in range(3):
            with pytest.raises(TimeoutError, match="timed out"):
                first.recv(1)
            with pytest.raises(TimeoutError):
                first.recv_into(bytearray(1))
        second.sendall(b"ab")
        assert arrived(first)
        assert first.recv(1) == b"a"
        first.setblocking(False)
        assert first.recv(1) == b"b"
        with pytest.raises(BlockingIOError):
            first.recv(1)
        with pytest.raises(BlockingIOError):
            first.recv_into(bytearray(1))
        first.setblocking(True)
        reader = waiting(first.recv, 1)
        second.sendall(b"c")
        assert reader.get() == b"c"

    inside(main)


def test_the_fd_is_the_programs_at_any_time(inside, pair):
    """`os.read`, a duplicate, MSG_PEEK and select find what was not received."""
    first, second = pair

    def main():
        second.sendall(b"abcdef")
        assert first.recv(1) == b"a"
        assert os.read(first.fileno(), 1) == b"b"
        assert first.recv(1, socket.MSG_PEEK) == b"c"
        assert select.select([first], [], [], 0)[0] == [first]
        with first.dup() as other:
            assert other.recv(1) == b"c"
        plain = socket.socket(fileno=os.dup(first.fileno()))
        with plain:
            assert plain.recv(1) == b"d"
        assert first.recvmsg(1)[0] == b"e"
        fd = first.detach()
        assert os.read(fd, 10) == b"f"
        with pytest.raises(OSError) as caught:
            first.recv(1)
        assert caught.value.errno == errno.EBADF
        with green.socket(fileno=fd) as again:
            reader = waiting(again.recv, 1)
            second.sendall(b"g")
            assert reader.get() == b"g"

    inside(main)


def test_the_end_and_errors_come_after_the_bytes(inside):
    def main():
        for linger in (False, True):
            first, second = tcp_pair()
            with first, second:
                reader = waiting(first.recv, 1)
                second.sendall(b"abc")
                assert reader.get() == b"a"
                if linger:
                    # So that `close` resets the connection.
                    second.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    assert first.recv(10) == b"bc"
                    second.close()
                    with pytest.raises(ConnectionResetError):
                        first.recv(1)
                else:
                    second.shutdown(socket.SHUT_WR)
                    assert first.recv(10) == b"bc"
                assert first.recv(1) == b""
                assert first.recv(1) == b""
                with pytest.raises(OSError):
                    for _ in range(3):
                        second.sendall(b"x")

    inside(main)


def test_our_own_shutdown_ends_a_receive(inside, pair):
    first, _ = pair

    def main():
        reader = waiting(first.recv, 1)
        first.shutdown(socket.SHUT_RD)
        assert reader.get() == b""

    inside(main)


@pytest.mark.parametrize("busy", [False, True], ids=["a loop that sleeps", "a loop that never sleeps"])
def test_urgent_data_hides_nothing(inside, busy):
    """A receive stops at urgent data (tcp(7)), and more is there although it was short."""

    def spin():
        while True:
            green.sleep(0)

    def main():
        spinner = green.spawn(spin if busy else green.sleep)
        first, second = tcp_pair()
        with first, second:
            reader = waiting(first.recv, 1)
            second.sendall(b"0")
            assert reader.get() == b"0"
            second.sendall(b"abc")
            second.send(b"!", socket.MSG_OOB)
            second.sendall(b"def")
            got = b""
            with green.Timeout(5):
                while len(got) < 6:
                    got += first.recv(100)
            assert got == b"abcdef"
        spinner.kill()

    inside(main)


def test_datagrams_are_received_one_by_one(inside):
    def main():
        with green.socket(type=socket.SOCK_DGRAM) as a, green.socket(type=socket.SOCK_DGRAM) as b:
            a.bind(("127.0.0.1", 0))
            reader = waiting(a.recv, 100)
            for text in (b"one", b"two", b"three"):
                b.sendto(text, a.getsockname())
            assert reader.get() == b"one"
            with green.Timeout(5):
                assert a.recv(100) == b"two"
                assert a.recv(100) == b"three"

    inside(main)


def test_closing_tells_the_peer_at_once(inside, pair):
    """The engine's watch does not keep the connection open."""
    first, second = pair

    def main():
        reader = waiting(first.recv, 1)
        first.close()
        # Not through the loop, which would get to it.
        assert arrived(second)
        assert socket.socket.recv(second, 1) == b""
        with pytest.raises(OSError) as caught:
            reader.get()
        assert caught.value.errno == errno.EBADF

    inside(main)


def test_a_forgotten_socket_is_closed(inside, loop):
    def main():
        first, second = tcp_pair()
        with second:
            reader = waiting(first.recv, 1)
            second.sendall(b"x")
            assert reader.get() == b"x"
            del reader
            held = [first]
            del first
            with pytest.warns(ResourceWarning):
                held.clear()
            assert arrived(second)
            assert socket.socket.recv(second, 1) == b""

    inside(main)
    loops.settle(loop)
    assert loops.in_flight(loop) == 0


def test_closed_by_another_thread(inside, pair):
    first, second = pair

    def main():
        reader = waiting(first.recv, 1)
        thread = threading.Thread(target=first.close)
        thread.start()
        with pytest.raises(OSError) as caught:
            reader.get(5)
        assert caught.value.errno == errno.EBADF
        thread.join()
        assert second.recv(1) == b""

    inside(main)


def test_a_number_that_another_socket_has_now(inside, loop):
    """A socket that was closed behind the loop's back receives nothing of the next one with its number."""

    def main():
        first, second = tcp_pair()
        reader = waiting(first.recv, 10)
        number = first.fileno()
        new, peer = socket.socketpair()
        os.dup2(new.fileno(), number)
        new.close()
        with second, peer, green.socket(fileno=number) as heir:
            other = waiting(heir.recv, 10)
            with pytest.raises(OSError) as caught:
                reader.get(5)
            assert caught.value.errno == errno.EBADF
            peer.sendall(b"for the heir")
            assert other.get() + heir.recv(10) == b"for the heir"
            first.detach()

    inside(main)


def test_one_loop_after_the_other(new_loop, pair):
    first, second = pair
    for _ in range(3):
        loop = new_loop()

        def main():
            for _ in range(2):
                reader = waiting(first.recv, 10)
                second.sendall(b"x")
                assert reader.get() == b"x"

        async def run():
            await green.run(main)

        loop.run_until_complete(run())


def test_a_watch_alone_is_no_reason_to_wait(engine, proact):
    """All wait for each other, and a connection that nobody receives from changes nothing."""
    code = """
import sys
from proact import green
def main():
    first, second = green.socketpair()
    with first, second:
        reader = green.spawn(first.recv, 1)
        green.sleep(0.001)
        second.sendall(b"x")
        assert reader.get() == b"x"
        green.Event().wait()
try:
    green.run_main(main, engine=sys.argv[1], watchdog=None)
except green.Deadlock:
    print("a deadlock")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, engine], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "a deadlock\n"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_in_a_forked_child(spawned, pair):
    """The child has a loop of its own, and uses the socket on it."""
    first, second = pair

    def main():
        reader = waiting(first.recv, 1)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with pytest.raises(RuntimeError, match="parent"):
                    first.recv(1)
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        second.sendall(b"x")
        assert reader.get() == b"x"

    spawned(main)


def test_send_takes_what_the_socket_takes(inside, pair):
    first, second = pair

    def main():
        assert first.send(b"") == 0
        second.sendall(b"x")
        assert first.recv(1) == b"x"
        assert first.send(b"abc") == 3
        assert first.send(memoryview(b"de")) == 2
        assert first.send(b"f", socket.MSG_DONTWAIT) == 1
        assert second.recv(10, socket.MSG_WAITALL | socket.MSG_PEEK)
        got = b""
        while len(got) < 6:
            got += second.recv(10)
        assert got == b"abcdef"
        first.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                first.send(bytes(100_000))
        first.setblocking(True)
        sender = waiting(first.send, b"y")
        while not sender.dead:
            second.recv(100_000)
            green.sleep(0)
        assert sender.get() == 1
        first.close()
        with pytest.raises(OSError) as caught:
            first.send(b"z")
        assert caught.value.errno == errno.EBADF

    inside(main)


def test_sendall_with_flags_and_without_waiting(inside, pair):
    first, second = pair

    def main():
        first.sendall(b"ab", socket.MSG_NOSIGNAL)
        first.setblocking(False)
        first.sendall(b"cd")
        first.sendall(memoryview(b"ef"))
        got = b""
        while len(got) < 6:
            got += second.recv(10)
        assert got == b"abcdef"
        with pytest.raises(BlockingIOError):
            first.sendall(bytes(20_000_000))
        with pytest.raises(TypeError):
            first.sendall("text")
        with pytest.raises(TypeError):
            second.sendall()
        with pytest.raises(TypeError):
            second.recv("1")

    inside(main)


def test_sends_keep_their_order(inside, pair):
    """A send that comes while another one waits for room does not overtake it."""
    first, second = pair

    def main():
        size = 20_000_000
        large = waiting(first.sendall, b"a" * size)
        small = green.spawn(first.sendall, b"b")
        got = bytearray()
        while len(got) <= size:
            got += second.recv(100_000)
        assert got == b"a" * size + b"b"
        large.get()
        small.get()

    inside(main)
