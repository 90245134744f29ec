//! The `user_data` of a ring's entries. The top byte is a label. Below it is the token of an op, or, under the
//! engine's own label, the number of an entry of the engine.

use crate::completion::{TOKEN_BITS, Token};
use crate::ops::OpKind;

const TOKEN_MASK: u64 = (1 << TOKEN_BITS) - 1;
/// The label of the engine's own entries.
const INTERNAL: u8 = 0xFF;
/// A bit of the label: the entry is the poll that an op waits on before the engine attempts it.
const POLLED: u8 = 0x40;

/// The engine's poll of its wake-up event.
pub(super) const WAKE: u64 = internal(0);
/// An entry whose completion is ignored.
pub(super) const IGNORED: u64 = internal(1);

const fn internal(number: u64) -> u64 {
    (INTERNAL as u64) << TOKEN_BITS | number
}

/// The meaning of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// An op's own entry.
    Op(OpKind, Token),
    /// The poll that an op waits on.
    Polled(OpKind, Token),
    Wake,
    Ignored,
}

impl Label {
    pub(super) fn read(user_data: u64) -> Label {
        let (label, token) = ((user_data >> TOKEN_BITS) as u8, user_data & TOKEN_MASK);
        match OpKind::ALL.get(usize::from(label & !POLLED)) {
            _ if user_data == WAKE => Label::Wake,
            Some(kind) if label & POLLED != 0 => Label::Polled(*kind, token),
            Some(kind) => Label::Op(*kind, token),
            None => Label::Ignored,
        }
    }

    pub(super) fn user_data(self) -> u64 {
        let labelled = |label: u8, token: Token| {
            debug_assert!(token <= TOKEN_MASK);
            u64::from(label) << TOKEN_BITS | token
        };
        match self {
            Label::Op(kind, token) => labelled(kind as u8, token),
            Label::Polled(kind, token) => labelled(POLLED | kind as u8, token),
            Label::Wake => WAKE,
            Label::Ignored => IGNORED,
        }
    }

    /// The op that the entry belongs to.
    pub(super) fn token(self) -> Option<Token> {
        match self {
            Label::Op(_, token) | Label::Polled(_, token) => Some(token),
            Label::Wake | Label::Ignored => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_survive_the_kernel() {
        for kind in OpKind::ALL {
            for label in [Label::Op(*kind, TOKEN_MASK), Label::Polled(*kind, 7)] {
                assert_eq!(Label::read(label.user_data()), label);
            }
        }
        for label in [Label::Wake, Label::Ignored] {
            assert_eq!(Label::read(label.user_data()), label);
        }
    }
}
