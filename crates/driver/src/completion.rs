//! What an engine delivers: completions, each under its op's token.

/// The submitter's name for an op in flight. Only the low [`TOKEN_BITS`] bits may be set: engines use the rest for
/// labels.
pub type Token = u64;

/// Width of a token, in bits.
pub const TOKEN_BITS: u32 = 56;

/// What a completion says beside its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// The op stays in flight, and more completions follow.
    pub const MORE: Flags = Flags(1);
    /// The completion carries bytes. [`crate::Driver::data`] returns them; [`crate::Driver::release`] gives them
    /// back.
    pub const DATA: Flags = Flags(2);
    /// The bytes filled their buffer: the peer is sending in bulk, and larger receives would serve better.
    pub const FULL: Flags = Flags(4);

    pub fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// One completion of one op.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    pub token: Token,
    /// The system call's result; negative is `-errno`.
    pub result: i32,
    pub flags: Flags,
    /// Where the engine keeps the bytes. Only meaningful with [`Flags::DATA`].
    pub(crate) data: u32,
}

impl Completion {
    /// The last completion of an op, without bytes.
    pub fn terminal(token: Token, result: i32) -> Completion {
        Completion {
            token,
            result,
            flags: Flags::default(),
            data: 0,
        }
    }

    /// Whether the op is over.
    pub fn is_terminal(&self) -> bool {
        !self.flags.contains(Flags::MORE)
    }
}
