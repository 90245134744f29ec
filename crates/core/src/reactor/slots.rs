//! The slab of ops in flight, of a loop or of a bare ring: where a completion goes, and what must live until it comes.
//!
//! A token is an index and a generation, so that a late completion can't reach a slot's next tenant. A slot is freed
//! by the terminal completion and by nothing else.

use proact_driver::{OpKind, Pages, Token};

struct Slot<T> {
    generation: u32,
    kind: OpKind,
    /// How many pieces of data of this op the current batch still holds.
    pieces: u32,
    target: Option<T>,
}

/// `T`: the target of an op, which keeps alive what the op uses.
pub struct Slots<T> {
    slots: Pages<Slot<T>>,
    /// How many slots were used so far.
    used: usize,
    free: Vec<u32>,
}

impl<T> Default for Slot<T> {
    fn default() -> Slot<T> {
        Slot {
            generation: 1,
            kind: OpKind::Close,
            pieces: 0,
            target: None,
        }
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots {
            slots: Pages::default(),
            used: 0,
            free: Vec::new(),
        }
    }
}

/// Generations begin at 1, so that no token is 0, and an optional token takes no more room (`NonZero`).
const GENERATION_MASK: u32 = 0x00FF_FFFF;

impl<T> Slots<T> {
    pub fn insert(&mut self, kind: OpKind, target: T) -> Token {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.reach(self.used);
            self.used += 1;
            self.used as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.kind = kind;
        slot.target = Some(target);
        u64::from(slot.generation) << 32 | u64::from(index)
    }

    fn slot(&mut self, token: Token) -> Option<&mut Slot<T>> {
        let slot = self.slots.get_mut(token as u32 as usize)?;
        (u64::from(slot.generation) == token >> 32 && slot.target.is_some()).then_some(slot)
    }

    pub fn kind(&mut self, token: Token) -> Option<OpKind> {
        self.slot(token).map(|slot| slot.kind)
    }

    pub fn count_piece(&mut self, token: Token) {
        if let Some(slot) = self.slot(token) {
            slot.pieces += 1;
        }
    }

    /// The number of pieces that wait.
    pub fn pieces(&mut self, token: Token) -> u32 {
        self.slot(token).map_or(0, |slot| slot.pieces)
    }

    pub fn set_pieces(&mut self, token: Token, pieces: u32) {
        if let Some(slot) = self.slot(token) {
            slot.pieces = pieces;
        }
    }

    /// Frees the slot of an op that is over.
    pub fn take(&mut self, token: Token) -> Option<T> {
        let slot = self.slot(token)?;
        let target = slot.target.take();
        slot.pieces = 0;
        slot.generation = ((slot.generation + 1) & GENERATION_MASK).max(1);
        self.free.push(token as u32);
        target
    }

    /// Everything still in flight, for a loop that closes.
    pub fn drain(&mut self) -> Vec<T> {
        let tokens: Vec<Token> = (0..self.used as u32)
            .map(|index| u64::from(self.slots[index as usize].generation) << 32 | u64::from(index))
            .collect();
        tokens.into_iter().filter_map(|token| self.take(token)).collect()
    }

    /// The target of an op that stays in flight.
    pub fn peek(&self, token: Token) -> Option<&T> {
        let slot = self.slots.get(token as u32 as usize)?;
        let target = slot.target.as_ref()?;
        (u64::from(slot.generation) == token >> 32).then_some(target)
    }

    /// All ops in flight, with their tokens.
    pub fn iter(&self) -> impl Iterator<Item = (Token, &T)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(index, slot)| {
            let token = u64::from(slot.generation) << 32 | index as u64;
            Some((token, slot.target.as_ref()?))
        })
    }

    pub fn targets(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.target.as_ref())
    }

    /// How many ops are in flight.
    pub fn len(&self) -> usize {
        self.used - self.free.len()
    }
}
