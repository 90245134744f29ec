"""Sockets of greenlets: the interface of `socket.socket`, and what a killed greenlet leaves behind."""

import asyncio
import errno
import os
import socket

import pytest
from support import loops

green = pytest.importorskip("proact.green")


@pytest.fixture
def pair(loop):
    first, second = green.socketpair()
    with first, second:
        yield first, second


def test_echo(inside):
    def serve(listener):
        connection, address = listener.accept()
        assert address[0] == "127.0.0.1"
        with connection:
            while data := connection.recv(1000):
                connection.sendall(data)

    def main():
        with green.create_server(("127.0.0.1", 0)) as listener:
            server = green.spawn(serve, listener)
            with green.create_connection(listener.getsockname()) as client:
                assert isinstance(client, socket.socket)
                for size in (1, 1000, 300_000):
                    sender = green.spawn(client.sendall, b"x" * size)
                    got = 0
                    while got < size:
                        got += len(client.recv(65536))
                    sender.get()
                client.shutdown(socket.SHUT_WR)
                assert client.recv(1) == b""
            server.get()

    inside(main)


def test_all_ways_to_receive_and_send(inside, pair):
    first, second = pair

    def main():
        def feed(data):
            green.spawn(lambda: (green.sleep(0), second.sendall(data)))

        feed(b"abc")
        assert first.recv(10) == b"abc"
        feed(b"abc")
        buffer = bytearray(5)
        assert first.recv_into(buffer) == 3
        assert buffer == b"abc\0\0"
        feed(b"abc")
        assert first.recv_into(buffer, 2) == 2
        assert first.recv(10) == b"c"
        feed(b"abc")
        assert first.recv(10, socket.MSG_PEEK) == b"abc"
        assert first.recvmsg(10)[0] == b"abc"
        feed(b"abc")
        assert first.recvmsg_into([buffer])[0] == 3
        feed(b"abc")
        assert first.recvfrom(10)[0] == b"abc"
        feed(b"abc")
        assert first.recvfrom_into(buffer)[0] == 3
        assert second.send(b"12") == 2
        assert second.sendmsg([b"3", b"4"]) == 2
        assert first.recv(10) == b"1234"
        with pytest.raises(ValueError):
            first.recv(-1)
        with pytest.raises(ValueError):
            first.recv_into(buffer, 6)
        with pytest.raises(TypeError):
            first.recv_into(b"readonly")

    inside(main)


def test_datagrams(inside):
    def main():
        with green.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, green.socket(type=socket.SOCK_DGRAM) as b:
            a.bind(("127.0.0.1", 0))
            g = green.spawn(a.recvfrom, 100)
            green.sleep(0)
            b.sendto(b"hello", a.getsockname())
            assert g.get()[0] == b"hello"

    inside(main)


def test_makefile(inside, pair):
    first, second = pair

    def main():
        with first.makefile("rwb") as file, second.makefile("r") as lines:
            reader = green.spawn(lines.readline)
            green.sleep(0)
            file.write(b"one line\n")
            file.flush()
            assert reader.get() == "one line\n"

    inside(main)


def test_timeouts(inside, pair):
    first, second = pair

    def main():
        first.settimeout(0.005)
        assert first.gettimeout() == first.timeout == 0.005
        with pytest.raises(TimeoutError, match="timed out"):
            first.recv(1)
        with pytest.raises(TimeoutError):
            first.recv(1, socket.MSG_PEEK)
        second.settimeout(0.005)
        with pytest.raises(TimeoutError):
            second.sendall(bytes(10_000_000))
        first.setblocking(False)
        assert not first.getblocking()
        assert len(first.recv(10)) == 10
        with pytest.raises(BlockingIOError):
            while True:
                first.recv(1_000_000)
        first.setblocking(True)
        assert first.gettimeout() is None
        with pytest.raises(ValueError):
            first.settimeout(-1)
        with green.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(0.002)
            with pytest.raises(TimeoutError):
                listener.accept()

    inside(main)


def test_connect_errors(inside):
    def main():
        with socket.create_server(("127.0.0.1", 0)) as gone:
            address = gone.getsockname()
        with green.socket() as sock:
            with pytest.raises(ConnectionRefusedError):
                sock.connect(address)
        with green.socket() as sock:
            assert sock.connect_ex(address) == errno.ECONNREFUSED
        with pytest.raises(ConnectionRefusedError):
            green.create_connection(address)
        with green.create_server(("127.0.0.1", 0)) as listener, green.socket() as sock:
            sock.connect(("localhost", listener.getsockname()[1]))

    inside(main)


