"""The file objects of `proact.open`: what they offer beside what the builtin's files do."""

import array
import asyncio
import errno
import io
import os
import resource
import signal
import subprocess
import sys

import pytest
from support import loops

import proact
from proact import fs


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"first\nsecond\r\nthird")
    return path


async def test_both_forms(loop, path):
    async with proact.open(path, "rb") as file:
        assert isinstance(file, fs.BufferedFile)
        assert await file.read() == b"first\nsecond\r\nthird"
    assert file.closed
    file = await proact.open(path)
    assert isinstance(file, fs.TextFile)
    assert await file.read() == "first\nsecond\nthird"
    assert file.newlines == ("\n", "\r\n")
    await file.close()
    async with await proact.open(path, "rb", buffering=0) as file:
        assert isinstance(file, fs.RawFile)
        assert await file.read(3) == b"fir"


@pytest.mark.parametrize("mode", ["r", "rb", "r+", "r+b", "w", "wb", "w+b", "a", "a+b", "x", "xb", "x+"])
async def test_attributes(loop, path, mode):
    if "x" in mode:
        path.unlink()
    async with proact.open(str(path), mode) as file:
        seen = file.name, file.mode, file.closed, file.readable(), file.writable(), file.seekable()
        shown = repr(file)
        seen_text = () if "b" in mode else (file.encoding, file.errors, file.line_buffering)
        flags = os.get_inheritable(file.fileno())
    if "x" in mode:
        path.unlink()
    with open(str(path), mode) as file:
        assert seen == (
            file.name,
            file.mode,
            file.closed,
            file.readable(),
            file.writable(),
            file.seekable(),
        )
        assert not flags
        assert str(path) in shown
        if seen_text:
            assert seen_text == (file.encoding, file.errors, file.line_buffering)


@pytest.mark.parametrize("form", [str, os.fsencode, os.PathLike])
async def test_odd_names(loop, tmp_path, form):
    path = tmp_path / "odd \udcff name"
    given = path if form is os.PathLike else form(str(path))
    async with proact.open(given, "w") as file:
        assert file.name == (str(path) if form is os.PathLike else given)
        await file.write("content")
    assert path.read_text() == "content"


