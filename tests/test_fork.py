"""fork while a loop exists: the child gets errors, the parent continues undisturbed."""

import sys

import pytest
from support import children, loops


@pytest.mark.skipif(bool(loops.REFERENCE), reason="asyncio lets a child use, and wreck, its parent's loop")
@pytest.mark.parametrize("use", ["run", "sock_recv", "add_reader", "close"])
def test_a_child_cannot_use_its_parent_s_loop(engine, use):
    assert children.output("fork_use.py", use, engine=engine).split() == ["refused", "parent", "ok"]


@pytest.mark.parametrize("what", ["exit", "own loop"])
def test_forking_with_operations_in_flight(engine, what):
    printed = children.output("fork_in_flight.py", what, engine=engine).split()
    assert printed == (["child", "parent"] if what == "own loop" else ["parent"])


# A forked child of CPython 3.14 has no running loop, so a task can neither go on there nor raise SystemExit.
STUCK = [("callback", "return"), ("task", "exit"), ("task", "status")]


@pytest.mark.parametrize("where", ["callback", "task"])
@pytest.mark.parametrize(("how", "status"), [("exit", 0), ("status", 5), ("return", 0)])
def test_a_child_ends_as_it_wants_to(engine, where, how, status):
    if sys.version_info >= (3, 14):
        if loops.REFERENCE and (where == "task" or how == "return"):
            pytest.skip("asyncio's child never ends")
        status = 1 if (where, how) in STUCK else status
    assert children.output("fork_and_end.py", where, how, engine=engine) == str(status)


def test_multiprocessing_with_fork(engine):
    assert children.output("fork_pool.py", engine=engine) == "[0, 1, 4, 9, 16]"


@pytest.mark.skipif(bool(loops.REFERENCE), reason="asyncio lets a child use, and wreck, its parent's loop")
def test_a_child_does_not_send_what_its_parent_has_written(engine):
    assert children.output("fork_flush.py", engine=engine) == "once"
