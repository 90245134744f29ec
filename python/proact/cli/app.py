"""The tree of commands, and how their errors look."""

from __future__ import annotations

import platform
from typing import Annotated, Final

import typer
from typer.main import get_command

from proact.cli import doctor, lab, lab_best, lab_choose, lab_claims, lab_model, lab_serve, lab_timeline, run
from proact.cli.error import CommandError, help_without_command
from proact.lab.asked import AskedError
from proact.lab.environment import package_version

app = typer.Typer(
    name="proact",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: the same in a terminal, a pipe and a log
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
# Give a short help, because the long one starts with examples.
app.command("run", context_settings=run.CONTEXT, short_help="Run any asyncio program on proact's loop.")(
    run.run
)
app.command("doctor", short_help="Show which engine this machine gets, and why.")(doctor.doctor)
lab.app.command("choose", short_help="Which I/O model to use for your own numbers, and why.")(
    lab_choose.choose
)
lab.app.command("best", short_help="How many messages a second with p99 under a limit.")(lab_best.find_best)
lab.app.command("timeline", short_help="One request through each I/O model: where it waits and copies.")(
    lab_timeline.timeline
)
lab.app.command("claims", short_help="What textbooks say about I/O models, tested here.")(lab_claims.claims)
lab.app.command("model", short_help="One model's server on a port, for wrk or a browser.")(lab_model.model)
lab.app.command("serve", short_help="Choose, start and watch a run in a browser.")(lab_serve.serve)
# What people ask first stands first.
_ORDER = ("choose", "best", "run", "echo", "timeline", "claims", "report", "compare", "serve", "model")
lab.app.registered_commands.sort(
    key=lambda each: _ORDER.index(each.name or getattr(each.callback, "__name__", ""))
)
app.add_typer(lab.app, name="lab", short_help="Measure what each I/O model costs on this machine.")


def _show_version(wanted: bool) -> None:
    if wanted:
        version = package_version("proact") or "(not installed as a package)"
        print(f"proact {version}, {platform.python_implementation()} {platform.python_version()}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def proact(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """\b
    Examples:
      proact doctor                     which engine this machine gets, and why
      proact run server.py --port 80    any asyncio program, on proact's loop
      proact lab run                    what each I/O model costs on this machine

    Every Unix I/O model behind one interface; on Linux, asynchronous I/O on io_uring.
    """
    help_without_command(context)


#: What typer returns in place of a KeyboardInterrupt, which it catches; no command has this exit code.
_INTERRUPTED: Final = 130


def dispatch(arguments: list[str]) -> int:
    """Carry out the command that ``arguments`` name; return its exit code.

    Raises CommandError for what the user can put right; KeyboardInterrupt on Ctrl-C.
    """
    try:
        outcome = get_command(app).main(args=arguments, prog_name="proact", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except AskedError as error:
        raise CommandError(str(error)) from None
    except Exception as error:
        # Recognise the library's own errors (an unknown option) by shape: their class moved between versions.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        where = getattr(getattr(error, "ctx", None), "command_path", "proact")
        said = message() or "no command was given"
        raise CommandError(
            f"{said.rstrip('.')} (see '{where} --help')", getattr(error, "exit_code", 2)
        ) from None
    if outcome == _INTERRUPTED:
        raise KeyboardInterrupt
    return outcome if isinstance(outcome, int) else 0
