"""glibc's POSIX AIO through ctypes: one operation after the other on one control block.

``struct aiocb`` is laid out as in glibc's <aio.h> on 64-bit machines. glibc reads and writes it and the
operation's buffer from a helper thread until the operation is complete, so a ``Block`` keeps both alive.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Final

from proact.lab.models.sigio import CHANGED

#: The signal of completions: the one after the signal of new connections.
COMPLETED: Final = CHANGED + 1

_SIGEV_SIGNAL: Final = 0


class _Sigevent(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_ssize_t),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("unused", ctypes.c_char * 48),
    )


class _Aiocb(ctypes.Structure):
    _fields_ = (
        ("fildes", ctypes.c_int),
        ("lio_opcode", ctypes.c_int),
        ("reqprio", ctypes.c_int),
        ("buf", ctypes.c_void_p),
        ("nbytes", ctypes.c_size_t),
        ("sigevent", _Sigevent),
        ("internal", ctypes.c_char * 32),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_char * 32),
    )


class _Aioinit(ctypes.Structure):
    _fields_ = (("threads", ctypes.c_int), ("num", ctypes.c_int), ("others", ctypes.c_int * 6))


def library(threads: int) -> Any:
    """glibc's AIO with at most so many helper threads (glibc's default is 20). Call this first."""
    found = ctypes.CDLL("librt.so.1", use_errno=True)  # works also since glibc 2.34, which has AIO in libc
    found.aio_return.restype = ctypes.c_ssize_t
    found.aio_init(ctypes.byref(_Aioinit(threads)))
    return found


class Block:
    """A control block and the buffer of its operation; ``number`` comes with the completion's signal."""

    def __init__(self, found: Any, number: int) -> None:
        self._library = found
        self._block = _Aiocb(sigevent=_Sigevent(number, COMPLETED, _SIGEV_SIGNAL))
        self._pointer = ctypes.byref(self._block)
        self._buffer: object = None

    def read(self, fd: int, buffer: memoryview, offset: int = 0) -> None:
        """Read into ``buffer``; a socket has no offset."""
        self._transfer(self._library.aio_read, fd, (ctypes.c_char * len(buffer)).from_buffer(buffer), offset)

    def write(self, fd: int, data: bytes, start: int = 0) -> None:
        """Write ``data[start:]``."""
        self._transfer(self._library.aio_write, fd, data, 0, start)

    def sync(self, fd: int) -> None:
        """fsync."""
        self._block.fildes = fd
        self._started(self._library.aio_fsync(os.O_SYNC, self._pointer))

    def _transfer(self, call: Any, fd: int, buffer: Any, offset: int, start: int = 0) -> None:
        self._buffer, block = buffer, self._block
        address = ctypes.cast(buffer, ctypes.c_void_p).value
        assert address is not None
        block.fildes, block.offset = fd, offset
        block.buf, block.nbytes = address + start, len(buffer) - start
        self._started(call(self._pointer))

    def _started(self, result: int) -> None:
        if result < 0:
            raise OSError(ctypes.get_errno(), "the AIO request was refused")

    def result(self) -> int:
        """The result of the completed operation. Raises OSError if it failed."""
        error = self._library.aio_error(self._pointer)
        count = int(self._library.aio_return(self._pointer))
        if error:
            raise OSError(error, os.strerror(error))
        return count
