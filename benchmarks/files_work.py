"""Owns: the works on files, each in a process of its own: `python -m benchmarks.files_work '{"work": ...}'`.

A contender is a library of files with the loop that it runs on, or a program that does without: `blocking`
calls, `cp`, `fio`. Beside the work of an asynchronous one, a task measures how late the loop is.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import importlib
import itertools
import json
import mmap
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import children

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

SIZE = 4096
AT_ONCE = 64
TICK = 0.001
"""Seconds: how often the task that measures the lag wakes up."""

IDLE = 0.3
"""Seconds: how long the lag of the idle loop is measured before the work begins."""

Work = Any
"""A function of a folder and a number that does so many operations, or the coroutine function."""

WORKS: dict[str, dict[str, Work]] = collections.defaultdict(dict)
"""Works by case and contender. On the proact loops the contender's work is that of `proact`."""


def work(case: str, *contenders: str) -> Callable[[Work], Work]:
    """Register a work."""

    def register(function: Work) -> Work:
        for contender in contenders:
            WORKS[case][contender] = function
        return function

    return register


def library(name: str) -> Any:
    """A library that the type checker may not have."""
    return importlib.import_module(name)


def small(folder: Path, count: int) -> list[str]:
    return [str(folder / f"small{number}") for number in range(count)]


async def together(count: int, one: Callable[[int], Awaitable[object]], at_once: int = AT_ONCE) -> None:
    """One call for each number, so many at a time."""
    numbers = iter(range(count))

    async def lane() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(lane() for _ in range(at_once)))


def whole(data: object) -> None:
    if not isinstance(data, bytes) or len(data) != SIZE:
        raise ValueError("read something else than a file of 4 KiB")


# Many small files.


