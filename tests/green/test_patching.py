"""patch(): one package is green, the rest of the program is not."""

import http.server
import socket
import subprocess
import sys
import threading
import time

import pytest

green = pytest.importorskip("proact.green")

LIBRARY = """
import http.client
import queue
import select
import socket
import ssl
import subprocess
import threading
import time
from . import inner
from .inner import helper


def late():
    import time as again
    from . import lazy
    return again is time, lazy.time is time
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    package = tmp_path / "waiting_library"
    package.mkdir()
    (package / "__init__.py").write_text(LIBRARY)
    (package / "inner.py").write_text("import time, threading\ndef helper(): time.sleep(0.01)\n")
    (package / "lazy.py").write_text("import time\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.startswith("waiting_library")]:
        del sys.modules[name]


def test_the_package_is_green_and_the_rest_is_not(inside, library):
    import waiting_library as ordinary

    patched = green.patch("waiting_library")
    assert patched is not ordinary
    assert sys.modules["waiting_library"] is ordinary
    assert ordinary.time is time
    assert ordinary.http.client.socket is socket
    assert patched.time.sleep is green.sleep
    assert patched.time.monotonic is time.monotonic
    assert patched.socket.socket is green.socket
    assert patched.inner.threading.Lock is green.Lock
    assert patched.http.client.socket is patched.socket
    assert patched.queue.Queue is green.Queue
    assert patched.late() == (True, True)
    assert sys.modules["waiting_library"] is ordinary
    assert "waiting_library.lazy" not in sys.modules

    def main():
        ticks = []
        ticker = green.spawn(lambda: [(green.sleep(0), ticks.append(1)) for _ in range(20)])
        patched.helper()
        assert len(ticks) > 2
        ticker.join()

    inside(main)


def test_threads_of_a_patched_package(inside, library):
    patched = green.patch("waiting_library")
    threads = patched.threading

    def main():
        seen, values = [], threads.local()

        def body(n):
            values.n = n
            patched.time.sleep(0)
            seen.append((values.n, threads.current_thread().name))
            assert threads.get_ident() == threads.current_thread().ident

        made = [threads.Thread(target=body, args=(n,), name=f"t{n}") for n in range(3)]
        for thread in made:
            assert not thread.is_alive()
            thread.start()
        for thread in made:
            thread.join()
        assert seen == [(0, "t0"), (1, "t1"), (2, "t2")]
        assert not hasattr(values, "n")
        fired = threads.Event()
        threads.Timer(0.001, fired.set).start()
        assert fired.wait(20)
        cancelled = threads.Timer(0.001, fired.clear)
        cancelled.start()
        cancelled.cancel()
        green.sleep(0.005)
        assert fired.is_set()

    inside(main)


def test_a_barrier_of_a_patched_package(inside, library):
    threads = green.patch("waiting_library").threading

    def main():
        seen = []

        def body(n):
            green.sleep(0.001 * n)
            seen.append("before")
            barrier.wait(20)
            seen.append("behind")

        barrier = threads.Barrier(3)
        made = [threads.Thread(target=body, args=(n,)) for n in range(3)]
        for thread in made:
            thread.start()
        for thread in made:
            thread.join(20)
        assert seen == ["before"] * 3 + ["behind"] * 3
        with pytest.raises(threads.BrokenBarrierError):
            barrier.wait(0.001)

    inside(main)


def test_select_of_a_patched_package(inside, library):
    patched = green.patch("waiting_library")

    def main():
        first, second = green.socketpair()
        with first, second:
            assert patched.select.select([first], [], [], 0.001) == ([], [], [])
            assert patched.select.select([first], [second], []) == ([], [second], [])
            green.spawn(lambda: (green.sleep(0.001), second.sendall(b"x")))
            assert patched.select.select([first], [], []) == ([first], [], [])
            poll = patched.select.poll()
            poll.register(second, patched.select.POLLIN)
            assert poll.poll(1) == []
            green.spawn(lambda: (green.sleep(0.001), first.sendall(b"x")))
            assert poll.poll() == [(second.fileno(), patched.select.POLLIN)]

    inside(main)


def test_subprocess_of_a_patched_package(inside, library):
    patched = green.patch("waiting_library")
    assert issubclass(patched.subprocess.Popen, subprocess.Popen)
    assert inside(patched.subprocess.check_output, ["echo", "x"]) == b"x\n"


@pytest.fixture
def popen(library):
    return green.patch("waiting_library").subprocess


def test_popen_communicates(inside, popen):
    """Both pipes are full at some time, and the loop turns meanwhile."""
    sent = bytes(range(256)) * 4000
    program = (
        "import sys; d = sys.stdin.buffer.read(); sys.stdout.buffer.write(d); sys.stderr.buffer.write(d)"
    )

    def main():
        turns = []
        stop = green.spawn(lambda: [turns.append(green.sleep(0.001)) for _ in range(100_000)])
        with popen.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, stderr=-1) as child:
            assert child.communicate(sent, timeout=30) == (sent, sent)
        assert child.returncode == 0
        assert turns
        stop.kill()
        with popen.Popen(["cat"], stdin=-1, stdout=-1, text=True) as child:
            assert child.communicate("one\ntwo\n") == ("one\ntwo\n", None)
        with popen.Popen(["sh", "-c", "exit 3"]) as child:
            assert child.communicate() == (None, None)
        assert child.returncode == 3

    inside(main)


def test_pipes_of_popen(inside, popen):
    def main():
        with popen.Popen(["cat"], stdin=-1, stdout=-1, text=True, bufsize=1) as child:
            for word in ("one\n", "zwei\n", "três\n"):
                child.stdin.write(word)
                assert child.stdout.readline() == word
            child.stdin.close()
            assert child.stdout.read() == ""
        assert child.returncode == 0
        # The pipe is smaller than the data.
        with popen.Popen(["wc", "-c"], stdin=-1, stdout=-1, bufsize=0) as child:
            view = memoryview(bytes(1_000_000))
            while view:
                view = view[child.stdin.write(view) :]
            child.stdin.close()
            assert child.stdout.read() == b"1000000\n"
        with popen.Popen(["true"], stdin=-1) as child:
            child.wait()
            with pytest.raises(BrokenPipeError):
                child.stdin.write(b"x")
                child.stdin.flush()
            with pytest.raises(BrokenPipeError):
                child.stdin.close()

    inside(main)


def test_waiting_for_popen(inside, popen):
    def main():
        child = popen.Popen(["sleep", "60"], stdout=-1)
        for wait in (child.wait, child.communicate):
            with pytest.raises(subprocess.TimeoutExpired):
                wait(timeout=0.01)
        with green.Timeout(0.01, False):
            child.stdout.read()
        waits = green.spawn(child.wait)
        green.sleep(0.01)
        waits.kill()
        waits = green.spawn(child.wait)
        green.sleep(0.01)
        child.kill()
        assert waits.get(20) == child.wait() == child.poll() == -9
        child.stdout.close()
        with pytest.raises(FileNotFoundError):
            popen.Popen(["no such program"], stdin=-1, stdout=-1)

    inside(main)


class Slow(http.server.BaseHTTPRequestHandler):
    """Answers when three requests are there: they have to be at the same time."""

    together = threading.Barrier(3, timeout=20)

    def do_GET(self):
        self.together.wait()
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args):
        pass


@pytest.fixture
def slow_server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_http_client_of_the_standard_library(inside, slow_server):
    request = green.patch("urllib.request")

    def get():
        with request.urlopen(slow_server, timeout=20) as answer:
            return answer.read()

    def main():
        return [g.get() for g in [green.spawn(get) for _ in range(3)]]

    assert inside(main) == [b"ok"] * 3


def test_requests(inside, slow_server):
    pytest.importorskip("requests", reason="requests is not installed here")
    requests = green.patch("requests")

    def get():
        with requests.Session() as session:
            session.trust_env = False
            return session.get(slow_server, timeout=20).text

    def main():
        return [g.get() for g in [green.spawn(get) for _ in range(3)]]

    assert inside(main) == ["ok"] * 3
