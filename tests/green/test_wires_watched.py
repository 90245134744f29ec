"""Receives of green sockets that wait without a call: the watch tells of all bytes, and of what is behind.

A dialogue first uses up the tries that a receive makes before it waits (`wire.rs`).
"""

import random
import socket
import threading

import pytest

green = pytest.importorskip("proact.green")

ROUNDS = 12


def tcp_pair():
    """Two connected TCP sockets: a green one, and a plain one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return green.socket(client.family, client.type, client.proto, client.detach()), server


def reads(sock, size, got):
    while data := sock.recv(size):
        got.append(data)


def in_dialogue(size=100):
    """A pair whose greenlet waits for the watch alone, the greenlet, and what it has received since."""
    first, second = tcp_pair()
    got = []
    reader = green.spawn(reads, first, size, got)
    for number in range(ROUNDS):
        green.sleep(0.001)
        second.sendall(b"%d" % (number % 10))
        while len(got) <= number:
            green.sleep(0.001)
    got.clear()
    return first, second, reader, got


@pytest.mark.parametrize("turn", [False, True], ids=["at once", "a turn between"])
def test_the_end_behind_bytes(inside, turn):
    def main():
        first, second, reader, got = in_dialogue()
        with first, second:
            second.sendall(b"last")
            if turn:
                green.sleep(0)
            second.shutdown(socket.SHUT_WR)
            assert reader.join(20)
            assert b"".join(got) == b"last"

    inside(main)


@pytest.mark.parametrize("turn", [False, True], ids=["at once", "a turn between"])
def test_a_reset_behind_bytes(inside, turn):
    def main():
        first, second, reader, _ = in_dialogue()
        with first:
            second.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            second.sendall(b"last")
            if turn:
                green.sleep(0)
            second.close()
            assert reader.join(20)
            assert isinstance(reader.exception, ConnectionResetError)

    inside(main)


@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_more_than_one_receive_takes(inside, size):
    def main():
        first, second, reader, got = in_dialogue(size)
        with first, second:
            for _ in range(20):
                second.sendall(b"0123456789ab")
            second.shutdown(socket.SHUT_WR)
            assert reader.join(20)
            assert b"".join(got) == b"0123456789ab" * 20

    inside(main)


def test_urgent_bytes_hide_nothing_in_a_dialogue(inside):
    """A receive stops at urgent data (tcp(7)), and more is there although it was short."""

    def main():
        first, second, reader, got = in_dialogue()
        with first, second:
            for _ in range(5):
                second.sendall(b"abc")
                second.send(b"!", socket.MSG_OOB)
                second.sendall(b"def")
            second.shutdown(socket.SHUT_WR)
            assert reader.join(20)
            # Of several urgent bytes only the last one is kept apart.
            assert b"".join(got).replace(b"!", b"") == b"abcdef" * 5

    inside(main)


def test_bytes_that_another_has_taken(inside):
    """Somebody else receives what the watch told of. The next bytes are told of again."""

    def main():
        first, second, reader, got = in_dialogue()
        with first, second, socket.socket(fileno=first.dup().detach()) as twin:
            twin.setblocking(False)
            second.sendall(b"taken")
            assert twin.recv(100) == b"taken"
            green.sleep(0.001)
            second.sendall(b"ours")
            second.shutdown(socket.SHUT_WR)
            assert reader.join(20)
            assert b"".join(got) == b"ours"

    inside(main)


def test_two_readers_and_one_is_killed(inside):
    def main():
        first, second, reader, got = in_dialogue()
        with first, second:
            other = green.spawn(reads, first, 100, got)
            green.sleep(0)
            second.sendall(b"one")
            reader.kill(block=False)
            second.sendall(b"two")
            while len(b"".join(got)) < 6:
                green.sleep(0.001)
            second.shutdown(socket.SHUT_WR)
            assert other.join(20)
            assert reader.dead
            assert b"".join(got) == b"onetwo"

    inside(main)


def test_a_message_costs_no_call_in_vain(inside, loop):
    """Of each message: one receive, one send, and a share of a wait."""
    count = 300

    def answer(sock):
        for _ in range(count):
            sock.sendall(sock.recv(1000))

    def main():
        first, second = tcp_pair()
        other = green.socket(second.family, second.type, second.proto, second.detach())
        with first, other:
            answering = green.spawn(answer, other)
            before = loop.stats()["syscalls"]
            for _ in range(count):
                first.sendall(b"message")
                assert first.recv(1000) == b"message"
            calls = loop.stats()["syscalls"] - before
            answering.join()
        assert calls / (2 * count) < 3.3

    inside(main)


def test_greenlets_go_on_one_after_the_other(inside):
    """Many are told of in one wait: each goes on, also if the one before has ended, raised or killed it."""
    total = 40

    def main():
        made = [in_dialogue() for _ in range(4)]
        pairs = [tcp_pair() for _ in range(total)]
        seen = []
        greenlets = []

        def body(number):
            first, _ = pairs[number]
            data = first.recv(100)
            seen.append((number, data))
            if number % 5 == 1:
                raise ValueError(number)
            if number % 5 == 2 and number + 1 < total:
                greenlets[number + 1].kill(block=False)
            if number % 5 == 4:
                first.recv(100)

        greenlets.extend(green.spawn(body, number) for number in range(total))
        green.sleep(0.001)
        for number, (_, second) in enumerate(pairs):
            second.sendall(b"%d" % number)
        for _, second, _, _ in made:
            second.sendall(b"x")
        green.sleep(0.01)
        for _, second in pairs:
            second.close()
        for greenlet in greenlets:
            assert greenlet.join(20)
        for number, data in seen:
            assert data == b"%d" % number
        for number, greenlet in enumerate(greenlets):
            killed = isinstance(greenlet.value, green.GreenletExit)
            first = pairs[number][0]
            # What a killed one has not received is still there.
            assert ((number, b"%d" % number) in seen) != (killed and first.recv(100) == b"%d" % number)
            assert isinstance(greenlet.exception, ValueError) == (number % 5 == 1)
            first.close()
        for first, second, reader, got in made:
            second.close()
            assert reader.join(20)
            assert got == [b"x"]
            first.close()

    inside(main)


def test_a_thread_that_writes_as_it_likes(inside):
    """Pieces of any size at any time, and any end: all bytes arrive, and nobody hangs."""
    chance = random.Random(7)

    def write(sock, pieces):
        with sock:
            for piece in pieces:
                sock.sendall(piece)
                for _ in range(chance.choice([0, 0, 1, 50])):
                    threading.Event().wait(0)

    def main():
        for _ in range(30):
            pieces = [chance.randbytes(chance.choice([1, 10, 1000, 5000])) for _ in range(40)]
            first, second = tcp_pair()
            writer = threading.Thread(target=write, args=(second, pieces))
            writer.start()
            got = []
            with first, green.Timeout(20):
                while data := first.recv(chance.choice([1, 7, 1000, 65536])):
                    got.append(data)
            writer.join()
            assert b"".join(got) == b"".join(pieces)

    inside(main)
