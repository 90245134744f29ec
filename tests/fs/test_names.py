"""What `os` and `os.path` do with names: the same results and errors."""

import asyncio
import os
import stat

import pytest

from proact import fs


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "directory" / "inner").mkdir(parents=True)
    (tmp_path / "directory" / "a").touch()
    (tmp_path / "directory" / "inner" / "b").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dirlink").symlink_to("directory")
    (tmp_path / "broken").symlink_to("none")
    return tmp_path


async def outcome_of(awaitable):
    try:
        return await awaitable
    except (OSError, ValueError, TypeError) as error:
        return (
            type(error),
            getattr(error, "errno", None),
            getattr(error, "filename", None),
            getattr(error, "filename2", None),
        )


def plain_outcome_of(function, *args, **options):
    try:
        return function(*args, **options)
    except (OSError, ValueError, TypeError) as error:
        return (
            type(error),
            getattr(error, "errno", None),
            getattr(error, "filename", None),
            getattr(error, "filename2", None),
        )


NAMES = ["file", "directory", "link", "dirlink", "broken", "none", "file/x", "none/x", "n" * 300, "nul\0byte"]


@pytest.mark.parametrize("name", NAMES)
async def test_questions(loop, tree, name):
    for path in (tree / name, os.fsencode(tree / name), f"{tree}/{name}"):
        for ours, plain in (
            (fs.stat, os.stat),
            (fs.lstat, os.lstat),
            (fs.readlink, os.readlink),
            (fs.listdir, os.listdir),
            (fs.realpath, os.path.realpath),
            (fs.abspath, os.path.abspath),
        ):
            assert await outcome_of(ours(path)) == plain_outcome_of(plain, path)
        for question in (
            "exists",
            "lexists",
            "isfile",
            "isdir",
            "islink",
            "ismount",
            "getsize",
            "getmtime",
            "getatime",
            "getctime",
        ):
            if b"\0" in os.fsencode(path) and question == "ismount":
                continue
            assert await outcome_of(getattr(fs, question)(path)) == plain_outcome_of(
                getattr(os.path, question), path
            ), question
        assert await outcome_of(fs.access(path, os.R_OK)) == plain_outcome_of(os.access, path, os.R_OK)


async def test_by_fd(loop, tree):
    with open(tree / "file") as file:
        assert await fs.stat(file.fileno()) == os.fstat(file.fileno())
        assert await fs.exists(file.fileno())
        assert await fs.getsize(file.fileno()) == 5
        assert await fs.sameopenfile(file.fileno(), file.fileno())
    assert await fs.samefile(tree / "file", tree / "link")
    assert not await fs.samefile(tree / "file", tree / "directory")
    assert (await fs.statvfs(tree)).f_bsize == os.statvfs(tree).f_bsize
    assert (await fs.disk_usage(tree)).total > 0
    assert await fs.getcwd() == os.getcwd()


async def test_changes(loop, tree):
    await fs.mkdir(tree / "new", 0o700)
    assert stat.S_IMODE(os.stat(tree / "new").st_mode) == 0o700
    await fs.makedirs(tree / "x" / "y" / "z")
    await fs.makedirs(tree / "x" / "y", exist_ok=True)
    await fs.removedirs(tree / "x" / "y" / "z")
    assert not os.path.exists(tree / "x")
    await fs.rename(tree / "file", tree / "renamed")
    await fs.replace(tree / "renamed", tree / "directory" / "a")
    assert (tree / "directory" / "a").read_bytes() == b"12345"
    await fs.link(tree / "directory" / "a", tree / "file")
    assert os.path.samefile(tree / "file", tree / "directory" / "a")
    await fs.symlink("file", tree / "second")
    assert os.readlink(tree / "second") == "file"
    await fs.unlink(tree / "second")
    await fs.remove(tree / "link")
    await fs.chmod(tree / "file", 0o600)
    await fs.utime(tree / "file", (1, 2))
    await fs.truncate(tree / "file", 2)
    assert os.stat(tree / "file").st_size == 2
    await fs.rmdir(tree / "new")
    assert sorted(os.listdir(tree)) == ["broken", "directory", "dirlink", "file"]


async def test_relative_to_a_directory(loop, tree):
    fd = os.open(tree, os.O_RDONLY)
    try:
        await fs.mkdir("d", dir_fd=fd)
        assert stat.S_ISDIR((await fs.stat("d", dir_fd=fd)).st_mode)
        await fs.rmdir("d", dir_fd=fd)
        await fs.symlink("file", "s", dir_fd=fd)
        await fs.rename("s", "t", src_dir_fd=fd, dst_dir_fd=fd)
        await fs.link("file", "hard", src_dir_fd=fd, dst_dir_fd=fd)
        assert await fs.readlink("t", dir_fd=fd) == "file"
        await fs.unlink("t", dir_fd=fd)
        await fs.unlink("hard", dir_fd=fd)
    finally:
        os.close(fd)


