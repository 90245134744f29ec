"""Child processes: their pipes, their ends, their signals, and that nothing is left of them."""

import asyncio
import errno
import gc
import os
import signal
import subprocess
import sys
import threading

import pytest
from support import loops, peers

PIPE = subprocess.PIPE
CAT = ["/bin/cat"]


async def shell(command, **options):
    return await asyncio.create_subprocess_shell(command, **options)


async def start(*command, **options):
    return await asyncio.create_subprocess_exec(*command, **options)


async def test_communicate(loop):
    data = peers.payload(1 << 20)
    child = await start(*CAT, stdin=PIPE, stdout=PIPE)
    out, err = await child.communicate(data)
    assert peers.digest(out) == peers.digest(data)
    assert (err, child.returncode) == (None, 0)


async def test_both_outputs(loop):
    child = await shell("echo out; echo err >&2; exit 3", stdout=PIPE, stderr=PIPE)
    assert await child.communicate() == (b"out\n", b"err\n")
    assert child.returncode == 3


async def test_one_output_for_both(loop):
    child = await shell("echo out; echo err >&2", stdout=PIPE, stderr=subprocess.STDOUT)
    assert await child.communicate() == (b"out\nerr\n", None)


async def test_a_conversation_line_by_line(loop):
    child = await start(*CAT, stdin=PIPE, stdout=PIPE)
    for number in range(20):
        child.stdin.write(b"%d\n" % number)
        await child.stdin.drain()
        assert await child.stdout.readline() == b"%d\n" % number
    child.stdin.close()
    await child.stdin.wait_closed()
    assert await child.stdout.read() == b""
    assert await child.wait() == 0


