//! The memory that readiness engines receive the pieces of a `RecvMulti` into.
//!
//! Pieces lie next to each other in one chunk, and the arena starts again at the beginning of the chunk once no piece
//! of it is held. So small messages stay in the same few cache lines turn after turn. A full chunk with held pieces
//! is set aside until the last of them is released; so the loop, which holds the pieces, decides how many chunks
//! there are.

use crate::completion::Completion;

/// The maximum size of one piece, in bytes.
pub(super) const MAX_PIECE: usize = 64 * 1024;
/// The size of a chunk, in bytes. One wait receives no more than this, so that the loop gets its turn.
pub(super) const CHUNK: usize = 512 * 1024;
/// How many low bits of a position are the offset within the chunk; the other bits are the chunk's index.
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
    /// Bytes received since the last [`Arena::turn`].
    received: usize,
}

impl Arena {
    /// Starts to count for a new wait.
    pub(super) fn turn(&mut self) {
        self.received = 0;
    }

    /// Room for one piece. `None`: this wait has received as much as it may.
    pub(super) fn room(&mut self) -> Option<&mut [u8]> {
        if self.received + MAX_PIECE > CHUNK {
            return None;
        }
        let fits = |chunk: &Chunk| chunk.held == 0 || chunk.used + MAX_PIECE <= CHUNK;
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
        Some(&mut chunk.bytes[chunk.used..chunk.used + MAX_PIECE])
    }

    /// Turns the first `len` bytes of that room into a piece. Returns its position, for the completion.
    pub(super) fn take(&mut self, len: usize) -> u32 {
        let chunk = &mut self.chunks[self.current];
        let position = (self.current << OFFSET_BITS) | chunk.used;
        chunk.used += len;
        chunk.held += 1;
        self.received += len;
        position as u32
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

fn split(position: u32) -> (usize, usize) {
    let position = position as usize;
    (position >> OFFSET_BITS, position & (CHUNK - 1))
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
            let pieces: Vec<Completion> = (0..7).map(|_| piece(&mut arena, turn, MAX_PIECE)).collect();
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
            held.push(piece(&mut arena, turn, MAX_PIECE));
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
