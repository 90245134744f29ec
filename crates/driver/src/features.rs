//! What a ring can do for this process. `uring/probe.rs` finds it out.

use crate::ops::OpKind;

/// What a ring can do for this process.
#[derive(Clone, Debug)]
pub struct Features {
    /// For each [`OpKind`] the reason why the ring does not carry it out itself; `None`: it does.
    refusals: Vec<Option<String>>,
    /// Each opcode's name and whether the ring may use it.
    pub opcodes: Vec<(&'static str, bool)>,
    /// The numbers of the opcodes that the ring may not use.
    denied: Vec<u8>,
    /// Each ring feature of `io_uring_setup(2)` by name, and whether the kernel has it.
    pub flags: Vec<(&'static str, bool)>,
    /// See [`crate::ops::PollMulti::told`]. The kernel has this since it has `cqe_skip`.
    pub(crate) looks: bool,
}

impl Features {
    pub(crate) fn new(
        refusals: Vec<Option<String>>,
        opcodes: &[(&'static str, u8, bool)],
        flags: Vec<(&'static str, bool)>,
    ) -> Features {
        let denied = opcodes.iter().filter(|(.., allowed)| !allowed);
        Features {
            refusals,
            denied: denied.map(|(_, code, _)| *code).collect(),
            opcodes: opcodes
                .iter()
                .map(|(name, _, allowed)| (*name, *allowed))
                .collect(),
            looks: flags.contains(&("cqe_skip", true)),
            flags,
        }
    }

    /// Whether the ring carries out this kind of op by its own opcode.
    pub fn native(&self, kind: OpKind) -> bool {
        self.refusals[kind as usize].is_none()
    }

    pub(crate) fn deny(&mut self, kind: OpKind, what: &'static str, reason: &str) {
        self.refusals[kind as usize] = Some(format!("{what}: {reason}"));
        self.flags
            .iter_mut()
            .filter(|(name, _)| *name == what)
            .for_each(|flag| flag.1 = false);
    }

    pub(crate) fn denied_opcodes(&self) -> Vec<u8> {
        self.denied.clone()
    }

    /// One line for each kind of op that the ring does not carry out by its own opcode.
    pub(crate) fn fallbacks(&self) -> Vec<String> {
        let refused = |kind: &OpKind| {
            let reason = self.refusals[*kind as usize].as_ref()?;
            let instead = kind.sample().course().instead();
            Some(format!("{} ({reason}): done {instead}", kind.name()))
        };
        OpKind::ALL.iter().filter_map(refused).collect()
    }
}
