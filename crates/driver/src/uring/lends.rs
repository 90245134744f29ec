//! Reads into memory that the ring has registered (`lent.rs`). The ring registers it before the first one.

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::UringDriver;
use super::label::Label;
use super::setup::{READ_LENT, is_denied};
use crate::errno::named;
use crate::lent;
use crate::ops::{Op, OpKind, Read};

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
            self.register();
        }
        self.lends == Some(true)
    }

    /// After a move to a new ring: has it register the lent memory if the old one had. If the kernel refuses (there is less room for locked
    /// memory than there was), reads that wait to be handed over go the plain way, as those after them.
    pub(super) fn lend_again(&mut self) {
        if self.lends != Some(true) || self.register() {
            return;
        }
        let group = self.buffers.group();
        for entry in &mut self.backlog {
            let label = entry.get_user_data();
            if let Label::Op(OpKind::Read, token) = Label::read(label)
                && let Some(read) = self.table.get(token)
            {
                *entry = read.op.entry(group).user_data(label);
            }
        }
    }

    fn register(&mut self) -> bool {
        let (name, _) = READ_LENT;
        let refusal = if is_denied(&self.config, name) {
            Some("denied by PROACT_URING_DENY".to_owned())
        } else {
            self.stats.syscalls += 1;
            self.ring.register_lent().err().map(|error| named(&error))
        };
        let has = refusal.is_none();
        self.lends = Some(has);
        let line = |reason| format!("{name} ({reason}): each read pins its memory");
        self.stats.fallbacks.extend(refusal.map(line));
        has
    }
}

/// The lent memory is one buffer for the ring, and an entry names a place in it.
fn into_lent(read: &Read) -> Entry {
    // It fits, because the lent memory is smaller.
    opcode::ReadFixed::new(types::Fd(read.fd), read.buf, read.len as u32, 0)
        .offset(read.offset as u64)
        .build()
}