@pytest.mark.not_on("asyncio", "uvloop", reason="stdin is a socket pair (asyncio until Python 3.12)")
async def test_the_pipes_are_pipes(loop):
    script = "import os, stat; print(*[stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in range(3)])"
    child = await start(sys.executable, "-Sc", script, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert await child.communicate() == (b"True True True\n", b"")


async def test_no_pipes_at_all(loop):
    child = await start("/bin/true", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    assert (child.stdin, child.stdout, child.stderr) == (None, None, None)
    assert await child.wait() == 0


async def test_files_of_the_programs_own(loop, tmp_path):
    path = tmp_path / "out"
    with open(path, "wb") as file:
        child = await shell("echo written", stdout=file)
        assert await child.wait() == 0
    assert path.read_bytes() == b"written\n"


async def test_wait_by_many_and_again(loop):
    child = await start(*CAT, stdin=PIPE)
    waiting = [loop.create_task(child.wait()) for _ in range(20)]
    await loops.turns()
    waiting[0].cancel()
    child.stdin.close()
    assert await asyncio.gather(*waiting[1:]) == [0] * 19
    assert await child.wait() == 0


@pytest.mark.parametrize(
    ("act", "number"),
    [
        (lambda child: child.kill(), signal.SIGKILL),
        (lambda child: child.terminate(), signal.SIGTERM),
        (lambda child: child.send_signal(signal.SIGUSR1), signal.SIGUSR1),
    ],
    ids=["kill", "terminate", "send_signal"],
)
async def test_signals(loop, act, number):
    child = await start("/bin/sleep", "100")
    act(child)
    assert await child.wait() == -number
    # asyncio reports it from Python 3.12 on; older ones do nothing.
    try:
        act(child)
    except ProcessLookupError:
        pass


async def test_many_at_once(loop):
    children = await asyncio.gather(*(shell(f"exit {number}") for number in range(20)))
    assert await asyncio.gather(*(child.wait() for child in children)) == list(range(20))


async def test_a_child_that_closes_its_input(loop):
    child = await shell("exec 0<&-; echo closed; sleep 0.05", stdin=PIPE, stdout=PIPE)
    assert await child.stdout.readline() == b"closed\n"
    child.stdin.write(b"x" * 100_000)
    assert await child.wait() == 0


async def test_a_grandchild_keeps_the_pipe_open(loop):
    child = await shell("sleep 0.2 & echo parent", stdout=PIPE)
    assert await child.stdout.readline() == b"parent\n"
    assert await child.communicate() == (b"", None)
    assert child.returncode == 0


async def test_what_popen_takes(loop, tmp_path):
    reader, writer = os.pipe()
    script = (
        "import os; os.write(%d, b'%%d %%d' %% (os.getpgid(0) == os.getpid(), os.getsid(0) == os.getpid()))"
    )
    child = await start(
        sys.executable,
        "-Sc",
        script % writer + "; print(os.getcwd(), os.environ['NAME'], os.nice(0))",
        cwd=tmp_path,
        env={"NAME": "value"},
        preexec_fn=lambda: os.nice(3),
        start_new_session=True,
        pass_fds=(writer,),
        stdout=PIPE,
    )
    out, _ = await child.communicate()
    assert out.decode().split() == [str(tmp_path), "value", str(os.nice(0) + 3)]
    assert os.read(reader, 100) == b"1 1"
    os.close(reader)
    os.close(writer)


async def test_a_process_group(loop):
    child = await shell(
        "ps -o pgid= -p $$ 2>/dev/null || cut -d' ' -f5 /proc/$$/stat", process_group=0, stdout=PIPE
    )
    out, _ = await child.communicate()
    assert int(out) == child.pid


@pytest.mark.parametrize(
    ("command", "options", "error"),
    [
        (["/no/such/program"], {}, FileNotFoundError),
        (["/etc/passwd"], {}, PermissionError),
        (["/bin/true"], {"cwd": "/no/such/directory"}, FileNotFoundError),
        (["/bin/true"], {"preexec_fn": lambda: 1 / 0}, subprocess.SubprocessError),
        (["/bin/true"], {"no_such_option": 1}, TypeError),
        (["/bin/true", "nul\0"], {}, ValueError),
    ],
    ids=["missing", "not executable", "directory", "preexec_fn", "option", "nul"],
)
async def test_what_can_not_be_started_leaves_nothing(loop, command, options, error):
    for _ in range(3):
        with pytest.raises(error):
            await start(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE, **options)


async def test_connecting_the_pipes_fails(loop, proact, monkeypatch):
    # asyncio waits for ever for a child whose pipes can't be connected.
    def refuse(*args, **kwargs):
        raise OSError(errno.EMFILE, "refused")

    monkeypatch.setattr(loop, "_make_read_pipe_transport", refuse)
    with pytest.raises(OSError, match="refused"):
        await start(*CAT, stdin=PIPE, stdout=PIPE)
    await asyncio.sleep(0.05)


async def test_starting_is_cancelled(loop):
    task = loop.create_task(start("/bin/sleep", "100", stdin=PIPE, stdout=PIPE))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await loops.turns()


async def test_a_timeout_and_then_the_rest(loop):
    child = await start(*CAT, stdin=PIPE, stdout=PIPE)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(child.wait(), 0.01)
    assert await child.communicate(b"still there") == (b"still there", None)


async def test_closing_the_transport_kills(loop):
    transport, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, "/bin/sleep", "100")
    assert transport.get_pid() > 0 and transport.get_returncode() is None
    transport.close()
    transport.close()
    assert await asyncio.wait_for(transport._wait(), 5) == -signal.SIGKILL
    await loops.turns()


async def test_the_protocol_is_told_in_order(loop):
    calls = []
    ended = loop.create_future()

    class Protocol(asyncio.SubprocessProtocol):
        def connection_made(self, transport):
            calls.append("connection_made")

        def pipe_data_received(self, fd, data):
            calls.append((fd, data))

        def pipe_connection_lost(self, fd, exc):
            calls.append(("lost", fd, exc))

        def process_exited(self):
            calls.append("process_exited")

        def connection_lost(self, exc):
            ended.set_result(exc)

    transport, _ = await loop.subprocess_shell(Protocol, "echo out", stdin=None, stderr=None)
    assert await ended is None
    assert calls[0] == "connection_made"
    assert sorted(map(str, calls)) == sorted(
        map(str, ["connection_made", (1, b"out\n"), ("lost", 1, None), "process_exited"])
    )
    assert calls.index((1, b"out\n")) < calls.index(("lost", 1, None))
    assert transport.get_returncode() == 0
    transport.close()


async def test_somebody_else_has_collected_it(loop, proact, caplog):
    reader, writer = os.pipe()
    child = await start(*CAT, stdin=reader)
    os.close(reader)
    os.close(writer)
    # The loop stands still meanwhile; the status remains to be collected until the loop learns of the end.
    assert os.waitpid(child.pid, 0) == (child.pid, 0)
    assert await child.wait() == 255
    assert "already read" in caplog.text


@pytest.mark.not_on("asyncio", reason="its watcher reports 255 then")
async def test_the_programs_own_poll_collects_it(loop):
    child = await start("/bin/sh", "-c", "exit 5")
    popen = child._transport.get_extra_info("subprocess")
    popen.wait(5)
    assert popen.returncode == 5
    assert await child.wait() == 5


async def test_no_child_is_left_to_collect(loop):
    child = await start("/bin/true")
    await child.wait()
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)


