"""One server for each I/O model, each the smallest honest one, in one file.

What every model keeps to, so that their numbers can be compared:

- ``serve(listener, sessions, ...)`` takes a bound, listening TCP socket and what makes the session of a new
  connection (``proact.lab.workloads``), and never returns;
- a session is fed what arrives, in order, in whatever pieces, and what it answers is sent, in order;
- at most one answer per connection waits to be sent: whoever cannot write stops reading, so memory stays
  bounded, and no peer can hold up another (except where that *is* the model: one blocked thread each);
- a reset ends its connection, not the server;
- ``TCP_NODELAY`` is on.
"""

from typing import Final

#: Bytes asked of one ``recv``. Below glibc's mmap threshold (128 KiB): above it each call would also pay for
#: mapping and unmapping its buffer, which would be charged to the model.
CHUNK: Final = 64 * 1024

#: Connections that may wait to be accepted (the kernel caps it at net.core.somaxconn).
BACKLOG: Final = 4096
