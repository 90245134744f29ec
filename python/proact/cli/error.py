"""The one kind of error that the commands report by themselves: something the user can put right."""

from __future__ import annotations


class CommandError(Exception):
    """Shown as one line on stderr, without a traceback; ``exit_code`` is 2 for what was asked for wrongly."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code
