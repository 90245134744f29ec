"""The code of asyncio that proact replaces has to be the code that we have read: a fix upstream shows here.

docs/decisions/0008-overridden-upstream-code.md says what to do then; upstream.py has the table.
"""

import ast
import platform
import sys
import textwrap
from asyncio import events, selector_events, sslproto, unix_events
from pathlib import Path

import pytest
import upstream

ROOT = Path(__file__).parent.parent
DECISION = ROOT / "docs" / "decisions" / "0008-overridden-upstream-code.md"

MINOR = ".".join(map(str, sys.version_info[:2]))


def test_what_is_replaced_has_not_changed():
    known = upstream.load()
    if not any(version.startswith(f"{MINOR}.") for version in upstream.known_versions(known)):
        pytest.skip(f"nobody has read the asyncio of Python {MINOR} yet: see {DECISION.name}")
    different = upstream.differences(known)
    advice = "Read each change, decide, then: python tests/upstream.py --update"
    assert not different, "\n".join(["", platform.python_version(), *different, advice])


def test_nothing_in_the_table_is_unknown_to_every_python():
    known = upstream.load()
    for name in upstream.REPLACED:
        assert any(f"{function}.".startswith(f"{name}.") for function in known), name
    assert all(upstream.ours(name) for name in known)


def test_the_decision_names_what_the_table_names():
    text = DECISION.read_text()
    for name, places in upstream.REPLACED.items():
        owner, _, method = name.rpartition(".")
        assert name in text or (owner in text and f"`{method}`" in text), name
        for place in places.split(", "):
            core = ROOT / "crates" / "core" / "src"
            homes = (
                ROOT / "python" / "proact",
                core / "reactor",
                core / "asyncio",
                core / "asyncio" / "transport",
            )
            assert any((home / place).exists() for home in homes), place


def classes_of(kind, package):
    return [cls for cls in kind.__mro__ if cls.__module__.partition(".")[0] == package]


# Methods that every class has.
ORDINARY = {"__module__", "__doc__", "__dict__", "__weakref__", "__class__", "__new__", "__annotations__"}
ORDINARY |= {"__firstlineno__", "__static_attributes__", "__annotate_func__", "__annotations_cache__"}


def pairs():
    import proact
    from proact import _core, subprocesses

    yield proact.EventLoop, unix_events._UnixSelectorEventLoop
    yield subprocesses.SubprocessTransport, unix_events._UnixSubprocessTransport
    yield _core.StreamTransport, selector_events._SelectorSocketTransport
    yield _core.DatagramTransport, selector_events._SelectorDatagramTransport
    yield _core.ReadPipeTransport, unix_events._UnixReadPipeTransport
    yield _core.WritePipeTransport, unix_events._UnixWritePipeTransport
    yield _core.TLSTransport, sslproto._SSLProtocolTransport
    yield _core.TLSTransport, sslproto.SSLProtocol
    yield _core.Handle, events.Handle
    yield _core.TimerHandle, events.TimerHandle


def test_the_table_is_complete(proact):
    # Every method that both our class and asyncio's class define is in the table, unless asyncio's is
    # abstract.
    fingerprints = upstream.fingerprints()
    missing = []
    for ours, theirs in pairs():
        names = {name for cls in classes_of(ours, "proact") for name in vars(cls)} - ORDINARY
        for cls in classes_of(theirs, "asyncio"):
            module = cls.__module__.removeprefix("asyncio.")
            if cls is events.AbstractEventLoop or (
                module in ("transports", "protocols") and "_Flow" not in str(cls)
            ):
                continue
            for name in names & vars(cls).keys():
                function = getattr(vars(cls)[name], "fget", vars(cls)[name])
                path = f"{module}.{cls.__qualname__}.{name}"
                if callable(function) and path not in fingerprints:
                    missing.append(f"{ours.__name__}.{name} replaces asyncio.{path}")
    assert not missing, "\n".join(["", *missing])


def test_a_fingerprint_is_of_the_code():
    def of(source):
        return upstream.fingerprint(ast.parse(textwrap.dedent(source)).body[0])

    plain = of("def f(a):\n    return a + 1\n")
    assert plain == of('def f(a):\n    """Says."""\n    # why\n    return (a +\n            1)\n')
    assert plain != of("def f(a):\n    return a + 2\n")
    assert plain != of("async def f(a):\n    return a + 1\n")
    assert of('def f():\n    """Nothing."""\n') == of("def f():\n    pass\n")


def test_a_change_is_told():
    known = upstream.load()
    if not any(version.startswith(f"{MINOR}.") for version in upstream.known_versions(known)):
        pytest.skip(f"nobody has read the asyncio of Python {MINOR} yet")
    name = "base_events.BaseEventLoop.call_soon"
    versions = [version for versions in known[name].values() for version in versions]
    changed = {**known, name: {"0": versions}}
    assert any("call_soon has changed (ours: soon.rs)" in line for line in upstream.differences(changed))
    added = {function: prints for function, prints in known.items() if function != name}
    assert any("call_soon is new" in line for line in upstream.differences(added))
    gone = {**known, "events.Handle.gone": {"0": versions}}
    assert any("events.Handle.gone is gone" in line for line in upstream.differences(gone))
