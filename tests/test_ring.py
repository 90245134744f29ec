"""`proact.Ring`: each operation completes once, its memory is held until then, nothing is left."""

import array
import contextlib
import errno
import gc
import json
import os
import platform
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import weakref

import pytest
import seccomp
from support import children, loops, peers

pytestmark = pytest.mark.skipif(bool(loops.REFERENCE), reason="only proact has a ring")

# If the kernel refuses one of these, it is emulated: by a poll and the call itself, or by a thread.
DENIED = "accept,recv,send,read,write,fsync"


def refused():
    return loops.unavailable("io_uring")


@pytest.fixture
def ring(proact):
    if refused():
        pytest.skip(refused())
    with proact.Ring(32) as ring:
        yield ring


@pytest.fixture(params=["", DENIED], ids=["native", "denied"])
def any_ring(request, monkeypatch, proact):
    """A ring with all of its opcodes, and one without most of them."""
    if refused():
        pytest.skip(refused())
    monkeypatch.setenv("PROACT_URING_DENY", request.param)
    with proact.Ring(32) as ring:
        yield ring


def one(ring, token):
    """The result of the only operation there is."""
    [completion] = ring.wait(timeout=5)
    assert completion.token == token
    assert ring.in_flight == 0
    return completion.result


def is_held(buffer):
    """Whether the buffer is exported: then it can't be resized."""
    try:
        buffer.append(0)
    except BufferError:
        return True
    buffer.pop()
    return False


# Every operation.


def test_recv_and_send(any_ring):
    with peers.tcp_pair() as (near, far):
        buffer = bytearray(100)
        token = any_ring.recv(near, buffer, data="who")
        assert any_ring.wait(timeout=0) == []
        assert any_ring.in_flight == 1
        assert one_after(any_ring, far.send, b"hello") == (token, 5, "who")
        assert buffer[:5] == b"hello"
        assert one(any_ring, any_ring.send(near.fileno(), memoryview(b"answer"))) == 6
        assert far.recv(100) == b"answer"
        far.close()
        assert one(any_ring, any_ring.recv(near, buffer)) == 0


def one_after(ring, action, *arguments):
    action(*arguments)
    [completion] = ring.wait(timeout=5)
    return completion.token, completion.result, completion.data


@pytest.mark.parametrize("blocking", [True, False])
def test_accept(any_ring, blocking):
    with peers.listening(blocking=blocking) as listener:
        token = any_ring.accept(listener)
        with socket.create_connection(listener.getsockname()) as client:
            with socket.socket(fileno=one(any_ring, token)) as server:
                assert server.getpeername() == client.getsockname()
                assert not os.get_blocking(server.fileno())
                assert not os.get_inheritable(server.fileno())


def test_files(any_ring):
    with tempfile.TemporaryFile() as file:
        assert one(any_ring, any_ring.write(file, b"0123456789", 0)) == 10
        assert one(any_ring, any_ring.fsync(file)) == 0
        assert one(any_ring, any_ring.fsync(file, data_only=True)) == 0
        buffer = bytearray(4)
        assert one(any_ring, any_ring.read(file, buffer, 3)) == 4
        assert buffer == b"3456"
        assert one(any_ring, any_ring.read(file, buffer, 8)) == 2
        assert one(any_ring, any_ring.read(file, buffer, 100)) == 0
        assert file.tell() == 0
        assert one(any_ring, any_ring.read(file, buffer)) == 4  # at the position, which moves
        assert one(any_ring, any_ring.read(file, buffer)) == 4
        assert buffer == b"4567"


def test_pipes_have_no_offset(any_ring):
    reader, writer = os.pipe()
    buffer = array.array("i", [0] * 4)  # its memory as bytes
    token = any_ring.read(reader, buffer)
    assert any_ring.wait(timeout=0) == []
    assert any_ring.write(writer, array.array("i", [7, 8])) != token
    results = {completion.token: completion.result for completion in any_ring.wait(timeout=5, at_least=2)}
    assert set(results.values()) == {8}
    assert buffer.tolist() == [7, 8, 0, 0]
    os.close(reader)
    os.close(writer)


def test_poll(ring):
    with peers.tcp_pair() as (near, far):
        assert one(ring, ring.poll(near, select.POLLOUT)) == select.POLLOUT
        token = ring.poll(near, select.POLLIN)
        assert ring.wait(timeout=0) == []
        far.send(b"x")
        assert one(ring, token) == select.POLLIN


