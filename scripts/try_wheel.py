"""Owns: what an installed proact has to do; scripts/check_wheels.py runs it for each package.

It runs outside of the repository, in an environment that has proact and its extra `cli` and nothing else.
There is no compiler and no other program on PATH: `python try_wheel.py CERTIFICATE`.
"""

import asyncio
import json
import shutil
import ssl
import subprocess
import sys
import sysconfig
from pathlib import Path

import proact

DATA = bytes(range(256)) * 4000

# CPython before 3.14 unwinds daemon threads at its end, through the extension's frames (decision 9). zig
# links an unwinder of its own into the extension, so that is tried with the wheel itself.
DAEMON = """
import threading, proact
async def main():
    while True:
        await __import__("asyncio").sleep(0)
for _ in range(4):
    threading.Thread(target=proact.run, args=(main(),), daemon=True).start()
__import__("time").sleep(0.2)
"""


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def talk(server_tls: ssl.SSLContext | None, client_tls: ssl.SSLContext | None) -> str:
    """A megabyte to an echo server and back; the engine."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_tls)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=client_tls)
    sending = asyncio.ensure_future(send(writer))
    assert await reader.readexactly(len(DATA)) == DATA
    await sending
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    return asyncio.get_running_loop().engine


async def send(writer: asyncio.StreamWriter) -> None:
    writer.write(DATA)
    await writer.drain()


def command(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
    return done.stdout


def main() -> None:
    assert Path(proact.__file__).is_relative_to(sys.prefix), proact.__file__
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        assert not sys._is_gil_enabled()
    for tool in ("cc", "gcc", "clang", "rustc", "cargo", "ld"):
        assert shutil.which(tool) is None, tool
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_tls.load_cert_chain(sys.argv[1])
    client_tls = ssl.create_default_context()
    client_tls.check_hostname, client_tls.verify_mode = False, ssl.CERT_NONE

    facts = json.loads(command("-m", "proact", "doctor", "--json"))
    engines = facts["engine"]["engines"]
    available = [name for name in proact.ENGINES if engines[name]["available"]]
    assert {"epoll", "poll", "select"} <= set(available), engines
    for engine in available:
        assert proact.run(talk(None, None), engine=engine) == engine
        assert proact.run(talk(server_tls, client_tls), engine=engine) == engine
        for _ in range(3):
            command("-c", DAEMON)
    version = facts["packages"]["proact"]
    assert version == proact.__version__, (version, proact.__version__)
    assert Path(sys.prefix, "bin", "proact").exists()
    table = command("-m", "proact", "lab", "echo", "--connections", "1", "--duration", "0.1", "--warmup", "0")
    assert "proact-epoll" in table, table
    print(f"{version} on {', '.join(available)}")


if __name__ == "__main__":
    main()
