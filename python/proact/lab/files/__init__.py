"""The files workload: each model reads and appends regular files in its own way; there are no connections.

Files have no readiness that a model could wait for: for select and poll a regular file is
always ready, epoll refuses it, no signal comes. A process of the model (``process``, ``work``) gets
operations, each a short list of calls (``calls``), several at once as ``lanes``. A seed determines the files
and their content (``fileset``). ``bench`` measures it as one cell.
"""

from __future__ import annotations

from typing import Final

#: Bytes that one operation moves.
SIZE: Final = 4096

#: Every workload of files by its name, with a description of one operation.
FILES: Final[dict[str, str]] = {
    "files-small": "open, read and close a small file that is not in memory",
    "files-random": "read 4 KiB somewhere in a large file that is not in memory",
    "files-direct": "the same with O_DIRECT, past the page cache",
    "files-append": "append 4 KiB and fsync; each that is at work has a file of its own",
}
