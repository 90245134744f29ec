"""What `sys.addaudithook` sees of files: the events of `open()` and `os`, whichever way is taken."""

import asyncio
import os
import sys

import pytest

import proact
from proact import fs

_seen = None


def _hook(event, args):
    if _seen is not None and (event == "open" or event.startswith("os.")):
        _seen(event, args)


@pytest.fixture(scope="module", autouse=True)
def hook():
    # A hook stays for ever, so there is one for all tests.
    sys.addaudithook(_hook)


@pytest.fixture
def seen(tmp_path):
    """The events about a folder."""
    global _seen
    events = []

    def see(event, args):
        if str(args[0]).startswith(str(tmp_path)):
            events.append((event, *args))

    _seen = see
    yield events
    _seen = None


@pytest.mark.parametrize("read", [fs.read_bytes, fs.read_text, lambda path: fs.read_many([path])])
async def test_helpers_that_read(loop, tmp_path, seen, read):
    path = str(tmp_path / "file")
    with open(path, "wb") as file:
        file.write(b"content")
    seen.clear()
    with open(path, "rb") as file:
        file.read()
    (expected,) = seen
    seen.clear()
    await read(path)
    # A file that the loop could not read at once is opened once more in a thread.
    assert seen and set(seen) == {expected}


@pytest.mark.parametrize("name", ["write_bytes", "write_text", "append"])
async def test_helpers_that_write(loop, tmp_path, seen, name):
    path = str(tmp_path / "file")
    await getattr(fs, name)(path, "text" if name == "write_text" else b"bytes")
    assert {event[:2] for event in seen} == {("open", path)}
    assert all(event[3] & os.O_ACCMODE == os.O_WRONLY for event in seen)


@pytest.mark.parametrize("mode", ["r", "rb", "w", "r+", "ab", "a+", "w+b"])
async def test_open(loop, tmp_path, seen, mode):
    path = str(tmp_path / "file")
    with open(path, "w"):
        pass
    seen.clear()
    with open(path, mode):
        pass
    async with proact.open(path, mode):
        pass
    expected = [event for event in seen if event[2] is not None]
    assert len(expected) == 2
    assert expected[0] == expected[1]


async def test_names(loop, tmp_path, seen):
    def paths(folder):
        os.makedirs(folder)
        return [os.path.join(folder, name) for name in ("file", "other", "link", "hard", "folder")]

    def blocking(file, other, link, hard, folder):
        os.mkdir(folder, 0o700)
        os.rename(file, other)
        os.symlink(other, link)
        os.link(other, hard)
        os.replace(hard, file)
        os.unlink(link)
        os.rmdir(folder)

    async def awaited(file, other, link, hard, folder):
        await fs.mkdir(folder, 0o700)
        await fs.rename(file, other)
        await fs.symlink(other, link)
        await fs.link(other, hard)
        await fs.replace(hard, file)
        await fs.unlink(link)
        await fs.rmdir(folder)

    def shown(folder):
        return [tuple(str(part).replace(folder, "") for part in event) for event in seen]

    told = []
    for folder in (str(tmp_path / "a"), str(tmp_path / "b")):
        names = paths(folder)
        with open(names[0], "wb"):
            pass
        seen.clear()
        if folder.endswith("a"):
            blocking(*names)
        else:
            await awaited(*names)
        told.append(shown(folder))
    assert told[0] == told[1]
    assert len(told[0]) == 7


async def test_a_hook_refuses(loop, tmp_path):
    global _seen
    path = tmp_path / "file"
    path.write_bytes(b"secret")

    def refuse(event, args):
        if str(args[0]).startswith(str(tmp_path)):
            raise PermissionError(event)

    _seen = refuse
    try:
        for call in (
            fs.read_bytes(path),
            fs.read_many([path]),
            fs.unlink(path),
            fs.mkdir(tmp_path / "folder"),
        ):
            with pytest.raises(PermissionError):
                await call
        with pytest.raises(PermissionError):
            await proact.open(path)
        await asyncio.sleep(0)
    finally:
        _seen = None
    assert path.read_bytes() == b"secret"
