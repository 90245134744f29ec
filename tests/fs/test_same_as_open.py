"""Random programs of operations on a file do the same through `proact.open` and the builtin `open`."""

import os
import tempfile

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import proact

#: PROACT_FS_EXAMPLES=1500 looks for new faults. Without it, the programs are the same in every run.
EXAMPLES = os.environ.get("PROACT_FS_EXAMPLES")
CHECKED = settings(
    max_examples=int(EXAMPLES or "60"),
    derandomize=EXAMPLES is None,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Much(bytes):
    """Bytes that are not shown in full."""

    def __repr__(self):
        return f"<{len(self)} bytes that begin with {self[:8]!r}>"


class Long(str):
    """As `Much`, for text."""

    __slots__ = ()

    def __repr__(self):
        return f"<{len(self)} characters that begin with {self[:8]!r}>"


sizes = st.one_of(st.integers(0, 40), st.integers(-1, 9000))
offsets = st.one_of(st.integers(-3, 60), st.integers(0, 20_000))
content = st.one_of(
    st.binary(max_size=60),
    st.lists(st.sampled_from([b"a", b"\n", b"\r", b"xyz\n", b"\r\n", b"\0" * 50])).map(b"".join),
    st.sampled_from([Much(b"line\n" * 5000), Much(b"x" * 20_000), Much(b"a\nb" * 4000)]),
)


def steps(data, positions, whences):
    """Operations: the name of a method and its arguments."""
    return st.one_of(
        st.tuples(st.just("read"), sizes),
        st.tuples(st.just("read")),
        st.tuples(st.just("readline")),
        st.tuples(st.just("readline"), sizes.filter(bool)),
        st.tuples(st.just("readlines"), sizes),
        st.tuples(st.just("lines"), st.integers(1, 5)),
        st.tuples(st.just("write"), data),
        st.tuples(st.just("writelines"), st.lists(data, max_size=3)),
        st.tuples(st.just("seek"), positions),
        st.tuples(st.just("seek"), positions, st.sampled_from(whences)),
        st.tuples(st.just("tell")),
        st.tuples(st.just("there and back")),
        st.tuples(st.just("truncate")),
        st.tuples(st.just("truncate"), offsets),
        st.tuples(st.just("flush")),
        st.tuples(st.sampled_from(["readable", "writable", "seekable", "isatty"])),
    )


class Place(int):
    """A position in a text. One that has more than an offset may be packed in several ways."""

    def __eq__(self, other):
        return int(self) == int(other) or max(self, other) >> 64 > 0

    __hash__ = None


def failed(error):
    """What has to be equal of two errors."""
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ in ("builtins", "io"))
    return "raised", kind, getattr(error, "errno", None)


def by_open(path, mode, arguments, program):
    seen = []
    with open(path, mode, **arguments) as file:
        # An unbuffered file takes the answer from its first seek, whatever was wrong with that.
        file.seekable()
        for name, *args in program:
            try:
                if "a" in mode and name not in ("write", "writelines"):
                    # What is held back goes to the end, wherever that is; until then the position is a guess.
                    file.flush()
                if "+" in mode and "b" not in mode and name in ("read", "readline", "readlines", "lines"):
                    # Its `read1` would overlook what is held back.
                    file.flush()
                if name == "lines":
                    # As an iteration that is broken off; `next` would forbid `tell`.
                    result = [line for _ in range(*args) if (line := file.readline())]
                elif name == "there and back":
                    place = file.tell()
                    result = file.seek(0), file.read(3), file.seek(place) == place
                elif name == "readlines" and "b" not in mode:
                    # This calls `next`, too.
                    result = []
                    while line := file.readline():
                        result.append(line)
                        if 0 < args[0] < sum(map(len, result)):
                            break
                elif name == "readinto":
                    room = bytearray(*args)
                    result = file.readinto(room), bytes(room)
                else:
                    result = getattr(file, name)(*args)
            except UnicodeError:
                # What is read after that is not defined.
                seen.append((name, UnicodeError))
                break
            except (OSError, ValueError) as error:
                result = failed(error)
            if name in ("seek", "tell") and isinstance(result, int):
                result = Place(result)
            seen.append((name, result))
        seen.append((file.closed, file.name, file.mode))
    return seen


