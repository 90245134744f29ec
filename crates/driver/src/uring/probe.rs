//! Asks the kernel once, on a small ring of its own, which opcodes it would carry out for this process.
//!
//! Each opcode is submitted with arguments that cannot succeed (fd -1, a null path): an answer about the arguments means
//! that the opcode works; EINVAL, EACCES, EPERM, EOPNOTSUPP or ENOSYS mean that it is missing, restricted or filtered.
//! What the kernel hands to a worker thread before it looks at the fd is only queued behind an op that fails, which
//! cancels it: no thread is woken for an answer.

use std::io;
use std::sync::Mutex;

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode};

use super::entry;
use super::ring::{Ring, note_closed, patiently};
use crate::driver::Config;
use crate::op::{Direction, Op, OpKind};
use crate::probe::named;

/// Every opcode that proact puts on a ring; the ring is restricted to these.
pub(super) const OPCODES: &[(&str, u8)] = &[
    ("accept", opcode::Accept::CODE),
    ("async_cancel", opcode::AsyncCancel::CODE),
    ("close", opcode::Close::CODE),
    ("connect", opcode::Connect::CODE),
    ("fsync", opcode::Fsync::CODE),
    ("openat", opcode::OpenAt::CODE),
    ("poll_add", opcode::PollAdd::CODE),
    ("read", opcode::Read::CODE),
    ("readv", opcode::Readv::CODE),
    ("recv", opcode::Recv::CODE),
    ("recvmsg", opcode::RecvMsg::CODE),
    ("send", opcode::Send::CODE),
    ("sendmsg", opcode::SendMsg::CODE),
    ("shutdown", opcode::Shutdown::CODE),
    ("splice", opcode::Splice::CODE),
    ("statx", opcode::Statx::CODE),
    ("timeout", opcode::Timeout::CODE),
    ("waitid", opcode::WaitId::CODE),
    ("write", opcode::Write::CODE),
    ("writev", opcode::Writev::CODE),
];

fn opcode_of(kind: OpKind) -> &'static str {
    match kind {
        OpKind::AcceptMulti => "accept",
        OpKind::RecvMulti => "recv",
        OpKind::Poll | OpKind::PollMulti => "poll_add",
        other => other.name(),
    }
}

