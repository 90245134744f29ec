"""A seccomp filter that refuses calls, as container runtimes do: raw BPF through ctypes, no library.

    python tests/seccomp.py io_uring=EPERM -- command ...    setup, enter and register fail with that errno
    python tests/seccomp.py io_uring=ENOSYS -- command ...
    python tests/seccomp.py pbuf_ring=EPERM -- command ...   only registering a buffer ring fails
    python tests/seccomp.py waitid=EPERM -- command ...      (not the ring's own op of that name)
    python tests/seccomp.py profile=FILE -- command ...      a container runtime's profile, in the OCI's form

A filter can't be removed, so this process installs it and then becomes the command. For x86_64 and aarch64,
which agree on io_uring's numbers. A profile is installed by libseccomp, as runc and crun install it. Sources:
seccomp(2), linux/filter.h, linux/seccomp.h, linux/audit.h, linux/io_uring.h, asm/unistd_64.h,
asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import json
import os
import platform
import struct
import sys

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

IO_URING_SETUP, IO_URING_ENTER, IO_URING_REGISTER = 425, 426, 427
WAITID = {"x86_64": 247, "aarch64": 95}
IORING_REGISTER_PBUF_RING = 22
# Or-ed to the opcode if the ring is named by its registered index.
IORING_REGISTER_USE_REGISTERED_RING = 1 << 31

# Offsets in struct seccomp_data; the low half of an argument comes first on these little-endian machines.
NR, ARCH, ARGS1_LOW = 0, 4, 16 + 8

# BPF instructions: load a word of seccomp_data, mask it, compare and skip, return.
LOAD, AND, JUMP_IF_EQUAL, RETURN = 0x20, 0x54, 0x15, 0x06


def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def program(what: str, error: int) -> bytes:
    """The filter that refuses `what` ("io_uring", "pbuf_ring" or "waitid") with `error`."""
    refuse, allow = instruction(RETURN, SECCOMP_RET_ERRNO | error), instruction(RETURN, SECCOMP_RET_ALLOW)
    known = [
        instruction(LOAD, ARCH),
        instruction(JUMP_IF_EQUAL, AUDIT_ARCH[platform.machine()], if_true=1),
        allow,
        instruction(LOAD, NR),
    ]
    if what == "io_uring":
        rest = [
            instruction(JUMP_IF_EQUAL, IO_URING_SETUP, if_true=3),
            instruction(JUMP_IF_EQUAL, IO_URING_ENTER, if_true=2),
            instruction(JUMP_IF_EQUAL, IO_URING_REGISTER, if_true=1),
            allow,
            refuse,
        ]
    elif what == "pbuf_ring":
        rest = [
            instruction(JUMP_IF_EQUAL, IO_URING_REGISTER, if_false=3),
            instruction(LOAD, ARGS1_LOW),
            instruction(AND, ~IORING_REGISTER_USE_REGISTERED_RING & 0xFFFFFFFF),
            instruction(JUMP_IF_EQUAL, IORING_REGISTER_PBUF_RING, if_true=1),
            allow,
            refuse,
        ]
    elif what == "waitid":
        rest = [instruction(JUMP_IF_EQUAL, WAITID[platform.machine()], if_true=1), allow, refuse]
    else:
        raise ValueError(f"io_uring, pbuf_ring or waitid, not {what!r}")
    return b"".join(known + rest)


class Filter(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def install(what: str, error: int) -> None:
    """Refuse `what` with `error` in this process and its children, for ever. Raises OSError if it can't."""
    instructions = program(what, error)
    filter_ = Filter(len(instructions) // 8, instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filter_), 0, 0),
    ):
        if libc.prctl(*arguments):
            number = ctypes.get_errno()
            raise OSError(number, f"seccomp: {os.strerror(number)}")


# libseccomp, to which runtimes hand profiles: seccomp_init(3), seccomp_rule_add(3), seccomp_arch_add(3).

ACTIONS = {"SCMP_ACT_ALLOW": SECCOMP_RET_ALLOW, "SCMP_ACT_ERRNO": SECCOMP_RET_ERRNO}
COMPARISONS = {"SCMP_CMP_NE": 1, "SCMP_CMP_EQ": 4, "SCMP_CMP_GT": 6, "SCMP_CMP_MASKED_EQ": 7}
LIBSECCOMP = ctypes.util.find_library("seccomp")


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = (
        ("index", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("value_two", ctypes.c_uint64),
    )


def action(name: str, error: int) -> int:
    return ACTIONS[name] | (error if name == "SCMP_ACT_ERRNO" else 0)


def install_profile(path: str) -> None:
    """Install the profile in this process and its children. Raises OSError if libseccomp refuses it."""
    with open(path) as file:
        profile = json.load(file)
    library = ctypes.CDLL(LIBSECCOMP)
    library.seccomp_init.restype = ctypes.c_void_p

    def check(result: int, what: str, fine: tuple[int, ...] = ()) -> None:
        if result < 0 and -result not in fine:
            raise OSError(-result, f"libseccomp: {what}: {os.strerror(-result)}")

    default = profile.get("defaultErrnoRet", errno.EPERM)
    context = ctypes.c_void_p(library.seccomp_init(action(profile["defaultAction"], default)))
    for architecture in profile["architectures"]:
        token = library.seccomp_arch_resolve_name(architecture.removeprefix("SCMP_ARCH_").lower().encode())
        assert token, architecture
        check(library.seccomp_arch_add(context, token), architecture, fine=(errno.EEXIST,))
    for rule in profile["syscalls"]:
        arguments = rule.get("args") or []
        comparisons = (Comparison * len(arguments))(
            *(
                Comparison(one["index"], COMPARISONS[one["op"]], one["value"], one.get("valueTwo", 0))
                for one in arguments
            )
        )
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number == -1:  # this libseccomp does not know it; runtimes skip it too
                continue
            what = action(rule["action"], rule.get("errnoRet", errno.EPERM))
            added = library.seccomp_rule_add_array(context, what, number, len(arguments), comparisons)
            check(added, name, fine=(errno.EACCES,))  # EACCES: what is done by default, which runtimes skip
    check(library.seccomp_load(context), "load")


def main() -> None:
    what, _, name = sys.argv[1].partition("=")
    separator, *command = sys.argv[2:]
    if separator != "--":
        raise SystemExit("usage: seccomp.py io_uring=EPERM|profile=FILE -- command ...")
    if what == "profile":
        install_profile(name)
    else:
        install(what, getattr(errno, name))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
