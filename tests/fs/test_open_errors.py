"""What goes wrong with `proact.open` goes wrong as with the builtin `open`: type, errno, file name."""

import errno
import io
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

import pytest

import proact


def facts(error):
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ in ("builtins", "io"))
    if not isinstance(error, OSError):
        return kind
    return kind, error.errno, error.strerror, error.filename, error.filename2


async def check_equal(*args, **kwargs):
    """Both refuse to open it, for the same reason."""
    with pytest.raises(Exception) as expected, open(*args, **kwargs):
        pass
    with pytest.raises(Exception) as got:
        async with proact.open(*args, **kwargs):
            pass
    assert facts(got.value) == facts(expected.value)
    return expected.value


@pytest.fixture
def place(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere/at/all")
    return tmp_path


@pytest.mark.parametrize("mode", ["r", "rb", "r+", "w", "wb", "x", "a", "a+b"])
@pytest.mark.parametrize("form", [str, os.fsencode, pathlib.Path])
@pytest.mark.parametrize(
    "name",
    ["missing/file", "folder", "file/below", "loop", "dangling", "n" * 300, "", "odd\udcff/file"],
)
async def test_paths(loop, place, mode, form, name):
    error = await check_equal(form(f"{place}/{name}" if name else ""), mode)
    assert isinstance(error, OSError)


@pytest.mark.parametrize("mode", ["r", "r+b"])
async def test_missing(loop, place, mode):
    error = await check_equal(place / "missing", mode)
    assert error.errno == errno.ENOENT


async def test_exists_already(loop, place):
    error = await check_equal(str(place / "file"), "xb")
    assert error.errno == errno.EEXIST
    assert (place / "file").read_bytes() == b"content"


@pytest.mark.parametrize("path", ["null\0byte", b"null\0byte"])
@pytest.mark.parametrize("mode", ["r", "w"])
async def test_null_byte(loop, path, mode):
    assert isinstance(await check_equal(path, mode), ValueError)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (("rw",), {}),
        (("",), {}),
        (("b",), {}),
        (("rr",), {}),
        (("U",), {}),
        (("rbt",), {}),
        ((3,), {}),
        (("rb",), {"encoding": "utf-8"}),
        (("rb",), {"errors": "strict"}),
        (("rb",), {"newline": ""}),
        (("r",), {"newline": "x"}),
        (("r",), {"encoding": 5}),
        (("r",), {"encoding": "no-such-codec"}),
        (("r",), {"encoding": "hex"}),
        (("r",), {"buffering": 0}),
        (("r",), {"closefd": False}),
    ],
)
async def test_arguments(loop, place, args, kwargs):
    expected = got = None
    try:
        open(place / "file", *args, **kwargs).close()
    except Exception as error:
        expected = error
    try:
        await (await proact.open(place / "file", *args, **kwargs)).close()
    except Exception as error:
        got = error
    assert expected is not None
    assert type(got) is type(expected)


@pytest.mark.parametrize("path", [None, 1.5, ["x"]])
async def test_what_is_no_path(loop, path):
    with pytest.raises(TypeError):
        await proact.open(path)


async def test_fds(loop, place):
    closed = os.open(place, os.O_RDONLY)
    await check_equal(closed, closefd=False)
    os.fstat(closed)
    os.close(closed)
    assert (await check_equal(closed)).errno == errno.EBADF
    await check_equal(-5)


async def test_opener(loop, place):
    for opener in (lambda path, flags: -3, lambda path, flags: "x", lambda path, flags: 1 / 0):
        await check_equal(place / "file", opener=opener)


@pytest.mark.parametrize(
    "size", [2**63, 2**64, -(2**70), 1.5, "x", None, True, -3], ids=lambda size: repr(size)[:6]
)
@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("name", ["read", "readline", "readlines", "read1", "peek", "seek"])
async def test_odd_sizes(loop, place, name, buffering, size):
    if buffering == 0 and name in ("read1", "peek"):
        pytest.skip("not a method of a file without a buffer")

    async def told():
        async with proact.open(place / "file", "rb", buffering) as file:
            try:
                return await getattr(file, name)(size)
            except (TypeError, ValueError, OverflowError, OSError) as error:
                return type(error), *([str(error)] if isinstance(size, (str, float)) else [])

    with open(place / "file", "rb", buffering) as file:
        try:
            expected = getattr(file, name)(size)
        except (TypeError, ValueError, OverflowError, OSError) as error:
            expected = type(error), *([str(error)] if isinstance(size, (str, float)) else [])
    assert await told() == expected


async def test_odd_sizes_of_pread(loop, place):
    fd = os.open(place / "file", os.O_RDONLY)
    async with proact.open(fd, "rb") as file:
        for size in (2**63, 2**64, -1, -(2**63)):
            with pytest.raises((OSError, OverflowError)) as expected:
                os.pread(fd, size, 0)
            with pytest.raises((OSError, OverflowError)) as got:
                await file.pread(size, 0)
            assert facts(got.value) == facts(expected.value)


async def test_the_line_buffering_of_binary_files_is_warned_of(loop, place):
    with pytest.warns(RuntimeWarning, match="line buffering") as caught:
        await (await proact.open(place / "file", "rb", buffering=1)).close()
    assert caught[0].filename == __file__


