"""Prints, as JSON, the errno of each io_uring system call with arguments that are always invalid."""

import ctypes
import json

libc = ctypes.CDLL(None, use_errno=True)
SETUP, ENTER, REGISTER = 425, 426, 427
BUFFERS, PBUF_RING, BY_INDEX = 0, 22, 1 << 31
NOT_OPEN = ctypes.c_int(-1)

CALLS = {
    "setup": (SETUP, 8, None),
    "enter": (ENTER, NOT_OPEN, 0, 0, 0, None, 0),
    "register buffers": (REGISTER, NOT_OPEN, BUFFERS, None, 0),
    "register pbuf_ring": (REGISTER, NOT_OPEN, PBUF_RING, None, 0),
    "register pbuf_ring by index": (REGISTER, NOT_OPEN, ctypes.c_uint(PBUF_RING | BY_INDEX), None, 0),
}


def answer(call):
    ctypes.set_errno(0)
    result = libc.syscall(*call)
    assert result == -1, (call, result)
    return ctypes.get_errno()


print(json.dumps({name: answer(call) for name, call in CALLS.items()}))
