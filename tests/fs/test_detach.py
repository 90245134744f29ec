"""`detach` and `reconfigure`, beside those of `open()`."""

import io
import os

import pytest

import proact


async def test_detach_a_buffer(loop, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 1000)
    file = await proact.open(path, "r+b")
    assert await file.read(3) == b"012"
    await file.seek(3)
    await file.write(b"new")
    raw = await file.detach()
    assert isinstance(raw, proact.fs.RawFile)
    # What was held back is written, and the position is the buffer's.
    assert path.read_bytes()[:10] == b"012new6789"
    assert (await raw.tell(), raw.closed, raw.name) == (6, False, file.name)
    assert await raw.read(4) == b"6789"
    for call in (file.read, file.tell, file.flush, file.detach, lambda: file.write(b"x")):
        with pytest.raises(ValueError, match="raw stream has been detached"):
            await call()
    # It has nothing to close.
    await file.close()
    assert not raw.closed
    fd = raw.fileno()
    await raw.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


async def test_detach_a_buffer_of_a_pipe(loop):
    near, far = os.pipe()
    os.write(far, b"one\ntwo\n")
    file = await proact.open(near, "rb")
    assert await file.readline() == b"one\n"
    raw = await file.detach()
    assert await raw.read(2) == b"tw"
    assert await raw.read(20) == b"o\n"
    os.close(far)
    assert await raw.read(1) == b""
    await raw.close()


async def test_detach_a_text(loop, tmp_path):
    path = tmp_path / "file"
    file = await proact.open(path, "w", encoding="utf-8")
    await file.write("ä")
    buffer = await file.detach()
    assert path.read_bytes() == "ä".encode()
    await buffer.write(b"bytes")
    for call in (lambda: file.write("x"), file.detach, file.flush, file.close):
        with pytest.raises(ValueError, match="underlying buffer has been detached"):
            await call()
    await buffer.close()
    assert path.read_bytes() == "ä".encode() + b"bytes"


SETTINGS = [
    [],
    [{"encoding": "utf-16"}],
    [{"encoding": "latin-1", "newline": "\r\n"}, {"errors": "replace"}, {"newline": None}],
    [
        {"errors": "xmlcharrefreplace", "encoding": "ascii"},
        {"line_buffering": True},
        {"encoding": "utf-8-sig"},
    ],
    [{"write_through": True, "line_buffering": False}, {"newline": "\r"}, {"encoding": "utf-16"}],
]


@pytest.mark.parametrize("settings", SETTINGS)
async def test_reconfigure_what_is_written(loop, tmp_path, settings):
    async with proact.open(tmp_path / "ours", "w", encoding="utf-8") as ours:
        with open(tmp_path / "builtin", "w", encoding="utf-8") as builtin:
            for each in [*settings, {}]:
                await ours.write("aäé\n")
                builtin.write("aäé\n")
                await ours.reconfigure(**each)
                builtin.reconfigure(**each)
                for name in ("encoding", "errors", "line_buffering", "write_through"):
                    assert getattr(ours, name) == getattr(builtin, name)
                assert (tmp_path / "ours").read_bytes() == (tmp_path / "builtin").read_bytes()
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "builtin").read_bytes()


async def test_reconfigure_what_is_read(loop, tmp_path):
    path = tmp_path / "file"
    path.write_bytes("ä\r\nb\n".encode("latin-1"))
    async with proact.open(path, encoding="utf-8") as file:
        await file.reconfigure(encoding="latin-1", newline="")
        assert await file.read(3) == "ä\r\n"
        await file.reconfigure(line_buffering=True)
        for change in ({"encoding": "utf-8"}, {"newline": None}, {"errors": "ignore"}):
            with pytest.raises(io.UnsupportedOperation, match="after the first read"):
                await file.reconfigure(**change)
        assert await file.read() == "b\n"
    with pytest.raises(ValueError, match="closed"):
        await file.reconfigure(errors="ignore")
    async with proact.open(path, encoding="utf-8") as file:
        for wrong, error in (({"newline": "x"}, ValueError), ({"encoding": "no-such"}, LookupError)):
            with pytest.raises(error):
                await file.reconfigure(**wrong)
