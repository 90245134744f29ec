"""Owns: child processes for greenlets, with the interface of `subprocess.run`."""

from __future__ import annotations

import asyncio
import io
import locale
import subprocess
from subprocess import DEVNULL, PIPE, STDOUT, CalledProcessError, CompletedProcess, TimeoutExpired
from typing import TYPE_CHECKING, Any

from .bridge import await_

if TYPE_CHECKING:
    from asyncio.subprocess import Process

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "CalledProcessError",
    "CompletedProcess",
    "TimeoutExpired",
    "call",
    "check_call",
    "check_output",
    "run",
]


def run(
    args: Any,
    *,
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    shell: bool = False,
    text: bool | None = None,
    universal_newlines: bool | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    **options: Any,
) -> CompletedProcess[Any]:
    """As `subprocess.run`; `options` are those of `subprocess.Popen` without `bufsize`.

    If the greenlet is killed, the child is.
    """
    if capture_output:
        if options.get("stdout") is not None or options.get("stderr") is not None:
            raise ValueError("stdout and stderr arguments may not be used with capture_output.")
        options["stdout"] = options["stderr"] = PIPE
    if input is not None:
        if options.get("stdin") is not None:
            raise ValueError("stdin and input arguments may not both be used.")
        options["stdin"] = PIPE
    as_text = text or universal_newlines or encoding is not None or errors is not None
    if as_text:
        encoding = encoding or locale.getencoding()
        if input is not None:
            input = input.encode(encoding, errors or "strict")  # noqa: A001
    code: int
    outputs: list[Any]
    code, *outputs = await_(_communicate(args, shell, input, timeout, options))
    if as_text:
        outputs = [_text(output, encoding or "utf-8", errors) for output in outputs]
    stdout, stderr = outputs
    if check and code:
        raise CalledProcessError(code, args, stdout, stderr)
    return CompletedProcess(args, code, stdout, stderr)


def _text(output: bytes | None, encoding: str, errors: str | None) -> str | None:
    if output is None:
        return None
    with io.TextIOWrapper(io.BytesIO(output), encoding=encoding, errors=errors or "strict") as reader:
        return reader.read()


async def _communicate(
    args: Any, shell: bool, data: bytes | None, timeout: float | None, options: dict[str, Any]
) -> tuple[int, bytes | None, bytes | None]:
    process: Process
    if shell:
        process = await asyncio.create_subprocess_shell(args, **options)
    else:
        words = [args] if isinstance(args, (str, bytes)) or hasattr(args, "__fspath__") else list(args)
        process = await asyncio.create_subprocess_exec(*words, **options)
    collected = asyncio.ensure_future(process.communicate(data))
    try:
        done, _ = await asyncio.wait([collected], timeout=timeout)
        if not done:
            process.kill()
            stdout, stderr = await collected
            assert timeout is not None
            raise TimeoutExpired(args, timeout, output=stdout, stderr=stderr)
    except BaseException:
        if not collected.done():
            if process.returncode is None:
                process.kill()
            await collected
        raise
    stdout, stderr = collected.result()
    assert process.returncode is not None
    return process.returncode, stdout, stderr


def call(args: Any, *, timeout: float | None = None, **options: Any) -> int:
    """Run a child; return its exit code."""
    return run(args, timeout=timeout, **options).returncode


def check_call(args: Any, **options: Any) -> int:
    """Run a child; return 0, or raise CalledProcessError."""
    return run(args, check=True, **options).returncode


def check_output(args: Any, **options: Any) -> Any:
    """Run a child; return what it wrote to its standard output, or raise CalledProcessError."""
    return run(args, check=True, stdout=subprocess.PIPE, **options).stdout