/// What the ring can do for this process.
#[derive(Clone, Debug)]
pub struct Features {
    /// By [`OpKind`]: why the ring does not carry it out itself; `None`: it does.
    refusals: Vec<Option<String>>,
    /// Opcodes by name: whether they may be used.
    pub opcodes: Vec<(&'static str, bool)>,
    /// Ring features by name (of `io_uring_setup(2)`): whether the kernel has them.
    pub flags: Vec<(&'static str, bool)>,
}

impl Features {
    /// Whether the ring carries out this kind of op itself.
    pub fn native(&self, kind: OpKind) -> bool {
        self.refusals[kind as usize].is_none()
    }

    pub(super) fn deny(&mut self, kind: OpKind, what: &'static str, reason: &str) {
        self.refusals[kind as usize] = Some(format!("{what}: {reason}"));
        self.flags
            .iter_mut()
            .filter(|(name, _)| *name == what)
            .for_each(|flag| flag.1 = false);
    }

    pub(super) fn denied_opcodes(&self) -> Vec<u8> {
        OPCODES
            .iter()
            .zip(&self.opcodes)
            .filter(|(_, (_, allowed))| !allowed)
            .map(|((_, code), _)| *code)
            .collect()
    }

    /// One line for each kind of op that goes another way.
    pub(super) fn fallbacks(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for kind in OpKind::ALL {
            if let Some(reason) = &self.refusals[*kind as usize] {
                let instead = match kind {
                    OpKind::Close | OpKind::Shutdown => "by its system call",
                    OpKind::OpenAt | OpKind::Fsync | OpKind::Statx | OpKind::Splice => "by a pool of threads",
                    _ => "by a poll on the ring and its system call",
                };
                lines.push(format!("{} ({reason}): done {instead}", kind.name()));
            }
        }
        lines
    }
}

/// The ops to try: none of them can succeed.
fn samples(memory: &Memory) -> Vec<(OpKind, Op)> {
    let (fd, len, offset) = (-1, 0, 0);
    let path = std::ptr::null();
    vec![
        (OpKind::AcceptMulti, Op::AcceptMulti { fd }),
        (OpKind::Accept, Op::Accept { fd }),
        (
            OpKind::Connect,
            Op::Connect {
                fd,
                addr: (&raw const memory.address).cast(),
                len: 16,
            },
        ),
        (OpKind::RecvMulti, Op::RecvMulti { fd }),
        (
            OpKind::Recv,
            Op::Recv {
                fd,
                buf: memory.byte.get(),
                len,
                flags: 0,
            },
        ),
        (
            OpKind::Send,
            Op::Send {
                fd,
                buf: memory.byte.get(),
                len,
                flags: 0,
            },
        ),
        (
            OpKind::SendMsg,
            Op::SendMsg {
                fd,
                msg: memory.message.get(),
                flags: 0,
            },
        ),
        (
            OpKind::RecvMsg,
            Op::RecvMsg {
                fd,
                msg: memory.message.get(),
                flags: 0,
            },
        ),
        (
            OpKind::Read,
            Op::Read {
                fd,
                buf: memory.byte.get(),
                len,
                offset,
            },
        ),
        (
            OpKind::Write,
            Op::Write {
                fd,
                buf: memory.byte.get(),
                len,
                offset,
            },
        ),
        (
            OpKind::Readv,
            Op::Readv {
                fd,
                iov: memory.vector.get(),
                count: 1,
                offset,
            },
        ),
        (
            OpKind::Writev,
            Op::Writev {
                fd,
                iov: memory.vector.get(),
                count: 1,
                offset,
            },
        ),
        (
            OpKind::Poll,
            Op::Poll {
                fd,
                events: libc::POLLIN as u32,
            },
        ),
        (
            OpKind::OpenAt,
            Op::OpenAt {
                dir: -1,
                path,
                flags: 0,
                mode: 0,
            },
        ),
        (OpKind::Close, Op::Close { fd }),
        (OpKind::Fsync, Op::Fsync { fd, data_only: false }),
        (
            OpKind::Statx,
            Op::Statx {
                dir: -1,
                path,
                flags: 0,
                mask: 0,
                buf: memory.status.get(),
            },
        ),
        (
            OpKind::Splice,
            Op::Splice {
                from: -1,
                from_offset: -1,
                to: -1,
                to_offset: -1,
                len: 1,
                flags: 0,
            },
        ),
        (
            OpKind::Shutdown,
            Op::Shutdown {
                fd,
                how: libc::SHUT_WR,
            },
        ),
        // An fd below 0 would be EINVAL, which looks like a kernel that lacks the opcode (before Linux 6.7).
        (OpKind::WaitId, Op::WaitId { pidfd: i32::MAX }),
    ]
}

/// What the samples point at.
struct Memory {
    address: libc::sockaddr_in,
    byte: std::cell::UnsafeCell<u8>,
    message: std::cell::UnsafeCell<libc::msghdr>,
    vector: std::cell::UnsafeCell<libc::iovec>,
    status: std::cell::UnsafeCell<libc::statx>,
}

fn refused(result: i32) -> bool {
    matches!(
        -result,
        libc::EINVAL | libc::EACCES | libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS
    )
}

fn errno_text(result: i32) -> String {
    named(&io::Error::from_raw_os_error(-result))
}

/// The kinds that the kernel always gives to a worker thread.
fn needs_worker(kind: OpKind) -> bool {
    matches!(kind, OpKind::Fsync | OpKind::Shutdown | OpKind::Splice)
}

/// Submits entries tagged with their index and returns the results in that order.
fn ask(io: &mut IoUring, entries: Vec<(Option<OpKind>, Entry)>) -> io::Result<Vec<i32>> {
    let mut results = vec![-libc::ENOSYS; entries.len()];
    let mut left = 0;
    for (index, (kind, entry)) in entries.into_iter().enumerate() {
        let fails = entry::poll(-1, Direction::Read)
            .flags(Flags::IO_LINK)
            .user_data(u64::MAX - 1);
        let before = kind.is_some_and(needs_worker).then_some(fails);
        for entry in before.into_iter().chain([entry.user_data(index as u64)]) {
            // SAFETY: the samples' memory outlives this call, and all of them complete within it.
            let pushed = unsafe { io.submission().push(&entry) };
            pushed.map_err(|_| io::Error::from_raw_os_error(libc::ENOSPC))?;
            left += 1;
        }
    }
    while left > 0 {
        match io.submit_and_wait(left) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for completion in io.completion() {
            if let Some(result) = results.get_mut(completion.user_data() as usize) {
                *result = completion.result();
            }
            left -= 1;
        }
    }
    Ok(results)
}

fn ask_kernel(config: &Config) -> io::Result<Features> {
    let denied: Vec<u8> = OPCODES
        .iter()
        .filter(|(name, _)| config.deny.iter().any(|word| word == name))
        .map(|(_, code)| *code)
        .collect();
    let disabled = patiently(|| IoUring::builder().setup_r_disabled().dontfork().build(64));
    let (mut io, restricted) = match disabled {
        Ok(io) => {
            let restricted = Ring::restrict(&io, &denied).is_ok();
            io.submitter().register_enable_rings()?;
            (io, restricted)
        }
        // Before Linux 5.10.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            (IoUring::builder().dontfork().build(64)?, false)
        }
        Err(error) => return Err(error),
    };
    // SAFETY: all of these are C structures for which zeros are a value.
    let memory: Box<Memory> = Box::new(unsafe { std::mem::zeroed() });
    let samples = samples(&memory);
    let mut entries: Vec<_> = samples
        .iter()
        .map(|(kind, op)| (Some(*kind), entry::build(op, 0)))
        .collect();
    entries.push((None, opcode::AsyncCancel::new(u64::MAX).build()));
    let mut results = ask(&mut io, entries)?;
    note_closed();
    let cancel = results.pop().unwrap_or(-libc::ENOSYS);

    let mut refusals: Vec<Option<String>> = vec![None; OpKind::ALL.len()];
    for ((kind, _), result) in samples.iter().zip(results) {
        let forbidden = !restricted && config.deny.iter().any(|word| word == opcode_of(*kind));
        if refused(result) || forbidden {
            refusals[*kind as usize] = Some(format!("{}: {}", opcode_of(*kind), errno_text(result)));
        }
    }
    refusals[OpKind::PollMulti as usize] = refusals[OpKind::Poll as usize].clone();
    for (word, kind) in [
        ("multishot_accept", OpKind::AcceptMulti),
        ("multishot_recv", OpKind::RecvMulti),
        ("buf_ring", OpKind::RecvMulti),
    ] {
        if config.deny.iter().any(|denied| denied == word) {
            refusals[kind as usize] = Some(format!("{word}: denied by PROACT_URING_DENY"));
        }
    }
    // Without these two nothing can wait and nothing can end.
    for (name, result) in [
        ("poll_add", refusals[OpKind::Poll as usize].is_some()),
        ("async_cancel", refused(cancel)),
    ] {
        if result {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("the ring refuses {name}"),
            ));
        }
    }
    let opcodes = OPCODES
        .iter()
        .map(|(name, _)| {
            let sampled = OpKind::ALL.iter().find(|kind| kind.name() == *name);
            let refused = sampled.is_some_and(|kind| refusals[*kind as usize].is_some());
            (*name, !refused && !config.deny.iter().any(|word| word == name))
        })
        .collect();
    let params = io.params();
    let flags = vec![
        ("ext_arg", params.is_feature_ext_arg()),
        ("fast_poll", params.is_feature_fast_poll()),
        ("nodrop", params.is_feature_nodrop()),
        ("submit_stable", params.is_feature_submit_stable()),
        ("cqe_skip", params.is_feature_skip_cqe_on_success()),
        ("recvsend_bundle", params.is_feature_recvsend_bundle()),
        ("no_iowait", params.is_feature_no_iowait()),
        ("min_timeout", params.is_feature_min_timeout()),
        ("restrictions", restricted),
        (
            "multishot_accept",
            refusals[OpKind::AcceptMulti as usize].is_none(),
        ),
        ("multishot_recv", refusals[OpKind::RecvMulti as usize].is_none()),
        ("buf_ring", refusals[OpKind::RecvMulti as usize].is_none()),
    ];
    Ok(Features {
        refusals,
        opcodes,
        flags,
    })
}

/// What the ring can do, asked once for each set of denials.
///
/// # Errors
/// Where no ring can be made, or none that could work.
pub(crate) fn probe(config: &Config) -> io::Result<Features> {
    // Never waited for: a forked child may find it locked for ever by a thread that it does not have.
    static KNOWN: Mutex<Vec<(Vec<String>, Features)>> = Mutex::new(Vec::new());
    if let Ok(known) = KNOWN.try_lock()
        && let Some((_, features)) = known.iter().find(|(deny, _)| *deny == config.deny)
    {
        return Ok(features.clone());
    }
    let features = ask_kernel(config)?;
    if let Ok(mut known) = KNOWN.try_lock() {
        known.push((config.deny.clone(), features.clone()));
    }
    Ok(features)
}
