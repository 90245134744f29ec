"""Makes asyncio itself create proact's loops: `install`, `EventLoopPolicy`, and what `proact run` does.

`asyncio.run`, `asyncio.Runner` and `asyncio.new_event_loop` ask one place for a new loop: the event loop
policy. Up to Python 3.13 asyncio's names of it are public. In 3.14 and 3.15 the public names warn, and the
private ones do not. 3.16 is to have neither (https://docs.python.org/3.14/library/asyncio-policy.html); there
`use` replaces `asyncio.new_event_loop`, which `asyncio.Runner` calls by its module. So this file looks the
names up when it needs them, and no other file knows them.
"""

from __future__ import annotations

import asyncio
import asyncio.events
import asyncio.unix_events
import functools
import warnings

from .runner import new_event_loop

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["install", "policy_class", "use"]


def _of_policies(module: Any, name: str) -> Any:
    """What asyncio calls `name`, without its warning; None where policies are gone."""
    names = vars(module)
    return names.get(f"_{name}") or names.get(name)


@functools.cache
def policy_class() -> type[Any] | None:
    """`proact.EventLoopPolicy`, made from the policy of this asyncio; None where policies are gone."""
    base: Any = _of_policies(asyncio.unix_events, "DefaultEventLoopPolicy")
    if base is None:
        return None

    class EventLoopPolicy(base):  # type: ignore[misc]  # known only when Python runs
        """asyncio's own event loop policy, except that it makes proact's loops, or those of another factory.

        Deprecated, as all policies are from Python 3.14 on: use `proact.run`, or
        `asyncio.Runner(loop_factory=proact.new_event_loop)`.
        """

        def __init__(self, factory: Callable[[], asyncio.AbstractEventLoop] = new_event_loop) -> None:
            super().__init__()
            self._factory = factory

        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            """A new loop from the factory."""
            return self._factory()

    EventLoopPolicy.__module__ = "proact"
    EventLoopPolicy.__qualname__ = "EventLoopPolicy"
    return EventLoopPolicy


def use(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Make asyncio create its loops by `factory` from now on, in all threads of this process."""
    ours = policy_class()
    if ours is None:
        for module in (asyncio, asyncio.events):
            vars(module)["new_event_loop"] = factory
        return
    _of_policies(asyncio.events, "set_event_loop_policy")(ours(factory))


def install() -> None:
    """Make `asyncio.run` and `asyncio.new_event_loop` create proact's loops, in the whole process.

    Deprecated, like `uvloop.install`, because it also changes the loops that other code in the process makes.
    `proact.run(main())` runs one program on proact, and `asyncio.Runner(loop_factory=proact.new_event_loop)`
    makes one loop.
    """
    warnings.warn(
        "proact.install() is deprecated: use proact.run(main()), or "
        "asyncio.Runner(loop_factory=proact.new_event_loop)",
        DeprecationWarning,
        stacklevel=2,
    )
    use(new_event_loop)
