"""The files that are read and appended to, and their content; a seed determines both.

They lie in a separate directory on the disk (in ``PROACT_LAB_DIR``, or among the temporary files), which is
removed with all that is in it.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proact.lab.files import SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Files written to the disk at once, when they are made.
SYNCS: Final = 32


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much there is: files and operations of a round, and the bytes of the large file."""

    small: int = 2000
    large: int = 64 << 20
    reads: int = 2048
    appends: int = 128


@dataclass(frozen=True, slots=True)
class FileSet:
    """Where the files are and what is in them; the seed determines all of it."""

    directory: str
    seed: int
    amounts: Amounts

    @property
    def large(self) -> str:
        """The path of the large file."""
        return f"{self.directory}/large"

    def small(self, number: int) -> str:
        """The path of a small file."""
        return f"{self.directory}/small-{number}"

    def log(self, lane: int) -> str:
        """The path of the file that a lane appends to."""
        return f"{self.directory}/log-{lane}"

    def content(self, of: str, size: int) -> bytes:
        """``size`` bytes, always the same for this seed and name."""
        return random.Random(f"{self.seed} {of}").randbytes(size)

    def records(self) -> list[bytes]:
        """The bytes that an operation appends."""
        content = self.content("log", self.amounts.appends * SIZE)
        return [content[at : at + SIZE] for at in range(0, len(content), SIZE)]

    def offsets(self) -> list[int]:
        """The offsets at which the large file is read."""
        pages = range(0, self.amounts.large, SIZE)
        return random.Random(f"{self.seed} offsets").choices(pages, k=self.amounts.reads)

    def create(self) -> dict[str, str]:
        """Write the files that are read to the disk; return the digest that each workload must reach."""
        small = self.content("small", self.amounts.small * SIZE)
        for number in range(self.amounts.small):
            Path(self.small(number)).write_bytes(small[number * SIZE : (number + 1) * SIZE])
        large = self.content("large", self.amounts.large)
        Path(self.large).write_bytes(large)
        settle([*map(self.small, range(self.amounts.small)), self.large])
        reads = digest(b"".join(large[at : at + SIZE] for at in self.offsets()))
        return {
            "files-small": digest(small),
            "files-random": reads,
            "files-direct": reads,
            "files-append": digest(b"".join(self.records())),
        }

    def refuses_direct(self) -> str | None:
        """Why the large file can't be read with O_DIRECT; None if it can."""
        try:
            fd = os.open(self.large, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError as error:
            return f"the filesystem of {self.directory} refuses O_DIRECT: {error.strerror}"
        os.close(fd)
        return None


def settle(paths: list[str]) -> None:
    """Have files written to the disk, because a dirty page cannot be dropped from memory."""

    def sync(path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.fsync(fd)
        os.close(fd)

    with ThreadPoolExecutor(SYNCS) as pool:  # threads that wait together share the journal's commits
        list(pool.map(sync, paths))


def digest(data: bytes | memoryview) -> str:
    """The digest that stands for the data when results are compared."""
    return hashlib.sha256(data).hexdigest()


@contextmanager
def temporary(seed: int, amounts: Amounts) -> Iterator[FileSet]:
    """A new directory for a file set, still empty, that is removed at the end."""
    where = os.environ.get("PROACT_LAB_DIR", tempfile.gettempdir())
    directory = tempfile.mkdtemp(dir=where, prefix="proact-lab-files-")
    try:
        yield FileSet(directory, seed, amounts)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
