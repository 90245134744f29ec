//! The contents of the messages: windows of one table of pseudo-random bytes.
//!
//! A message is never built or copied: it is a slice of the table, at a place that depends on the connection and on
//! the message's number. So a byte of another connection or another message does not match, sending costs nothing
//! before the system call, and verifying is one `memcmp`.

use super::spec::Exchange;

/// How many places a message can begin at. The number is prime, so that the steps below visit all of them, and small,
/// so that the bytes that are sent again and again at 1 KiB stay in the L2 cache.
const PLACES: u64 = 65_521;

/// The messages of a connection and the right answers.
pub(crate) enum Script {
    /// Bytes of the table. The answer is the same bytes.
    Echo(Payload),
    Fixed(Exchange),
}

impl Script {
    pub(crate) fn request(&self, connection: usize, number: u64) -> &[u8] {
        match self {
            Self::Echo(payload) => payload.message(connection, number),
            Self::Fixed(exchange) => &exchange.request,
        }
    }

    /// The right answer to `request`.
    pub(crate) fn response<'a>(&'a self, request: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Echo(_) => request,
            Self::Fixed(exchange) => &exchange.response,
        }
    }

    /// How many bytes of the answer may have arrived once `sent` bytes have been sent.
    pub(crate) fn due(&self, sent: usize) -> usize {
        match self {
            Self::Echo(_) => sent,
            Self::Fixed(exchange) if sent == exchange.request.len() => exchange.response.len(),
            Self::Fixed(_) => 0,
        }
    }

    /// The size of one answer, in bytes.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Echo(payload) => payload.size,
            Self::Fixed(exchange) => exchange.response.len(),
        }
    }
}

pub(crate) struct Payload {
    table: Box<[u8]>,
    size: usize,
}

impl Payload {
    pub(crate) fn new(size: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut table = Vec::with_capacity(size + PLACES as usize + 8);
        while table.len() < size + PLACES as usize {
            // xorshift64* is fast and has a full period, and no bug is likely to produce its bytes.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            table.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
        }
        Self {
            table: table.into_boxed_slice(),
            size,
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The rest of the message that byte `at` of a connection's messages, one after the other, lies in.
    pub(crate) fn stream(&self, connection: usize, at: u64) -> &[u8] {
        let size = self.size as u64;
        &self.message(connection, at / size)[(at % size) as usize..]
    }

    /// Message `number` of connection `connection`.
    pub(crate) fn message(&self, connection: usize, number: u64) -> &[u8] {
        let place = (connection as u64 * 40_503 + number * 7_919) % PLACES;
        &self.table[place as usize..][..self.size]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_differ() {
        let payload = Payload::new(1024);
        for connection in 0..100 {
            for number in 0..100 {
                let message = payload.message(connection, number);
                assert_eq!(message.len(), 1024);
                assert_ne!(message, payload.message(connection + 1, number));
                assert_ne!(message, payload.message(connection, number + 1));
            }
        }
    }

    #[test]
    fn the_largest_message_at_the_last_place_fits() {
        let payload = Payload::new(crate::load::MAX_SIZE);
        for number in 0..PLACES {
            assert_eq!(payload.message(0, number).len(), crate::load::MAX_SIZE);
        }
    }
}
