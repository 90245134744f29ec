//! The shape of what an engine hands back: completions, under the tokens of their ops.

/// The submitter's name for an op in flight. Only the low [`TOKEN_BITS`] bits may be used: engines tag the rest.
pub type Token = u64;

/// Width of a token, in bits.
pub const TOKEN_BITS: u32 = 56;

/// Facts about a completion beside its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// The op stays in flight: more completions follow.
    pub const MORE: Flags = Flags(1);
    /// The completion carries bytes: see [`crate::Driver::data`]; give them back with [`crate::Driver::release`].
    pub const DATA: Flags = Flags(2);
    /// The piece filled its buffer: the peer is sending in bulk and larger receives would serve better.
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
    /// As the system call's: negative is `-errno`.
    pub result: i32,
    pub flags: Flags,
    /// Where the bytes are (the engine's business); meaningful with [`Flags::DATA`].
    pub(crate) data: u32,
}

impl Completion {
    /// The completion of an op that is over, without bytes.
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