def test_what_fails_is_a_result(any_ring):
    with peers.tcp_pair() as (near, far):
        closed = os.dup(near.fileno())
        os.close(closed)
        buffer = bytearray(10)
        assert one(any_ring, any_ring.recv(closed, buffer)) == -errno.EBADF
        assert one(any_ring, any_ring.send(closed, b"x")) == -errno.EBADF
        far.send(b"readable")  # otherwise an emulated accept would wait
        assert one(any_ring, any_ring.accept(near)) == -errno.EINVAL
        assert one(any_ring, any_ring.fsync(near)) == -errno.EINVAL
        assert one(any_ring, any_ring.read(near, buffer, 5)) == -errno.ESPIPE
        assert not is_held(buffer)


# Arguments that are refused at once.


def test_bad_arguments(ring, proact):
    buffer = bytearray(1)
    for call, kind in (
        (lambda: ring.recv(0, b"read-only"), TypeError),
        (lambda: ring.read(0, memoryview(b"read-only"), 0), TypeError),
        (lambda: ring.recv(0, "text"), TypeError),
        (lambda: ring.send(0, "text"), TypeError),
        (lambda: ring.send(0, memoryview(b"strides")[::2]), BufferError),
        (lambda: ring.read(0, buffer, -2), ValueError),
        (lambda: ring.write(0, buffer, -2), ValueError),
        (lambda: ring.recv(-1, buffer), ValueError),
        (lambda: ring.recv(object(), buffer), ValueError),
        (lambda: ring.poll(0, 0), ValueError),
        (lambda: ring.poll(0, select.POLLIN | select.POLLOUT), ValueError),
        (lambda: ring.wait(timeout=-1), ValueError),
        (lambda: ring.wait(timeout=float("nan")), ValueError),
        (lambda: proact.Ring(0), ValueError),
        (lambda: proact.Ring(32769), ValueError),
    ):
        with pytest.raises(kind):
            call()
    assert ring.in_flight == 0
    assert not is_held(buffer)


