//! The memory that readiness engines receive `RecvMulti` pieces into.
//!
//! Pieces lie close together in one chunk, which is used again from its start once none of it is held: small messages
//! stay in the same few cache lines turn after turn. A chunk that has pieces out when its room is used up is set
//! aside until the last of them is given back; its holder decides how many there are.

use crate::completion::Completion;

/// The most that one piece holds, in bytes.
pub(super) const PIECE: usize = 64 * 1024;
/// Bytes of a chunk; also the most that one wait receives, so that the loop gets its turn.
pub(super) const CHUNK: usize = 512 * 1024;
/// Bits of a place that count bytes within the chunk; the rest is the chunk's index.
const OFFSET_BITS: u32 = CHUNK.trailing_zeros();
const MAX_CHUNKS: usize = 1 << (32 - OFFSET_BITS);

#[derive(Default)]
struct Chunk {
    bytes: Box<[u8]>,
    used: usize,
    held: usize,
}

#[derive(Default)]
pub(super) struct Arena {
    chunks: Vec<Chunk>,
    current: usize,
    /// Received since the last [`Arena::turn`].
    received: usize,
}

impl Arena {
    /// A new wait begins.
    pub(super) fn turn(&mut self) {
        self.received = 0;
    }

    /// Room for one piece; `None`: this wait has received its fill.
    pub(super) fn room(&mut self) -> Option<&mut [u8]> {
        if self.received + PIECE > CHUNK {
            return None;
        }
        let fits = |chunk: &Chunk| chunk.held == 0 || chunk.used + PIECE <= CHUNK;
        if !self.chunks.get(self.current).is_some_and(fits) {
            let free = self.chunks.iter().position(|chunk| chunk.held == 0);
            self.current = match free {
                Some(index) => index,
                None if self.chunks.len() == MAX_CHUNKS => return None,
                None => {
                    self.chunks.push(Chunk {
                        bytes: vec![0; CHUNK].into_boxed_slice(),
                        ..Chunk::default()
                    });
                    self.chunks.len() - 1
                }
            };
        }
        let chunk = &mut self.chunks[self.current];
        if chunk.held == 0 {
            chunk.used = 0;
        }
        Some(&mut chunk.bytes[chunk.used..chunk.used + PIECE])
    }

    /// The first `len` bytes of that room are a piece now: its place, for the completion.
    pub(super) fn take(&mut self, len: usize) -> u32 {
        let chunk = &mut self.chunks[self.current];
        let place = (self.current << OFFSET_BITS) | chunk.used;
        chunk.used += len;
        chunk.held += 1;
        self.received += len;
        place as u32
    }

    pub(super) fn data(&self, completion: &Completion) -> &[u8] {
        let (index, offset) = split(completion.data);
        let len = usize::try_from(completion.result).unwrap_or(0);
        self.chunks
            .get(index)
            .and_then(|chunk| chunk.bytes.get(offset..offset + len))
            .unwrap_or_default()
    }

    pub(super) fn release(&mut self, completion: &Completion) {
        if let Some(chunk) = self.chunks.get_mut(split(completion.data).0) {
            chunk.held = chunk.held.saturating_sub(1);
        }
    }
}

fn split(place: u32) -> (usize, usize) {
    let place = place as usize;
    (place >> OFFSET_BITS, place & (CHUNK - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::Flags;

    fn piece(arena: &mut Arena, fill: u8, len: usize) -> Completion {
        let room = arena.room().expect("room");
        room[..len].fill(fill);
        Completion {
            token: 0,
            result: len as i32,
            flags: Flags::DATA | Flags::MORE,
            data: arena.take(len),
        }
    }

    #[test]
    fn memory_is_used_again_once_nothing_is_held() {
        let mut arena = Arena::default();
        for turn in 0..100u8 {
            arena.turn();
            let pieces: Vec<Completion> = (0..7).map(|_| piece(&mut arena, turn, PIECE)).collect();
            pieces.iter().for_each(|piece| arena.release(piece));
        }
        assert_eq!(arena.chunks.len(), 1);
    }

    #[test]
    fn held_pieces_keep_their_bytes() {
        let mut arena = Arena::default();
        let mut held = Vec::new();
        for turn in 0..50u8 {
            arena.turn();
            held.push(piece(&mut arena, turn, PIECE));
            let passing = piece(&mut arena, 255, 1000);
            arena.release(&passing);
        }
        for (turn, piece) in held.iter().enumerate() {
            assert!(arena.data(piece).iter().all(|byte| usize::from(*byte) == turn));
            arena.release(piece);
        }
        let chunks = arena.chunks.len();
        arena.turn();
        let last = piece(&mut arena, 1, 1);
        arena.release(&last);
        assert_eq!(arena.chunks.len(), chunks);
    }
}
