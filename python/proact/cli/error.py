"""The one kind of error that the commands report themselves: one that the user can put right."""

from __future__ import annotations


class CommandError(Exception):
    """Shown as one line on stderr, without a traceback; ``exit_code`` is 2 for wrong arguments."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code
