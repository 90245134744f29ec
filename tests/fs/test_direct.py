"""`proact.open(direct=True)`: past the page cache."""

import asyncio
import os

import pytest
from support import loops, peers

import proact
from proact import fs


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(peers.payload(3 << 20)[: (3 << 20) - 77])
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        pytest.skip("this file system has no O_DIRECT")
    return path


async def test_reads_of_any_size_at_any_offset(loop, path):
    content = path.read_bytes()
    async with proact.open(path, "rb", direct=True) as file:
        assert isinstance(file, fs.DirectFile)
        for size, offset in (
            (1, 0),
            (4096, 4096),
            (10, 4090),
            (5000, 3),
            (2 << 20, 17),
            (9999, len(content) - 5),
        ):
            assert await file.pread(size, offset) == content[offset : offset + size]
            room = bytearray(size)
            count = len(content[offset : offset + size])
            assert await file.pread_into(room, offset) == count
            assert room[:count] == content[offset : offset + size]
        assert await file.pread(10, len(content) + 9000) == b""
        aligned = fs.aligned_buffer(8192)
        assert await file.pread_into(aligned, 8192) == 8192
        assert aligned[:] == content[8192:16384]
        assert await file.read(7) == content[:7]
        assert await file.tell() == 7
        assert await file.read() == content[7:]
        many = await asyncio.gather(*(file.pread(4096, 4096 * block) for block in range(200)))
        assert b"".join(many) == content[: 4096 * 200]


async def test_writes_of_blocks(loop, path):
    data = peers.payload(3 << 20)
    async with proact.open(path, "wb", direct=True) as file:
        assert await file.write(data[:8192]) == 8192
        assert await file.tell() == 8192
        assert await file.pwrite(data[8192:], 8192) == len(data) - 8192
        with pytest.raises(OSError, match="Invalid argument"):
            await file.pwrite(b"x" * 10, 3)
        with pytest.raises(OSError, match="Invalid argument"):
            await file.pwrite(b"x" * 4096, -4096)
    assert path.read_bytes() == data


async def test_arguments(loop, path):
    for mode, buffering in (("r", -1), ("rb", 4096)):
        with pytest.raises(ValueError, match="direct"):
            await proact.open(path, mode, buffering, direct=True)


@pytest.mark.skipif(bool(loops.REFERENCE), reason="loop.stats() is proact's")
async def test_nothing_is_done_at_once(loop, path):
    """RWF_NOWAIT waits for the disk if the page cache is passed by: the loop would be held."""

    def opener(name, flags):
        return os.open(name, flags | os.O_DIRECT)

    room = fs.aligned_buffer(4096)
    before = loop.stats()["files"]
    for how in ({"direct": True}, {"buffering": 0, "opener": opener}):
        async with proact.open(path, "rb", **how) as file:
            assert isinstance(file, fs.DirectFile)
            assert await file.pread_into(room, 4096) == 4096
            assert len(await file.pread(4096, 8192)) == 4096
            assert len(await file.read(10)) == 10
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    async with proact.open(fd, "rb", 0) as file:
        assert await file.pread_into(room, 4096) == 4096
    after = loop.stats()["files"]
    # The open of the path, and the close where the engine has no ring.
    assert after["at_once"] - before["at_once"] <= 1 + 3
    assert after["by_engine"] + after["by_pool"] - before["by_engine"] - before["by_pool"] >= 7
