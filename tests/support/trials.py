"""For tests that measure on a machine that other programs use too: one good try is enough."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


def once_of_five(test: Callable[..., Any]) -> Callable[..., Any]:
    """The test holds if one of five tries does.

    Use it only if another process that takes the core can make a try fail but can't make one succeed. A
    defect fails all five.
    """

    @functools.wraps(test)
    def several(*args: Any, **kwargs: Any) -> None:
        for _ in range(4):
            try:
                return test(*args, **kwargs)
            except Exception:
                continue
        return test(*args, **kwargs)

    @functools.wraps(test)
    async def several_on_a_loop(*args: Any, **kwargs: Any) -> None:
        for _ in range(4):
            try:
                return await test(*args, **kwargs)
            except Exception:
                continue
        return await test(*args, **kwargs)

    return several_on_a_loop if inspect.iscoroutinefunction(test) else several
