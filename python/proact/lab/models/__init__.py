"""One server for each I/O model, each the smallest honest one, in one file.

Every model keeps these rules, so that their numbers can be compared:

- ``serve(listener, sessions, ...)`` takes a bound, listening TCP socket and the factory of sessions, one per
  connection (``proact.lab.workloads``), and never returns;
- ``tls``, if a model takes it, is the context for a TLS of its own: else a session may be TLS itself;
- a session gets the bytes that arrive, in order and in any pieces, and its answers are sent in order;
- at most one answer per connection waits to be sent: a model that cannot write stops reading, so memory stays
  bounded, and no peer can hold up another (except where that *is* the model: one blocked thread each);
- a reset ends its connection, not the server;
- ``TCP_NODELAY`` is on.
"""

from typing import Final

#: The bytes asked of one ``recv``. They are below glibc's mmap threshold (128 KiB): above it each call would
#: also pay for mapping and unmapping its buffer, and the model would seem slower.
CHUNK: Final = 64 * 1024

#: Connections that may wait to be accepted (the kernel caps it at net.core.somaxconn).
BACKLOG: Final = 4096
