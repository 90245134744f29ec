"""serve() on its three models, TLS, files and child processes of greenlets."""

import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest
from support import tls

green = pytest.importorskip("proact.green")


def shout(connection):
    green.sleep(0)
    while data := connection.recv(1000):
        if data == b"fail":
            raise ValueError("the handler's")
        connection.sendall(data.upper())


def talk(address, count=3, wrap=None):
    """Plain clients, in the calling thread."""
    for n in range(count):
        with socket.create_connection(address, timeout=20) as client:
            connection = wrap(client) if wrap else client
            with connection:
                message = b"hello %d" % n
                connection.sendall(message)
                assert connection.recv(1000) == message.upper()


def serving(address, body, handler=shout, **options):
    """Serve in this thread while `body` runs in another one."""
    failed = []

    def started(server):
        def other():
            try:
                body(server)
            except BaseException as error:
                failed.append(error)
            finally:
                server.stop()

        thread.append(threading.Thread(target=other))
        thread[0].start()

    thread = []
    green.serve(handler, address, started=started, **options)
    thread[0].join()
    if failed:
        raise failed[0]


@pytest.mark.parametrize("model", ["green", "threads"])
def test_models(model, proact):
    serving(("127.0.0.1", 0), lambda server: talk(server.address), model=model, workers=4)


def test_processes(proact):
    code = """
import threading, sys
sys.path.insert(0, "tests")
sys.path.insert(0, "tests/green")
import test_serving
def body(server):
    test_serving.talk(server.address, 6)
test_serving.serving(("127.0.0.1", 0), body, model="processes", workers=2)
"""
    # In a process of its own, which has one thread when it forks... but for the client's.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], timeout=60, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_serve_within_a_loop(inside, tmp_path):
    path = str(tmp_path / "socket")

    def client(server):
        with green.socket(socket.AF_UNIX) as sock:
            sock.connect(server.address)
            sock.sendall(b"x")
            assert sock.recv(10) == b"X"
        server.stop()

    def main():
        clients = []
        green.serve(
            shout, path, watchdog=None, started=lambda server: clients.append(green.spawn(client, server))
        )
        clients[0].get()

    inside(main)


def test_a_handler_that_fails_is_logged(caplog, proact):
    def body(server):
        with socket.create_connection(server.address, timeout=20) as client:
            client.sendall(b"fail")
            assert client.recv(10) == b""
        talk(server.address, 1)

    serving(("127.0.0.1", 0), body)
    assert "the handler's" in caplog.text


def test_a_handler_that_blocks_keeps_one_thread_only(proact):
    def block(connection):
        if connection.recv(10) == b"1":
            entered.set()
            go_on.wait(20)
        connection.sendall(b"done")

    def started(server):
        threads.append(threading.Thread(target=body, args=(server,)))
        threads[0].start()

    def body(server):
        try:
            with (
                socket.create_connection(server.address) as slow,
                socket.create_connection(server.address) as fast,
            ):
                slow.sendall(b"1")
                assert entered.wait(20)
                fast.sendall(b"0")
                assert fast.recv(10) == b"done"
                slow.setblocking(False)
                with pytest.raises(BlockingIOError):
                    slow.recv(10)
                passed.append(True)
                go_on.set()
        finally:
            server.stop()

    entered, go_on = threading.Event(), threading.Event()
    threads, passed = [], []
    green.serve(block, ("127.0.0.1", 0), model="threads", workers=2, started=started)
    threads[0].join()
    assert passed


def test_switching_the_model(proact):
    """New connections are served on the new model; those that are served go on where they are."""
    where = []

    def handler(connection):
        where.append(threading.current_thread().name)
        while data := connection.recv(100):
            connection.sendall(data + threading.current_thread().name.encode())

    def said(client):
        client.sendall(b"x")
        return client.recv(100)[1:].decode().partition(".")[0]

    def body(server):
        clients = []
        names = []
        for model in ("green", "threads", "green", "threads", "threads"):
            if model != server.model or len(clients) > 3:
                server.switch(model, workers=4)
                assert server.model == model
            # Some of these may still be accepted on the model before.
            for _ in range(200):
                client = socket.create_connection(server.address, timeout=20)
                name = said(client)
                if not names or name != names[-1]:
                    break
                client.close()
            clients.append(client)
            names.append(name)
        for client, name in zip(clients, names, strict=True):
            assert said(client) == name
        assert len(set(names)) == 5
        # Two are left alone when the server stops.
        for client in clients[:3]:
            client.close()
        with pytest.raises(ValueError, match="processes"):
            server.switch("processes")
        passed.append(clients)

    passed = []
    serving(("127.0.0.1", 0), body, handler=handler)
    assert passed
    for client in passed[0][3:]:
        assert client.recv(1) == b""
        client.close()