async def test_the_mode_of_a_new_file_obeys_the_umask(loop, tmp_path):
    before = os.umask(0o027)
    try:
        async with proact.open(tmp_path / "new", "w"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640


async def test_lines(loop, path):
    lines = b"".join(b"%d\n" % number * (number % 7) for number in range(20_000)) + b"no end"
    path.write_bytes(lines)
    async with proact.open(path, "rb") as file:
        assert [line async for line in file] == io.BytesIO(lines).readlines()
    async with proact.open(path) as file:
        assert "".join([line async for line in file]).encode() == lines
    async with proact.open(path, newline="") as file:
        assert [line async for line in file] == list(io.StringIO(lines.decode(), newline=""))


@pytest.mark.parametrize("mode", ["rb", "r"])
async def test_iteration_and_calls_may_be_mixed(loop, path, mode):
    path.write_bytes(b"".join(b"line %d\n" % number for number in range(5000)))
    with open(path, mode) as other:
        async with proact.open(path, mode) as file:
            count = 0
            async for line in file:
                assert line == other.readline()
                count += 1
                if count % 500 == 3:
                    assert await file.tell() == other.tell()
                    assert await file.read(10) == other.read(10)
                if count % 500 == 4:
                    assert await file.readline() == other.readline()
                    assert await anext(file) == other.readline()
            assert other.read() == await file.read() == other.read(0)


async def test_what_was_read_ahead_is_not_what_was_written(loop, path):
    async with proact.open(path, "r+b") as file:
        assert await file.read(2) == b"fi"
        assert await file.write(b"XY") == 2
        assert await file.readline() == b"t\n"
        await file.flush()
        assert path.read_bytes().startswith(b"fiXYt\nsec")


async def test_buffers(loop, path):
    async with proact.open(path, "r+b") as file:
        await file.write(array.array("H", [0x4241, 0x4443]))
        await file.write(memoryview(b"efghij")[::1][:2])
        await file.writelines([bytearray(b"x"), b"y"])
        with pytest.raises(TypeError):
            await file.write("text")
        await file.seek(0)
        room = array.array("H", [0, 0])
        assert await file.readinto(room) == 4
        assert room.tolist() == [0x4241, 0x4443]
        assert await file.peek() == b"efxycond\r\nthird"
        assert await file.read1(2) == b"ef"
        with pytest.raises(TypeError):
            await file.readinto(b"read-only")
    async with proact.open(path, "w") as file:
        with pytest.raises(TypeError):
            await file.write(b"bytes")


async def test_at_offsets(loop, path):
    async with proact.open(path, "r+b") as file:
        assert await file.pread(6, 6) == b"second"
        assert await file.pread(100, 14) == b"third"
        assert await file.pread(100, 1000) == b""
        room = bytearray(8)
        assert await file.pread_into(room, 6) == 8
        assert room == b"second\r\n"
        assert await file.pread_into(room, 14) == 5
        assert await file.pwrite(b"FIRST", 0) == 5
        one, two = bytearray(2), bytearray(3)
        assert await file.preadv([one, two], 0) == 5
        assert (one, two) == (b"FI", b"RST")
        assert await file.pwritev([b"ab", b"cd"], 30) == 4
        assert await file.tell() == 0
        assert await file.read() == b"FIRST\nsecond\r\nthird" + bytes(11) + b"abcd"
        for call in (file.pread(1, -1), file.pread_into(bytearray(1), -7), file.pwrite(b"x", -1)):
            with pytest.raises(OSError, match="Invalid argument"):
                await call
    async with proact.open(path, "rb") as file:
        with pytest.raises(io.UnsupportedOperation):
            await file.pwrite(b"x", 0)
        much = await asyncio.gather(*(file.pread(1, offset) for offset in range(34)))
        assert b"".join(much) == path.read_bytes()


async def test_concurrent_operations_share_one_position(loop, path):
    async with proact.open(path, "wb", buffering=0) as file:
        pieces = [bytes([65 + number]) * 100 for number in range(20)]
        assert await asyncio.gather(*map(file.write, pieces)) == [100] * 20
    assert path.read_bytes() == b"".join(pieces)
    for buffering in (0, -1):
        async with proact.open(path, "rb", buffering=buffering) as file:
            assert await asyncio.gather(*(file.read(100) for _ in range(21))) == [*pieces, b""]
    async with proact.open(path, "r") as file:
        assert "".join(await asyncio.gather(*(file.read(100) for _ in range(20)))).encode() == b"".join(
            pieces
        )
    async with proact.open(path, "w") as file:
        await asyncio.gather(*(file.write(f"{number}\n" * 30_000) for number in range(5)))
    assert path.read_text() == "".join(f"{number}\n" * 30_000 for number in range(5))


async def test_appended_after_what_others_append(loop, path):
    async with proact.open(path, "a+b", buffering=0) as one, proact.open(path, "ab") as two:
        assert await one.tell() == await two.tell() == 19
        await one.write(b"1")
        await two.write(b"2")
        await two.flush()
        assert await two.tell() == 21
        await one.seek(0)
        await one.write(b"3")
        assert await one.tell() == 22
    assert path.read_bytes().endswith(b"third123")


async def test_fds(loop, path):
    fd = os.open(path, os.O_RDWR)
    os.lseek(fd, 6, os.SEEK_SET)
    async with proact.open(fd, "r+b", closefd=False) as file:
        assert file.name == fd
        assert await file.tell() == 6
        assert await file.read(3) == b"sec"
    # Others go on where the file was.
    assert os.read(fd, 3) == b"ond"
    async with proact.open(fd, "r+b", closefd=True):
        pass
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


async def test_a_child_goes_on_at_the_position(loop, path):
    async with proact.open(path, "r+b") as file:
        await file.readline()
        await file.write(b"mine\n")
        await file.flush()
        subprocess.run([sys.executable, "-c", "print('its')"], stdout=file, check=True)
    assert path.read_bytes() == b"first\nmine\nits\nhird"


async def test_opener(loop, path):
    folder = os.open(path.parent, os.O_RDONLY)

    def opener(name, flags):
        assert flags & os.O_CLOEXEC
        return os.open(name, flags, dir_fd=folder)

    async with proact.open("file", "rb", opener=opener) as file:
        assert not os.get_inheritable(file.fileno())
        assert await file.read(5) == b"first"
    os.close(folder)


async def test_audited(loop, path):
    seen = []
    active = True

    def hook(event, args):
        if active and event == "open" and args[0] == str(path):
            seen.append(args)

    sys.addaudithook(hook)
    try:
        with open(str(path), "r+"):
            pass
        async with proact.open(str(path), "r+"):
            pass
    finally:
        active = False
    ours, builtin = seen.pop(), seen.pop(0)
    assert ours[0] == builtin[0]
    assert ours[2] & os.O_ACCMODE == builtin[2] & os.O_ACCMODE


def test_encoding_warning():
    child = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", "import proact\nproact.open('path')\n"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "<string>:2: EncodingWarning" in child.stderr


@pytest.mark.parametrize("mode", ["rb", "r+b", "w"])
async def test_not_closed(loop, path, mode):
    file = await proact.open(path, mode)
    fd = file.fileno()
    if mode == "w":
        await file.write("held back")
    files = [file]
    del file
    with pytest.warns(ResourceWarning, match="unclosed file"):
        files.clear()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    if mode == "w":
        assert path.read_text() == "held back"


async def test_fsync(loop, path):
    async with proact.open(path, "w") as file:
        await file.write("content")
        await file.fsync()
        assert path.read_text() == "content"
        await file.write("!")
        await file.fsync(data_only=True)
        assert path.read_text() == "content!"


@pytest.mark.parametrize("mode", ["wb", "ab", "r+b", "w+b"])
async def test_the_position_after_an_fsync(loop, path, mode):
    path.write_bytes(b"0123456789")
    async with proact.open(path, mode) as file:
        expected = path.read_bytes() if "a" in mode else b""
        for number in range(3):
            piece = b"%d" % number * 5
            assert await file.write(piece) == 5
            await file.fsync(data_only=number == 1)
            expected += piece
            assert await file.tell() == len(expected)
            assert path.read_bytes()[: len(expected)] == expected
            if "+" in mode:
                await file.seek(-2, os.SEEK_CUR)
                assert await file.read(2) == piece[:2]


async def test_writes_go_on_during_an_fsync(loop, path):
    async with proact.open(path, "wb") as file:
        expected = b""
        for number in range(30):
            sync = asyncio.ensure_future(file.fsync())
            for turns in range(number % 5):
                await asyncio.sleep(0)
                await file.write(b"%d-%d " % (number, turns))
                expected += b"%d-%d " % (number, turns)
            if number % 3:
                await sync
            elif number % 2:
                sync.cancel()
            await asyncio.wait([sync])
            assert await file.tell() == len(expected)
    assert path.read_bytes() == expected


async def test_what_an_fsync_could_not_write_is_kept(loop, path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with proact.open(path, "wb") as file:
        await file.write(b"x" * 100)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60, limit[1]))
        try:
            for _ in range(2):
                with pytest.raises(OSError) as caught:
                    await file.fsync()
                assert caught.value.errno == errno.EFBIG
                assert (path.stat().st_size, await file.tell()) == (60, 100)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            signal.signal(signal.SIGXFSZ, handler)
        await file.fsync()
        assert path.read_bytes() == b"x" * 100


