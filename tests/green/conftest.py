import pytest

pytest.importorskip("greenlet")


@pytest.fixture(autouse=True)
def only_on_proact(request):
    """`proact.green` needs proact's loop."""
    if "loop" in request.fixturenames:
        request.getfixturevalue("proact")


@pytest.fixture
def spawned(loop):
    """Runs a function in a spawned greenlet of the loop; returns its result."""

    def go(fn, *args):
        from proact import green

        async def main():
            return await green.spawn(fn, *args)

        return loop.run_until_complete(main())

    return go


@pytest.fixture(params=["spawned", "bridge"])
def inside(request, loop):
    """The same in both kinds of greenlets: a spawned one, and one within a task."""

    def go(fn, *args):
        from proact import green

        async def main():
            if request.param == "spawned":
                return await green.spawn(fn, *args)
            return await green.run(fn, *args)

        return loop.run_until_complete(main())

    go.kind = request.param
    return go
