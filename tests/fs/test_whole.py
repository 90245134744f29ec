"""Whole files in one await: the content, the errors of `open()`, durable and atomic writes, cancels."""

import asyncio
import errno
import os
import pathlib
import resource
import stat
import threading

import pytest
from support import peers

import proact
from proact import fs
from proact.fs.ways import of_running_loop


def same_error(ours, plain):
    """Both raised, and equally so far as a program can tell."""
    assert type(ours) is type(plain)
    assert (ours.errno, ours.strerror, ours.filename) == (plain.errno, plain.strerror, plain.filename)


async def error_of(awaitable):
    try:
        await awaitable
    except (OSError, ValueError, TypeError, LookupError) as error:
        return error
    raise AssertionError("nothing was raised")


def plain_error_of(call):
    try:
        call()
    except (OSError, ValueError, TypeError, LookupError) as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("size", [0, 1, 4096, 100_001, 20 << 20])
async def test_bytes(loop, tmp_path, size):
    path, data = tmp_path / "file", peers.payload(size)
    assert await fs.write_bytes(path, data) == size
    assert path.read_bytes() == data
    assert await fs.read_bytes(path) == data
    assert await fs.read_bytes(os.fsencode(path)) == data


@pytest.mark.parametrize("newline", [None, "", "\n", "\r", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig", "latin-1", None])
async def test_text_as_open_has_it(loop, tmp_path, encoding, newline):
    text = "one\ntwo\r\nthree\rä\n" * 3
    ours, plain = tmp_path / "ours", tmp_path / "plain"
    assert await fs.write_text(ours, text, encoding, newline=newline) == len(text)
    with open(plain, "w", encoding=encoding, newline=newline) as file:
        file.write(text)
    assert ours.read_bytes() == plain.read_bytes()
    with open(plain, encoding=encoding, newline=newline) as file:
        assert await fs.read_text(ours, encoding, newline=newline) == file.read()


async def test_long_text(loop, tmp_path):
    text = "äöü\n" * 500_000
    await fs.write_text(tmp_path / "file", text, "utf-8")
    assert await fs.read_text(tmp_path / "file", "utf-8") == text


async def test_read_errors(loop, tmp_path):
    (tmp_path / "file").touch()
    for path in (
        tmp_path / "none",
        tmp_path,
        tmp_path / "file" / "x",
        "nul\0byte",
        os.fsencode(tmp_path / "\udcff"),
    ):
        ours = await error_of(fs.read_bytes(path))
        plain = plain_error_of(lambda path=path: open(path, "rb"))
        if isinstance(plain, OSError):
            same_error(ours, plain)
        else:
            assert type(ours) is type(plain)
    with pytest.raises(UnicodeDecodeError):
        (tmp_path / "file").write_bytes(b"\xff")
        await fs.read_text(tmp_path / "file", "utf-8")
    with pytest.raises(LookupError):
        await fs.read_text(tmp_path / "none", "no-such-codec")


@pytest.mark.parametrize("options", [{}, {"fsync": True}])
async def test_write_errors(loop, tmp_path, options):
    (tmp_path / "file").touch()
    for path in (tmp_path / "none" / "x", tmp_path, tmp_path / "file" / "x"):
        same_error(
            await error_of(fs.write_bytes(path, b"data", **options)),
            plain_error_of(lambda path=path: open(path, "wb")),
        )
    for data in ("text", 5, None):
        with pytest.raises(TypeError):
            await fs.write_bytes(tmp_path / "file", data, **options)
    with pytest.raises(TypeError):
        await fs.write_text(tmp_path / "file", b"bytes", **options)
    with pytest.raises(UnicodeEncodeError):
        await fs.write_text(tmp_path / "untouched", "ä", "ascii", **options)
    assert not (tmp_path / "untouched").exists()
    assert (await error_of(fs.write_bytes("/dev/full", b"data"))).errno == errno.ENOSPC


async def test_any_buffer(loop, tmp_path):
    import array

    numbers = array.array("i", range(100))
    for data in (bytearray(b"abc"), memoryview(b"abcdef")[::2], numbers, memoryview(b"")):
        for atomic in (False, True):
            assert await fs.write_bytes(tmp_path / "file", data, atomic=atomic) == memoryview(data).nbytes
            assert (tmp_path / "file").read_bytes() == memoryview(data).tobytes()


async def test_files_without_a_size(loop):
    with open("/proc/self/status", "rb") as file:
        name = file.readline()
    assert (await fs.read_bytes("/proc/self/status")).startswith(name)
    assert await fs.read_bytes("/dev/null") == b""


async def test_permissions(loop, tmp_path):
    umask = os.umask(0o027)
    try:
        for atomic in (False, True):
            path = tmp_path / f"file{atomic}"
            await fs.write_bytes(path, b"1", atomic=atomic)
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
            path.chmod(0o604)
            await fs.write_bytes(path, b"2", atomic=atomic, mode=0o600)
            assert stat.S_IMODE(path.stat().st_mode) == 0o604
            await fs.write_bytes(tmp_path / f"private{atomic}", b"", atomic=atomic, mode=0o600)
            assert stat.S_IMODE((tmp_path / f"private{atomic}").stat().st_mode) == 0o600
    finally:
        os.umask(umask)


async def test_a_name_of_no_file(loop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"old")
    for name in ("", "file/", "new/", "new/below", "file/below", "/", "."):
        with pytest.raises(OSError) as expected, open(name, "wb"):
            pass
        for atomic in (False, True):
            with pytest.raises(type(expected.value)) as got:
                await fs.write_bytes(name, b"new", atomic=atomic)
            assert (got.value.errno, got.value.filename) == (expected.value.errno, name)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


async def test_atomic_replaces(loop, tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to("file")
    path.write_bytes(b"old")
    with path.open("rb") as old:
        await fs.write_bytes(link, b"new", atomic=True)
        assert old.read() == b"old"
    assert path.read_bytes() == b"new"
    assert link.is_symlink()
    await fs.write_text(path, "newer", atomic=True)
    assert path.read_text() == "newer"
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


async def test_atomic_errors_leave_nothing(loop, tmp_path, fifo):
    (tmp_path / "directory").mkdir()
    for path, error in (
        (tmp_path / "directory", errno.EISDIR),
        (fifo, errno.EINVAL),
        ("/dev/null", errno.EINVAL),
        (tmp_path / "none" / "file", errno.ENOENT),
        (tmp_path / ("n" * 300), errno.ENAMETOOLONG),
    ):
        caught = await error_of(fs.write_bytes(path, b"data", atomic=True))
        assert (caught.errno, caught.filename) == (error, os.fspath(path))
    assert sorted(os.listdir(tmp_path)) == ["directory", "fifo"]
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


async def test_atomic_full_storage(loop, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    import resource
    import signal

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limit[1]))
    try:
        assert (await error_of(fs.write_bytes(path, bytes(2 << 20), atomic=True))).errno == errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_atomic_cancelled_at_any_point(loop, tmp_path):
    path = tmp_path / "file"
    old, new = b"o" * 100_000, b"n" * (24 << 20)
    for pause in range(30):
        path.write_bytes(old)
        task = asyncio.create_task(fs.write_bytes(path, new, atomic=True))
        await asyncio.sleep(pause / 1000)
        task.cancel()
        await asyncio.wait([task])
        await until(lambda: os.listdir(tmp_path) == ["file"])
        assert path.read_bytes() in (old, new)


async def test_a_cancel_ends_the_wait_for_a_fifo(loop, fifo, freed):
    for work in (
        fs.read_bytes,
        lambda path: fs.write_bytes(path, b"data"),
        lambda path: fs.append(path, b"data"),
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await work(fifo)
        await freed()


async def test_a_writer_that_waits_for_a_reader_keeps_it(loop, fifo):
    """What looks at a FIFO must not be a reader that leaves again: the writer's bytes would be lost."""
    for _ in range(50):
        writer = threading.Thread(target=lambda: fifo.write_bytes(b"through"))
        writer.start()
        await asyncio.sleep(0.001)
        assert await fs.read_bytes(fifo) == b"through"
        writer.join()
        writer = threading.Thread(target=lambda: fifo.write_bytes(b"many"))
        writer.start()
        assert await fs.read_many([fifo, __file__]) == [b"many", pathlib.Path(__file__).read_bytes()]
        writer.join()


async def test_a_fifo_whose_path_is_not_cached(loop, fifo, monkeypatch):
    """Then nothing is tried at once, and the open waits for the other end all the same."""
    monkeypatch.setattr(of_running_loop(), "try_open", lambda *_: None)

    async def read():
        async with proact.open(fifo, "rb") as file:
            return await file.read()

    for _ in range(10):
        reading = asyncio.create_task(read())
        await asyncio.sleep(0.001)
        async with proact.open(fifo, "wb") as file:
            await file.write(b"late")
        assert await reading == b"late"


async def test_a_fifo(loop, fifo):
    read = asyncio.create_task(fs.read_bytes(fifo))
    await fs.write_bytes(fifo, b"through")
    assert await read == b"through"


async def test_the_error_of_a_file_that_can_not_be_replaced(loop, tmp_path, monkeypatch):
    """It is the one of an open for writing: EROFS of a mount that is read-only, not EACCES."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    opened = os.open

    def refuse(path, flags, *rest, **options):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return opened(path, flags, *rest, **options)

    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError) as caught:
        await fs.write_bytes(path, b"new", atomic=True)
    assert (caught.value.errno, caught.value.filename) == (errno.EROFS, path)
    assert path.read_bytes() == b"old"


async def test_a_thousand_at_the_same_time_need_few_files(loop, tmp_path):
    paths = [tmp_path / str(number) for number in range(1000)]
    for path in paths:
        path.write_bytes(path.name.encode())
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 100, limit[1]))
    try:
        found = await asyncio.gather(*map(fs.read_bytes, paths))
        assert found == [path.name.encode() for path in paths]
        texts = await asyncio.gather(*(proact.Path(path).read_text() for path in paths))
        assert texts == [path.name for path in paths]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


async def test_fifos_that_wait_keep_no_file_waiting(loop, tmp_path):
    paths = [tmp_path / f"fifo{number}" for number in range(200)]
    for path in paths:
        os.mkfifo(path)
    (tmp_path / "file").write_bytes(b"content")
    # More than are tried in a turn of the loop, so that some go another way.
    waiting = [asyncio.create_task(fs.read_bytes(path)) for path in paths]
    async with asyncio.timeout(10):
        assert (
            await asyncio.gather(*(fs.read_bytes(tmp_path / "file") for _ in range(300)))
            == [b"content"] * 300
        )
        for number, path in enumerate(paths):
            async with proact.open(path, "wb", buffering=0) as writer:
                await writer.write(b"%d" % number)
        assert await asyncio.gather(*waiting) == [b"%d" % number for number in range(200)]
