//! The slab of ops in flight, the loop's and a bare ring's: who is to be told of a completion, and what must live until it comes.
//!
//! A token is an index and a generation, so that a late completion can't reach a slot's next tenant. A slot is freed
//! by the terminal completion and by nothing else.

use proact_driver::{OpKind, Token};
use pyo3::prelude::*;

use crate::asyncio::transport::datagram::DatagramTransport;
use crate::asyncio::transport::listener::Listener;
use crate::asyncio::transport::pipe::PipeTransport;
use crate::asyncio::transport::stream::StreamTransport;
use crate::reactor::operation::Operation;
use crate::reactor::watch::Watch;

/// Who an op belongs to. The reference keeps its buffers and its fd alive.
pub enum Target {
    StreamReceive(Py<StreamTransport>),
    StreamReadable(Py<StreamTransport>),
    StreamSend(Py<StreamTransport>),
    Pipe(Py<PipeTransport>),
    Accept(Py<Listener>),
    DatagramReadable(Py<DatagramTransport>),
    DatagramWritable(Py<DatagramTransport>),
    Watch(Py<Watch>),
    Operation(Py<Operation>),
    /// Nobody waits for it (a close).
    Nobody,
}

impl Target {
    /// Whose code a completion may run here and now, not as a callback of its own.
    pub fn owner<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        match self {
            Target::StreamReceive(transport)
            | Target::StreamReadable(transport)
            | Target::StreamSend(transport) => Some(transport.bind(py).clone().into_any()),
            Target::Pipe(pipe) => Some(pipe.bind(py).clone().into_any()),
            Target::Accept(listener) => Some(listener.bind(py).clone().into_any()),
            Target::DatagramReadable(transport) | Target::DatagramWritable(transport) => {
                Some(transport.bind(py).clone().into_any())
            }
            Target::Watch(_) | Target::Operation(_) | Target::Nobody => None,
        }
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Target {
        match self {
            Target::StreamReceive(transport) => Target::StreamReceive(transport.clone_ref(py)),
            Target::StreamReadable(transport) => Target::StreamReadable(transport.clone_ref(py)),
            Target::StreamSend(transport) => Target::StreamSend(transport.clone_ref(py)),
            Target::Pipe(pipe) => Target::Pipe(pipe.clone_ref(py)),
            Target::Accept(listener) => Target::Accept(listener.clone_ref(py)),
            Target::DatagramReadable(transport) => Target::DatagramReadable(transport.clone_ref(py)),
            Target::DatagramWritable(transport) => Target::DatagramWritable(transport.clone_ref(py)),
            Target::Watch(watch) => Target::Watch(watch.clone_ref(py)),
            Target::Operation(operation) => Target::Operation(operation.clone_ref(py)),
            Target::Nobody => Target::Nobody,
        }
    }
}

struct Slot<T> {
    generation: u32,
    kind: OpKind,
    /// How many pieces of data of this op wait in the batch that is being dispatched.
    pieces: u32,
    target: Option<T>,
}

/// `T`: who a completion is for, with what must live until it comes.
pub struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

/// Generations begin at 1, so that no token is 0 and an optional one takes no more room (`NonZero`).
const GENERATION_MASK: u32 = 0x00FF_FFFF;

impl<T> Slots<T> {
    pub fn insert(&mut self, kind: OpKind, target: T) -> Token {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 1,
                kind,
                pieces: 0,
                target: None,
            });
            self.slots.len() as u32 - 1
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

    /// The pieces that wait.
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
        let tokens: Vec<Token> = (0..self.slots.len() as u32)
            .map(|index| u64::from(self.slots[index as usize].generation) << 32 | u64::from(index))
            .collect();
        tokens.into_iter().filter_map(|token| self.take(token)).collect()
    }

    pub fn targets(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.target.as_ref())
    }

    /// How many ops are in flight.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

impl Slots<Target> {
    /// Who an op belongs to, while more completions follow.
    pub fn peek(&mut self, py: Python<'_>, token: Token) -> Option<Target> {
        self.slot(token)?
            .target
            .as_ref()
            .map(|target| target.clone_ref(py))
    }

    /// The tokens of the operations in flight that are as asked for.
    pub fn operations(&self, wanted: impl Fn(&Operation) -> bool) -> Vec<Token> {
        let slots = self.slots.iter().enumerate();
        slots
            .filter(|(_, slot)| matches!(&slot.target, Some(Target::Operation(it)) if wanted(it.get())))
            .map(|(index, slot)| u64::from(slot.generation) << 32 | index as u64)
            .collect()
    }
}