def test_sigchld_is_the_programs(loop):
    seen = []
    previous = signal.signal(signal.SIGCHLD, lambda *_: seen.append(None))
    try:

        async def main():
            child = await start("/bin/true")
            assert await child.wait() == 0

        loop.run_until_complete(main())
        if not loops.REFERENCE:
            assert signal.getsignal(signal.SIGCHLD) is not signal.SIG_DFL
            assert seen
    finally:
        signal.signal(signal.SIGCHLD, previous)


def test_sigchld_ignored(loop, proact, caplog):
    previous = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:

        async def main():
            child = await start("/bin/sh", "-c", "exit 5")
            # The kernel has thrown the status away.
            assert await asyncio.wait_for(child.wait(), 5) == 255

        loop.run_until_complete(main())
    finally:
        signal.signal(signal.SIGCHLD, previous)


def test_loops_in_several_threads(new_loop, proact):
    results = []

    def run():
        loop = proact.new_event_loop(engine=engine)

        async def main():
            child = await start(*CAT, stdin=PIPE, stdout=PIPE)
            results.append(await child.communicate(b"hello"))

        loop.run_until_complete(main())
        loop.close()

    engine = new_loop().engine
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == [(b"hello", None)] * 4


def test_a_loop_that_goes_on_in_another_thread(loop, proact):
    child = loop.run_until_complete(start(*CAT, stdin=PIPE))

    def go_on():
        child.stdin.close()
        assert loop.run_until_complete(child.wait()) == 0

    thread = threading.Thread(target=go_on)
    thread.start()
    thread.join(20)
    assert child.returncode == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_loop_is_closed_while_a_child_runs(engine, unhandled):
    loop = loops.new_event_loop(engine)
    child = loop.run_until_complete(start("/bin/sleep", "100", stdin=PIPE, stdout=PIPE))
    loop.close()
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    if loops.REFERENCE:
        child._transport._proc.returncode = 0
    del child
    # asyncio's own: its transport's `__del__` finds the loop closed.
    gc.collect()
    unhandled.take("unraisable")
    if loops.REFERENCE:
        unhandled.take("thread")


@pytest.mark.parametrize("failure", ["missing", "ENOSYS", "EMFILE"])
async def test_without_pidfds_a_thread_waits(loop, proact, monkeypatch, failure):
    if failure == "missing":
        monkeypatch.delattr(os, "pidfd_open")
    else:
        code = getattr(errno, failure)

        def refuse(pid, flags=0):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "pidfd_open", refuse)
    child = await start(*CAT, stdin=PIPE, stdout=PIPE)
    assert any(thread.name == f"proact-wait-{child.pid}" for thread in threading.enumerate())
    assert await child.communicate(b"hello") == (b"hello", None)
    assert child.returncode == 0
    assert "a thread waits" in " ".join(loop.engine_info()["fallbacks"])


async def test_waiting_costs_nothing(loop, proact):
    child = await start(*CAT, stdin=PIPE)
    await asyncio.sleep(0.01)
    before = loop.stats()["syscalls"]
    await asyncio.sleep(0.05)
    assert loop.stats()["syscalls"] - before < 10
    assert loop.stats()["submitted"]["waitid"] == 1
    child.stdin.close()
    await child.wait()
