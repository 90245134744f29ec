"""Runs as another user with little locked memory: `moving_loop.py UID BYTES ENGINE FOLDER ROOM`.

A loop reads past the page cache in this thread and then in three others. Before the moves, ROOM `loops` has
further loops of this user take what is left of the limit, `lowered` lowers the limit to what a ring needs,
and `room` does nothing. Prints as one line of JSON how much was read, the fallbacks before and because of the
moves, and the error of a move.
"""

import asyncio
import json
import os
import resource
import sys
import threading

import proact
from proact import fs

user, limit = map(int, sys.argv[1:3])
engine, folder, room = sys.argv[3:6]
PATTERN = bytes(range(256)) * 16


async def read(file):
    into = fs.aligned_buffer(4096)
    counts = [await file.pread_into(into, 4096 * block) for block in range(2)]
    assert into == PATTERN[::-1]
    return [*counts, len(await file.pread(4096, 0))]


async def opened():
    return await proact.open(fd, "rb", buffering=0)


with open(os.path.join(folder, "file"), "wb") as made:
    made.write(PATTERN + PATTERN[::-1])
fd = os.open(made.name, os.O_RDONLY | os.O_DIRECT)
# All modules are loaded before the new user, who may not be allowed to read them, comes.
for warmed in ("select", "io_uring"):
    proact.run(asyncio.sleep(0), engine=warmed)
resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
os.setresuid(user, user, user)

told = {"read": []}
loop = proact.new_event_loop(engine)
file = loop.run_until_complete(opened())
told["read"].append(loop.run_until_complete(read(file)))
told["before"] = loop.engine_info()["fallbacks"]
others = []
try:
    while room == "loops":
        others.append(proact.new_event_loop("io_uring"))
except OSError:
    pass
if room == "lowered":
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (min(1 << 16, limit), limit))


def moved():
    try:
        told["read"].append(loop.run_until_complete(read(file)))
    except Exception as error:  # whatever it is, the test tells it
        told["error"] = repr(error)


# Each thread ends before the next one begins, so that it has let go of the ring.
for _ in range(3):
    thread = threading.Thread(target=moved)
    thread.start()
    thread.join()
told["after"] = loop.engine_info()["fallbacks"][len(told["before"]) :]
told["counts"] = loop.stats()["files"]
print(json.dumps(told))
os._exit(0)
