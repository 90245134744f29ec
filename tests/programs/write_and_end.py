"""Connects, writes and ends its process in the same callback: `write_and_end.py tcp|tls END PORT`."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import under_test

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from support import peers, tls

ENDS = {
    "_exit": lambda: os._exit(0),
    "execv": lambda: os.execv("/bin/true", ["true"]),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


async def main(kind, end, port):
    options = {"ssl": tls.client_context(), "server_hostname": tls.NAME} if kind == "tls" else {}
    _, writer = await asyncio.open_connection(peers.LOOPBACK, int(port), **options)
    writer.write(b"one,")
    writer.writelines([b"two,", b"three"])
    ENDS[end]()


under_test.run(main(*sys.argv[1:]))
