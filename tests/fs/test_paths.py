"""`proact.Path`: all of pathlib's surface; what computes is plain, what does I/O is awaited; results and
errors.
"""

import inspect
import os
import pathlib
import pickle
import sys

import pytest

from proact import Path, fs

COMPUTED = {
    "as_posix", "as_uri", "from_uri", "full_match", "is_absolute", "is_relative_to", "joinpath", "match",
    "relative_to", "with_name", "with_segments", "with_stem", "with_suffix",
}  # fmt: skip
PROPERTIES = {
    "anchor",
    "drive",
    "info",
    "name",
    "parent",
    "parents",
    "parser",
    "parts",
    "root",
    "stem",
    "suffix",
    "suffixes",
}
OPENING = {"open"}
ITERATED = {"glob", "iterdir", "rglob", "walk"}
# Deprecated, or removed from pathlib itself.
GONE = {"is_reserved", "link_to"}


def test_surface():
    for name in dir(pathlib.Path):
        if name.startswith("_") or name in GONE:
            continue
        ours = inspect.getattr_static(Path, name)
        method = getattr(Path, name)
        if name in PROPERTIES:
            assert not inspect.isroutine(ours), name
        elif name in ITERATED:
            assert (
                inspect.isasyncgenfunction(method) or "AsyncIterator" in method.__annotations__["return"]
            ), name
        elif name not in COMPUTED | OPENING:
            assert inspect.iscoroutinefunction(method), name
        else:
            assert not inspect.iscoroutinefunction(method), name
    extra = {name for name in dir(Path) if not name.startswith("_")} - set(dir(pathlib.Path))
    # What the newest pathlib has, and any Python can give; and what anyio's has, and Python 3.15 no longer.
    assert extra <= {"is_junction", "with_segments", "is_reserved"}


def test_computed():
    path, plain = Path("a", "b.tar.gz"), pathlib.Path("a", "b.tar.gz")
    assert path == plain and plain == path and hash(path) == hash(plain) and path < pathlib.Path("b")
    assert Path(path) == path and pathlib.Path(path) == plain and os.fspath(path) == str(path) == "a/b.tar.gz"
    assert repr(path) == "Path('a/b.tar.gz')" and bytes(path) == b"a/b.tar.gz"
    assert path != "a/b.tar.gz"
    for name in ("parts", "drive", "root", "anchor", "parent", "name", "suffix", "suffixes", "stem"):
        assert getattr(path, name) == getattr(plain, name)
    assert list(path.parents) == list(plain.parents)
    for made in (
        path / "c",
        "c" / path,
        path.parent,
        path.with_name("x"),
        path.with_stem("x"),
        path.with_suffix(".x"),
        path.joinpath("c", Path("d")),
        path.relative_to("a"),
        path.with_segments("x", "y"),
        *path.parents,
    ):
        assert type(made) is Path
    assert path.match("*.gz") and path.is_relative_to(Path("a")) and not path.is_absolute()
    assert Path("/a").as_uri() == "file:///a"
    with pytest.raises(ValueError):
        path.relative_to("x")
    assert pickle.loads(pickle.dumps(path)) == path
    assert sorted([Path("b"), Path("a")]) == [Path("a"), Path("b")]

    class Mine(Path):
        pass

    assert type(Mine("a") / "b") is Mine


async def test_contents(loop, tmp_path):
    path = Path(tmp_path) / "file"
    assert await path.write_text("ä\n", encoding="utf-8") == 2
    assert await path.read_text("utf-8") == "ä\n"
    assert await path.write_bytes(b"123", atomic=True, fsync=True) == 3
    assert await path.read_bytes() == b"123"
    async with path.open("ab") as file:
        await file.write(b"4")
    file = await path.open()
    assert await file.read() == "1234"
    await file.close()


