"""What the commands report themselves: an error that the user can put right, and the help."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


class CommandError(Exception):
    """Shown as one line on stderr, without a traceback; ``exit_code`` is 2 for wrong arguments."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def help_without_command(context: typer.Context) -> None:
    """Print the help, on stdout, if no command was named."""
    if context.invoked_subcommand is None:
        print(context.get_help())
