"""Copies, moves and removals: as `shutil` does them, with its errors, and ended by a cancel."""

import asyncio
import os
import shutil
import stat
import time

import pytest
from support import peers

from proact import fs
from proact.fs import copying


def shape(tree):
    """All that a tree holds."""
    found = {}
    for place, directories, files in os.walk(tree):
        for name in directories + files:
            path = os.path.join(place, name)
            status = os.lstat(path)
            content = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            found[os.path.relpath(path, tree)] = (status.st_mode, content)
    return found


@pytest.fixture
def tree(tmp_path):
    top = tmp_path / "tree"
    (top / "inner" / "deep").mkdir(parents=True)
    (top / "inner" / "file").write_bytes(peers.payload(100_000))
    (top / "inner" / "deep" / "script").write_text("#!")
    (top / "inner" / "deep" / "script").chmod(0o750)
    (top / "link").symlink_to("inner/file")
    (top / "dirlink").symlink_to("inner")
    return top


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
async def test_copies(loop, tmp_path, size):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(peers.payload(size))
    source.chmod(0o640)
    os.utime(source, (1, 2))
    target.write_bytes(b"old" * 10)
    assert await fs.copyfile(source, target) == target
    assert target.read_bytes() == source.read_bytes()
    assert await fs.copy(str(source), str(target)) == str(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert await fs.copy2(source, target) == target
    assert target.stat().st_mtime == 2
    (tmp_path / "directory").mkdir()
    assert await fs.copy(source, tmp_path / "directory") == os.path.join(tmp_path / "directory", "source")


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
async def test_each_way(loop, tmp_path, monkeypatch, missing):
    """Where a way is refused, even after a part, the next one goes on."""

    def refuse(*_):
        raise OSError(95, "not this way")

    some = []

    def refuse_after_a_part(source, target, count):
        if some:
            raise OSError(22, "no more")
        some.append(1)
        return os.sendfile(target, source, None, 1000)

    data = peers.payload(1_000_000)
    (tmp_path / "source").write_bytes(data)
    if missing > 0:
        monkeypatch.setattr(copying, "_FICLONE", 0)
    if missing > 1:
        monkeypatch.setattr(os, "copy_file_range", refuse if missing == 2 else refuse_after_a_part)
    if missing > 2:
        monkeypatch.setattr(copying, "_sendfile", refuse)
    await fs.copyfile(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == data


async def test_files_without_a_size(loop, tmp_path):
    await fs.copyfile("/proc/self/limits", tmp_path / "target")
    with open("/proc/self/limits", "rb") as file:
        assert (tmp_path / "target").read_bytes() == file.read()
    await fs.copyfile(tmp_path / "target", "/dev/null")


async def test_links(loop, tree, tmp_path):
    await fs.copyfile(tree / "link", tmp_path / "followed")
    await fs.copyfile(tree / "link", tmp_path / "kept", follow_symlinks=False)
    assert not (tmp_path / "followed").is_symlink()
    assert os.readlink(tmp_path / "kept") == "inner/file"


def told(error):
    """An error so far as a program can tell; some of shutil's have the path that they were given, some a
    str.
    """
    name = error.filename and os.fspath(error.filename)
    return (
        type(error),
        error.errno,
        name,
        str(error).replace("PosixPath", "").replace("('", "'").replace("')", "'"),
    )


async def error_of(awaitable):
    with pytest.raises(OSError) as caught:
        await awaitable
    return told(caught.value)


def plain_error_of(call):
    with pytest.raises(OSError) as caught:
        call()
    return told(caught.value)


async def test_errors(loop, tree, tmp_path, fifo):
    os.link(tree / "inner" / "file", tree / "hard")
    (tree / "dangling").symlink_to("nowhere")
    for name, paths in (
        ("copyfile", (tree / "none", tmp_path / "target")),
        ("copyfile", (tree, tmp_path / "target")),
        ("copyfile", (tree / "link", tree)),
        ("copyfile", (tree / "link", tmp_path / "none" / "target")),
        ("copyfile", (tree / "link", f"{tmp_path}/none/")),
        ("copyfile", (tree / "link", tree / "inner" / "file")),
        ("copyfile", (tree / "hard", tree / "inner" / "file")),
        ("copyfile", (fifo, tmp_path / "target")),
        ("copyfile", (tree / "link", fifo)),
        ("copy", (tree / "none", tmp_path)),
        ("copy2", (tree / "inner" / "file", tree / "inner")),
        ("copytree", (tree / "none", tmp_path / "target")),
        ("copytree", (tree, tmp_path)),
        ("move", (tree / "none", tmp_path / "target")),
        ("move", (tree, tree / "inner")),
        ("rmtree", (tree / "none",)),
        ("rmtree", (tree / "hard",)),
        ("rmtree", (tree / "dirlink",)),
        ("rmtree", (tree / "dangling",)),
        ("rmtree", (tree / "inner" / "file" / "below",)),
    ):
        assert await error_of(getattr(fs, name)(*paths)) == plain_error_of(
            lambda name=name, paths=paths: getattr(shutil, name)(*paths)
        )
    assert shape(tree)


async def test_trees(loop, tree, tmp_path):
    for options in ({}, {"symlinks": True}, {"ignore": shutil.ignore_patterns("deep")}):
        ours, plain = tmp_path / "ours", tmp_path / "plain"
        assert await fs.copytree(tree, ours, **options) == ours
        shutil.copytree(tree, plain, **options)
        assert shape(ours) == shape(plain)
        await fs.copytree(tree, ours, dirs_exist_ok=True)
        await fs.rmtree(ours)
        assert not ours.exists()
        await fs.rmtree(str(plain))
    before = shape(tree)
    assert await fs.move(tree, tmp_path / "moved") == tmp_path / "moved"
    assert shape(tmp_path / "moved") == before
    assert not tree.exists()


async def test_rmtree_follows_no_link(loop, tree, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tree / "inner" / "out").symlink_to(tmp_path / "kept")
    await fs.rmtree(os.fsencode(tree))
    assert not tree.exists()
    assert (tmp_path / "kept" / "file").exists()


async def test_rmtree_told_errors(loop, tree, monkeypatch):
    unlink = os.unlink

    def refuse(path, **options):
        if path == "script":
            raise PermissionError(1, "refused")
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", refuse)
    told = []
    await fs.rmtree(tree, onexc=lambda function, path, error: told.append((function, path, type(error))))
    assert told[0] == (refuse, os.path.join(tree, "inner", "deep", "script"), PermissionError)
    assert os.path.exists(tree / "inner" / "deep" / "script")
    assert not os.path.lexists(tree / "link")
    await fs.rmtree(tree, ignore_errors=True)
    with pytest.raises(PermissionError):
        await fs.rmtree(tree)
    await fs.rmtree(tree / "none", ignore_errors=True)


async def test_a_cancel_stops_the_work(loop, tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "_PIECE", 1 << 16)
    monkeypatch.setattr(copying, "_cloned", lambda *_: False)
    begun = asyncio.Event()
    copy_file_range = os.copy_file_range

    def slow(*args):
        loop.call_soon_threadsafe(begun.set)
        time.sleep(0.001)
        return copy_file_range(*args)

    monkeypatch.setattr(os, "copy_file_range", slow)
    (tmp_path / "source").write_bytes(bytes(64 << 20))
    task = asyncio.create_task(fs.copyfile(tmp_path / "source", tmp_path / "target"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    from proact.fs import pool

    async with asyncio.timeout(10):
        while pool.of_process().counts()["lost"]:
            await asyncio.sleep(0.001)
    assert (tmp_path / "target").stat().st_size < 64 << 20


@pytest.mark.parametrize("refused", [False, True])
async def test_holes_stay_holes(loop, tmp_path, monkeypatch, refused):
    source, target = tmp_path / "source", tmp_path / "target"
    for end in (b"", b"end"):
        with source.open("wb") as file:
            for offset in (1 << 20, 5 << 30):
                file.seek(offset)
                file.write(peers.payload(100_000))
            file.truncate(6 << 30)
            file.seek(0, os.SEEK_END)
            file.write(end)
        if source.stat().st_blocks * 512 > 1 << 30:
            pytest.skip("this file system has no holes")
        if refused:

            def refuse(*_):
                raise OSError(95, "not this way")

            monkeypatch.setattr(os, "copy_file_range", refuse)
            monkeypatch.setattr(copying, "_sendfile", refuse)
        await fs.copyfile(source, target)
        assert target.stat().st_size == source.stat().st_size
        assert target.stat().st_blocks * 512 < 1 << 20
        with source.open("rb") as one, target.open("rb") as other:
            for offset in (0, (1 << 20) - 10, 5 << 30, (6 << 30) - 10):
                one.seek(offset)
                other.seek(offset)
                assert one.read(200_000) == other.read(200_000)
