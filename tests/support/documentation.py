"""Owns: the code in README.md, CONTRIBUTING.md and docs/: finding it, running Python, checking commands.

A fenced block says what it is: `python` is executed; each command of `sh`, and each line of `console` that
begins with `$ `, is checked; `json` and `toml` are parsed; `yaml` is not, as Python has no parser for it;
`text` is output or a drawing. An indented block counts as `sh` if it has nothing but commands. A block whose
first line is `# Not run by the tests: REASON` is neither executed nor checked.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt

from . import children, daemons

ROOT = children.TESTS.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"python", "sh", "console", "json", "toml", "yaml", "text"}
# The programs of commands, besides make and proact; of python and pip, the arguments are checked.
PROGRAMS = {"python", "python3", "pip", "cargo", "git", "docker", "podman", "nerdctl", "kubectl", "install"}
PROGRAMS |= {"uvicorn", "gunicorn", "hypercorn", "cd", ".", "export", "twine", "maturin"}
# Code in sentences that looks like a command, and is what a program prints.
PRINTED = {"proact runs on io_uring here", "proact runs on epoll here"}
NOT_RUN = re.compile(r"# Not run by the tests: (.+)")
PATIENCE = 30  # seconds until a block has failed
SERVES = ("serve_forever(", "run_app(", "uvicorn.run(", "green.serve(handle,")

# Runs a block in a process that may only reach this machine, as far as Python's socket module is asked. A
# block need not import asyncio and proact, so that a line of code can stand alone.
PRELUDE = """
import asyncio, ipaddress, runpy, sys

import proact

def check(event, args):
    if event in ("socket.bind", "socket.connect", "socket.sendto"):
        host = args[1][0] if isinstance(args[1], tuple) else ""
    elif event == "socket.getaddrinfo":
        host = args[0] or ""
    else:
        return
    host = host.decode() if isinstance(host, bytes) else str(host)
    if host not in ("", "localhost") and not ipaddress.ip_address(host).is_loopback:
        raise AssertionError(f"{event}: {host} is not this machine")

sys.addaudithook(check)
runpy.run_path(sys.argv[1], {"asyncio": asyncio, "proact": proact}, run_name="__main__")
"""


@dataclass(frozen=True)
class Block:
    """A block of code, where it stands, and why it can't be run."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def not_run(self) -> str | None:
        """The reason of its marker."""
        match = NOT_RUN.match(self.text)
        return match[1] if match else None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@cache
def blocks() -> tuple[Block, ...]:
    """All blocks; the language of an indented one is "sh" or "indented"."""
    found = []
    for page in PAGES:
        for token in MarkdownIt("commonmark").enable("table").parse(page.read_text()):
            if token.type in ("fence", "code_block"):
                language = token.info.strip()
                if token.type == "code_block":
                    words = re.findall(r"(?m)^(?:[A-Z_]+=\S+ )*(\S+)", token.content)
                    language = "sh" if {*words} <= PROGRAMS | {"make", "proact", "#"} else "indented"
                found.append(Block(page, token.map[0] + 1, language, token.content))
    return tuple(found)


def of(*languages: str) -> list[Block]:
    """The blocks in some languages."""
    return [block for block in blocks() if block.language in languages]


# Python.


def missing(block: Block) -> str | None:
    """The first module that the block imports and that is not installed here."""
    names = re.findall(r"(?m)^\s*(?:import|from) (\w+)", block.text)
    return next((name for name in names if not is_here(name)), None)


@cache
def is_here(name: str) -> bool:
    """Whether a module can be imported; asked once, by a process of its own, for each."""
    command = [sys.executable, "-c", f"import {name}"]
    return subprocess.run(command, env=children.environment(), check=False).returncode == 0