async def test_closed_while_it_is_read(loop, path):
    """Positional calls in flight end before the fd is closed."""
    path.write_bytes(bytes(8 << 20))
    file = await proact.open(path, "rb")
    reads = [asyncio.ensure_future(file.pread(8 << 20, 0)) for _ in range(4)]
    await loops.turns(1)
    await file.close()
    for read in reads:
        try:
            assert len(await read) == 8 << 20
        except (ValueError, OSError):
            # It was between two pieces.
            pass


async def test_the_loop_goes_on_beside_a_big_cached_file(loop, path):
    path.write_bytes(bytes(64 << 20))
    turns = 0

    async def turn():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.ensure_future(turn())
    async with proact.open(path, "rb") as file:
        assert len(await file.read()) == 64 << 20
    other.cancel()
    assert turns > 20


def test_on_a_second_loop(new_loop, path):
    for _ in range(2):
        loop = new_loop()

        async def main():
            async with proact.open(path) as file:
                return await file.readline()

        assert loop.run_until_complete(main()) == "first\n"
        loop.close()


async def test_a_seek_joins_nothing(loop, tmp_path):
    """A line that did not fit into memory was read ahead in pieces. To seek in them takes no memory."""
    path = tmp_path / "file"
    path.write_bytes(b"begin" + bytes(3_000_000))
    async with proact.open(path, "rb") as file:
        task = asyncio.ensure_future(file.readline())
        while not file._more:
            await loops.turns(1)
            if task.done():
                file._more, file._ahead, file._next, file._left = [bytes(10)], b"begin", 0, 15
                file._at = 15
        task.cancel()
        await asyncio.wait([task])
        file._join = pytest.fail
        await file.seek(0)
        del file._join
        assert await file.read(5) == b"begin"
