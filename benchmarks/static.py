"""Owns: examples/static_server.py beside other static-file servers: `python -m benchmarks.static`.

Every server serves the same folder to wrk on the other core, 64 connections that are kept alive. In a round
each server runs once, in a process of its own (`python -m benchmarks.static SERVER PORT FOLDER`).

`sendfile+LOOP` is one program of asyncio's on several loops: a line of HTTP, then `loop.sendfile`. `nginx`,
with one worker and its `sendfile`, shows what a server in C needs.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import importlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import children, stats, table, wrk

SIZES = {"1KiB": 1 << 10, "64KiB": 1 << 16, "1MiB": 1 << 20}
OURS = ("proact@io_uring", "proact@epoll")
SENDFILE = tuple(f"sendfile+{loop}" for loop in ("proact@io_uring", "proact@epoll", "asyncio", "uvloop"))
APPLICATIONS = ("aiohttp+asyncio", "aiohttp+uvloop", "starlette+asyncio", "starlette+uvloop")
SERVERS = (*OURS, *APPLICATIONS, *SENDFILE, "nginx")
NGINX = """
worker_processes 1; daemon off; master_process off; pid {scratch}/pid; error_log /dev/null;
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
    client_body_temp_path {scratch}/1; proxy_temp_path {scratch}/2; fastcgi_temp_path {scratch}/3;
    uwsgi_temp_path {scratch}/4; scgi_temp_path {scratch}/5;
    server {{ listen 127.0.0.1:{port}; root {folder}; }}
}}
"""


async def serve_by_sendfile(port: int, folder: str) -> None:
    """What `loop.sendfile` costs, with next to no HTTP around it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                with (Path(folder) / head.split(b" ", 2)[1][1:].decode()).open("rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                    try:
                        await loop.sendfile(writer.transport, file)
                    except NotImplementedError:
                        # uvloop has none. This reads from the page cache: a thread's help would cost more.
                        while piece := file.read(1 << 18):
                            writer.write(piece)
                            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    await (await asyncio.start_server(answer, "127.0.0.1", port)).serve_forever()


def serve(server: str, port: int, folder: str) -> None:
    """Serve until this process is killed."""
    children.settle(children.SERVER_CORE)
    if server == "nginx":
        scratch = tempfile.mkdtemp(prefix="nginx-", dir=folder)
        settings = Path(scratch) / "nginx.conf"
        settings.write_text(NGINX.format(scratch=scratch, port=port, folder=folder))
        os.execvp("nginx", ["nginx", "-c", str(settings)])
    if server in SENDFILE:
        name, _, engine = server.removeprefix("sendfile+").partition("@")
        os.environ |= {"PROACT_ENGINE": engine} if engine else {}
        asyncio.Runner(loop_factory=importlib.import_module(name).new_event_loop).run(
            serve_by_sendfile(port, folder)
        )
    name, _, loop = server.replace("@", "+").partition("+")
    if name == "proact":
        os.environ |= {"PORT": str(port), "FOLDER": folder, "PROACT_ENGINE": loop}
        os.execv(sys.executable, [sys.executable, str(children.ROOT / "examples" / "static_server.py")])
    if name == "starlette":
        routing, files = (importlib.import_module(f"starlette.{part}") for part in ("routing", "staticfiles"))
        app: Any = importlib.import_module("starlette.applications").Starlette(
            routes=[routing.Mount("/", files.StaticFiles(directory=folder))]
        )
        uvicorn: Any = importlib.import_module("uvicorn")
        uvicorn.run(app, port=port, loop=loop, http="httptools", access_log=False, log_level="error")
        return
    web: Any = importlib.import_module("aiohttp.web")
    application = web.Application()
    application.router.add_static("/", folder)
    new_loop = importlib.import_module(loop).new_event_loop
    web.run_app(application, host="127.0.0.1", port=port, loop=new_loop(), access_log=None, print=None)


def missing(server: str) -> bool:
    """Whether a package is missing here."""
    if server == "nginx":
        return shutil.which("nginx") is None
    parts = server.removeprefix("sendfile+").replace("@epoll", "").replace("@io_uring", "").split("+")
    return any(importlib.util.find_spec(part) is None for part in parts)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def verify(port: int, name: str, expected: bytes) -> None:
    """Wait until the server answers, and check that its answer is right."""
    deadline = time.monotonic() + 20
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", f"/{name}")
            answer = connection.getresponse()
            if (answer.status, answer.read()) != (200, expected):
                raise children.ChildError(f"a wrong answer, status {answer.status}")
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
        finally:
            connection.close()


def measure(server: str, folder: Path, name: str, seconds: int) -> dict[str, float]:
    """One server under load: requests a second, CPU microseconds of the server for each."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.static", server, str(port), str(folder)]
    with subprocess.Popen(command, cwd=children.ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            verify(port, name, (folder / name).read_bytes())
            load = ["taskset", "-c", str(children.LOAD_CORE), "wrk", "-t1", "-c64", f"-d{seconds}"]
            cpu = children.cpu_seconds(process.pid)
            said = subprocess.run(
                [*load, f"http://127.0.0.1:{port}/{name}"], capture_output=True, text=True, check=True
            ).stdout
            cpu = children.cpu_seconds(process.pid) - cpu
        finally:
            process.kill()
    found = re.search(r"(\d+) requests in ([\d.]+)s", said)
    if not found or "Non-2xx" in said or "Socket errors" in said:
        raise children.ChildError(f"wrk: {said.strip().splitlines()[-1]}")
    requests = int(found[1])
    return {"rate": requests / float(found[2]), "cpu_us": cpu / requests * 1e6}


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] in SERVERS:
        serve(sys.argv[1], int(sys.argv[2]), sys.argv[3])
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks.static", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=1, help="of each run")
    parser.add_argument("--only", choices=SIZES, help="only files of this size")
    parser.add_argument(
        "--servers", metavar="A,B", default=",".join(SERVERS), help="only these (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    if wrk.missing():
        raise SystemExit(wrk.INSTALL)
    wanted = options.servers.split(",")
    if unknown := set(wanted) - set(SERVERS):
        parser.error(f"no server named {', '.join(sorted(unknown))}; there are {', '.join(SERVERS)}")
    servers = [server for server in wanted if not missing(server)]
    folder = Path(tempfile.mkdtemp(prefix="proact-static-"))
    results: dict[str, list[stats.Run]] = {}
    try:
        for name, size in SIZES.items():
            if options.only in (None, name):
                (folder / name).write_bytes(os.urandom(size))
                runs = results[name] = []
                for number in range(options.rounds):
                    first = number % len(servers)
                    for server in servers[first:] + servers[:first]:
                        run: stats.Run = {"contender": server, "round": number}
                        try:
                            run |= measure(server, folder, name, options.seconds)
                        except (children.ChildError, OSError) as error:
                            run["error"] = str(error)
                        runs.append(run)
    finally:
        shutil.rmtree(folder)
    for name, runs in results.items():
        print(f"static file of {name}, 64 connections")
        for server in servers:
            rate, cpu = (stats.figure(runs, server, key) for key in ("rate", "cpu_us"))
            if rate is None or cpu is None:
                print(f"  {server:20} failed: {'; '.join(stats.errors(runs, server))}")
                continue
            ours, times = (
                table.times(stats.ratio(runs, servers[0], server, key)) for key in ("rate", "cpu_us")
            )
            beside = f"{servers[0]} {ours} x, CPU {times} x"
            print(f"  {server:24} {rate.median:9,.0f}/s {cpu.median:7.1f} µs CPU; {beside}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
