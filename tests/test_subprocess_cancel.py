"""A child whose start or wait is cancelled: at every moment, twice, with all tasks, the loop closed."""

import asyncio
import contextlib
import os
import signal
import subprocess

import pytest
from support import loops

PIPE = subprocess.PIPE
PIPES = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}
LONG, SHORT = ("/bin/sleep", "100"), ("/bin/true",)

pytestmark = pytest.mark.not_on(
    "asyncio", "uvloop", reason="waits for ever when its own task, too, is cancelled (until Python 3.14)"
)

command = pytest.mark.parametrize(
    "command", [LONG, SHORT, ("/no/such/program",)], ids=["long", "short", "none"]
)
pipes = pytest.mark.parametrize("options", [PIPES, {"stdout": PIPE}, {}], ids=["pipes", "stdout", "no pipes"])


@pytest.fixture(autouse=True)
def nothing_is_left():
    """No zombie, and no child that lives on."""
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.fixture
def run(engine, unhandled):
    def run(coroutine, debug=False):
        with asyncio.Runner(loop_factory=lambda: loops.new_event_loop(engine), debug=debug) as runner:
            unhandled.watch(runner.get_loop())
            return runner.run(coroutine)

    return run


async def start(command, options, shell=False):
    with contextlib.suppress(FileNotFoundError):
        if shell:
            child = await asyncio.create_subprocess_shell(" ".join(command), **options)
        else:
            child = await asyncio.create_subprocess_exec(*command, **options)
        try:
            if command is SHORT:
                await child.communicate()
            await asyncio.sleep(100 if command is LONG else 0)
        finally:
            child._transport.close()
            await child.wait()


@command
@pipes
@pytest.mark.parametrize("shell", [False, True], ids=["exec", "shell"])
def test_the_program_ends_meanwhile(run, command, options, shell):
    async def main(turns):
        task = asyncio.ensure_future(start(command, options, shell))
        await loops.turns(turns)
        return task

    for turns in (*range(13), 20, 30):
        assert run(main(turns)).done()


@pipes
def test_all_tasks_but_the_starter_are_cancelled(run, options):
    async def main(turns):
        task = asyncio.ensure_future(asyncio.create_subprocess_exec(*LONG, **options))
        await loops.turns(turns)
        for other in asyncio.all_tasks() - {task, asyncio.current_task()}:
            other.cancel()
        child = await task
        child.kill()
        await child.communicate()

    for turns in range(8):
        run(main(turns))


@command
@pipes
def test_cancelled_twice(run, command, options):
    async def main(first, second):
        task = asyncio.ensure_future(start(command, options))
        await loops.turns(first)
        task.cancel()
        await loops.turns(second)
        task.cancel()
        await asyncio.wait([task])

    for first in range(6):
        for second in range(6):
            run(main(first, second))


def test_cancelled_twice_and_the_loop_is_closed_at_once(engine):
    # Nothing is awaited between the second cancel and the close: the close itself collects the child.
    for turns in range(1, 6):
        loop = loops.new_event_loop(engine)
        task = loop.create_task(start(LONG, PIPES))
        for _ in range(2):
            loop.run_until_complete(loops.turns(turns))
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()


def test_a_closed_transport_and_a_closed_loop(engine):
    loop = loops.new_event_loop(engine)
    transport, _ = loop.run_until_complete(loop.subprocess_exec(asyncio.SubprocessProtocol, *LONG))
    transport.close()
    loop.close()
    assert transport.get_extra_info("subprocess").returncode == -signal.SIGKILL


@pytest.mark.parametrize("debug", [False, True])
def test_communicate_and_wait_are_cancelled(run, debug):
    async def main(turns):
        child = await asyncio.create_subprocess_exec(*LONG, **PIPES)
        waiting = [asyncio.ensure_future(call) for call in (child.communicate(b"x" * 1000), child.wait())]
        await loops.turns(turns)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert all(task.cancelled() for task in waiting)
        child.kill()
        assert await child.wait() == -signal.SIGKILL

    for turns in range(6):
        run(main(turns), debug)


def test_the_pipes_can_not_be_connected(run, monkeypatch):
    async def main():
        loop = asyncio.get_running_loop()

        def refuse(*args, **kwargs):
            raise OSError("refused")

        loop._make_read_pipe_transport = refuse
        with pytest.raises(OSError, match="refused"):
            await asyncio.create_subprocess_exec(*LONG, **PIPES)

    run(main())


def test_no_thread_can_wait_for_it(run, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    def no_pidfd(*args):
        raise OSError("no pidfd")

    async def main():
        with pytest.raises(RuntimeError, match="new thread"):
            await asyncio.create_subprocess_exec(*LONG, **PIPES)

    monkeypatch.setattr(os, "pidfd_open", no_pidfd)
    monkeypatch.setattr("threading.Thread.start", refuse)
    run(main())


def test_the_task_can_not_be_made(run):
    def refuse(loop, coroutine, **kwargs):
        coroutine.close()
        raise MemoryError

    async def main():
        asyncio.get_running_loop().set_task_factory(refuse)
        with pytest.raises(MemoryError):
            await asyncio.create_subprocess_exec(*LONG, **PIPES)
        asyncio.get_running_loop().set_task_factory(None)

    run(main())


@pytest.mark.parametrize("without", ["waitid", "waitid and pidfd"])
async def test_waitid_is_refused(loop, monkeypatch, without):
    def refuse(*args):
        raise PermissionError("waitid")

    monkeypatch.setattr(os, "waitid", refuse)
    if without != "waitid":
        monkeypatch.setattr(os, "pidfd_open", refuse)
    child = await asyncio.create_subprocess_shell("exit 5")
    assert await asyncio.wait_for(child.wait(), 10) == 5
    child = await asyncio.create_subprocess_exec(*LONG)
    child.kill()
    assert await asyncio.wait_for(child.wait(), 10) == -signal.SIGKILL
