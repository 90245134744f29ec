"""One program with files, written against aiofiles, anyio and proact: alone, and with proact's files under
the others.
"""

import asyncio
import contextlib

import aiofiles
import anyio
import pytest
from support import loops

import proact as package
from proact.fs import compat


@pytest.fixture(params=[False, True], ids=["as they are", "with proact's files"])
def installed(request):
    if request.param:
        assert compat.install() == ["aiofiles", "anyio"]
    yield request.param
    compat.uninstall()


def inner(file):
    """What is under a library's object."""
    return getattr(file, "_file", None) or getattr(file, "wrapped", None) or file


@contextlib.asynccontextmanager
async def opened(library, *args, **options):
    if library == "anyio":
        async with await anyio.open_file(*args, **options) as file:
            yield file
    else:
        async with (aiofiles.open if library == "aiofiles" else package.open)(*args, **options) as file:
            yield file


@pytest.mark.parametrize("library", ["proact", "aiofiles", "anyio"])
async def test_the_same_program(loop, installed, library, tmp_path):
    path = tmp_path / "file"
    async with opened(library, path, "w", encoding="utf-8") as file:
        ours = type(inner(file)).__module__.startswith("proact.")
        assert ours == (library == "proact" or (installed and not loops.REFERENCE))
        assert file.name == str(path) or file.name == path
        await file.write("one\n")
        await file.writelines(["two\n", "drei ä\n"])
        await file.flush()
        assert path.read_text("utf-8") == "one\ntwo\ndrei ä\n"
    assert inner(file).closed
    async with opened(library, str(path), encoding="utf-8") as file:
        assert await file.readline() == "one\n"
        assert [line async for line in file] == ["two\n", "drei ä\n"]
        assert await file.read() == ""
        assert await file.seek(0) == 0
        assert await file.readlines() == ["one\n", "two\n", "drei ä\n"]
    async with opened(library, path, "r+b") as file:
        assert await file.seek(-5, 2) == 11
        assert await file.tell() == 11
        assert await file.read(2) == b"i "
        room = bytearray(2)
        assert await file.readinto(room) == 2
        assert room == "ä".encode()
        assert await file.truncate(3) == 3
        await file.seek(0)
        assert await file.read() == b"one"
    async with opened(library, path, "rb", buffering=0) as file:
        assert await file.read(100) == b"one"
    for wrong, error in (
        ((tmp_path / "none",), FileNotFoundError),
        ((tmp_path,), IsADirectoryError),
        ((path, "q"), ValueError),
    ):
        with pytest.raises(error):
            async with opened(library, *wrong):
                pass


async def test_context_managers(loop, installed, tmp_path):
    async with aiofiles.open(tmp_path / "file", "wb") as file:
        assert await file.write(b"x") == 1
        assert await file.writable()
    assert file.closed
    with pytest.raises(ZeroDivisionError):
        async with await anyio.open_file(tmp_path / "file", "rb") as file:
            raise ZeroDivisionError
    assert file.closed
    assert (tmp_path / "file").read_bytes() == b"x"


async def test_paths(loop, installed, tmp_path):
    path = anyio.Path(tmp_path)
    for number in range(3):
        assert await (path / f"{number}.txt").write_text(f"{number}") == 1
    await (path / "inner").mkdir()
    await (path / "link").symlink_to("0.txt")
    assert {found.name async for found in path.iterdir()} == {"0.txt", "1.txt", "2.txt", "inner", "link"}
    assert {type(found) async for found in path.glob("*.txt")} == {anyio.Path}
    assert await (path / "link").read_bytes() == b"0"
    assert await (path / "link").resolve() == await path.resolve() / "0.txt"
    renamed = await (path / "0.txt").rename(path / "renamed")
    assert type(renamed) is anyio.Path and await renamed.exists() and await (path / "inner").is_dir()
    async with await renamed.open() as file:
        assert await file.read() == "0"
    with pytest.raises(FileNotFoundError):
        await (path / "none").stat()


async def test_cancelled(loop, installed, tmp_path):
    async with aiofiles.open("/dev/zero", "rb") as file:
        task = asyncio.create_task(file.read(64 << 20))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anyio.Path(tmp_path).exists()
    assert scope.cancelled_caught
