"""Writes durably until it is killed: `durable_writer.py ENGINE KIND FOLDER`; a line on stdout for each write
that returned.

KIND `append`: numbered records from many tasks to one file. KIND `fsync`: a new file for each number. KIND
`atomic`: one file again and again, of one letter and of a size that follows from it.
"""

import asyncio
import os
import sys

import proact
from proact import fs

engine, kind, folder = sys.argv[1:]


def told(number):
    # One write of a short line to a pipe is whole.
    os.write(1, b"%d\n" % number)


async def append(first):
    for number in range(first, 1_000_000, 16):
        await fs.append(f"{folder}/log", b"%d:%s\n" % (number, b"x" * (number % 3000)), fsync=True)
        told(number)


async def files():
    for number in range(1_000_000):
        await fs.write_bytes(f"{folder}/{number}", b"%d" % number * 100, fsync=True)
        told(number)


async def atomic():
    for number in range(1_000_000):
        letter = b"abcdefghijklmnopqrstuvwxyz"[number % 26 : number % 26 + 1]
        await fs.write_bytes(f"{folder}/file", letter * (1000 * (number % 26 + 1)), atomic=True)
        told(number)


async def main():
    if kind == "append":
        await asyncio.gather(*map(append, range(16)))
    else:
        await (files() if kind == "fsync" else atomic())


if engine == "asyncio":
    asyncio.run(main())
else:
    with asyncio.Runner(loop_factory=lambda: proact.new_event_loop(engine)) as runner:
        runner.run(main())