def test_a_closed_ring(ring):
    ring.close()
    ring.close()
    for use in (
        ring.submit,
        ring.wait,
        lambda: ring.cancel(0),
        lambda: ring.fsync(0),
        lambda: ring.in_flight,
    ):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_another_thread(ring):
    said = []

    def use():
        for call in (ring.submit, ring.wait, ring.close, lambda: ring.accept(0), lambda: ring.in_flight):
            try:
                call()
            except RuntimeError as error:
                said.append(str(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert said == ["this ring belongs to another thread"] * 5
    assert ring.in_flight == 0


def test_a_forked_child(proact):
    if refused():
        pytest.skip(refused())
    assert children.output("ring_fork.py").split() == ["refused"] * 4 + ["own", "0", "parent"]


@pytest.mark.skipif(
    platform.machine() not in seccomp.AUDIT_ARCH, reason=f"no filter written for {platform.machine()}"
)
def test_where_rings_are_refused(proact):
    done = subprocess.run(
        [
            *(sys.executable, str(children.TESTS / "seccomp.py"), "io_uring=EPERM", "--"),
            *(sys.executable, str(children.PROGRAMS / "ring_refused.py")),
        ],
        env=children.environment(),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["ring"] == [errno.EPERM, said["report"]["reason"]]
    assert "seccomp" in said["report"]["reason"]


# Memory.


def test_a_buffer_is_held_until_its_completion_is_taken(any_ring):
    with peers.tcp_pair() as (near, far):
        buffer, data = bytearray(10), object()
        references = sys.getrefcount(buffer), sys.getrefcount(data), sys.getrefcount(near)
        any_ring.recv(near, buffer, data=data)
        assert is_held(buffer)
        any_ring.submit()
        far.send(b"x")
        time.sleep(0.01)
        assert is_held(buffer)  # perhaps completed, but the completion was not taken yet
        [completion] = any_ring.wait(timeout=5)
        assert not is_held(buffer)
        assert completion.data is data
        del completion
        assert (sys.getrefcount(buffer), sys.getrefcount(data), sys.getrefcount(near)) == references


def test_a_cancelled_operation_completes(any_ring):
    with peers.tcp_pair() as (near, far):
        buffer = bytearray(10)
        for submitted in (False, True):
            token = any_ring.recv(near, buffer)
            if submitted:
                any_ring.submit()
            any_ring.cancel(token)
            assert is_held(buffer)
            assert one(any_ring, token) == -errno.ECANCELED
            assert not is_held(buffer)
            any_ring.cancel(token)  # already over, so it is ignored
        assert any_ring.wait(timeout=0) == []
        # The cancelled operation has taken nothing.
        far.send(b"all")
        assert one(any_ring, any_ring.recv(near, buffer)) == 3


def test_closing_with_operations_in_flight(any_ring):
    with peers.tcp_pair() as (near, far), peers.listening() as listener:
        buffers = [bytearray(10) for _ in range(50)]
        data = object()
        references = sys.getrefcount(data)
        for buffer in buffers:
            any_ring.recv(near, buffer, data=data)
        any_ring.accept(listener, data=data)
        any_ring.submit()
        any_ring.recv(far, buffers[0], data=data)  # not even submitted to the kernel
        any_ring.close()
        assert not any(map(is_held, buffers))
        assert sys.getrefcount(data) == references
        far.send(b"nobody receives this")
        assert near.recv(100) == b"nobody receives this"
        assert buffers[0] == bytes(10)


def test_a_connection_that_nobody_took_is_closed(any_ring):
    with peers.listening() as listener, socket.create_connection(listener.getsockname()) as client:
        any_ring.accept(listener)
        any_ring.submit()
        time.sleep(0.01)
        any_ring.close()
        client.settimeout(5)
        # Accepted connections are closed; the others are still in the backlog.
        with contextlib.suppress(BlockingIOError):
            listener.accept()[0].close()
        assert client.recv(1) == b""


# A free-threaded Python lets the thread that made an object drop it.
DROPS_AT_HOME = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


@pytest.mark.parametrize(
    ("how", "is_free"),
    [("dropped", True), ("dropped by another thread", DROPS_AT_HOME), ("at exit", False)],
)
def test_a_ring_that_is_left_behind(proact, how, is_free):
    if refused():
        pytest.skip(refused())
    assert children.output("ring_left.py", how) == str(is_free)


def test_a_ring_in_a_cycle(proact):
    if refused():
        pytest.skip(refused())

    class Owner:
        pass

    with peers.tcp_pair() as (near, _):
        owner, buffer = Owner(), bytearray(10)
        owner.ring = proact.Ring(8)
        owner.ring.recv(near, buffer, data=owner)
        owner.ring.submit()
        gone = weakref.ref(owner)
        del owner
        gc.collect()
        assert gone() is None
        assert not is_held(buffer)


# Waiting.


def test_more_than_the_queues_hold(proact):
    if refused():
        pytest.skip(refused())
    count, size = 5000, 16
    content = peers.payload(count * size)
    # 8 entries, and completion queue entries for 128.
    with proact.Ring(8) as ring, tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        pieces = [bytearray(size) for _ in range(count)]
        tokens = [ring.read(file, piece, i * size, data=i) for i, piece in enumerate(pieces)]
        assert len(set(tokens)) == count
        assert ring.in_flight == count
        ring.submit()
        taken = []
        while ring.in_flight:
            completions = ring.wait(timeout=5)
            assert completions
            taken += completions
        assert sorted(completion.data for completion in taken) == list(range(count))
        assert {completion.token for completion in taken} == set(tokens)
        assert {completion.result for completion in taken} == {size}
        assert b"".join(pieces) == content


def test_at_least(ring):
    with peers.tcp_pair() as (near, far):
        for _ in range(3):
            ring.poll(near, select.POLLOUT)
        ring.recv(near, bytearray(1))
        begun = time.monotonic()
        assert len(ring.wait(timeout=0.05, at_least=4)) == 3
        assert time.monotonic() - begun >= 0.05
        far.send(b"x")
        # It waits for no more completions than there are operations in flight.
        assert len(ring.wait(at_least=100)) == 1
        assert ring.wait(at_least=100) == []
        ring.poll(near, select.POLLOUT)
        assert ring.in_flight == 1
        assert len(ring.wait(at_least=0)) <= 1


def test_waiting_lets_other_threads_run(ring):
    with peers.tcp_pair() as (near, far):
        token = ring.recv(near, bytearray(10))
        thread = threading.Timer(0.05, far.send, (b"x",))
        thread.start()
        assert one(ring, token) == 1
        thread.join()


def test_a_signal_handler_runs_and_may_raise(ring):
    with peers.tcp_pair() as (near, far):
        ran = []
        previous = signal.signal(signal.SIGALRM, lambda *_: ran.append(1))
        try:
            # A signal handler that returns does not end the wait.
            token = ring.recv(near, bytearray(10))
            ring.poll(near, select.POLLOUT)
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            assert len(ring.wait(timeout=0.1, at_least=2)) == 1
            assert ran == [1]
            # A signal handler that raises ends it, and no completion is lost.
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            polled = ring.poll(near, select.POLLOUT)
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.02)
                ring.wait(timeout=5, at_least=2)
            assert ring.in_flight == 2
            far.send(b"x")
            assert {completion.token for completion in ring.wait(timeout=5, at_least=2)} == {token, polled}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