async def by_proact(path, mode, arguments, program):
    seen = []
    async with proact.open(path, mode, **arguments) as file:
        for name, *args in program:
            try:
                if "a" in mode and name not in ("write", "writelines"):
                    await file.flush()
                if name == "lines":
                    result = []
                    async for line in file:
                        result.append(line)
                        if len(result) == args[0]:
                            break
                elif name == "there and back":
                    place = await file.tell()
                    result = await file.seek(0), await file.read(3), await file.seek(place) == place
                elif name == "readinto":
                    room = bytearray(*args)
                    result = await file.readinto(room), bytes(room)
                elif name in ("readable", "writable", "seekable", "isatty"):
                    result = getattr(file, name)()
                else:
                    result = await getattr(file, name)(*args)
            except UnicodeError:
                # What is read after that is not defined.
                seen.append((name, UnicodeError))
                break
            except (OSError, ValueError) as error:
                result = failed(error)
            if name in ("seek", "tell") and isinstance(result, int):
                result = Place(result)
            seen.append((name, result))
        seen.append((file.closed, file.name, file.mode))
    return seen


def compare(loop, before, mode, arguments, program):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")
        results = []
        for run in (by_open, by_proact):
            if "x" not in mode:
                with open(path, "wb") as file:
                    file.write(before)
            seen = run(path, mode, arguments, program)
            if run is by_proact:
                seen = loop.run_until_complete(seen)
            with open(path, "rb") as file:
                results.append((seen, file.read()))
            os.unlink(path)
        (expected, left), (got, left_by_proact) = results
        assert got == expected
        assert left_by_proact == left


binary_step = st.one_of(
    steps(content, offsets, [0, 1, 2]), st.tuples(st.just("readinto"), st.integers(0, 9000))
)


@pytest.mark.parametrize("buffering", [-1, 0, 1000])
@example(before=b"content", mode="a+b", program=[("seek", 0), ("read", 3), ("write", b""), ("read",)])
@given(
    before=content,
    mode=st.sampled_from(["rb", "r+b", "wb", "w+b", "ab", "a+b", "xb", "x+b"]),
    program=st.lists(binary_step, max_size=12),
)
@CHECKED
def test_binary(loop, buffering, before, mode, program):
    compare(loop, before, mode, {"buffering": buffering}, program)


text = st.one_of(
    st.text(st.sampled_from("ab\n\r é€😀\x0b\x1c\x85\u2028"), max_size=40),
    st.sampled_from([Long("line\n" * 1000), Long("é\r\n" * 1000)]),
)


@st.composite
def texts(draw):
    encoding = draw(st.sampled_from(["utf-8", "latin-1", "utf-16", "utf-8-sig", "cp1252", "utf-32"]))
    errors = draw(st.sampled_from(["strict", "replace", "ignore", "surrogateescape"]))
    before = draw(text).encode(encoding, "replace")
    if draw(st.booleans()) and errors != "strict":
        before += draw(content)
    return Much(before), {
        "encoding": encoding,
        "errors": errors,
        "newline": draw(st.sampled_from([None, "", "\n", "\r", "\r\n"])),
    }


@given(case=texts(), sizes=st.lists(st.integers(0, 20), max_size=4))
@CHECKED
def test_positions_in_a_text_are_those_of_open(loop, case, sizes):
    async def place_and_rest(path):
        async with proact.open(path, **case[1]) as file:
            for size in sizes:
                await file.read(size)
            return await file.tell(), await file.read()

    async def rest_from(path, place):
        async with proact.open(path, **case[1]) as file:
            await file.seek(place)
            return await file.read()

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")
        with open(path, "wb") as file:
            file.write(case[0])
        try:
            place, rest = loop.run_until_complete(place_and_rest(path))
        except UnicodeError:
            return
        with open(path, **case[1]) as file:
            file.seek(place)
            assert file.read() == rest
            file.seek(0)
            for size in sizes:
                file.read(size)
            place = file.tell()
        assert loop.run_until_complete(rest_from(path, place)) == rest


@given(
    case=texts(),
    mode=st.sampled_from(["r", "r+", "w", "w+", "a", "a+"]),
    program=st.lists(steps(text, st.just(0), [0, 0, 0, 1, 2]), max_size=12),
)
@CHECKED
def test_text(loop, case, mode, program):
    compare(loop, case[0], mode, case[1], program)