def test_dup_and_detach(inside, pair):
    first, second = pair

    def main():
        first.settimeout(3)
        with first.dup() as other:
            assert type(other) is green.socket
            assert other.gettimeout() == 3
            second.sendall(b"x")
            assert other.recv(1) == b"x"
        fd = first.detach()
        os.close(fd)
        with pytest.raises(OSError):
            first.recv(1)

    inside(main)


def test_closing_ends_what_waits(inside, pair):
    first, _ = pair

    def main():
        readers = [green.spawn(first.recv, 1) for _ in range(3)]
        for _ in range(3):
            green.sleep(0)
        first.close()
        for reader in readers:
            with pytest.raises(OSError) as caught:
                reader.get()
            assert caught.value.errno == errno.EBADF
        with pytest.raises(OSError):
            first.recv(1)

    inside(main)


def test_a_killed_receive_takes_nothing(spawned, pair, loop):
    first, second = pair

    def main():
        for kill_first in (True, False):
            reader = green.spawn(first.recv, 10)
            for _ in range(3):
                green.sleep(0)
            assert not reader.dead
            assert loops.in_flight(loop) >= 1
            # The data is there, or the wake-up is on its way, when the greenlet is killed.
            if kill_first:
                reader.kill(block=False)
                second.sendall(b"data")
            else:
                second.sendall(b"data")
                reader.kill(block=False)
            reader.join()
            assert isinstance(reader.value, green.GreenletExit)
            assert first.recv(10) == b"data"

    spawned(main)


def test_a_socket_serves_one_loop_after_the_other(new_loop):
    first, second = green.socketpair()
    with first, second:
        for _ in range(2):
            loop = new_loop()

            async def main():
                g = green.spawn(first.recv, 10)
                await loops.turns()
                await green.run(second.sendall, b"x")
                assert await g == b"x"

            loop.run_until_complete(main())


async def test_receiving_in_a_coroutine_says_what_to_do(loop, pair):
    with pytest.raises(RuntimeError, match=r"green\.run"):
        pair[0].recv(1)


async def test_beside_coroutines(loop, pair):
    first, second = pair

    async def other():
        reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=second.detach()))
        writer.write(b"question")
        await writer.drain()
        answer = await reader.read(100)
        writer.close()
        await writer.wait_closed()
        return answer

    def plain():
        data = first.recv(100)
        first.sendall(data.upper())

    task = loop.create_task(other())
    await green.run(plain)
    assert await task == b"QUESTION"


@pytest.mark.parametrize("killed", [False, True], ids=["waits", "was killed"])
def test_closing_ends_the_connection_at_once(inside, killed):
    """The peer sees the end before the loop turns, although a greenlet waited on the socket."""

    def main():
        for _ in range(20):
            first, second = green.socketpair()
            waits = green.spawn(first.recv, 1)
            green.sleep(0)
            green.sleep(0)
            if killed:
                waits.kill()
            first.close()
            with second:
                second.setblocking(False)
                assert second.recv(1) == b""
            if not killed:
                with pytest.raises(OSError, match="Bad file descriptor"):
                    waits.get()

    inside(main)


@pytest.mark.parametrize("killed", [False, True], ids=["waits", "was killed"])
def test_closing_frees_the_address_at_once(inside, killed):
    def main():
        address = ("127.0.0.1", 0)
        for _ in range(20):
            listener = green.listen(address)
            address = listener.getsockname()
            waits = green.spawn(listener.accept)
            green.sleep(0)
            green.sleep(0)
            if killed:
                waits.kill()
            listener.close()
            green.listen(address).close()
            if not killed:
                with pytest.raises(OSError, match="Bad file descriptor"):
                    waits.get()

    inside(main)


def test_a_socket_of_one_loop_is_closed_in_the_next(new_loop):
    made = []

    def first():
        made.append(green.listen(("127.0.0.1", 0)))
        with green.Timeout(0.001, False):
            made[0].accept()

    def second():
        waits = green.spawn(made[0].accept)
        green.sleep(0)
        green.sleep(0)
        made[0].close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            waits.get(timeout=20)

    for fn in (first, second):
        loop = new_loop()

        async def main(fn=fn):
            await green.spawn(fn)

        loop.run_until_complete(main())
        loop.close()