async def test_questions(loop, tmp_path):
    path = Path(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    for name in ("", "file", "link", "fifo", "loop", "none", "file/x", "nul\0byte"):
        for question in (
            "exists",
            "is_dir",
            "is_file",
            "is_symlink",
            "is_socket",
            "is_fifo",
            "is_block_device",
            "is_char_device",
        ):
            assert await getattr(path / name, question)() == getattr(tmp_path / name, question)(), (
                name,
                question,
            )
    assert await (path / "file").stat() == (tmp_path / "file").stat()
    assert await (path / "link").lstat() == (tmp_path / "link").lstat()
    assert await (path / "link").samefile(path / "file")
    assert not await path.is_mount() and await Path("/").is_mount()
    assert await (path / "file").owner() == (tmp_path / "file").owner()
    assert await (path / "file").group() == (tmp_path / "file").group()
    assert await Path.cwd() == pathlib.Path.cwd() and await Path.home() == pathlib.Path.home()
    assert await Path("x").absolute() == pathlib.Path("x").absolute()
    assert await Path("~/x").expanduser() == pathlib.Path("~/x").expanduser()
    assert await (path / "link").resolve() == (tmp_path / "link").resolve()
    for error, work in (
        (OSError, (path / "loop").resolve(strict=True)),
        (FileNotFoundError, (path / "none").stat()),
    ):
        with pytest.raises((error, RuntimeError)):
            await work


async def test_changes(loop, tmp_path):
    path = Path(tmp_path)
    await (path / "a" / "b" / "c").mkdir(parents=True)
    await (path / "a" / "b" / "c").mkdir(exist_ok=True)
    for options in ({}, {"parents": True}):
        with pytest.raises(FileExistsError):
            await (path / "a").mkdir(**options)
    await (path / "file").touch()
    with pytest.raises(FileExistsError):
        await (path / "file").mkdir(exist_ok=True)
    with pytest.raises(FileNotFoundError):
        await (path / "none" / "x").mkdir()
    await (path / "file").chmod(0o600)
    assert (await (path / "file").stat()).st_mode & 0o777 == 0o600
    renamed = await (path / "file").rename(path / "renamed")
    assert type(renamed) is Path and await renamed.exists()
    assert await renamed.replace(tmp_path / "file") == path / "file"
    await (path / "soft").symlink_to("file")
    assert await (path / "soft").readlink() == Path("file")
    await (path / "hard").hardlink_to(path / "file")
    assert (await (path / "hard").stat()).st_nlink == 2
    for name in ("soft", "hard"):
        await (path / name).unlink()
    await (path / "soft").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        await (path / "soft").unlink()
    await (path / "a" / "b" / "c").rmdir()
    with pytest.raises(OSError):
        await (path / "a").rmdir()


async def test_found(loop, tmp_path):
    path = Path(tmp_path)
    for name in ("a/x.py", "a/b/y.py", "z.py", "z.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert {found.name async for found in path.iterdir()} == {"a", "z.py", "z.txt"}
    assert {found async for found in path.glob("*.py")} == set(tmp_path.glob("*.py"))
    assert {type(found) async for found in path.rglob("*.py")} == {Path}
    assert {found async for found in path.rglob("*.py")} == set(tmp_path.rglob("*.py"))
    with pytest.raises(FileNotFoundError):
        async for _ in (path / "none").iterdir():
            pass
    if sys.version_info >= (3, 12):
        assert [(place, sorted(names), sorted(files)) async for place, names, files in path.walk()] == [
            (place, sorted(names), sorted(files)) for place, names, files in tmp_path.walk()
        ]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="pathlib has no copy before Python 3.14")
async def test_copies(loop, tmp_path):
    path = Path(tmp_path)
    await (path / "file").write_text("text")
    copied = await (path / "file").copy(path / "copy")
    assert type(copied) is Path and await copied.read_text() == "text"
    moved = await copied.move(path / "moved")
    assert await moved.exists() and not await copied.exists()
    await (path / "inner").mkdir()
    assert await moved.copy_into(path / "inner") == path / "inner" / "moved"
    assert (path / "file").info.is_file()


async def test_paths_are_taken_everywhere(loop, tmp_path):
    path = Path(tmp_path) / "file"
    await fs.write_bytes(path, b"x")
    assert await fs.read_many([path]) == [b"x"]
    assert await fs.copy(path, path.with_name("copy")) == path.with_name("copy")
    assert [status.st_size for status in await fs.stat_many([path])] == [1]
