"""The seccomp profile of ``proact doctor --seccomp-profile``: a runtime's default, and io_uring narrowly.

A runtime takes one profile, and a profile of ours replaces its default; nothing can be laid on top. So this
file adds the rules of io_uring either to the runtime's own default (``--base``), or to ``ordinary()``, a list
of its own that is no wider than the present defaults of Docker and containerd. The result has the form of the
OCI runtime specification (config-linux.md, "Seccomp"), which all runtimes read.

seccomp sees the registers of a call, not what they point to
(https://man7.org/linux/man-pages/man2/seccomp.2.html). The flags of ``io_uring_setup`` lie in memory, so that
call is allowed as a whole. The opcode of ``io_uring_register`` and the flags of ``io_uring_enter`` are in
registers: only those that proact uses are allowed (crates/driver/src/uring/ring.rs and setup.rs).
"""

from __future__ import annotations

import json
import platform
import re
from typing import TYPE_CHECKING, Any, Final

from proact.cli.error import CommandError

if TYPE_CHECKING:
    from pathlib import Path

Rule = dict[str, Any]

ALLOW: Final = "SCMP_ACT_ALLOW"
REFUSE: Final = "SCMP_ACT_ERRNO"
ENOSYS: Final = 38

#: Go's name of a machine, which profiles in Docker's form use, and libseccomp's.
MACHINES: Final = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}

#: Opcodes of io_uring_register (linux/io_uring.h). Of files, proact registers one: the tether of ring.rs.
REGISTER: Final = {
    "REGISTER_FILES": 2,
    "REGISTER_RESTRICTIONS": 11,
    "REGISTER_ENABLE_RINGS": 12,
    "REGISTER_RING_FDS": 20,
    "UNREGISTER_RING_FDS": 21,
    "REGISTER_PBUF_RING": 22,
    "UNREGISTER_PBUF_RING": 23,
}
#: Or-ed to the opcode if the ring is named by the index of its registered fd.
USE_REGISTERED_RING: Final = 1 << 31
#: Flags of io_uring_enter: GETEVENTS, EXT_ARG, REGISTERED_RING, NO_IOWAIT. No SQPOLL, so not SQ_WAKEUP.
ENTER: Final = 1 | 8 | 16 | 128

