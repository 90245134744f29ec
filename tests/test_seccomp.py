"""If io_uring is refused, wholly or in part, proact falls back, says why, and still works.

Every case runs real tests of this suite in a child process, with the engine "auto". Whole refusals come from
a seccomp filter (what container runtimes do), single opcodes are denied by the kernel through ring
restrictions that the environment variable PROACT_URING_DENY asks for (a knob for this test).
"""

import errno
import json
import os
import platform
import subprocess
import sys

import pytest
import seccomp
from support import children

SUITE = ("test_tcp.py", "test_tcp_buffered.py", "test_sock.py", "test_readers_writers.py")

FILTERS = {
    # filter: the engine that is chosen then, and the errno in the reason
    "io_uring=EPERM": ("epoll", "EPERM"),
    "io_uring=ENOSYS": ("epoll", "ENOSYS"),
    "pbuf_ring=EPERM": ("io_uring", "EPERM"),
}
OPCODES = ("recv", "accept", "send", "connect", "poll_add")

filters = pytest.mark.parametrize("filter_", FILTERS)
opcodes = pytest.mark.parametrize("opcode", OPCODES)

pytestmark = pytest.mark.skipif(
    platform.machine() not in seccomp.AUDIT_ARCH, reason=f"no filter written for {platform.machine()}"
)


def run(command, filter_=None, **extra):
    under = [sys.executable, str(children.TESTS / "seccomp.py"), filter_, "--"] if filter_ else []
    return subprocess.run(
        [*under, *command],
        env=children.environment(**{"PROACT_TEST_ENGINES": "auto", **extra}),
        cwd=children.TESTS,
        capture_output=True,
        text=True,
        timeout=110,
    )


def raw(filter_=None):
    """The errnos of io_uring's system calls in a process under the filter."""
    done = run([sys.executable, str(children.PROGRAMS / "raw_io_uring.py")], filter_)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# The filters themselves, which need no proact.


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS], ids=errno.errorcode.get)
def test_the_filter_refuses_io_uring(error):
    answers = raw(f"io_uring={errno.errorcode[error]}")
    assert set(answers.values()) == {error}


def test_the_filter_refuses_one_opcode():
    before = raw()
    if before["setup"] != errno.EFAULT:
        pytest.skip(f"io_uring is refused here already: {os.strerror(before['setup'])}")
    after = raw("pbuf_ring=EPERM")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"register pbuf_ring", "register pbuf_ring by index"}
    assert after["register pbuf_ring"] == errno.EPERM


# The fallbacks.


@pytest.fixture
def io_uring(proact):
    entry = proact.engine_report()["engines"]["io_uring"]
    if not entry["available"]:
        pytest.skip(f"refused here already, so nothing would be shown: {entry['reason']}")


def info(filter_=None, **extra):
    """A loop's report about its engine, after some I/O of every kind."""
    done = run([sys.executable, str(children.PROGRAMS / "engine_after_use.py")], filter_, **extra)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def suite_passes(filter_=None, **extra):
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *SUITE]
    done = run(command, filter_, **extra)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@filters
def test_the_fallback_is_explained(io_uring, filter_):
    engine, name = FILTERS[filter_]
    told = info(filter_)
    assert told["chosen"] == engine
    assert told["requested"] == "auto"
    if engine == "epoll":
        assert told["engines"]["io_uring"]["available"] is False
        assert name in told["engines"]["io_uring"]["reason"]
    else:
        assert told["engines"]["io_uring"]["available"] is True
        assert any(name in line for line in told["fallbacks"]), told["fallbacks"]


@filters
def test_the_suite_passes_under(io_uring, filter_):
    suite_passes(filter_)


@filters
def test_asking_for_what_is_refused(io_uring, filter_):
    # Asked for by name, the engine does not fall back: an error says why, unless the ring works in part.
    done = run([sys.executable, str(children.PROGRAMS / "engine.py")], filter_, PROACT_ENGINE="io_uring")
    engine, name = FILTERS[filter_]
    if engine == "io_uring":
        assert json.loads(done.stdout)["engine"] == "io_uring"
    else:
        assert done.returncode == 1
        assert name in done.stderr.splitlines()[-1]
        assert "io_uring" in done.stderr.splitlines()[-1]


def test_another_engine_makes_no_ring_call(proact):
    # The choice is honoured before the first ring call: under a filter that kills, even a probe would be
    # the end.
    done = run(["strace", "-f", "-e", "trace=io_uring_setup", "-c", "true"])
    if done.returncode:
        pytest.skip("no strace here that may trace")
    command = [sys.executable, str(children.PROGRAMS / "engine_after_use.py")]
    done = run(["strace", "-f", "-qq", "-e", "trace=io_uring_setup", *command], PROACT_ENGINE="epoll")
    assert done.returncode == 0, done.stderr
    assert "io_uring_setup" not in done.stderr


@opcodes
def test_a_denied_opcode_is_named(io_uring, opcode):
    told = info(PROACT_URING_DENY=opcode)
    if opcode == "poll_add":
        # Every emulation begins with a poll, so a ring without polls is of no use.
        assert told["chosen"] == "epoll"
        assert opcode in told["engines"]["io_uring"]["reason"]
        return
    assert told["chosen"] == "io_uring"
    assert any(opcode in line.lower() for line in told["fallbacks"]), told["fallbacks"]


@opcodes
def test_the_suite_passes_without(io_uring, opcode):
    suite_passes(PROACT_URING_DENY=opcode)


# Child processes.


@pytest.mark.parametrize("engines", ["auto", "epoll"])
def test_children_end_without_waitid(proact, engines):
    # On the ring, the op WAITID reports the end; on other engines a thread has to wait. Left out: the tests
    # that replace pidfds or count calls, and those whose status that thread collects before the test can.
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "test_subprocess.py"]
    skipped = ["-k", "not pidfds and not costs_nothing and not somebody_else and not loop_is_closed"]
    done = run([*command, *skipped], "waitid=EPERM", PROACT_TEST_ENGINES=engines)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
