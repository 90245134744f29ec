//! Asks the kernel once, on a separate small ring, which opcodes it would carry out for this process.
//!
//! The probe submits each opcode with arguments that cannot succeed ([`crate::ops::Operation::SAMPLE`]: no open file,
//! null pointers). An error about the arguments means that the opcode works. EINVAL, EACCES, EPERM, EOPNOTSUPP or
//! ENOSYS mean that it is missing, restricted or filtered. Some ops go to a worker thread before the kernel looks at
//! the arguments. The probe links them behind an op that fails, which cancels them: so the kernel checks the opcode
//! without waking a thread.

use std::io;
use std::sync::Mutex;

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};

use super::setup::{self, CANCEL, is_denied, note_closed, opcodes, patiently};
use crate::driver::Config;
use crate::errno::named;
use crate::features::Features;
use crate::ops::{Course, OpKind, Opcode, POLL};

/// Tells whether ops of a course need a feature of the ring.
type Concerns = fn(Course) -> bool;

/// The features that ops with several completions need beside their opcodes, by their names in `PROACT_URING_DENY`.
const MULTISHOT: [(&str, Concerns); 4] = [
    // Linux 5.13
    ("multishot_poll", |course| {
        matches!(course, Course::WatchMulti(..))
    }),
    ("multishot_accept", |course| {
        matches!(course, Course::AcceptMulti(_))
    }),
    ("multishot_recv", |course| matches!(course, Course::RecvMulti(_))),
    ("buf_ring", |course| matches!(course, Course::RecvMulti(_))),
];

fn refused(result: i32) -> bool {
    matches!(
        -result,
        libc::EINVAL | libc::EACCES | libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS
    )
}

/// Opens the ring to ask on. Also returns whether the kernel restricts it to the opcodes that are not denied.
fn open(config: &Config) -> io::Result<(IoUring, bool)> {
    let denied: Vec<u8> = opcodes()
        .into_iter()
        .filter(|(name, _)| is_denied(config, name))
        .map(|(_, code)| code)
        .collect();
    match patiently(|| IoUring::builder().setup_r_disabled().dontfork().build(64)) {
        Ok(io) => {
            let restricted = setup::restrict(&io, &denied).is_ok();
            io.submitter().register_enable_rings()?;
            Ok((io, restricted))
        }
        // The kernel is older than Linux 5.10 and does not know R_DISABLED.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Ok((IoUring::builder().dontfork().build(64)?, false))
        }
        Err(error) => Err(error),
    }
}

/// Submits entries and returns their results in the same order. The flag `punted` means that the kernel hands the
/// entry to a worker thread.
fn ask(io: &mut IoUring, entries: Vec<(Entry, bool)>) -> io::Result<Vec<i32>> {
    let mut results = vec![-libc::ENOSYS; entries.len()];
    let mut left = 0;
    for (index, (entry, punted)) in entries.into_iter().enumerate() {
        let fails = opcode::PollAdd::new(types::Fd(-1), libc::POLLIN as u32).build();
        let fails = fails.flags(Flags::IO_LINK).user_data(u64::MAX);
        let before = punted.then_some(fails);
        for entry in before.into_iter().chain([entry.user_data(index as u64)]) {
            // SAFETY: the samples point at no memory.
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

/// The kernel's answers to the sample of each kind, and to a cancel.
fn answers(io: &mut IoUring) -> io::Result<(Vec<i32>, i32)> {
    let sample = |kind: &OpKind| (kind.sample().entry(0), kind.facts().punted);
    let mut entries: Vec<_> = OpKind::ALL.iter().map(sample).collect();
    entries.push((opcode::AsyncCancel::new(u64::MAX).build(), false));
    let mut results = ask(io, entries)?;
    let cancel = results.pop().unwrap_or(-libc::ENOSYS);
    Ok((results, cancel))
}

/// The reason why the ring does not carry out a kind of op; `None`: it does.
fn refusal(config: &Config, restricted: bool, kind: OpKind, result: i32) -> Option<String> {
    let course = kind.sample().course();
    let denied = |(word, concerns): &&(&str, Concerns)| concerns(course) && is_denied(config, word);
    if let Some((word, _)) = MULTISHOT.iter().find(denied) {
        return Some(format!("{word}: denied by PROACT_URING_DENY"));
    }
    let (name, _) = kind.facts().opcode;
    let is_refused = refused(result) || (!restricted && is_denied(config, name));
    is_refused.then(|| format!("{name}: {}", named(&io::Error::from_raw_os_error(-result))))
}

fn ask_kernel(config: &Config) -> io::Result<Features> {
    let (mut io, restricted) = open(config)?;
    let (results, cancel) = answers(&mut io)?;
    note_closed();
    let refusals: Vec<Option<String>> = OpKind::ALL
        .iter()
        .zip(results)
        .map(|(kind, result)| refusal(config, restricted, *kind, result))
        .collect();
    let works = |(name, _): Opcode| {
        let mut refused_kinds = OpKind::ALL
            .iter()
            .filter(|kind| kind.name() == name && refusals[**kind as usize].is_some());
        !is_denied(config, name) && refused_kinds.next().is_none()
    };
    let is_refused = |kind: &OpKind| refusals[*kind as usize].is_some();
    // Without poll no op can wait, and without cancel no op can be ended.
    for (name, is_refused) in [(POLL.0, is_refused(&OpKind::Poll)), (CANCEL.0, refused(cancel))] {
        if is_refused {
            let message = format!("the ring refuses {name}");
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
    }
    let opcodes: Vec<_> = opcodes()
        .into_iter()
        .map(|opcode| (opcode.0, opcode.1, works(opcode)))
        .collect();
    let flags = flags(&io, restricted, |concerns| {
        let concerned = |kind: &&OpKind| concerns(kind.sample().course());
        !OpKind::ALL.iter().filter(concerned).any(is_refused)
    });
    Ok(Features::new(refusals, &opcodes, flags))
}

/// The ring's features by name. `works` tells whether the ops that need a feature work.
fn flags(io: &IoUring, restricted: bool, works: impl Fn(Concerns) -> bool) -> Vec<(&'static str, bool)> {
    let params = io.params();
    let mut flags = vec![
        ("ext_arg", params.is_feature_ext_arg()),
        ("fast_poll", params.is_feature_fast_poll()),
        ("nodrop", params.is_feature_nodrop()),
        ("submit_stable", params.is_feature_submit_stable()),
        ("cqe_skip", params.is_feature_skip_cqe_on_success()),
        ("recvsend_bundle", params.is_feature_recvsend_bundle()),
        ("no_iowait", params.is_feature_no_iowait()),
        ("min_timeout", params.is_feature_min_timeout()),
        ("restrictions", restricted),
    ];
    flags.extend(MULTISHOT.map(|(name, concerns)| (name, works(concerns))));
    flags
}

/// What the ring can do. The kernel is asked once for each set of denied names.
///
/// # Errors
/// The errors of making a ring; `Unsupported` if the ring lacks an opcode that has no replacement.
pub(crate) fn probe(config: &Config) -> io::Result<Features> {
    // Only `try_lock`: a forked child may find the lock held for ever by a thread that it does not have.
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
