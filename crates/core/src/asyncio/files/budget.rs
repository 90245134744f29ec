//! How much is copied out of the page cache within one turn of the loop. What is tried past it would keep the sockets waiting.

/// Calls and bytes in one turn: together less than about half a millisecond.
const CALLS: u32 = 128;
const BYTES: usize = 2 << 20;
/// What a call that only the disk can answer counts: the kernel has begun to read ahead for it, which takes longer than to copy a page.
const REFUSED: u32 = 8;

#[derive(Default)]
pub struct Budget {
    turn: u64,
    calls: u32,
    bytes: usize,
    /// Calls that had an answer, that had none because of the file, and that came too late in the turn.
    pub counts: [u64; 3],
}

impl Budget {
    /// Whether this turn has no room left.
    pub fn is_spent(&self, turn: u64) -> bool {
        self.turn == turn && (self.calls >= CALLS || self.bytes >= BYTES)
    }

    /// Whether a call of so many bytes may be made in this turn.
    pub fn admits(&mut self, turn: u64, bytes: usize) -> bool {
        if self.turn != turn {
            (self.turn, self.calls, self.bytes) = (turn, 0, 0);
        }
        if self.is_spent(turn) {
            self.counts[2] += 1;
            return false;
        }
        self.calls += 1;
        self.bytes += bytes;
        true
    }

    /// Counts the answer to a call that was made in this turn, or that it had none because of the file.
    pub fn answered(&mut self, has_answer: bool) {
        if has_answer {
            self.counts[0] += 1;
        } else {
            self.counts[1] += 1;
            self.calls += REFUSED - 1;
        }
    }
}