@pytest.mark.parametrize("mode", ["rb", "wb", "ab", "r", "w"])
async def test_wrong_direction(loop, place, mode):
    async with proact.open(place / "file", mode) as file:
        empty = b"" if "b" in mode else ""
        for call in (
            (lambda: file.write(empty), lambda: file.truncate())
            if "r" in mode
            else (
                file.read,
                file.readline,
                file.readlines,
                file.__anext__,
            )
        ):
            with pytest.raises(io.UnsupportedOperation):
                await call()


@pytest.mark.parametrize("mode", ["rb", "r", "w+b", "a"])
async def test_closed(loop, place, mode):
    file = await proact.open(place / "file", mode)
    await file.close()
    await file.close()
    assert file.closed
    data = b"x" if "b" in mode else "x"
    for call in (
        lambda: file.read(),
        lambda: file.read(1),
        lambda: file.readline(),
        lambda: file.write(data),
        lambda: file.seek(0),
        lambda: file.tell(),
        lambda: file.truncate(),
        lambda: file.flush(),
        lambda: file.fsync(),
        lambda: file.__aenter__(),
        lambda: file.__anext__(),
        lambda: file.__aiter__().__anext__(),
    ):
        with pytest.raises(ValueError, match="closed file"):
            await call()
    for method in (file.fileno, file.isatty, file.readable, file.writable, file.seekable):
        with pytest.raises(ValueError, match="closed file"):
            method()


async def test_a_full_device(loop):
    async with proact.open("/dev/full", "wb", buffering=0) as file:
        with pytest.raises(OSError, match="No space") as raised:
            await file.write(b"x")
        assert raised.value.errno == errno.ENOSPC
    for mode, data in (("wb", b"x"), ("w", "x")):
        file = await proact.open("/dev/full", mode)
        assert await file.write(data) == 1
        with pytest.raises(OSError, match="No space"):
            await file.flush()
        # It is still held back, and so it fails again; but the file is closed.
        with pytest.raises(OSError, match="No space"):
            await file.close()
        assert file.closed


UNPRIVILEGED = """
import asyncio, os, sys, proact, proact.fs
os.setgroups([]); os.setgid(65534); os.setuid(65534)
async def main(path):
    for mode in "r", "w", "a", "r+":
        try:
            await proact.open(path, mode)
        except PermissionError as error:
            print(error.errno, error.filename == path)
proact.run(main(sys.argv[1]), engine=sys.argv[2])
"""


def test_no_permission(engine):
    """As another user, because root may do everything."""
    if os.getuid() != 0:
        pytest.skip("only root becomes another user")
    if engine not in proact.ENGINES:
        pytest.skip("one of proact's engines, in another process")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = os.path.join(folder, "file")
        with open(path, "wb"):
            os.chmod(path, 0o600)
        child = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, path, engine], capture_output=True, text=True, check=True
        )
    assert child.stdout.split("\n") == [f"{errno.EACCES} True"] * 4 + [""]


@pytest.mark.parametrize("mode", ["r", "rb", "w", "ab"])
@pytest.mark.parametrize("buffering", [-2, -(10**9), 2**31, 2**70, 1.5, "1", True])
async def test_sizes_of_the_buffer(loop, tmp_path, mode, buffering):
    path = tmp_path / "file"
    path.write_bytes(b"")
    seen = []
    for opened in (open, proact.open):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                file = opened(path, mode, buffering)
            if opened is open:
                file.close()
            else:
                await (await file).close()
        except (TypeError, ValueError, OverflowError, OSError) as error:
            seen.append(type(error))
        else:
            seen.append(None)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("name", ["encoding", "errors", "newline"])
async def test_the_type_of_an_argument_comes_first(loop, tmp_path, name):
    for opened in (open, proact.open):
        with pytest.raises(TypeError, match=name):
            opened(tmp_path / "file", "wb", **{name: 3})


async def test_an_integer_of_another_type_is_an_fd(loop, tmp_path):
    class Number:
        def __init__(self, value):
            self.value = value

        def __index__(self):
            return self.value

    (tmp_path / "file").write_bytes(b"content")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    async with proact.open(Number(fd), "rb", Number(100)) as file:
        assert await file.read() == b"content"
    with pytest.raises(OSError):
        os.close(fd)


async def test_an_fd_without_io_can_not_append(loop, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    fd = os.open(tmp_path / "file", os.O_PATH)
    for opened in (open, proact.open):
        with pytest.raises(OSError) as caught:
            file = opened(fd, "ab", closefd=False)
            await file
        assert caught.value.errno == errno.EBADF
    os.close(fd)


@pytest.mark.parametrize("mode", ["rb", "r"])
async def test_an_opener_says_where_the_file_begins(loop, tmp_path, mode):
    (tmp_path / "file").write_bytes(b"content")

    def opener(path, flags):
        fd = os.open(path, flags)
        os.lseek(fd, 3, os.SEEK_SET)
        return fd

    with open(tmp_path / "file", mode, opener=opener) as file:
        expected = file.tell(), file.read()
    async with proact.open(tmp_path / "file", mode, opener=opener) as file:
        assert (await file.tell(), await file.read()) == expected