async def test_errors_of_changes(loop, tree):
    for ours, plain, names in (
        (fs.mkdir, os.mkdir, ("file",)),
        (fs.mkdir, os.mkdir, ("none/x",)),
        (fs.rmdir, os.rmdir, ("directory",)),
        (fs.rmdir, os.rmdir, ("file",)),
        (fs.unlink, os.unlink, ("none",)),
        (fs.unlink, os.unlink, ("directory",)),
        (fs.rename, os.rename, ("none", "other")),
        (fs.rename, os.rename, ("file", "directory")),
        (fs.link, os.link, ("none", "other")),
        (fs.link, os.link, ("file", "link")),
        (fs.symlink, os.symlink, ("any", "file")),
        (fs.chmod, lambda path: os.chmod(path, 0), ("none",)),
    ):
        paths = [tree / name for name in names]
        work = fs.chmod(*paths, 0) if ours is fs.chmod else ours(*paths)
        assert await outcome_of(work) == plain_outcome_of(plain, *paths)


def blocks(*_, **__):
    raise AssertionError("an entry asked the disk on the loop's thread")


async def test_scandir(loop, tree):
    found = {}
    async with fs.scandir(tree) as entries:
        async for entry in entries:
            found[entry.name] = entry
    assert set(found) == set(os.listdir(tree))
    # They know all: not even that the files are gone changes their answers.
    status = os.stat(tree / "file")
    for name in ("file", "link"):
        os.unlink(tree / name)
    assert found["file"].stat() == found["link"].stat()
    assert found["file"].stat().st_ino == status.st_ino
    assert found["link"].is_file() and found["link"].is_symlink()
    assert found["dirlink"].is_dir() and not found["dirlink"].is_dir(follow_symlinks=False)
    assert not found["broken"].is_file()


async def test_scandir_kinds_of_paths(loop, tree, monkeypatch):
    assert {entry.name async for entry in fs.scandir(os.fsencode(tree))} == {
        os.fsencode(name) for name in os.listdir(tree)
    }
    monkeypatch.chdir(tree)
    assert {entry.name async for entry in fs.scandir(status=False)} == set(os.listdir(tree))
    fd = os.open(tree, os.O_RDONLY)
    try:
        assert {entry.name async for entry in fs.scandir(fd)} == set(os.listdir(tree))
    finally:
        os.close(fd)
    for path in (tree / "none", tree / "file"):
        with pytest.raises(OSError) as caught:
            async for _ in fs.scandir(path):
                pass
        assert caught.value.filename == os.fspath(path)


async def test_scandir_of_many_left_early(loop, tmp_path):
    for number in range(1500):
        (tmp_path / f"{number}").touch()
    assert len({entry.name async for entry in fs.scandir(tmp_path)}) == 1500
    async with fs.scandir(tmp_path) as entries:
        async for _ in entries:
            break
    task = asyncio.create_task(anext(aiter(fs.scandir(tmp_path))))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize("topdown", [True, False])
async def test_walk(loop, tree, topdown):
    def in_order(walked):
        return [(place, sorted(directories), sorted(files)) for place, directories, files in walked]

    assert in_order([step async for step in fs.walk(tree, topdown)]) == in_order(os.walk(tree, topdown))
    assert in_order([step async for step in fs.walk(tree, topdown, followlinks=True)]) == in_order(
        os.walk(tree, topdown, followlinks=True)
    )


async def test_walk_pruned(loop, tree):
    places = []
    async for place, directories, _ in fs.walk(os.fspath(tree)):
        places.append(place)
        directories[:] = [name for name in directories if name != "inner"]
    assert os.path.join(tree, "directory", "inner") not in places
    errors = []
    assert [step async for step in fs.walk(tree / "none", onerror=errors.append)] == []
    assert isinstance(errors[0], FileNotFoundError)


async def test_link_of_a_symbolic_link(loop, tmp_path):
    """What `os.link` makes of one differs between versions of Python."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    for number, source in enumerate(["link", "dangling"]):
        for options in ({}, {"follow_symlinks": True}, {"follow_symlinks": False}):
            seen = []
            for name, made in (("a", os.link), ("b", fs.link)):
                target = tmp_path / f"{name}{number}{options}"
                try:
                    result = made(tmp_path / source, target, **options)
                    if name == "b":
                        await result
                except OSError as error:
                    seen.append(error.errno)
                else:
                    seen.append(target.is_symlink())
            assert seen[0] == seen[1], (source, options)


@pytest.mark.parametrize("name", ["stat", "exists", "getsize", "samefile", "lstat", "islink", "lexists"])
async def test_a_number_for_a_path(loop, name):
    arguments = (10**6, 0) if name == "samefile" else (10**6,)
    blocking = getattr(os, name, None) or getattr(os.path, name)
    seen = []
    for is_blocking in (True, False):
        try:
            result = blocking(*arguments) if is_blocking else await getattr(fs, name)(*arguments)
        except (OSError, TypeError) as error:
            result = type(error), getattr(error, "errno", None), getattr(error, "filename", None)
        seen.append(result)
    assert seen[0] == seen[1]
