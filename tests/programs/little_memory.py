"""Runs as another user with little locked memory: `little_memory.py UID BYTES COUNT [ENGINE]`.

Makes COUNT loops, runs them all and closes them; prints as one line of JSON their engines and the first one's
`engine_info()`, or the error, and the report of `doctor`.
"""

import asyncio
import json
import os
import resource
import sys

import proact
from proact.cli import doctor

user, limit, count = map(int, sys.argv[1:4])
_, files = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
# All modules are loaded before this, because the new user may not be allowed to read them.
asyncio.run(asyncio.sleep(0))
proact.run(asyncio.sleep(0), engine="select")
os.setresuid(user, user, user)

told = {}
try:
    loops = [proact.new_event_loop(*sys.argv[4:]) for _ in range(count)]
except OSError as error:
    told["error"] = [error.errno, str(error)]
else:
    for loop in loops:
        loop.run_until_complete(asyncio.sleep(0.001))
    told["engines"] = [loop.engine for loop in loops]
    told["info"] = [loop.engine_info() for loop in loops[:1]]
    for loop in loops:
        loop.close()
told["loops"] = doctor.loops_that_fit()
told["line"] = doctor.fitting(told["loops"])
print(json.dumps(told))