def run(block: Block, engine: str, directory: Path) -> str:
    """Execute a Python block on an engine and return its output. Raises AssertionError if it fails.

    A block that serves gets a free port in place of its own. It has to answer there, and to end by SIGINT.
    """
    port = daemons.free_port()
    path = directory / "block.py"
    path.write_text(re.sub(r"\b80\d\d\b", str(port), block.text))
    prelude = directory / "prelude.py"
    prelude.write_text(PRELUDE)
    with subprocess.Popen(
        [sys.executable, str(prelude), str(path)],
        env=children.environment(engine),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        try:
            serves = any(word in block.text for word in SERVES)
            answered = serves and answers(port, child)
            if serves:
                child.send_signal(signal.SIGINT)
            try:
                output, _ = child.communicate(timeout=5 if "gevent" in block.text else PATIENCE)
            except subprocess.TimeoutExpired:
                if "gevent" not in block.text:
                    raise
                # gevent loses a KeyboardInterrupt that comes while a greenlet ends: press Ctrl-C again.
                child.send_signal(signal.SIGINT)
                output, _ = child.communicate(timeout=PATIENCE)
        finally:
            child.kill()
    assert not serves or answered, f"{block} does not serve\n{output}"
    assert child.returncode in ((0, -signal.SIGINT) if serves else (0,)), f"{block}\n{output}"
    for sign in ("never retrieved", "never awaited", "Exception ignored"):
        assert sign not in output, f"{block}\n{output}"
    return output


def answers(port: int, child: subprocess.Popen[str]) -> bool:
    """Whether a server on that port says something before its process ends."""
    deadline = time.monotonic() + PATIENCE
    while child.poll() is None and time.monotonic() < deadline:
        try:
            with socket.create_connection((daemons.LOOPBACK, port), timeout=PATIENCE) as sock:
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return bool(sock.recv(1))
        except ConnectionRefusedError:
            time.sleep(0.02)
    return False


# Commands.


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a block; ends of lines, `;`, `&&`, `||` and `|` part commands."""
    lines = block.text.splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    found: list[list[str]] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|"):
                found += [words] if words else []
                words = []
            else:
                words.append(word)
    return found


def inline_commands() -> list[tuple[str, list[str]]]:
    """The commands `make ...` and `proact ...` that stand in a sentence or a table, and where."""
    return [
        (f"{page.relative_to(ROOT)}: {child.content}", shlex.split(child.content))
        for page in PAGES
        for token in MarkdownIt("commonmark").enable("table").parse(page.read_text())
        for child in token.children or []
        if child.type == "code_inline"
        and re.match(r"(make|proact) [a-z-]", child.content)
        and child.content not in PRINTED
    ]


def problem(words: list[str]) -> str | None:
    """What is wrong with a command. The arguments of other projects' programs are not checked."""
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    match words:
        case ["make", *rest]:
            return _problem_of_make(rest)
        case ["proact", *rest] | ["python", "-m", "proact", *rest]:
            return _problem_of_proact(rest)
        case [
            "python" | "python3",
            "-m",
            "fuzz" | "soak" | "benchmarks" | "benchmarks.report" as module,
            *rest,
        ]:
            return _problem_of_options(module, rest)
        case ["python" | "python3", path, *_] if path.startswith(
            ("tests/", "docs/", "scripts/", "examples/")
        ):
            return None if (ROOT / path).exists() else f"there is no {path}"
        case ["pip", "install", *rest]:
            return next((wrong for word in rest if (wrong := _problem_of_requirement(word))), None)
        case [program, *_] if program not in PROGRAMS:
            return f"{program} is no known program"
    return None


# What the variables of the Makefile with arguments pass them to.
ARGUMENTS = {
    "FUZZ_ARGS": ("python", "-m", "fuzz"),
    "SOAK_ARGS": ("python", "-m", "soak"),
    "BENCH_ARGS": ("python", "-m", "benchmarks"),
    "DEMO_ARGS": ("proact", "lab", "echo"),
}


def _problem_of_make(words: list[str]) -> str | None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?m)^([a-z-]+):", makefile))
    scripts = "".join(path.read_text() for path in (ROOT / "scripts").iterdir())
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            if name not in targets and not name.startswith("-"):
                return f"make has no target {name}"
        elif not re.search(rf"\b{name}\b", makefile + scripts):
            return f"neither the Makefile nor scripts/ has a variable {name}"
        elif name in ARGUMENTS and (wrong := problem([*ARGUMENTS[name], *shlex.split(value)])):
            return wrong
    return None


def _problem_of_proact(words: list[str]) -> str | None:
    """Follow the words down the tree of commands, without carrying anything out."""
    from typer.main import get_command

    from proact.cli.app import app

    command, left = get_command(app), list(words)
    while left:
        word = left.pop(0)
        below = getattr(command, "commands", None)
        if word.startswith("-") and word != "-":
            name, equals, _ = word.partition("=")
            options = {
                each: param for param in command.params for each in [*param.opts, *param.secondary_opts]
            }
            if name not in options and name not in ("-h", "--help"):
                return f"proact {command.name} has no option {name}"
            if name in options and not equals and not options[name].is_flag:
                left = left[1:]
        elif below is not None:
            if word not in below:
                return f"proact has no command {word}"
            command = below[word]
        elif command.name == "run":
            return None  # the rest belongs to the program
    return None


@cache
def _help_of(module: str) -> str:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), children.environment()["PYTHONPATH"]])
    return subprocess.run(
        [sys.executable, "-m", module, "--help"],
        env=children.environment(PYTHONPATH=path),
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    ).stdout


def _problem_of_options(module: str, words: list[str]) -> str | None:
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    return next((f"{module} has no {name}" for name in options if f"{name} " not in _help_of(module)), None)


def _problem_of_requirement(word: str) -> str | None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    match = re.fullmatch(r"proact\[([\w,]+)\]", word)
    unknown = set(match[1].split(",")) - set(extras) if match else set()
    return f"proact has no extra {', '.join(sorted(unknown))}" if unknown else None
