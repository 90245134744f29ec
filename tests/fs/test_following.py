"""`tail`: the lines that are appended, through truncation and rotation, with inotify and without."""

import asyncio
import os

import pytest

from proact import fs
from proact.fs import following


@pytest.fixture(params=["inotify", "polling"])
def watched(request, monkeypatch):
    if request.param == "polling":
        monkeypatch.setattr(following, "_watch", lambda _: -1)
    else:
        # Only inotify can tell in time.
        monkeypatch.setattr(following, "_UNSEEN", 1000)


class Reader:
    """A task that follows a file."""

    def __init__(self, path, **options):
        self.lines = asyncio.Queue()
        self.task = asyncio.create_task(self._follow(path, options))

    async def _follow(self, path, options):
        async for line in fs.tail(path, interval=0.01, **options):
            self.lines.put_nowait(line)

    async def expect(self, *lines):
        async with asyncio.timeout(20):
            assert [await self.lines.get() for _ in lines] == list(lines)
        assert self.lines.empty()

    async def stop(self):
        self.task.cancel()
        await asyncio.wait([self.task])
        assert self.task.cancelled(), self.task


def add(path, data):
    with open(path, "ab") as file:
        file.write(data)


@pytest.mark.parametrize("lines", [0, 1, 2, 3, 100, None])
async def test_the_last_lines(loop, tmp_path, lines):
    path = tmp_path / "log"
    for content in (b"", b"\n", b"1\n2\n3\n", b"1\n2\n3", b"x" * 200_000 + b"\n" + b"y" * 100_000 + b"\nz\n"):
        path.write_bytes(content)
        plain = content.splitlines(keepends=True)
        wanted = plain if lines is None else plain[-lines:] if lines else []
        assert [line async for line in fs.tail(path, follow=False, lines=lines)] == wanted


async def test_appended(loop, tmp_path, watched):
    path = tmp_path / "log"
    path.write_bytes(b"old\n1\n")
    reader = Reader(path, lines=1)
    await reader.expect(b"1\n")
    add(path, b"2\n3")
    await reader.expect(b"2\n")
    add(path, b"+\n" + b"x" * 200_000 + b"\n")
    await reader.expect(b"3+\n", b"x" * 200_000 + b"\n")
    for number in range(100):
        add(path, b"%d\n" % number)
        if number % 7 == 0:
            await asyncio.sleep(0)
    await reader.expect(*(b"%d\n" % number for number in range(100)))
    await reader.stop()


async def test_text(loop, tmp_path, watched):
    path = tmp_path / "log"
    path.write_bytes("ä\n".encode("latin-1"))
    reader = Reader(path, lines=None, encoding="latin-1")
    await reader.expect("ä\n")
    await reader.stop()
    path.write_bytes(b"\xff\n")
    assert [
        line async for line in fs.tail(path, follow=False, lines=None, encoding="utf-8", errors="replace")
    ] == ["\ufffd\n"]


async def test_truncated(loop, tmp_path, watched):
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\nunended")
    reader = Reader(path, lines=None)
    await reader.expect(b"one\n", b"two\n")
    os.truncate(path, 0)
    # A file that has grown past the old end when it is looked at can't be told from one that was appended to.
    add(path, b"new\n")
    await reader.expect(b"new\n")
    await reader.stop()


async def test_rotated(loop, tmp_path, watched):
    path = tmp_path / "log"
    path.write_bytes(b"1\n")
    reader = Reader(path, lines=None)
    await reader.expect(b"1\n")
    with open(path, "ab") as old:
        os.rename(path, tmp_path / "log.1")
        old.write(b"2\nunended")
    await reader.expect(b"2\n", b"unended")
    path.write_bytes(b"3\n")
    await reader.expect(b"3\n")
    (tmp_path / "fresh").write_bytes(b"4\n")
    os.rename(tmp_path / "fresh", path)
    await reader.expect(b"4\n")
    os.unlink(path)
    path.write_bytes(b"5\n")
    await reader.expect(b"5\n")
    await reader.stop()


async def test_through_a_link(loop, tmp_path, watched):
    path = tmp_path / "real"
    path.write_bytes(b"0\n")
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link"
    link.symlink_to(path)
    reader = Reader(link, lines=None)
    await reader.expect(b"0\n")
    add(path, b"1\n")
    await reader.expect(b"1\n")
    await reader.stop()


async def test_errors(loop, tmp_path, watched):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(OSError) as caught:
            async for _ in fs.tail(path):
                pass
        assert caught.value.errno in (2, 21)
    path = tmp_path / "log"
    path.write_bytes(b"1\n2\n")
    lines = fs.tail(path, lines=None)
    assert await anext(lines) == b"1\n"
    await lines.aclose()
