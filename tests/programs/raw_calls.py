"""Prints, as JSON, the errnos of calls whose arguments are invalid but for what a seccomp filter looks at.

io_uring_register with each opcode and io_uring_enter with each flag, on an fd that is not open; calls that
make namespaces or unusual sockets. EBADF, EFAULT, EINVAL: the kernel has seen the arguments, so no filter has
refused the call.
"""

import ctypes
import json
import platform

libc = ctypes.CDLL(None, use_errno=True)
SETUP, ENTER, REGISTER = 425, 426, 427
BY_INDEX = 1 << 31
NOT_OPEN = ctypes.c_int(-1)
UNSHARE, CLONE, CLONE3, SOCKET = {
    "x86_64": (272, 56, 435, 41),
    "aarch64": (97, 220, 435, 198),
}[platform.machine()]
CLONE_NEWUSER, CLONE_NEWNET, CLONE_THREAD = 0x10000000, 0x40000000, 0x00010000


def answer(*call):
    ctypes.set_errno(0)
    result = libc.syscall(*call)
    return ctypes.get_errno() if result == -1 else 0


def register(opcode):
    return answer(REGISTER, NOT_OPEN, ctypes.c_uint(opcode), None, 0)


print(
    json.dumps(
        {
            "setup": answer(SETUP, 8, None),
            "register": [register(opcode) for opcode in range(48)],
            "register by index": [register(opcode | BY_INDEX) for opcode in range(48)],
            "enter": [answer(ENTER, NOT_OPEN, 0, 0, ctypes.c_uint(1 << bit), None, 0) for bit in range(32)],
            # A thread without its own stack, or memory in common, is an invalid argument.
            "clone": answer(CLONE, ctypes.c_ulong(CLONE_THREAD), None, None, None, None),
            "clone with namespaces": answer(CLONE, ctypes.c_ulong(CLONE_THREAD | CLONE_NEWNET), None, None),
            "clone3": answer(CLONE3, None, 0),
            "unshare": answer(UNSHARE, ctypes.c_ulong(CLONE_NEWUSER)),
            "sockets": [answer(SOCKET, family, 0, 0) for family in range(46)],
        }
    )
)
