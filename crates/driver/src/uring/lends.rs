//! Reads into memory that the ring has registered (`lent.rs`). The ring registers it before the first one.

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::UringDriver;
use super::setup::{READ_LENT, is_denied};
use crate::errno::named;
use crate::lent;
use crate::ops::{Op, Read};

impl UringDriver {
    /// The op's entry.
    pub(super) fn entry(&mut self, op: &Op) -> Entry {
        match op {
            Op::Read(read) if read.offset >= 0 && lent::holds(read.buf, read.len) && self.lends() => {
                into_lent(read)
            }
            _ => op.entry(self.buffers.group()),
        }
    }

    /// Whether the ring has the lent memory. If the kernel has refused it once, it is not asked again.
    fn lends(&mut self) -> bool {
        if self.lends.is_none() && self.ring.is_ours() {
            let (name, _) = READ_LENT;
            let refusal = if is_denied(&self.config, name) {
                Some("denied by PROACT_URING_DENY".to_owned())
            } else {
                self.stats.syscalls += 1;
                self.ring.register_lent().err().map(|error| named(&error))
            };
            self.lends = Some(refusal.is_none());
            let line = |reason| format!("{name} ({reason}): each read pins its memory");
            self.stats.fallbacks.extend(refusal.map(line));
        }
        self.lends == Some(true)
    }
}

/// The lent memory is one buffer for the ring, and an entry names a place in it.
fn into_lent(read: &Read) -> Entry {
    // It fits, because the lent memory is smaller.
    opcode::ReadFixed::new(types::Fd(read.fd), read.buf, read.len as u32, 0)
        .offset(read.offset as u64)
        .build()
}