#: Capabilities of a container to which none was added, as Docker, containerd and Podman grant them.
CAPABILITIES: Final = frozenset(
    f"CAP_{name}"
    for name in (
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
        *("NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    )
)


def masked(index: int, mask: int, value: int) -> list[Rule]:
    """The condition that an argument has this value in the bits of the mask."""
    return [{"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}]


def equal(index: int, value: int) -> list[Rule]:
    return [{"index": index, "value": value, "op": "SCMP_CMP_EQ"}]


def rule(names: str, args: list[Rule] | None = None, **more: Any) -> Rule:
    return {"names": names.split(), "action": ALLOW, "args": args or []} | more


def io_uring() -> list[Rule]:
    """What proact needs for its rings, and no more. Conditions see 32 bits, as the kernel does."""
    word = 0xFFFF_FFFF
    return [
        rule("io_uring_setup", comment="its flags lie in memory, which seccomp does not see"),
        rule("io_uring_enter", masked(3, word & ~ENTER, 0), comment="no SQPOLL"),
        *(
            rule("io_uring_register", masked(1, word & ~USE_REGISTERED_RING, opcode), comment=name)
            for name, opcode in REGISTER.items()
        ),
    ]


def ordinary() -> dict[str, Any]:
    """A profile for programs without privileges on 64-bit Linux, without io_uring.

    What it does not name answers ENOSYS: libraries take that for an older kernel, and use older calls.
    """
    namespaces = 0x7E02_0000  # CLONE_NEWCGROUP, _NEWIPC, _NEWNET, _NEWNS, _NEWPID, _NEWUSER, _NEWUTS
    return {
        "defaultAction": REFUSE,
        "defaultErrnoRet": ENOSYS,
        "architectures": [name for _, name in MACHINES.values()],
        "syscalls": [
            *(rule(names, comment=family) for family, names in ORDINARY.items()),
            rule("clone", masked(0, namespaces, 0), comment="no new namespaces"),
            # Its flags lie in memory. The C library then uses clone, whose flags are checked.
            rule("clone3", action=REFUSE, errnoRet=ENOSYS),
            *(rule("socket", equal(0, family), comment=name) for name, family in SOCKETS.items()),
            *(rule("personality", equal(0, value)) for value in (0, 0xFFFF_FFFF)),
        ],
    }


def profile(base: Path | None) -> dict[str, Any]:
    """The profile: io_uring's rules on top of the file ``base``, or of ``ordinary()`` if it is None.

    Raises CommandError if the file can't be read, or is no profile.
    """
    found = ordinary() if base is None else resolved(read(base))
    return found | {"syscalls": [*without_io_uring(found["syscalls"]), *io_uring()]}


def read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CommandError(f"cannot read the profile {path}: {error}") from None
    if not isinstance(found, dict) or "defaultAction" not in found or "syscalls" not in found:
        raise CommandError(f"{path} is no seccomp profile: it has no defaultAction or no syscalls")
    return found


def without_io_uring(rules: list[Rule]) -> list[Rule]:
    """The rules, without what they say of io_uring: a rule without conditions would decide against ours."""
    kept = [
        rule | {"names": [name for name in rule["names"] if not name.startswith("io_uring_")]}
        for rule in rules
    ]
    return [rule for rule in kept if rule["names"]]


def resolved(base: dict[str, Any]) -> dict[str, Any]:
    """A profile in Docker's form (archMap, includes, excludes) in the form of the OCI, for this machine.

    containerd and CRI-O don't know Docker's additions, and would apply a conditional rule always. They are
    resolved for this kernel and for a container without added capabilities.
    """
    go_name, seccomp_name = MACHINES.get(platform.machine(), (platform.machine(), ""))
    found = {key: value for key, value in base.items() if key not in ("archMap", "syscalls", "defaultErrno")}
    for entry in base.get("archMap") or []:
        if entry["architecture"] == seccomp_name:
            found["architectures"] = [seccomp_name, *(entry.get("subArchitectures") or [])]
    found["syscalls"] = []
    for rule in base["syscalls"]:
        if applies(rule, go_name):
            kept = {key: value for key, value in rule.items() if key not in ("includes", "excludes", "errno")}
            kept["names"] = kept.pop("names", None) or [kept["name"]]
            kept.pop("name", None)
            found["syscalls"].append({key: value for key, value in kept.items() if value is not None})
    return found


def applies(rule: Rule, machine: str) -> bool:
    """Whether the conditions of a rule in Docker's form hold for a container on this machine."""
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    return (
        (not includes.get("arches") or machine in includes["arches"])
        and machine not in (excludes.get("arches") or [])
        and CAPABILITIES.issuperset(includes.get("caps") or [])
        and CAPABILITIES.isdisjoint(excludes.get("caps") or [])
        and (not includes.get("minKernel") or kernel() >= numbers(includes["minKernel"]))
        and (not excludes.get("minKernel") or kernel() < numbers(excludes["minKernel"]))
    )


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def kernel() -> tuple[int, ...]:
    return numbers(platform.release())


#: Address families. Docker's default allows more; new families should not come along by themselves.
SOCKETS: Final = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16, "AF_PACKET": 17}

#: The calls of the kernel's tables (asm/unistd_64.h, asm-generic/unistd.h) that need no privilege, or check
#: for it themselves, and that Docker and containerd allow too. Runtimes skip a name that a machine lacks.
ORDINARY: Final = {
    "files": """
        access cachestat chdir chmod chown chroot close close_range copy_file_range creat dup dup2
        dup3 faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown
        fchownat fcntl fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstatfs
        fsync ftruncate futimesat getcwd getdents getdents64 getxattr inotify_add_watch inotify_init
        inotify_init1 inotify_rm_watch ioctl lchown lgetxattr link linkat listxattr llistxattr
        lremovexattr lseek lsetxattr lstat mkdir mkdirat mknod mknodat name_to_handle_at newfstatat
        open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read
        readahead readlink readlinkat readv removexattr rename renameat renameat2 rmdir sendfile
        setxattr splice stat statfs statx symlink symlinkat sync sync_file_range syncfs tee truncate
        umask unlink unlinkat utime utimensat utimes write writev""",
    "waiting": """
        epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2
        io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit poll ppoll pselect6
        select""",
    "sockets": """
        accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg
        recvmsg sendmmsg sendmsg sendto setsockopt shutdown socketpair""",
    "memory": """
        brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2
        mlockall mmap mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free
        pkey_mprotect remap_file_pages""",
    "processes and threads": """
        arch_prctl execve execveat exit exit_group fork futex futex_requeue futex_wait futex_waitv
        futex_wake get_robust_list getcpu getpgid getpgrp getpid getppid getpriority getrandom
        getrlimit getrusage getsid gettid ioprio_get ioprio_set kill pidfd_open pidfd_send_signal
        prctl prlimit64 process_mrelease process_vm_readv process_vm_writev ptrace rseq
        sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
        sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
        sched_setscheduler sched_yield set_robust_list set_tid_address setpgid setpriority setrlimit
        setsid sysinfo tgkill times tkill uname uretprobe vfork wait4 waitid""",
    "identity": """
        capget capset getegid geteuid getgid getgroups getresgid getresuid getuid setfsgid setfsuid
        setgid setgroups setregid setresgid setresuid setreuid setuid""",
    "signals and time": """
        adjtimex alarm clock_adjtime clock_getres clock_gettime clock_nanosleep getitimer
        gettimeofday nanosleep pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask
        rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo setitimer
        sigaltstack signalfd signalfd4 time timer_create timer_delete timer_getoverrun timer_gettime
        timer_settime timerfd_create timerfd_gettime timerfd_settime""",
    "System V and POSIX queues": """
        mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv
        msgsnd semctl semget semop semtimedop shmat shmctl shmdt shmget""",
    "confining oneself": "landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp",
}