def read_blocking(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


@work("read", "blocking")
def _(folder: Path, count: int) -> None:
    for path in small(folder, count):
        whole(read_blocking(path))


@work("read", "proact.read_many")
async def _(folder: Path, count: int) -> None:
    import proact.fs

    for data in await proact.fs.read_many(small(folder, count)):
        whole(data)


def each(opened: Callable[[str], Any]) -> Work:
    """A work that opens and reads each file in a coroutine."""

    async def read_each(folder: Path, count: int) -> None:
        paths = small(folder, count)

        async def one(number: int) -> None:
            async with opened(paths[number]) as file:
                whole(await file.read())

        await together(count, one)

    return read_each


@work("read", "proact.open")
async def _(folder: Path, count: int) -> None:
    import proact

    await each(lambda path: proact.open(path, "rb"))(folder, count)


@work("read", "to_thread")
async def _(folder: Path, count: int) -> None:
    paths = small(folder, count)

    async def one(number: int) -> None:
        whole(await asyncio.to_thread(read_blocking, paths[number]))

    await together(count, one)


def of_library(module: str, opener: str) -> Work:
    """A work with the `open` of a library."""

    async def read_each(folder: Path, count: int) -> None:
        opened = getattr(library(module), opener)

        async def entered(path: str) -> Any:
            return await opened(path, "rb")

        if module == "anyio":
            paths = small(folder, count)

            async def one(number: int) -> None:
                async with await entered(paths[number]) as file:
                    whole(await file.read())

            await together(count, one)
        else:
            await each(lambda path: opened(path, "rb"))(folder, count)

    return read_each


LIBRARIES = {
    "aiofiles": ("aiofiles", "open"),
    "anyio": ("anyio", "open_file"),
    "aiofile": ("aiofile", "async_open"),
    "py-asyncfiles": ("asyncfiles", "open"),
    "ayafileio": ("ayafileio", "open"),
}
for _name, _names in LIBRARIES.items():
    work("read", _name)(of_library(*_names))


# Places of one large file.


@functools.cache
def offsets(folder: Path, count: int) -> list[int]:
    pages = (folder / "large").stat().st_size // SIZE
    return [number * SIZE for number in random.Random(count).choices(range(pages), k=count)]


@work("pread", "blocking")
def _(folder: Path, count: int) -> None:
    with open(folder / "large", "rb", buffering=0) as file:
        for offset in offsets(folder, count):
            whole(os.pread(file.fileno(), SIZE, offset))


@work("pread", "proact")
async def _(folder: Path, count: int) -> None:
    import proact

    places = offsets(folder, count)
    async with proact.open(folder / "large", "rb", 0) as file:

        async def one(number: int) -> None:
            whole(await file.pread(SIZE, places[number]))

        await together(count, one)


@work("pread", "to_thread")
async def _(folder: Path, count: int) -> None:
    places = offsets(folder, count)
    with open(folder / "large", "rb", buffering=0) as file:

        async def one(number: int) -> None:
            whole(await asyncio.to_thread(os.pread, file.fileno(), SIZE, places[number]))

        await together(count, one)


@work("pread", "caio")
async def _(folder: Path, count: int) -> None:
    places = offsets(folder, count)
    context = library("caio").AsyncioContext(max_requests=128)
    with open(folder / "large", "rb", buffering=0) as file:

        async def one(number: int) -> None:
            whole(await context.read(SIZE, file.fileno(), places[number]))

        await together(count, one)
    closing = context.close()
    if closing is not None:
        await closing


@work("pread", "aiofile")
async def _(folder: Path, count: int) -> None:
    places = offsets(folder, count)
    async with library("aiofile").AIOFile(str(folder / "large"), "rb") as file:

        async def one(number: int) -> None:
            whole(await file.read_bytes(SIZE, offset=places[number]))

        await together(count, one)


# The same past the page cache.


@work("direct", "proact")
async def _(folder: Path, count: int) -> None:
    import proact
    from proact.fs import aligned_buffer

    places = offsets(folder, count)
    async with proact.open(folder / "large", "rb", direct=True) as file:
        numbers = iter(range(count))

        async def lane() -> None:
            room = memoryview(aligned_buffer(SIZE))[:SIZE]
            for number in numbers:
                if await file.pread_into(room, places[number]) != SIZE:
                    raise ValueError("a short read")

        await asyncio.gather(*(lane() for _ in range(AT_ONCE)))


@work("direct", "to_thread")
async def _(folder: Path, count: int) -> None:
    places = offsets(folder, count)
    fd = os.open(folder / "large", os.O_RDONLY | os.O_DIRECT)
    numbers = iter(range(count))

    async def lane() -> None:
        rooms = [mmap.mmap(-1, SIZE)]
        for number in numbers:
            if await asyncio.to_thread(os.preadv, fd, rooms, places[number]) != SIZE:
                raise ValueError("a short read")

    await asyncio.gather(*(lane() for _ in range(AT_ONCE)))
    os.close(fd)


@work("direct", "fio")
def _(folder: Path, count: int) -> float:
    """It says itself how many seconds it took."""
    options = ["--name=x", f"--filename={folder / 'large'}", "--rw=randread", f"--bs={SIZE}", "--direct=1"]
    options += ["--ioengine=io_uring", f"--iodepth={AT_ONCE}", f"--io_size={count * SIZE}"]
    options += ["--output-format=json"]
    said = subprocess.run(["fio", *options], capture_output=True, check=True).stdout
    return float(json.loads(said)["jobs"][0]["read"]["runtime"]) / 1e3


# Lines.


@work("lines", "blocking")
def _(folder: Path, count: int) -> None:
    with open(folder / "text", encoding="utf-8") as file:
        for _line in itertools.islice(file, count):
            pass


@work("lines", "proact")
async def _(folder: Path, count: int) -> None:
    import proact

    async with proact.open(folder / "text", encoding="utf-8") as file:
        left = count
        async for _line in file:
            left -= 1
            if not left:
                break


def lines_of(module: str, opener: str) -> Work:
    async def lines(folder: Path, count: int) -> None:
        opened = getattr(library(module), opener)(str(folder / "text"), "r", encoding="utf-8")
        async with await opened if module == "anyio" else opened as file:
            left = count
            async for _line in file:
                left -= 1
                if not left:
                    break

    return lines


for _name in ("aiofiles", "anyio", "aiofile", "ayafileio", "py-asyncfiles"):
    work("lines", _name)(lines_of(*LIBRARIES[_name]))


# Copies of 1 GiB.


@work("copy", "cp")
def _(folder: Path, _count: int) -> None:
    subprocess.run(["cp", folder / "huge", folder / "copy"], check=True)


@work("copy", "blocking")
def _(folder: Path, _count: int) -> None:
    shutil.copyfile(folder / "huge", folder / "copy")


@work("copy", "proact")
async def _(folder: Path, _count: int) -> None:
    import proact.fs

    await proact.fs.copyfile(folder / "huge", folder / "copy")


# Records that are on storage when the write returns.

RECORD = b"r" * 128


def append_blocking(path: Path) -> None:
    with open(path, "ab", buffering=0) as file:
        file.write(RECORD)
        os.fsync(file.fileno())


def append_each(lanes: int) -> None:
    """Works in which so many tasks append to one file."""

    @work(f"append/{lanes}", "blocking")
    def _(folder: Path, count: int) -> None:
        for _ in range(count):
            append_blocking(folder / "log")

    @work(f"append/{lanes}", "threads")
    def _(folder: Path, count: int) -> None:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(lanes) as pool:
            list(pool.map(append_blocking, [folder / "log"] * count))

    @work(f"append/{lanes}", "to_thread")
    async def _(folder: Path, count: int) -> None:
        await together(count, lambda _number: asyncio.to_thread(append_blocking, folder / "log"), lanes)

    @work(f"append/{lanes}", "aiofiles")
    async def _(folder: Path, count: int) -> None:
        opened = library("aiofiles").open

        async def one(_number: int) -> None:
            async with opened(folder / "log", "ab") as file:
                await file.write(RECORD)
                await file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())

        await together(count, one, lanes)

    @work(f"append/{lanes}", "proact")
    async def _(folder: Path, count: int) -> None:
        import proact.fs

        await together(count, lambda _number: proact.fs.append(folder / "log", RECORD, fsync=True), lanes)