def test_switching_within_a_loop_and_before_it_serves(inside, tmp_path):
    def main():
        def started(server):
            server.switch("threads", 2)
            servers.append(server)

        servers = []
        serving_ = green.spawn(green.serve, shout, str(tmp_path / "socket"), started=started)
        while not servers:
            green.sleep(0.001)
        for model in ("threads", "green", "green"):
            servers[0].switch(model)
            with green.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "socket"))
                client.sendall(b"abc")
                assert client.recv(100) == b"ABC"
        servers[0].stop()
        assert serving_.join(20)
        servers[0].switch("threads")  # too late, and no harm

    inside(main)


def test_bad_models(proact):
    with pytest.raises(ValueError, match="green, threads, processes"):
        green.serve(shout, ("127.0.0.1", 0), model="fibres")


def test_tls_server(proact):
    serving(
        ("127.0.0.1", 0),
        lambda server: talk(
            server.address,
            wrap=lambda sock: tls.client_context().wrap_socket(sock, server_hostname="localhost"),
        ),
        ssl=tls.server_context(),
    )


def test_tls_between_greenlets(inside):
    def serve(listener):
        connection, _ = listener.accept()
        with green.wrap_socket(connection, tls.server_context(), server_side=True) as secure:
            data = b""
            while len(data) < 500_000:
                data += secure.recv(65536)
            secure.sendall(data)

    def main():
        with green.create_server(("127.0.0.1", 0)) as listener:
            server = green.spawn(serve, listener)
            sock = green.create_connection(listener.getsockname())
            with green.wrap_socket(sock, tls.client_context(), server_hostname="localhost") as client:
                assert isinstance(client, ssl.SSLSocket)
                client.settimeout(20)
                sender = green.spawn(client.sendall, bytes(500_000))
                got = 0
                while got < 500_000:
                    buffer = bytearray(65536)
                    got += client.recv_into(buffer)
                sender.get()
                assert client.version().startswith("TLS")
            server.get()

    inside(main)


def test_tls_to_a_peer_that_does_not_read_waits(inside):
    """And lets other greenlets run meanwhile."""

    def main():
        ours, theirs = green.socketpair()
        with ours, theirs:
            server = green.spawn(green.wrap_socket, theirs, tls.server_context(), server_side=True)
            with (
                green.wrap_socket(ours, tls.client_context(), server_hostname="localhost") as client,
                server.get() as deaf,
            ):
                sender = green.spawn(client.sendall, bytes(8 << 20))
                for _ in range(5):
                    green.sleep(0.005)
                assert not sender.dead
                left = 8 << 20
                while left:
                    left -= len(deaf.recv(1 << 16))
                sender.get()

    inside(main)


def test_tls_timeout_and_refusal(inside):
    def main():
        first, second = green.socketpair()
        with first, second:
            first.settimeout(0.005)
            with pytest.raises(TimeoutError):
                green.wrap_socket(first, tls.client_context(), server_hostname="localhost")
        first, second = green.socketpair()
        with first, second:
            green.spawn(second.sendall, b"this is no TLS, and long enough to be seen as such")
            with pytest.raises(ssl.SSLError):
                green.wrap_socket(first, tls.client_context(), server_hostname="localhost")

    inside(main)


def test_files(inside, tmp_path):
    path = tmp_path / "file"

    def main():
        with green.open(path, "w") as file:
            file.write("one\ntwo\n")
            assert not file.closed
        with green.open(path) as file:
            assert list(file) == ["one\n", "two\n"]
            file.seek(0)
            assert file.read() == "one\ntwo\n"
        assert file.closed
        with green.open(path, "rb") as file:
            assert file.readline() == b"one\n"
            assert file.fileno() > 0
        with pytest.raises(FileNotFoundError):
            green.open(tmp_path / "none")

    inside(main)


def test_subprocess(inside):
    run = green.subprocess.run
    python = sys.executable

    def main():
        done = run([python, "-c", "print(input())"], input="hello\n", capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")
        assert green.subprocess.check_output("echo $((1+1))", shell=True) == b"2\n"
        assert green.subprocess.call(["false"]) == 1
        assert green.subprocess.check_call("true") == 0
        with pytest.raises(subprocess.CalledProcessError):
            run(["false"], check=True)
        with pytest.raises(subprocess.TimeoutExpired):
            run(["sleep", "60"], timeout=0.02)
        with pytest.raises(FileNotFoundError):
            run(["/does/not/exist"])
        with pytest.raises(ValueError):
            run(["true"], capture_output=True, stdout=subprocess.PIPE)

    inside(main)


def test_a_killed_subprocess_run_kills_the_child(spawned):
    def main():
        begun = time.monotonic()
        g = green.spawn(green.subprocess.run, ["sleep", "60"])
        green.sleep(0.05)
        g.kill()
        assert time.monotonic() - begun < 30

    spawned(main)