def write_each(lanes: int) -> None:
    """Works in which each of so many tasks writes to a file of its own and syncs it."""

    @work(f"fsync/{lanes}", "to_thread")
    async def _(folder: Path, count: int) -> None:
        def one(fd: int) -> None:
            os.write(fd, bytes(SIZE))
            os.fsync(fd)

        async def lane(number: int) -> None:
            fd = os.open(folder / f"own{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for _ in range(count // lanes):
                await asyncio.to_thread(one, fd)
            os.close(fd)

        await asyncio.gather(*map(lane, range(lanes)))

    @work(f"fsync/{lanes}", "threads")
    def _(folder: Path, count: int) -> None:
        from concurrent.futures import ThreadPoolExecutor

        def lane(number: int) -> None:
            with open(folder / f"own{number}", "wb", buffering=0) as file:
                for _ in range(count // lanes):
                    file.write(bytes(SIZE))
                    os.fsync(file.fileno())

        with ThreadPoolExecutor(lanes) as pool:
            list(pool.map(lane, range(lanes)))

    @work(f"fsync/{lanes}", "proact")
    async def _(folder: Path, count: int) -> None:
        import proact

        async def lane(number: int) -> None:
            async with proact.open(folder / f"own{number}", "wb") as file:
                for _ in range(count // lanes):
                    await file.write(bytes(SIZE))
                    await file.fsync()

        await asyncio.gather(*map(lane, range(lanes)))


for _lanes in (1, 4, 16, 64):
    append_each(_lanes)
    write_each(_lanes)


# The measurement.


def new_loop(contender: str) -> asyncio.AbstractEventLoop:
    """The loop on which a contender's work runs: `NAME@ENGINE` is proact's."""
    from benchmarks import contenders

    _, at, engine = contender.partition("@")
    return contenders.new_loop(f"proact-{engine}" if at else "asyncio")


async def timed(running: Coroutine[Any, Any, object]) -> tuple[float, float]:
    """The seconds of a work, and the 99th percentile of the lag meanwhile, in milliseconds."""
    lags = []

    async def tick() -> None:
        while True:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            lags.append(time.perf_counter() - due)

    ticking = asyncio.ensure_future(tick())
    await asyncio.sleep(0)
    begun = time.perf_counter()
    await running
    seconds = time.perf_counter() - begun
    ticking.cancel()
    # It did not wake up at all: it is as late as it can be.
    lags.append(max(0.0, seconds - TICK) if not lags else 0.0)
    return seconds, sorted(lags)[int(0.99 * (len(lags) - 1))] * 1e3 if len(lags) > 1 else lags[0] * 1e3


def measure(settings: dict[str, Any]) -> dict[str, float]:
    """Do the work once, or twice if it is warmed up: seconds, CPU seconds, lag."""
    contender, folder, count = settings["contender"], Path(settings["folder"]), settings["count"]
    function = WORKS[settings["work"]][contender.partition("@")[0]]
    # An import is not the work: that of proact.fs takes as long as a hundred appends.
    name = contender.partition("@")[0].partition(".")[0]
    if name in LIBRARIES or name in ("proact", "caio"):
        library("proact.fs" if name == "proact" else LIBRARIES.get(name, (name, ""))[0])
    if settings["work"] in ("pread", "direct"):
        # Python's random numbers take as long as a part of a cached read.
        offsets(folder, count)
    if not asyncio.iscoroutinefunction(function):
        if settings["warm"]:
            function(folder, count)
        begun = time.perf_counter()
        said = function(folder, count)
        return {"seconds": said or time.perf_counter() - begun}
    loop = new_loop(contender)
    asyncio.set_event_loop(loop)
    if settings["warm"]:
        loop.run_until_complete(function(folder, min(count, 1000)))
    _, idle = loop.run_until_complete(timed(asyncio.sleep(IDLE)))
    begun_cpu = resource.getrusage(resource.RUSAGE_SELF)
    seconds, lag = loop.run_until_complete(timed(function(folder, count)))
    ended_cpu = resource.getrusage(resource.RUSAGE_SELF)
    loop.run_until_complete(loop.shutdown_default_executor())
    cpu = sum(getattr(ended_cpu, name) - getattr(begun_cpu, name) for name in ("ru_utime", "ru_stime"))
    return {"seconds": seconds, "lag_ms": lag, "idle_lag_ms": idle, "cpu_seconds": cpu}


def main() -> None:
    settings = json.loads(sys.argv[1])
    children.say(measure(settings))
    # Some libraries leave threads and rings behind.
    os._exit(0)


if __name__ == "__main__":
    main()
